//! `edge.*`: HTTP in, and `homeserver.*`: who clients are.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;
use ipnet::IpNet;

use super::reader::{self, Reader};
use super::secret::COVER;
use super::sections::base_url;
use super::stream::stream;
use super::{Config, Secret, StreamConfig};
use crate::model::EdgeName;

/// The most entries of `edge.trusted_proxies`.
const PROXIES_MAX: usize = 1_000;

/// `edge.*`: HTTP in.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How clients prove who they are.
    pub auth: EdgeAuth,
    /// Bearer token for `POST /_rollcall/v1/events`; without one it exists under dev auth only.
    pub events_token: Option<Secret>,
    /// Whom to believe about peers.
    pub federation: EdgeFederation,
    /// What a trusted edge shows that hands transactions on.
    pub federation_secret: Option<Secret>,
    /// Who may say in `X-Forwarded-For` on whose behalf a request comes.
    pub trusted_proxies: Vec<IpNet>,
    /// `edge.connections.*`
    pub connections: ConnectionsConfig,
    /// `edge.limits.*`
    pub limits: LimitsConfig,
    /// `edge.tls.*`; `None`: plain HTTP.
    pub tls: Option<TlsConfig>,
    /// How long a write waits for the worker's word.
    pub apply_wait: Duration,
    /// Past this lag, 503.
    pub lag_max: Duration,
    /// Past this many waiting messages in the embedded bus's partition queues, 503.
    pub queue_max: u64,
    /// What this edge is called; `None`: something random.
    pub name: Option<EdgeName>,
    /// `edge.stream.*`
    pub stream: StreamConfig,
}

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeAuth {
    /// The bearer token is `<user id>|<device id>`. Loopback only.
    Dev,
    /// The homeserver is asked whose the bearer token is.
    Whoami,
}

/// Whom to believe about peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeFederation {
    /// The peer's own signature, and nothing else.
    Verify,
    /// An edge that verified it, and proves who it is.
    Trusted,
}

/// `edge.connections.*`: what is held open, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionsConfig {
    /// Open at once.
    pub max: usize,
    /// Open at once from one address (IPv6: from one /64), unless it is a trusted proxy's.
    pub per_address: usize,
    /// How long the whole head of a request may be in coming, the wait for its beginning included.
    pub head_timeout: Duration,
    /// How long a request's body may take.
    pub body_timeout: Duration,
}

/// `edge.limits.*`: requests of one client. A bucket holds `burst` requests and fills at `rate` a second.
#[derive(Debug, Clone, Copy)]
pub struct LimitsConfig {
    /// Of one user, whatever the device.
    pub user: Rate,
    /// From one address (IPv6: from one /64), before anybody asks who it is.
    pub address: Rate,
    /// How many users, and how many addresses, are remembered.
    pub max: u64,
}

/// How many requests how fast.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// A second, at least 1.
    pub per_second: u32,
    /// At once, at least 1.
    pub burst: u32,
}

/// `edge.tls.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Whose certificates prove a trusted edge, PEM.
    pub client_ca: Option<PathBuf>,
    /// How often the files are looked at for changes.
    pub reload: Duration,
}

/// `homeserver.*`: whom clients are authenticated by.
#[derive(Debug, Clone)]
pub struct HomeserverConfig {
    /// Base URL; set under `whoami`.
    pub url: Option<String>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// For how long a good access token is believed without asking again.
    pub cache: Duration,
    /// For how long a bad one is refused without asking again.
    pub cache_refused: Duration,
    /// How many tokens are remembered.
    pub cache_max: u64,
}

pub(super) fn edge(r: &mut Reader<'_>) -> EdgeConfig {
    EdgeConfig {
        listen: r.listener("edge.listen"),
        auth: r.choice("edge.auth", &[("dev", EdgeAuth::Dev), ("whoami", EdgeAuth::Whoami)]),
        events_token: r.value_or_file(("edge.events_token", "edge.events_token_file"), token, |_| COVER.into()),
        federation: r
            .choice("edge.federation", &[("verify", EdgeFederation::Verify), ("trusted", EdgeFederation::Trusted)]),
        federation_secret: r
            .value_or_file(("edge.federation_secret", "edge.federation_secret_file"), token, |_| COVER.into()),
        trusted_proxies: r.value("edge.trusted_proxies", networks),
        connections: connections(r),
        limits: limits(r),
        tls: tls(r),
        apply_wait: r.duration("edge.apply_wait", ("0ms", "10s")),
        lag_max: r.duration("edge.lag_max", ("5s", "1h")),
        queue_max: r.number("edge.queue_max", 1000..=1_000_000_000),
        name: r.optional("edge.name", |text| EdgeName::parse(text).map_err(|error| error.reason)),
        stream: stream(r),
    }
}

/// A text that is hard to guess, fit for a header.
fn token(value: &Value) -> Result<Option<Secret>, String> {
    let text = reader::as_text(value)?;
    match text.len() {
        0 => Ok(None),
        16..=1024 if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(Secret::new(text))),
        16..=1024 => Err("must be of ASCII letters, digits and signs, without spaces".into()),
        _ => Err("must have from 16 to 1024 characters".into()),
    }
}

fn networks(value: &Value) -> Result<Vec<IpNet>, String> {
    let members = reader::as_texts(value)?;
    if members.len() > PROXIES_MAX {
        return Err(format!("has more than {PROXIES_MAX} entries"));
    }
    members.iter().map(|member| network(member)).collect()
}

/// An address, or a network such as `10.0.0.0/8`.
fn network(text: &str) -> Result<IpNet, String> {
    let alone = text.parse::<IpAddr>().map(IpNet::from);
    alone
        .or_else(|_| text.parse())
        .map_err(|_| format!("{text:?} is neither an IP address nor a network such as \"10.0.0.0/8\""))
}

fn connections(r: &mut Reader<'_>) -> ConnectionsConfig {
    ConnectionsConfig {
        max: r.number("edge.connections.max", 1..=1_000_000),
        per_address: r.number("edge.connections.per_address", 1..=1_000_000),
        head_timeout: r.duration("edge.connections.head_timeout", ("1s", "10m")),
        body_timeout: r.duration("edge.connections.body_timeout", ("1s", "10m")),
    }
}

fn limits(r: &mut Reader<'_>) -> LimitsConfig {
    let mut number = |key| r.number(key, 1..=1_000_000);
    LimitsConfig {
        user: Rate { per_second: number("edge.limits.user_rate"), burst: number("edge.limits.user_burst") },
        address: Rate { per_second: number("edge.limits.address_rate"), burst: number("edge.limits.address_burst") },
        max: r.number("edge.limits.max", 100..=100_000_000),
    }
}

fn tls(r: &mut Reader<'_>) -> Option<TlsConfig> {
    let (cert, key, client_ca) = (r.path("edge.tls.cert"), r.path("edge.tls.key"), r.path("edge.tls.client_ca"));
    let reload = r.duration("edge.tls.reload", ("1s", "24h"));
    if cert.is_some() != key.is_some() {
        r.conflict("edge.tls.cert", "must be set together with edge.tls.key");
    }
    if client_ca.is_some() && cert.is_none() {
        r.conflict(
            "edge.tls.client_ca",
            "must not be set without edge.tls.cert: without TLS nobody shows a certificate",
        );
    }
    cert.zip(key).map(|(cert, key)| TlsConfig { cert, key, client_ca, reload })
}

pub(super) fn homeserver(r: &mut Reader<'_>) -> HomeserverConfig {
    HomeserverConfig {
        url: r.optional("homeserver.url", base_url),
        timeout: r.duration("homeserver.timeout", ("100ms", "1m")),
        cache: r.duration("homeserver.cache", ("0ms", "1h")),
        cache_refused: r.duration("homeserver.cache_refused", ("0ms", "1h")),
        cache_max: r.number("homeserver.cache_max", 100..=100_000_000),
    }
}

/// What must hold between these keys.
pub(super) fn check(r: &mut Reader<'_>, config: &Config) {
    let edge = &config.edge;
    if edge.auth == EdgeAuth::Dev && !edge.listen.ip().is_loopback() {
        r.conflict("edge.listen", "must be a loopback address while edge.auth is \"dev\", which believes everybody");
    }
    if edge.auth == EdgeAuth::Whoami && config.homeserver.url.is_none() {
        r.conflict("homeserver.url", "must be set for edge.auth \"whoami\"");
    }
    if edge.connections.max < edge.stream.max {
        r.conflict("edge.connections.max", "must not be below edge.stream.max: every stream takes a connection");
    }
    let is_proved = edge.federation_secret.is_some() || edge.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if edge.federation == EdgeFederation::Trusted && !is_proved {
        r.conflict("edge.federation", "must not be \"trusted\" without edge.federation_secret or edge.tls.client_ca");
    }
}
