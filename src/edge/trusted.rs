//! `edge.federation = "trusted"`: who may hand on what peers said, without their signatures being checked here.

use axum::http::request::Parts;

use super::door::Remote;
use super::error::MatrixError;
use super::{EdgeState, request};

/// Where a trusted edge shows `edge.federation_secret`.
const SECRET: &str = "rollcall-edge-secret";

/// 401 for everybody who shows neither the secret nor a certificate of `edge.tls.client_ca`, within the bound of their address; who does
/// is bound by nothing.
pub(crate) fn prove(edge: &EdgeState, parts: &Parts) -> Result<(), MatrixError> {
    let is_certified = Remote::of(&parts.extensions).is_some_and(|remote| remote.is_certified);
    let shown = parts.headers.get(SECRET).zip(edge.config.federation_secret.as_ref());
    if is_certified || shown.is_some_and(|(shown, secret)| secret.is(shown.as_bytes())) {
        return Ok(());
    }
    request::limit(edge, &parts.extensions, &parts.headers)?;
    Err(MatrixError::unauthorized(
        "only a trusted edge hands transactions on here: it shows the secret or a certificate",
    ))
}
