//! `federation.*`: to and from peers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;
use ipnet::IpNet;

use super::reader::{Reader, as_text};
use super::sections::base_url;
use crate::model::ServerName;

/// The most entries of `federation.resolve`.
const RESOLVE_MAX: usize = 10_000;
/// The most networks of `federation.allow_private`.
const NETWORKS_MAX: usize = 1_000;
/// The most files of `federation.extra_roots`.
const ROOTS_MAX: usize = 100;
/// The most names and patterns of one list of servers.
const SERVERS_MAX: usize = 10_000;

/// `federation.*`: to and from peers.
#[derive(Debug, Clone)]
pub struct FederationConfig {
    /// Server name → base URL; beats discovery.
    pub resolve: BTreeMap<ServerName, String>,
    /// Special networks that peers may be found in.
    pub allow_private: Vec<IpNet>,
    /// PEM files with root certificates that are trusted beside the system's.
    pub extra_roots: Vec<PathBuf>,
    /// Who sends transactions.
    pub via: FederationVia,
    /// Which servers are dealt with.
    pub servers: ServerLists,
    /// For how long a transaction may be sent before it is given up and its content owed again.
    pub resend: Duration,
    /// Back-off after the first failure.
    pub backoff_min: Duration,
    /// Back-off never grows beyond this.
    pub backoff_max: Duration,
    /// How long one request may take.
    pub timeout: Duration,
    /// Requests at once, over all destinations.
    pub concurrency: usize,
    /// Servers that forget after 30 minutes are pushed to again this often.
    pub plain_refresh: Duration,
    /// What such a server pushed is good for so long.
    pub plain_promise: Duration,
}

/// Who sends transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FederationVia {
    /// rollcall's own sender.
    Http,
    /// A homeserver's edge that takes `presence.outbound`.
    Edge,
}

/// Which servers are dealt with, each way for itself: `federation.inbound` and `federation.outbound`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLists {
    /// Whose requests are listened to.
    pub inbound: ServerRules,
    /// Whom transactions are sent to.
    pub outbound: ServerRules,
}

/// Names and patterns, where `*` stands for any text and `?` for any character. Whoever is denied is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRules {
    /// All others are denied.
    pub allow: Vec<String>,
    /// Denied whatever `allow` says.
    pub deny: Vec<String>,
}

pub(super) fn federation(r: &mut Reader<'_>) -> FederationConfig {
    FederationConfig {
        resolve: resolve(r),
        allow_private: list(r, "federation.allow_private", NETWORKS_MAX, network),
        extra_roots: list(r, "federation.extra_roots", ROOTS_MAX, |text| Ok(text.into())),
        via: r.choice("federation.via", &[("http", FederationVia::Http), ("edge", FederationVia::Edge)]),
        servers: ServerLists {
            inbound: ServerRules {
                allow: list(r, "federation.inbound.allow", SERVERS_MAX, pattern),
                deny: list(r, "federation.inbound.deny", SERVERS_MAX, pattern),
            },
            outbound: ServerRules {
                allow: list(r, "federation.outbound.allow", SERVERS_MAX, pattern),
                deny: list(r, "federation.outbound.deny", SERVERS_MAX, pattern),
            },
        },
        resend: r.duration("federation.resend", ("1s", "25m")),
        backoff_min: r.duration("federation.backoff_min", ("10ms", "1h")),
        backoff_max: r.duration("federation.backoff_max", ("10ms", "24h")),
        timeout: r.duration("federation.timeout", ("100ms", "10m")),
        concurrency: r.number("federation.concurrency", 1..=2000),
        plain_refresh: r.duration("federation.plain_refresh", ("1s", "24h")),
        plain_promise: r.duration("federation.plain_promise", ("1s", "24h")),
    }
}

fn resolve(r: &mut Reader<'_>) -> BTreeMap<ServerName, String> {
    const KEY: &str = "federation.resolve";
    let given = r.value(KEY, |value| match value {
        Value::Dict(_, dict) if dict.len() <= RESOLVE_MAX => Ok(dict.clone()),
        Value::Dict(..) => Err(format!("has more than {RESOLVE_MAX} entries")),
        _ => Err("is not a table of server names and base URLs".into()),
    });
    let mut resolved = BTreeMap::new();
    for (name, value) in given {
        let url = value.as_str().unwrap_or_default();
        match ServerName::parse(&name).map_err(|error| error.to_string()).and_then(|name| Ok((name, base_url(url)?))) {
            Ok((name, url)) => drop(resolved.insert(name, url)),
            Err(reason) => r.record_within(KEY, &name, reason, url),
        }
    }
    resolved
}

/// A list of texts, of which each is checked; a mistake names the text.
fn list<T>(r: &mut Reader<'_>, key: &'static str, max: usize, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    r.value(key, |value| match value {
        Value::Array(_, members) if members.len() > max => Err(format!("has more than {max} entries")),
        Value::Array(_, members) => members
            .iter()
            .map(|member| {
                as_text(member).and_then(|text| parse(text).map_err(|why| format!("has {text:?}, which {why}")))
            })
            .collect(),
        _ => Err("is not a list: write [\"…\", \"…\"]".into()),
    })
}

/// `10.0.0.0/8`, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| "is neither a network such as 10.0.0.0/8 nor an address".into())
}

fn pattern(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']' | '*' | '?');
    let is_one = (1..=255).contains(&text.len()) && text.chars().all(plain);
    if is_one { Ok(text.into()) } else { Err("is neither a server name nor a pattern of one with * and ?".into()) }
}
