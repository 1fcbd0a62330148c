//! `GET /_matrix/key/v2/server`: what a peer says its keys are.

use std::sync::LazyLock;

use rollcall::edge::peer_keys::{Keys, MAX_KEYS, MAX_VALID_MS, read_keys};
use rollcall::outbound::keys::SigningKey;
use ruma::{CanonicalJsonObject, CanonicalJsonValue};

use super::{NOW, local, peer};

/// A key of the peer's. What it has not signed here nobody has.
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_seed("fuzz", [7; 32]).expect("a literal"));

pub fn check(data: &[u8]) {
    if let Ok(keys) = read_keys(&peer(), data, NOW) {
        in_bounds(&keys);
    }
    // As it comes hardly anything is signed: so it is signed here, whatever it says.
    if let Some(mut document) = with_key(data)
        && KEY.sign(&peer(), &mut document).is_ok()
    {
        signed(document);
    }
}

/// The document with our key among its keys, if it has any.
fn with_key(data: &[u8]) -> Option<CanonicalJsonObject> {
    let mut document: CanonicalJsonObject = serde_json::from_slice(data).ok()?;
    let CanonicalJsonValue::Object(keys) = document.get_mut("verify_keys")? else { return None };
    let key = CanonicalJsonObject::from([("key".to_owned(), KEY.public_base64().into())]);
    keys.insert(KEY.id(), key.into());
    Some(document)
}

fn signed(mut document: CanonicalJsonObject) {
    let read = |document: &CanonicalJsonObject, server| {
        read_keys(&server, &serde_json::to_vec(document).expect("it was JSON"), NOW)
    };
    assert!(read(&document, local()).is_err(), "it speaks for another server, or that one did not sign");
    let Ok(keys) = read(&document, peer()) else { return };
    in_bounds(&keys);
    assert!(keys.set().contains_key(&KEY.id()), "who signed is known");
    document.insert("unsigned for".into(), "sure".into());
    assert!(read(&document, peer()).is_err(), "it was altered after it was signed");
}

fn in_bounds(keys: &Keys) {
    assert!((1..=MAX_KEYS).contains(&keys.set().len()));
    assert!(keys.valid_until() <= NOW.plus(MAX_VALID_MS));
}
