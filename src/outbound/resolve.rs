//! Where a Matrix server is reached: what that is, and what the operator says of it. [`Discovery`](super::discovery::Discovery) finds
//! all others.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use axum::http::HeaderValue;
use reqwest::Url;

use super::failure::Failure;
use crate::model::ServerName;

/// Why a server's address is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The configuration or the name is wrong: a person has to act.
    #[error("{server}: {url:?} is no base URL: {reason}")]
    Unusable {
        /// The server.
        server: String,
        /// What was given for it.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Discovery failed: try again later.
    #[error("{1}")]
    Unavailable(Failure, String),
}

/// A scheme, a host and a port: requests' paths are signed, so nothing else belongs in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// Parses `https://host[:port]`, or `http://…` where an operator says so; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(format!("the scheme is {:?}, not https or http", url.scheme()));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("there is more than scheme, host and port".into());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it holds a user name or password".into());
        }
        Ok(Self(url))
    }

    /// The URL of `path`, which begins with `/` and is percent-encoded; `None` if a URL cannot hold it as it is (dot segments), so
    /// that what is requested is always what was signed.
    pub fn at(&self, path: &str) -> Option<Url> {
        let mut url = self.0.clone();
        url.set_path(path);
        (url.path() == path).then_some(url)
    }
}

/// Where requests to one server go, and how they name it (Matrix spec, server discovery).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its host is what the certificate has to name.
    pub(super) base: BaseUrl,
    /// The `Host` header; `None`: as the URL has it.
    pub(super) host: Option<HeaderValue>,
    pub(super) route: Route,
}

/// How a connection to a target is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// As the operator says, wherever that is.
    Operator,
    /// To the host's addresses, within reach.
    Host,
    /// To whoever offers federation for the host, within reach.
    Service,
}

impl Target {
    /// What the operator vouches for.
    pub fn of_operator(base: BaseUrl) -> Self {
        Self { base, host: None, route: Route::Operator }
    }

    /// The base URL that requests are made to.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// What requests say in their `Host` header, unless it is what the URL says.
    pub fn host(&self) -> Option<&HeaderValue> {
        self.host.as_ref()
    }

    /// Whether the connection's address and port come from the host's service record.
    pub fn is_service(&self) -> bool {
        self.route == Route::Service
    }
}

/// A way to find servers. Cheap to share.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// Where `server` is reached.
    async fn find(&self, server: &ServerName) -> Result<Target, ResolveError>;
}

/// A shared way to find servers.
pub type SharedResolver = Arc<dyn Resolve>;

/// What the configuration says (`federation.resolve`), whatever the case of letters; others as somebody else knows.
#[derive(Clone, Default)]
pub struct Configured {
    map: BTreeMap<String, BaseUrl>,
    others: Option<SharedResolver>,
}

impl Configured {
    /// Checks every base URL. Knows nobody else.
    pub fn new(map: &BTreeMap<ServerName, String>) -> Result<Self, ResolveError> {
        let parse = |(server, url): (&ServerName, &String)| {
            BaseUrl::parse(url).map(|base| (lowered(server), base)).map_err(|reason| unusable(server, url, reason))
        };
        Ok(Self { map: map.iter().map(parse).collect::<Result<_, _>>()?, others: None })
    }

    /// Asks `others` for whom the configuration does not name.
    #[must_use]
    pub fn or(self, others: SharedResolver) -> Self {
        Self { others: Some(others), ..self }
    }
}

#[async_trait]
impl Resolve for Configured {
    async fn find(&self, server: &ServerName) -> Result<Target, ResolveError> {
        match (self.map.get(&lowered(server)), &self.others) {
            (Some(base), _) => Ok(Target::of_operator(base.clone())),
            (None, Some(others)) => others.find(server).await,
            (None, None) => {
                Err(ResolveError::Unavailable(Failure::Other, format!("federation.resolve does not name {server}")))
            }
        }
    }
}

fn lowered(server: &ServerName) -> String {
    server.as_str().to_ascii_lowercase()
}

pub(super) fn unusable(server: &ServerName, url: &str, reason: String) -> ResolveError {
    ResolveError::Unusable { server: server.to_string(), url: url.into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_scheme_host_and_port() {
        for bad in
            ["b.example", "ftp://b.example", "https://b.example/x", "https://u:p@b.example", "https://b.example?x"]
        {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
        let base = BaseUrl::parse("http://127.0.0.1:80").unwrap();
        assert_eq!(base.at("/a%2Fb").unwrap().as_str(), "http://127.0.0.1/a%2Fb");
    }

    #[test]
    fn dot_segments_are_refused() {
        let base = BaseUrl::parse("https://b.example").unwrap();
        assert_eq!(base.at("/send/.."), None);
        assert_eq!(base.at("/send/%2E%2e"), None);
    }
}
