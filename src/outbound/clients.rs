//! The HTTP clients towards peers: one for each way to connect, because what a host means is the client's, not the request's.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use reqwest::{Certificate, Client, Url};

use super::dns::{Dns, Guarded, Meaning};
use super::http;
use super::reach::Reach;
use super::resolve::Route;
use crate::pem;

/// Why there are no clients.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file of `federation.extra_roots` cannot be used: which and why.
    #[error("federation.extra_roots: {0}")]
    Roots(String),
    /// TLS cannot be set up, such as when the system has no root certificates.
    #[error("no HTTP client: {0}")]
    Tls(String),
}

impl From<reqwest::Error> for ClientError {
    fn from(error: reqwest::Error) -> Self {
        Self::Tls(http::causes(&error))
    }
}

/// An address that no request may go to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is a special address, and federation.allow_private does not list it")]
pub struct OutOfReach(IpAddr);

/// All clients towards peers. Nothing but what the operator names is reached out of [`Reach`]: names are resolved within it
/// at each connection, and addresses in URLs, which are never resolved, are checked before each request.
pub struct Clients {
    operator: Client,
    host: Client,
    service: Client,
    reach: Reach,
}

impl Clients {
    /// Clients whose requests take at most `timeout`, and which keep at most `idle` connections a host for the next. They trust the
    /// system's roots and those in the PEM files `extra_roots`, and reach the public internet and `allow_private`.
    ///
    /// # Errors
    /// A file that cannot be used, or no roots at all.
    pub fn new(
        dns: &Dns,
        timeout: Duration,
        idle: usize,
        extra_roots: &[PathBuf],
        allow_private: &[IpNet],
    ) -> Result<Self, ClientError> {
        let mut roots = Vec::new();
        for path in extra_roots {
            roots.extend(read_roots(path).map_err(ClientError::Roots)?);
        }
        let reach = Reach::new(allow_private);
        let builder = || http::builder(timeout).tls_certs_merge(roots.iter().cloned()).pool_max_idle_per_host(idle);
        let guarded = |meaning| builder().dns_resolver(Guarded::new(dns.clone(), reach.clone(), meaning)).build();
        Ok(Self {
            operator: builder().build()?,
            host: guarded(Meaning::Host)?,
            service: guarded(Meaning::Service)?,
            reach,
        })
    }

    /// The client for `url` by `route`.
    pub(super) fn by(&self, route: Route, url: &Url) -> Result<&Client, OutOfReach> {
        match route {
            Route::Operator => Ok(&self.operator),
            Route::Host => self.within_reach(url).map(|()| &self.host),
            Route::Service => self.within_reach(url).map(|()| &self.service),
        }
    }

    /// An address in a URL is connected to as it stands. Asks the parsed URL: `0x7f.1` is one, too.
    fn within_reach(&self, url: &Url) -> Result<(), OutOfReach> {
        let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse().ok());
        match literal.filter(|address| !self.reach.allows(*address)) {
            Some(address) => Err(OutOfReach(address)),
            None => Ok(()),
        }
    }
}

/// The certificates of one file of `federation.extra_roots`.
pub(crate) fn read_roots(path: &Path) -> Result<Vec<Certificate>, String> {
    let text = pem::read(path)?;
    // Parsed here, too: reqwest takes any text for a file without certificates.
    pem::certificates(&text, path)?;
    Certificate::from_pem_bundle(&text).map_err(|error| pem::lacks(path, "certificates", &http::causes(&error)))
}
