//! Keys whose names and bounds are settled, and on which nothing in this version acts.

use std::path::PathBuf;
use std::time::Duration;

/// Checked values of reserved keys. `config/default.toml` says what each will govern.
#[derive(Debug, Clone)]
pub struct Reserved {
    /// `edge.federation`
    pub edge_federation: bool,
    /// `edge.tls.cert`
    pub tls_cert: Option<PathBuf>,
    /// `edge.tls.key`
    pub tls_key: Option<PathBuf>,
    /// `homeserver.url`
    pub homeserver_url: Option<String>,
    /// `federation.allow_private`
    pub allow_private: bool,
    /// `federation.via`
    pub via: FederationVia,
    /// `federation.plain_refresh`
    pub plain_refresh: Duration,
    /// `federation.plain_promise`
    pub plain_promise: Duration,
    /// `watchdog.short`
    pub watchdog_short: Duration,
    /// `watchdog.long`
    pub watchdog_long: Duration,
    /// `watchdog.tries`
    pub watchdog_tries: u32,
    /// `watchdog.give_up`
    pub watchdog_give_up: Duration,
    /// `list.accept`
    pub list_accept: ListAccept,
    /// `list.symmetric`
    pub list_symmetric: bool,
    /// `clients.window`
    pub clients_window: Duration,
    /// Reserved keys that the file or the environment sets: whoever set them should know that nothing happens.
    pub set: Vec<String>,
}

impl Reserved {
    /// The keys.
    pub(super) const KEYS: [&'static str; 15] = [
        "edge.federation",
        "edge.tls.cert",
        "edge.tls.key",
        "homeserver.url",
        "federation.allow_private",
        "federation.via",
        "federation.plain_refresh",
        "federation.plain_promise",
        "watchdog.short",
        "watchdog.long",
        "watchdog.tries",
        "watchdog.give_up",
        "list.accept",
        "list.symmetric",
        "clients.window",
    ];
}

/// Who sends transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FederationVia {
    /// rollcall's own sender.
    Http,
    /// A homeserver's edge that takes `presence.outbound`.
    Edge,
}

/// Who may put a local user on a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListAccept {
    /// Whom the user allows.
    Ask,
    /// Whom the user lists, too.
    Reciprocal,
    /// Anybody.
    Everyone,
}
