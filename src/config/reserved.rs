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
    /// Reserved keys that the file or the environment sets: whoever set them should know that nothing happens.
    pub set: Vec<String>,
}

impl Reserved {
    /// The keys.
    pub(super) const KEYS: [&'static str; 4] = ["edge.federation", "edge.tls.cert", "edge.tls.key", "homeserver.url"];
}
