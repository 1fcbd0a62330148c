//! Finds servers that nobody here vouches for: Matrix spec, server-server API, "Resolving server names", whole.
//!
//! | the name (or what `.well-known` says instead of it) | connection | certificate for | `Host` |
//! |---|---|---|---|
//! | an address, perhaps with a port | that address, or port 8448 | the address | the name |
//! | a host with a port | the host's addresses | the host | host and port |
//! | a host that has a service record, `_matrix-fed._tcp` or `_matrix._tcp` | where that points | the host | the host |
//! | any other host | its addresses, port 8448 | the host | the host |
//!
//! Only a name of the last two kinds is looked up under `.well-known`, and only once: what is found there is never looked up again.

use async_trait::async_trait;
use axum::http::HeaderValue;

use super::dns::Dns;
use super::failure::Failure;
use super::resolve::{BaseUrl, Resolve, ResolveError, Route, Target, unusable};
use super::well_known::WellKnown;
use crate::model::ServerName;

/// Where servers listen when nothing says otherwise. Tests have ports of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// HTTPS, for `.well-known`.
    pub well_known: u16,
    /// Federation.
    pub federation: u16,
}

impl Default for Ports {
    /// As the Matrix spec has them.
    fn default() -> Self {
        Self { well_known: 443, federation: 8448 }
    }
}

/// Server discovery.
pub struct Discovery {
    dns: Dns,
    well_known: WellKnown,
    ports: Ports,
}

impl Discovery {
    /// Looks services up in `dns`.
    pub fn new(dns: Dns, well_known: WellKnown, ports: Ports) -> Self {
        Self { dns, well_known, ports }
    }

    /// Where `name` is, without asking for a delegate.
    async fn settle(&self, name: &ServerName) -> Result<Target, ResolveError> {
        let parsed = parse(name)?;
        let (host, port) = (parsed.host(), parsed.port());
        let (port, route) = match port {
            Some(port) => (Some(port), Route::Host),
            None if parsed.is_ip_literal() => (Some(self.ports.federation), Route::Host),
            None => match self.dns.offers_federation(host).await {
                Ok(true) => (None, Route::Service),
                Ok(false) => (Some(self.ports.federation), Route::Host),
                Err(error) => {
                    return Err(ResolveError::Unavailable(Failure::of_name(&error), error.to_string()));
                }
            },
        };
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        let url = format!("https://{host}{port}");
        Ok(Target {
            base: BaseUrl::parse(&url).map_err(|reason| unusable(name, &url, reason))?,
            host: Some(HeaderValue::from_str(name.as_str()).map_err(|error| unusable(name, &url, error.to_string()))?),
            route,
        })
    }
}

#[async_trait]
impl Resolve for Discovery {
    async fn find(&self, server: &ServerName) -> Result<Target, ResolveError> {
        let parsed = parse(server)?;
        if parsed.is_ip_literal() || parsed.port().is_some() {
            return self.settle(server).await;
        }
        match self.well_known.delegate(parsed.host(), self.ports.well_known).await? {
            Some(delegate) => self.settle(&delegate).await,
            None => self.settle(server).await,
        }
    }
}

fn parse(name: &ServerName) -> Result<&ruma::ServerName, ResolveError> {
    <&ruma::ServerName>::try_from(name.as_str()).map_err(|error| unusable(name, name.as_str(), error.to_string()))
}
