//! Keys whose names and bounds are settled, and on which nothing in this version acts.

use std::path::PathBuf;

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
    /// Reserved keys that the file or the environment sets: whoever set them should know that nothing happens.
    pub set: Vec<String>,
}

impl Reserved {
    /// The keys.
    pub(super) const KEYS: [&'static str; 6] = [
        "edge.federation",
        "edge.tls.cert",
        "edge.tls.key",
        "homeserver.url",
        "federation.allow_private",
        "federation.via",
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
