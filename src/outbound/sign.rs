//! X-Matrix: the signature that every federation request bears (Matrix spec, server-server API, request authentication).

use axum::http::{HeaderValue, Request};
use ruma::api::federation::authentication::{XMatrix, XMatrixSigningInput};
use ruma::signatures::{PublicKeyMap, PublicKeySet};
use ruma::{CanonicalJsonObject, OwnedServerName};

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

/// The `Authorization` of a `PUT` of exactly `body` to `path` (percent-encoded, with query) of `destination`.
pub fn authorize_put(
    key: &SigningKey,
    origin: &ServerName,
    destination: &ServerName,
    path: &str,
    body: &[u8],
) -> Result<HeaderValue, SignError> {
    let request = Request::put(path).body(body).map_err(|error| SignError(error.to_string()))?;
    let input = XMatrixSigningInput::new(name(origin)?, name(destination)?, key.pair());
    let scheme = XMatrix::sign_http_request(&request, input).map_err(|error| SignError(error.to_string()))?;
    Ok(HeaderValue::from(&scheme))
}

fn name(server: &ServerName) -> Result<OwnedServerName, SignError> {
    OwnedServerName::try_from(server.as_str()).map_err(|error| SignError(error.to_string()))
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
