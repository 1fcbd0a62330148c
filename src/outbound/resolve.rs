//! Where a Matrix server is reached.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Url;

use crate::model::ServerName;

/// The port of Matrix federation when a name says none (Matrix spec, server discovery).
const DEFAULT_PORT: u16 = 8448;

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
    #[error("{0}")]
    Unavailable(String),
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

/// A way to find servers. Cheap to share.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// The base URL of `server`.
    async fn base(&self, server: &ServerName) -> Result<BaseUrl, ResolveError>;
}

/// A shared way to find servers.
pub type SharedResolver = Arc<dyn Resolve>;

/// What the configuration says (`federation.resolve`); any other server by its name alone, over TLS.
#[derive(Debug, Clone, Default)]
pub struct Configured {
    map: BTreeMap<ServerName, BaseUrl>,
}

impl Configured {
    /// Checks every base URL.
    pub fn new(map: &BTreeMap<ServerName, String>) -> Result<Self, ResolveError> {
        let parse = |(server, url): (&ServerName, &String)| {
            BaseUrl::parse(url).map(|base| (server.clone(), base)).map_err(|reason| unusable(server, url, reason))
        };
        Ok(Self { map: map.iter().map(parse).collect::<Result<_, _>>()? })
    }
}

#[async_trait]
impl Resolve for Configured {
    async fn base(&self, server: &ServerName) -> Result<BaseUrl, ResolveError> {
        match self.map.get(server) {
            Some(base) => Ok(base.clone()),
            None => by_name(server),
        }
    }
}

fn by_name(server: &ServerName) -> Result<BaseUrl, ResolveError> {
    let parsed = ruma::ServerName::parse(server.as_str())
        .map_err(|error| unusable(server, server.as_str(), error.to_string()))?;
    let url = format!("https://{}:{}", parsed.host(), parsed.port().unwrap_or(DEFAULT_PORT));
    BaseUrl::parse(&url).map_err(|reason| unusable(server, &url, reason))
}

fn unusable(server: &ServerName, url: &str, reason: String) -> ResolveError {
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

    #[tokio::test]
    async fn a_name_without_port_means_8448_over_tls() {
        let resolver = Configured::new(&BTreeMap::new()).unwrap();
        for (name, url) in [
            ("b.example", "https://b.example:8448/x"),
            ("b.example:443", "https://b.example/x"),
            ("[::1]", "https://[::1]:8448/x"),
        ] {
            let base = resolver.base(&ServerName::parse(name).unwrap()).await.unwrap();
            assert_eq!(base.at("/x").unwrap().as_str(), url);
        }
    }
}
