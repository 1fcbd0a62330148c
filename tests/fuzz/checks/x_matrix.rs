//! `Authorization: X-Matrix …`: who a request says that it is from. The bytes are a header first, and then a body that is signed.

use std::sync::LazyLock;

use axum::http::{HeaderValue, Request};
use rollcall::edge::x_matrix;
use rollcall::model::ServerName;
use rollcall::outbound::keys::SigningKey;
use rollcall::outbound::sign::{authorize_put, is_signed_as_sent, verify};
use ruma::CanonicalJsonValue;
use ruma::api::federation::authentication::XMatrix;
use ruma::signatures::PublicKeySet;

use super::{local, peer, server};

const PATH: &str = "/_matrix/federation/v1/send/1";

/// A key of the peer's. What it has not signed here nobody has.
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_seed("fuzz", [7; 32]).expect("a literal"));

pub fn check(data: &[u8]) {
    if let Some(scheme) = HeaderValue::from_bytes(data).ok().and_then(|header| x_matrix::parse(&header).ok()) {
        same_again(&scheme);
        assert!(!is_good(&scheme, b"{}", &local()), "nobody signed that");
    }
    signed(data);
}

fn same_again(scheme: &XMatrix) {
    let again = XMatrix::try_from(&HeaderValue::from(scheme)).expect("what was written is read");
    let parts =
        |scheme: &XMatrix| (scheme.origin.clone(), scheme.destination.clone(), scheme.key.clone(), scheme.sig.clone());
    assert_eq!(parts(&again), parts(scheme));
}

/// A signature of canonical JSON is good for whatever means the same, and for nothing else.
fn signed(body: &[u8]) {
    let Ok(canonical) = serde_json::from_slice::<CanonicalJsonValue>(body) else { return };
    let canonical = canonical.to_string();
    let header = authorize_put(&KEY, &peer(), &local(), PATH, canonical.as_bytes()).expect("our own names");
    let scheme = XMatrix::try_from(&header).expect("what we write is read");
    assert!(is_good(&scheme, body, &local()) && is_good(&scheme, canonical.as_bytes(), &local()));
    let request = Request::put(PATH).body(&canonical).expect("a literal path");
    assert!(is_signed_as_sent(&scheme, &request, &local(), &PublicKeySet::from([(KEY.id(), key())])));
    assert!(!is_good(&scheme, body, &server("c.example")));
    assert!(!is_good(&scheme, br#"{"something":"else"}"#, &local()));
}

fn is_good(scheme: &XMatrix, body: &[u8], reader: &ServerName) -> bool {
    let request = Request::put(PATH).body(body).expect("a literal path");
    verify(scheme, &request, reader, PublicKeySet::from([(KEY.id(), key())])).is_ok()
}

fn key() -> ruma::serde::Base64 {
    ruma::serde::Base64::parse(KEY.public_base64()).expect("we encode base64")
}
