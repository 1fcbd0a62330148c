//! The way to peers: finds a server, and begins a request to it.

use std::sync::Arc;

use reqwest::header::HOST;
use reqwest::{Method, RequestBuilder};

use super::clients::{ClientError, Clients, OutOfReach};
use super::discovery::{Discovery, Ports};
use super::dns::Dns;
use super::failure::Failure;
use super::resolve::{Configured, ResolveError, SharedResolver};
use super::well_known::WellKnown;
use crate::clock::SharedClock;
use crate::config::FederationConfig;
use crate::model::ServerName;

/// Why a request cannot even begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It will not begin another time either, unless a person acts.
    #[error("{1}")]
    Never(Failure, String),
    /// Later perhaps.
    #[error("{1}")]
    NotNow(Failure, String),
}

/// Everybody else. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    clients: Arc<Clients>,
    keeping: Arc<Clients>,
    resolver: SharedResolver,
}

impl Peers {
    /// Servers as the configuration names them, others by discovery with names from `dns`.
    ///
    /// # Errors
    /// What is wrong with the configuration: a base URL, or root certificates.
    pub fn new(config: &FederationConfig, dns: Dns, clock: SharedClock, ports: Ports) -> Result<Self, PeersError> {
        let clients = |idle| Clients::new(&dns, config.timeout, idle, &config.extra_roots, &config.allow_private);
        let (clients, keeping) = (Arc::new(clients(0)?), Arc::new(clients(1)?));
        let well_known = WellKnown::new(clients.clone(), clock, config.timeout / 2);
        let discovery = Discovery::new(dns, well_known, ports);
        let resolver = Configured::new(&config.resolve)?.or(Arc::new(discovery));
        Ok(Self { clients, keeping, resolver: Arc::new(resolver) })
    }

    /// Begins a request to `path` of `server`, which begins with `/` and is percent-encoded. Its connection is not kept: strangers have us
    /// ask whomever they name.
    ///
    /// # Errors
    /// When the server cannot be found or must not be reached, or no URL can hold the path as it is.
    pub async fn request(&self, method: Method, server: &ServerName, path: &str) -> Result<RequestBuilder, PeerError> {
        self.begin(&self.clients, method, server, path).await
    }

    /// The same, and its connection is kept for the next: the caller bounds to how many.
    pub(super) async fn request_kept(
        &self,
        method: Method,
        server: &ServerName,
        path: &str,
    ) -> Result<RequestBuilder, PeerError> {
        self.begin(&self.keeping, method, server, path).await
    }

    async fn begin(
        &self,
        clients: &Clients,
        method: Method,
        server: &ServerName,
        path: &str,
    ) -> Result<RequestBuilder, PeerError> {
        let target = self.resolver.find(server).await?;
        let no_url = || PeerError::Never(Failure::Other, format!("no URL can hold {path:?}"));
        let url = target.base.at(path).ok_or_else(no_url)?;
        let refused = |error: OutOfReach| PeerError::Never(Failure::RefusedAddress, error.to_string());
        let client = clients.by(target.route, &url).map_err(refused)?;
        let request = client.request(method, url);
        Ok(match target.host {
            Some(host) => request.header(HOST, host),
            None => request,
        })
    }
}

impl From<ResolveError> for PeerError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Unusable { .. } => Self::Never(Failure::Other, error.to_string()),
            ResolveError::Unavailable(class, reason) => Self::NotNow(class, reason),
        }
    }
}

/// Why there is no way to peers.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// No clients.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A wrong entry of `federation.resolve`.
    #[error("federation.resolve: {0}")]
    Resolve(String),
}

impl From<ResolveError> for PeersError {
    fn from(error: ResolveError) -> Self {
        Self::Resolve(error.to_string())
    }
}
