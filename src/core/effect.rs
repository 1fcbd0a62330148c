//! What comes out of the machines: data, carried out by the shell in one order.

use serde_json::value::RawValue;

use super::HoldId;
use super::signal::{Addressed, Multicast, UserSignal};
use crate::model::{ServerName, Status, Timestamp, TraceId, UserId};
use crate::store::RowChange;

/// Everything that a run of signals led to.
#[must_use = "effects that are not carried out are lost"]
#[derive(Debug, Default)]
pub struct Effects {
    /// To be committed: each key at most once.
    pub rows: Vec<RowChange>,
    /// To be committed with the rows, then published, in order.
    pub outputs: Vec<Output>,
    /// Held deliveries that may be acknowledged after that.
    pub released: Vec<HoldId>,
    /// For the metrics: the windows that closed.
    pub flushes: Vec<Flush>,
    /// For the log: the peers that were given up, and those that are back.
    pub lapses: Vec<Lapse>,
}

impl Effects {
    /// Whether there is nothing to commit.
    pub fn is_silent(&self) -> bool {
        self.rows.is_empty() && self.outputs.is_empty()
    }
}

/// A message to be sent.
#[derive(Debug, Clone)]
pub enum Output {
    /// To a local user's machine.
    User(Addressed<UserId, UserSignal>),
    /// To links.
    Link(Multicast),
    /// To a peer.
    Transmit(Transaction),
    /// To an edge with a session.
    Update(Update),
}

impl Output {
    /// For how many machines, peers or edges it is.
    #[expect(clippy::len_without_is_empty, reason = "an output is for somebody")]
    pub fn len(&self) -> usize {
        if let Self::Link(signal) = self { signal.to.len() } else { 1 }
    }
}

/// P1: what changed for one observer, gathered, to one edge with a session of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The edge: the routing key on `presence.updates`.
    pub edge: Box<str>,
    /// Whose client is to know.
    pub observer: UserId,
    /// When it was gathered: ages are computed from this.
    pub at: Timestamp,
    /// Of whom, what, and when that was known last.
    pub events: Vec<(UserId, Status, Timestamp)>,
}

/// A transaction to a peer, made once: whatever is repeated is the same, byte for byte.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// The peer.
    pub destination: ServerName,
    /// Never used for other bytes.
    pub txn_id: Box<str>,
    /// After this it is not sent any more.
    pub not_after: Timestamp,
    /// The body.
    pub body: Box<RawValue>,
    /// The first trace that contributed.
    pub trace: Option<TraceId>,
}

/// Why a window closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlushReason {
    /// Its time was over.
    Due,
    /// It held `batch.max_entries`.
    Entries,
    /// It held `batch.max_bytes`.
    Bytes,
    /// Too much was held unacknowledged.
    Pressure,
    /// The worker gives the partition up.
    Drain,
}

impl FlushReason {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Due, Self::Entries, Self::Bytes, Self::Pressure, Self::Drain];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Entries => "entries",
            Self::Bytes => "bytes",
            Self::Pressure => "pressure",
            Self::Drain => "drain",
        }
    }
}

/// A peer was given up, or is back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lapse {
    /// Which.
    pub server: ServerName,
    /// It is back: its users are known again as they are heard of.
    pub is_over: bool,
}

/// A window that became a transaction.
#[derive(Debug, Clone)]
pub struct Flush {
    /// Why it closed.
    pub reason: FlushReason,
    /// Bytes of the body.
    pub bytes: usize,
    /// For each status in it: when an edge took its cause in.
    pub since: Vec<Timestamp>,
}
