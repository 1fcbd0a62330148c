//! X-Matrix: the signature that every federation request bears (Matrix spec, server-server API, request authentication).

use axum::http::{HeaderValue, Request};
use ruma::api::federation::authentication::XMatrix;
use ruma::serde::Base64;
use ruma::signatures::{KeyPair as _, PublicKeyMap, PublicKeySet, verify_canonical_json_bytes};
use ruma::{CanonicalJsonObject, IdParseError, OwnedServerName, OwnedServerSigningKeyId};
use serde_json::Value;

use crate::model::ServerName;
use crate::outbound::keys::SigningKey;

/// Why a request cannot be signed: it is not one that another server would take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot sign: {0}")]
pub struct SignError(String);

/// Why a request is not from whom it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct VerifyError(String);

/// The `Authorization` of a `PUT` of exactly `body`, which is canonical JSON, to `path` (percent-encoded, with query) of `destination`.
pub fn authorize_put(
    key: &SigningKey,
    origin: &ServerName,
    destination: &ServerName,
    path: &str,
    body: &[u8],
) -> Result<HeaderValue, SignError> {
    let failed = |error: IdParseError| SignError(error.to_string());
    let signed = signed_bytes("PUT", path, origin.as_str(), destination.as_str(), body);
    let (id, signature) = key.pair().sign(&signed).into_parts();
    let id = OwnedServerSigningKeyId::try_from(id.as_str()).map_err(failed)?;
    let scheme = XMatrix::new(name(origin)?, name(destination)?, id, Base64::new(signature));
    Ok(HeaderValue::from(&scheme))
}

/// What is signed of a request whose body is canonical JSON: canonical JSON again (Matrix spec, server-server API, request authentication).
fn signed_bytes(method: &str, uri: &str, origin: &str, destination: &str, body: &[u8]) -> Vec<u8> {
    let mut signed = Vec::with_capacity(body.len() + 1_024);
    signed.extend_from_slice(br#"{"content":"#);
    signed.extend_from_slice(body);
    for (name, value) in [("destination", destination), ("method", method), ("origin", origin), ("uri", uri)] {
        signed.extend_from_slice(format!(r#","{name}":{}"#, Value::from(value)).as_bytes());
    }
    signed.push(b'}');
    signed
}

fn name(server: &ServerName) -> Result<OwnedServerName, SignError> {
    OwnedServerName::try_from(server.as_str()).map_err(|error| SignError(error.to_string()))
}

/// Whether the origin signed the very bytes of the body of `request`, to `local`: canonical JSON, as almost all servers send it, is what is
/// signed (Matrix spec, appendices, signing JSON), so no tree has to be made of it. If not, [`verify`] tells whether they mean what was.
///
/// Sound for any body that is JSON: one value stands where the origin put one, and says what is in it.
pub fn is_signed_as_sent<T: AsRef<[u8]>>(
    scheme: &XMatrix,
    request: &Request<T>,
    local: &ServerName,
    keys: &PublicKeySet,
) -> bool {
    let (Some(uri), Some(key)) = (request.uri().path_and_query(), keys.get(scheme.key.as_str())) else { return false };
    let (method, body) = (request.method().as_str(), request.body().as_ref());
    let signed = signed_bytes(method, uri.as_str(), scheme.origin.as_str(), local.as_str(), body);
    verify_canonical_json_bytes(&scheme.key.algorithm(), key.as_bytes(), scheme.sig.as_bytes(), &signed).is_ok()
}

/// Whether `request` was signed for `local` by one of the origin's `keys`, as `scheme` (from its headers) claims.
pub fn verify<T: AsRef<[u8]>>(
    scheme: &XMatrix,
    request: &Request<T>,
    local: &ServerName,
    keys: PublicKeySet,
) -> Result<(), VerifyError> {
    let local = OwnedServerName::try_from(local.as_str()).map_err(|error| VerifyError(error.to_string()))?;
    let keys = PublicKeyMap::from([(scheme.origin.to_string(), keys)]);
    scheme.verify_http_request(request, &local, &keys).map_err(|error| VerifyError(error.to_string()))
}

/// Whether `object` bears a good signature of `server` by one of `keys`.
///
/// Other servers' signatures do not count: ruma checks those that are there, and of an object without any it says nothing bad.
pub fn verify_own(server: &ServerName, mut object: CanonicalJsonObject, keys: PublicKeySet) -> Result<(), VerifyError> {
    let own = object
        .get("signatures")
        .and_then(|all| all.as_object())
        .and_then(|all| all.get(server.as_str()))
        .ok_or_else(|| VerifyError(format!("not signed by {server}")))?
        .clone();
    object.insert("signatures".into(), CanonicalJsonObject::from([(server.to_string(), own)]).into());
    let keys = PublicKeyMap::from([(server.to_string(), keys)]);
    ruma::signatures::verify_json(&keys, &object).map_err(|error| VerifyError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/_matrix/federation/v1/send/1?a=%22";

    fn server(name: &str) -> ServerName {
        ServerName::parse(name).unwrap()
    }

    /// A signature of `body` from b.example to a.example, and b.example's keys.
    fn signed(body: &str) -> (XMatrix, PublicKeySet) {
        let key = SigningKey::generate("1").unwrap();
        let header = authorize_put(&key, &server("b.example"), &server("a.example"), PATH, body.as_bytes()).unwrap();
        let public = Base64::parse(key.public_base64()).unwrap();
        let scheme = XMatrix::try_from(&header).unwrap();
        let keys = PublicKeySet::from([(scheme.key.to_string(), public)]);
        (scheme, keys)
    }

    fn request(path: &str, body: &str) -> Request<String> {
        Request::put(path).body(body.to_owned()).unwrap()
    }

    #[test]
    fn canonical_json_is_signed_as_it_is_sent() {
        let body = r#"{"edus":[{"content":{"a":"\u0001\"é"}}],"origin":"b.example"}"#;
        let (scheme, keys) = signed(body);
        let is_good = |scheme: &XMatrix, path, body, local| {
            is_signed_as_sent(scheme, &request(path, body), &server(local), &keys)
        };
        assert!(is_good(&scheme, PATH, body, "a.example"));
        assert!(!is_good(&scheme, "/_matrix/federation/v1/send/2", body, "a.example"));
        assert!(!is_good(&scheme, PATH, body, "c.example"));
        assert!(!is_good(&scheme, PATH, &body[1..], "a.example"));
        let other = XMatrix::new(
            "c.example".try_into().unwrap(),
            "a.example".try_into().unwrap(),
            scheme.key.clone(),
            scheme.sig.clone(),
        );
        assert!(!is_good(&other, PATH, body, "a.example"));
        let (stranger, _) = signed(body);
        assert!(!is_good(&stranger, PATH, body, "a.example"));
        let get = Request::get(PATH).body(body.to_owned()).unwrap();
        assert!(!is_signed_as_sent(&scheme, &get, &server("a.example"), &keys));
    }

    #[test]
    fn what_is_written_otherwise_takes_a_tree() {
        let (scheme, keys) = signed(r#"{"edus":[],"origin":"b.example"}"#);
        let (request, local) = (request(PATH, r#"{"origin": "b.example", "edus": []}"#), server("a.example"));
        assert!(!is_signed_as_sent(&scheme, &request, &local, &keys));
        assert_eq!(verify(&scheme, &request, &local, keys), Ok(()));
    }
}
