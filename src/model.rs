//! The words that every part of the pipeline speaks: identifiers, time, presence, statuses.
//!
//! Everything here is parsed once, at the border, and trusted afterwards: serde's `Deserialize` of the identifiers is for our own
//! encodings and does not check again; foreign input goes through `parse`.

mod time;

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

pub use self::time::{MaybeTime, Timestamp};

/// Why a text is not the identifier that it was given as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: {reason}")]
pub struct InvalidId {
    /// What was expected, such as `user ID`.
    pub kind: &'static str,
    /// What was given, cut to 255 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl InvalidId {
    fn new(kind: &'static str, text: &str, reason: impl fmt::Display) -> Self {
        Self { kind, text: text.chars().take(255).collect(), reason: reason.to_string() }
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses and checks `text`.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                Self::try_from(Arc::<str>::from(text))
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<Arc<str>> for $name {
            type Error = InvalidId;

            fn try_from(text: Arc<str>) -> Result<Self, InvalidId> {
                $check(&text).map_err(|reason| InvalidId::new($kind, &text, reason))?;
                Ok(Self(text))
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

identifier!(
    /// A Matrix user ID, `@localpart:server`, at most 255 bytes (Matrix spec, appendix 4.2.1; historical localparts are accepted).
    UserId, "user ID", check_user_id
);
identifier!(
    /// A Matrix server name: host and optional port, at most 255 bytes (Matrix spec, appendix 4.1).
    ServerName, "server name", check_server_name
);
identifier!(
    /// A client's device ID as the edge gives it: 1 to 255 bytes, opaque.
    DeviceId, "device ID", check_device_id
);
identifier!(
    /// What an edge is called: the routing key of its updates, 1 to 64 of `a-z`, `0-9` and `-`.
    EdgeName, "edge name", check_edge_name
);

fn check_user_id(text: &str) -> Result<(), String> {
    ruma::UserId::parse(text).map(drop).map_err(|e| e.to_string())
}

fn check_server_name(text: &str) -> Result<(), String> {
    if text.len() > 255 {
        return Err("longer than 255 bytes".into());
    }
    ruma::ServerName::parse(text).map(drop).map_err(|e| e.to_string())
}

fn check_device_id(text: &str) -> Result<(), String> {
    match text.len() {
        0 => Err("empty".into()),
        1..=255 => Ok(()),
        _ => Err("longer than 255 bytes".into()),
    }
}

fn check_edge_name(text: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_one = (1..=64).contains(&text.len()) && text.bytes().all(allowed);
    if is_one { Ok(()) } else { Err("must be 1 to 64 of a-z, 0-9 and -".into()) }
}

impl UserId {
    /// The part between `@` and the first `:`.
    pub fn localpart(&self) -> &str {
        &self.0[1..self.colon()]
    }

    /// The server that this user belongs to, as text.
    pub fn server_str(&self) -> &str {
        &self.0[self.colon() + 1..]
    }

    /// The server that this user belongs to.
    pub fn server(&self) -> ServerName {
        ServerName(self.server_str().into())
    }

    /// Whether this user belongs to `server`.
    pub fn belongs_to(&self, server: &ServerName) -> bool {
        self.server_str() == server.as_str()
    }

    /// Puts an ID together from parts that were parsed before.
    pub(crate) fn from_parts(localpart: &str, server: &ServerName) -> Self {
        Self(format!("@{localpart}:{server}").into())
    }

    /// Whether somebody else holds this very allocation.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Less than every user ID.
    pub(crate) fn least() -> Self {
        Self("".into())
    }

    fn colon(&self) -> usize {
        self.0.find(':').expect("a parsed user ID has a colon")
    }
}

/// One slice of the key space: xxh3-64 (seed 0) of the lower-cased key, modulo the partition count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(pub u16);

impl Partition {
    /// The partition of a user ID or a server name among `count` (≥ 1) partitions.
    pub fn of(key: &str, count: u16) -> Self {
        let hash = if key.bytes().any(|b| b.is_ascii_uppercase()) || !key.is_ascii() {
            xxh3_64(key.to_lowercase().as_bytes())
        } else {
            xxh3_64(key.as_bytes())
        };
        Self(u16::try_from(hash % u64::from(count)).expect("less than count"))
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The presence of a device or a user. `Unknown` is never the same as `Offline`, is never set by anybody and never sent to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Nothing is known.
    #[default]
    Unknown,
    /// Not reachable.
    Offline,
    /// Reachable, but idle.
    Unavailable,
    /// Reachable and active.
    Online,
    /// Reachable, and asked not to be disturbed (MSC3026).
    Busy,
}

impl Presence {
    /// The name that the Matrix spec gives it (`unknown` is ours).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Offline => "offline",
            Self::Unavailable => "unavailable",
            Self::Online => "online",
            Self::Busy => "busy",
        }
    }

    /// Parses a presence that somebody may *set*: everything but `unknown`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "offline" => Some(Self::Offline),
            "unavailable" => Some(Self::Unavailable),
            "online" => Some(Self::Online),
            "busy" => Some(Self::Busy),
            _ => None,
        }
    }
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kinds of device that a user is reached on, such as `mobile`: each 1 to 32 bytes, at most 8 of them.
pub type DeviceTypes = BTreeSet<Box<str>>;

/// What is known of one user at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Merged over all devices.
    pub presence: Presence,
    /// Free text, at most 1 KiB.
    pub status_msg: Option<Box<str>>,
    /// The last moment at which the user did something; 0 if never.
    pub last_active: Timestamp,
    /// Whether the user is active right now (Matrix spec, `currently_active`).
    pub currently_active: bool,
    /// What the user is reached on.
    pub device_types: DeviceTypes,
}

/// Orders what one machine says: the epoch of its owner, then a counter. Never reused, never falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Serial {
    /// The epoch under which the machine's partition was owned.
    pub epoch: u64,
    /// Counts within the epoch.
    pub counter: u64,
}

/// A W3C trace ID: follows one event through the queues.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceId(pub u128);

impl TraceId {
    /// Reads the `trace-id` of a W3C `traceparent` header, `00-<32 hex>-<16 hex>-<2 hex>`.
    pub fn from_traceparent(header: &str) -> Option<Self> {
        let id = header.split('-').nth(1).filter(|id| id.len() == 32)?;
        u128::from_str_radix(id, 16).ok().filter(|id| *id != 0).map(Self)
    }

    /// A `traceparent` header for this trace. The span ID is derived: packed messages have many parents, so it names none.
    pub fn traceparent(self) -> String {
        format!("00-{:032x}-{:016x}-01", self.0, (self.0 >> 64) as u64 | 1)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_id_falls_apart_at_the_first_colon() {
        let user = UserId::parse("@john:127.0.0.1:8448").unwrap();
        assert_eq!(user.localpart(), "john");
        assert_eq!(user.server(), ServerName::parse("127.0.0.1:8448").unwrap());
    }

    #[test]
    fn bad_identifiers_say_what_is_wrong() {
        for bad in ["john", "@john", "", "@a:b c", "@:"] {
            let error = UserId::parse(bad).unwrap_err().to_string();
            assert!(error.contains("is not a user ID"), "{error}");
        }
        assert!(ServerName::parse("a b").is_err());
        assert!(DeviceId::parse("").is_err());
        assert!(["", "Edge-1", "edge.1", &"e".repeat(65)].iter().all(|bad| EdgeName::parse(bad).is_err()));
        assert!(EdgeName::parse("edge-1").is_ok());
    }

    #[test]
    fn partitions_ignore_case() {
        assert_eq!(Partition::of("@John:A.example", 16), Partition::of("@john:a.example", 16));
    }

    /// The vectors of docs/wire.md.
    #[test]
    fn partition_vectors() {
        let vectors = [("@john:a.example", 16), ("@alice:b.example", 16), ("b.example", 16), ("matrix.org", 16)];
        let got: Vec<u16> = vectors.iter().map(|(key, n)| Partition::of(key, *n).0).collect();
        assert_eq!(got, PARTITION_VECTORS);
    }

    const PARTITION_VECTORS: [u16; 4] = [1, 10, 8, 2];

    #[test]
    fn traceparents_round_trip() {
        let id = TraceId::from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(TraceId::from_traceparent(&id.traceparent()), Some(id));
        assert_eq!(TraceId::from_traceparent("nonsense"), None);
    }
}
