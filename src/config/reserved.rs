//! Keys whose names and bounds are settled, and on which nothing in this version acts.

/// Checked values of reserved keys. `config/default.toml` says what each will govern.
#[derive(Debug, Clone)]
pub struct Reserved {
    /// `federation.allow_private`
    pub allow_private: bool,
    /// `federation.via`
    pub via: FederationVia,
    /// Reserved keys that the file or the environment sets: whoever set them should know that nothing happens.
    pub set: Vec<String>,
}

impl Reserved {
    /// The keys.
    pub(super) const KEYS: [&'static str; 2] = ["federation.allow_private", "federation.via"];
}

/// Who sends transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FederationVia {
    /// rollcall's own sender.
    Http,
    /// A homeserver's edge that takes `presence.outbound`.
    Edge,
}
