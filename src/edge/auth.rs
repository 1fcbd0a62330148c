//! Who a client is.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::{HeaderMap, Uri, header, request::Parts};
use tokio::time::Instant;

use super::EdgeState;
use super::error::MatrixError;
use super::request;
use super::whoami::{HomeserverError, Whoami};
use crate::config::{EdgeAuth, HomeserverConfig, Secret};
use crate::model::{DeviceId, ServerName, UserId};

/// What application services say of whom they act for.
const ASSERTIONS: [&str; 3] = ["user_id", "device_id", "org.matrix.msc3202.device_id"];

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

/// What a client shows.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) token: Secret,
    /// For whom an application service acts: query parameters of [`ASSERTIONS`], in that order.
    pub(crate) asserted: Vec<(&'static str, String)>,
    /// The address that shows it; `None`: bound by no share.
    pub(crate) from: Option<IpAddr>,
}

impl Credentials {
    fn of(headers: &HeaderMap, uri: &Uri, from: Option<IpAddr>) -> Result<Self, MatrixError> {
        let token = bearer(headers).ok_or_else(MatrixError::missing_token)?;
        Ok(Self { token: Secret::new(token), asserted: asserted(uri)?, from })
    }
}

fn asserted(uri: &Uri) -> Result<Vec<(&'static str, String)>, MatrixError> {
    if uri.query().is_none() {
        return Ok(Vec::new());
    }
    let Query(mut given) = Query::<HashMap<String, String>>::try_from_uri(uri)
        .map_err(|error| MatrixError::invalid(format!("the query: {error}")))?;
    Ok(ASSERTIONS.into_iter().filter_map(|name| Some((name, given.remove(name)?))).collect())
}

/// A way to find out who a client is.
pub(crate) enum Authenticator {
    /// The bearer token is `<user id>|<device id>`, for a user of the local server.
    Dev { local: ServerName },
    /// The homeserver knows.
    Whoami(Box<Whoami>),
}

impl Authenticator {
    pub(crate) fn new(
        auth: EdgeAuth,
        homeserver: &HomeserverConfig,
        local: ServerName,
    ) -> Result<Self, HomeserverError> {
        Ok(match auth {
            EdgeAuth::Dev => Self::Dev { local },
            EdgeAuth::Whoami => Self::Whoami(Box::new(Whoami::new(homeserver, local)?)),
        })
    }

    /// Whether this may be offered on `address`.
    pub(crate) fn check(&self, address: SocketAddr) -> Result<(), OpenDoor> {
        if self.is_dev() && !address.ip().is_loopback() { Err(OpenDoor(address)) } else { Ok(()) }
    }

    /// Whether this is for trying things out.
    pub(crate) fn is_dev(&self) -> bool {
        matches!(self, Self::Dev { .. })
    }

    /// 401: nobody; 503: who knows cannot be asked.
    pub(crate) async fn authenticate(&self, shown: &Credentials) -> Result<Caller, MatrixError> {
        match self {
            Self::Dev { local } => dev(shown.token.expose(), local),
            Self::Whoami(whoami) => whoami.caller(shown).await,
        }
    }

    /// Until when a client that was let in need not be looked at again. Errors as of [`Self::authenticate`].
    pub(crate) async fn good_until(&self, shown: &Credentials) -> Result<Instant, MatrixError> {
        match self {
            // What it believes does not change.
            Self::Dev { .. } => Ok(Instant::now() + Duration::from_secs(24 * 3600)),
            Self::Whoami(whoami) => whoami.good_until(shown).await,
        }
    }
}

impl FromRequestParts<Arc<EdgeState>> for Credentials {
    type Rejection = MatrixError;

    async fn from_request_parts(parts: &mut Parts, edge: &Arc<EdgeState>) -> Result<Self, MatrixError> {
        let from = request::caller(edge, &parts.extensions, &parts.headers);
        Self::of(&parts.headers, &parts.uri, from)
    }
}

impl FromRequestParts<Arc<EdgeState>> for Caller {
    type Rejection = MatrixError;

    async fn from_request_parts(parts: &mut Parts, edge: &Arc<EdgeState>) -> Result<Self, MatrixError> {
        let caller = edge.auth.authenticate(&Credentials::from_request_parts(parts, edge).await?).await?;
        edge.limits.user(&caller.user)?;
        Ok(caller)
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
        let shown = Credentials::of(&headers, &Uri::from_static("/"), None)?;
        dev(shown.token.expose(), &ServerName::parse("a.example").unwrap())
    }

    #[test]
    fn dev_tokens_name_user_and_device() {
        let caller = authenticate(Some("bearer @john:a.example|PHONE")).unwrap();
        assert_eq!((caller.user.as_str(), caller.device.as_str()), ("@john:a.example", "PHONE"));
    }

    #[test]
    fn application_services_say_whom_they_act_for() {
        let asserted = |uri: &str| asserted(&uri.parse().unwrap()).unwrap();
        assert_eq!(
            asserted("/x?device_id=D&other=1&user_id=%40a%3Ab"),
            [("user_id", "@a:b".into()), ("device_id", "D".into())]
        );
        assert!(asserted("/x").is_empty());
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
        let auth = Authenticator::Dev { local: ServerName::parse("a.example").unwrap() };
        for (address, ok) in [("127.0.0.1:1", true), ("[::1]:1", true), ("0.0.0.0:1", false), ("192.0.2.1:1", false)] {
            assert_eq!(auth.check(address.parse().unwrap()).is_ok(), ok, "{address}");
        }
    }
}
