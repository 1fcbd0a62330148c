//! Who a client is.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};

use super::EdgeState;
use super::error::MatrixError;
use crate::config::EdgeAuth;
use crate::model::{DeviceId, ServerName, UserId};

/// A client that proved who it is. As an extractor: 401 for everybody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
}

impl Caller {
    /// Refuses to act for anybody else. Whether that other user exists makes no difference.
    pub(crate) fn must_be(&self, user: &UserId) -> Result<(), MatrixError> {
        if self.user == *user { Ok(()) } else { Err(MatrixError::forbidden("this is another user's")) }
    }
}

/// Why the edge does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("edge.auth = \"dev\" lets anybody be anybody and is for loopback addresses only, not for {0}")]
pub struct OpenDoor(pub SocketAddr);

/// A way to find out who a client is.
#[derive(Debug, Clone)]
pub(crate) enum Authenticator {
    /// The bearer token is `<user id>|<device id>`, for a user of the local server.
    Dev { local: ServerName },
}

impl Authenticator {
    pub(crate) fn new(auth: EdgeAuth, local: ServerName) -> Self {
        match auth {
            EdgeAuth::Dev => Self::Dev { local },
        }
    }

    /// Whether this may be offered on `address`.
    pub(crate) fn check(&self, address: SocketAddr) -> Result<(), OpenDoor> {
        match self {
            Self::Dev { .. } if !address.ip().is_loopback() => Err(OpenDoor(address)),
            Self::Dev { .. } => Ok(()),
        }
    }

    /// Whether this is for trying things out.
    pub(crate) fn is_dev(&self) -> bool {
        matches!(self, Self::Dev { .. })
    }

    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, MatrixError> {
        let token = bearer(headers).ok_or_else(MatrixError::missing_token)?;
        match self {
            Self::Dev { local } => dev(token, local),
        }
    }
}

impl FromRequestParts<Arc<EdgeState>> for Caller {
    type Rejection = MatrixError;

    async fn from_request_parts(parts: &mut Parts, edge: &Arc<EdgeState>) -> Result<Self, MatrixError> {
        edge.auth.authenticate(&parts.headers)
    }
}

/// The bearer token, if there is one.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()).filter(|token| !token.is_empty())
}

fn dev(token: &str, local: &ServerName) -> Result<Caller, MatrixError> {
    let unknown = |why: String| MatrixError::unknown_token(format!("no dev token, <user id>|<device id>: {why}"));
    let (user, device) = token.split_once('|').ok_or_else(|| unknown("there is no |".into()))?;
    let user = UserId::parse(user).map_err(|error| unknown(error.to_string()))?;
    let device = DeviceId::parse(device).map_err(|error| unknown(error.to_string()))?;
    if !user.belongs_to(local) {
        return Err(unknown(format!("{user} is not a user of {local}")));
    }
    Ok(Caller { user, device })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticate(header: Option<&'static str>) -> Result<Caller, MatrixError> {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        Authenticator::new(EdgeAuth::Dev, ServerName::parse("a.example").unwrap()).authenticate(&headers)
    }

    #[test]
    fn dev_tokens_name_user_and_device() {
        let caller = authenticate(Some("bearer @john:a.example|PHONE")).unwrap();
        assert_eq!((caller.user.as_str(), caller.device.as_str()), ("@john:a.example", "PHONE"));
    }

    #[test]
    fn anything_else_is_refused() {
        for absent in [None, Some("Basic x"), Some("Bearer "), Some("Bearer")] {
            assert_eq!(authenticate(absent), Err(MatrixError::missing_token()));
        }
        for bad in ["Bearer x", "Bearer @a:a.example|", "Bearer @a:b.example|D", "Bearer a|D"] {
            assert!(format!("{:?}", authenticate(Some(bad)).unwrap_err()).contains("M_UNKNOWN_TOKEN"), "{bad}");
        }
    }

    #[test]
    fn dev_is_for_loopback() {
        let auth = Authenticator::new(EdgeAuth::Dev, ServerName::parse("a.example").unwrap());
        for (address, ok) in [("127.0.0.1:1", true), ("[::1]:1", true), ("0.0.0.0:1", false), ("192.0.2.1:1", false)] {
            assert_eq!(auth.check(address.parse().unwrap()).is_ok(), ok, "{address}");
        }
    }
}
