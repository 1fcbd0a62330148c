//! What goes into the machines. Each kind travels on a queue of its own (see [`crate::bus::topology`]).

use serde::{Deserialize, Serialize};

use crate::model::{DeviceId, Presence, Serial, ServerName, Status, Timestamp, TraceId, UserId};

/// A signal on its way to one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addressed<K, S> {
    /// The machine: a user or a peer.
    pub to: K,
    /// When an edge first took the cause of this in: the start of the edge-to-flush time.
    pub at: Timestamp,
    /// Correlates the word "applied" with the request that waits for it; the message says where to.
    pub reply: Option<u64>,
    /// The trace that this belongs to, if somebody follows it.
    pub trace: Option<TraceId>,
    /// What happened.
    pub signal: S,
}

/// A signal on its way to several links, the same to each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Multicast {
    /// The peers.
    pub to: Vec<ServerName>,
    /// See [`Addressed`].
    pub at: Timestamp,
    /// See [`Addressed`].
    pub trace: Option<TraceId>,
    /// What happened.
    pub signal: LinkSignal,
}

impl Multicast {
    /// In messages more are addressed by several: bounds what each takes.
    pub const MAX: usize = 64;
}

impl From<Addressed<ServerName, LinkSignal>> for Multicast {
    fn from(Addressed { to, at, trace, signal, .. }: Addressed<ServerName, LinkSignal>) -> Self {
        Self { to: vec![to], at, trace, signal }
    }
}

/// To the machine of a local user (queue `presence.users.<n>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserSignal {
    /// C1: a device set the presence, and perhaps the message.
    Status { device: DeviceId, presence: Presence, status_msg: MessageEdit, stamp: Stamp },
    /// C2: a device has been idle for so many ms; `None`: no longer.
    Idle { device: DeviceId, idle_ms: Option<u64>, stamp: Stamp },
    /// C3: what kind of device it is; `None`: the device is gone.
    Device { device: DeviceId, device_type: Option<Box<str>>, stamp: Stamp },
    /// C4: a device was heard, as by /sync; `set_presence` never overrides an explicit `busy`, `unavailable` or `offline`.
    Activity { device: DeviceId, set_presence: Option<Presence>, stamp: Stamp },
    /// C4: a device starts (or renews, for `lease_ms`) or stops caring about the presence list.
    Session { device: DeviceId, action: SessionAction, stamp: Stamp },
    /// C6: entries come to and go from the presence list.
    List { add: Vec<UserId>, remove: Vec<UserId>, stamp: Stamp },
    /// S2: the user lets `observer` see them, or not (any longer).
    Answer { observer: UserId, allow: bool, stamp: Stamp },
    /// S3: a peer starts or stops watching this user. Answered with the present status, if somebody there may see it.
    Watched { peer: ServerName, on: bool, serial: Serial },
    /// A link owes its peer this user's status: say it again.
    Tell { peer: ServerName },
    /// S3: a peer asks for this user's status once, without promise.
    Queried { peer: ServerName },
    /// S1: `observer` asks to see this user, or (not `on`) asks no longer.
    Invited { observer: UserId, on: bool, serial: Serial },
    /// S2: `observed` lets this user see them, or does not (any longer).
    Answered { observed: UserId, allow: bool, serial: Serial },
    /// A local user with a session starts or stops watching this user. Answered with the present status, if they may see it.
    Observed { observer: UserId, on: bool, serial: Serial },
    /// P1: what is known of somebody whom this user watches. Presence `unknown`: nothing, since `known_at`.
    Update { of: UserId, status: Status, known_at: Timestamp, serial: Serial },
    /// E6: a peer is about to forget this user. Answered with the present status, unless that is `offline`.
    Refresh { peer: ServerName },
    /// An audit: as this peer's link has it, the peer is told of this user's changes. Answered only if it should not be.
    AuditTold { peer: ServerName },
    /// An audit: as its link has it, this user watches `target`. Answered only if that is not so.
    AuditWatch { target: UserId },
}

/// When and by which event a thing was changed; orders two changes of the same thing (newest wins).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// The event's time, clamped by ingest to its own clock.
    pub ts: Timestamp,
    /// The event's ID: breaks ties.
    pub id: Box<str>,
}

/// What an event does to the status message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MessageEdit {
    /// The field was absent.
    Keep,
    /// The field was null.
    Clear,
    /// The new text.
    Set(Box<str>),
}

/// What a device wants of its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionAction {
    /// Start or renew, for so many ms; updates go to `edge`, if one is named. A device may have a session at each of several edges.
    Start { lease_ms: u64, edge: Option<Box<str>> },
    /// Stop, wherever.
    Stop,
    /// Stop at this edge alone.
    Leave { edge: Box<str> },
}

/// To the machine of a peer, from outside (queue `presence.peers.<n>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerSignal {
    /// The peer sent a transaction, authenticated, at the `at` of the address.
    Transaction(Box<Inbound>),
    /// W4: the peer sent any other authenticated request.
    Heard,
    /// What became of a transaction of ours.
    Receipt { txn_id: Box<str>, outcome: Outcome, retry_after_ms: Option<u64> },
}

/// The presence part of one federation transaction, every user checked to belong where it must.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Inbound {
    /// The transaction ID, unique for its origin.
    pub txn_id: Box<str>,
    /// The peer's clock, never later than the time of receipt.
    pub origin_server_ts: Timestamp,
    /// Statuses of the peer's users; `last_active` is already absolute, in the receiver's time.
    pub push: Vec<(UserId, Status)>,
    /// Our users that the peer wants to watch.
    pub poll: Vec<UserId>,
    /// Our users that it does not want to watch any longer.
    pub unpoll: Vec<UserId>,
    /// Permission EDUs, in their order.
    pub permissions: Vec<Permission>,
    /// The `rollcall` object, if the peer speaks it.
    pub extension: Option<Extension>,
}

/// One `m.presence_invite`, `m.presence_accept` or `m.presence_deny`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// Which of the three.
    pub kind: PermissionKind,
    /// Who is to be seen.
    pub observed: UserId,
    /// Who wants to see.
    pub observer: UserId,
}

/// S1 and S2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PermissionKind {
    /// May I?
    Invite,
    /// Yes.
    Accept,
    /// No, or no longer.
    Deny,
}

/// The `rollcall` object of a transaction's first m.presence EDU.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Extension {
    /// The sender's link and transaction number.
    pub seq: Serial,
    /// For how long the pushes are a promise, ms.
    pub promise_ms: Option<u64>,
    /// Whether `push` and `poll` replace what was there.
    pub full: bool,
    /// W5: asks for a sign of life, and says what both sides should know.
    pub reminder: Option<Reminder>,
    /// The IDs of reminders that this answers.
    pub answers: Vec<Box<str>>,
    /// After a digest that did not match: what the sender holds of the receiver's users, by bucket.
    pub have: Option<Have>,
    /// After a `have`: the buckets that differ. Their users' statuses follow; the receiver polls those that it watches anew.
    pub differ: Vec<u8>,
    /// S3: users whose status is wanted once, without promise.
    pub query: Vec<UserId>,
}

/// What a watchdog's expiry sends (W5). Costs the same however much was promised.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reminder {
    /// Echoed in `answers`.
    pub id: Box<str>,
    /// What the sender promised and told, as of a transaction of its own.
    pub mine: Option<Summary>,
    /// What the sender holds of the receiver's users, as of a transaction of the receiver's.
    pub yours: Option<Summary>,
}

/// A set of promised statuses in few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// The last transaction that it covers.
    pub as_of: Serial,
    /// How many statuses.
    pub count: u64,
    /// Their sum modulo 2^128, see docs/wire.md.
    pub digest: u128,
}

/// A set of promised statuses in 256 parts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Have {
    /// The last transaction that it covers.
    pub as_of: Serial,
    /// For each bucket the low 64 bits of its sum.
    pub buckets: Vec<u64>,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered 200.
    Delivered,
    /// Refused: repeating it would not help.
    Failed,
    /// Refused for its size (413).
    TooLarge,
    /// Not answered before `not_after`.
    Expired,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Delivered, Self::Failed, Self::TooLarge, Self::Expired];

    /// The name in receipts and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::TooLarge => "too_large",
            Self::Expired => "expired",
        }
    }
}

/// To the machine of a peer, from the machines of local users (queue `presence.batch.<n>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkSignal {
    /// A local user's status changed, or was asked for. Gathered. With `promise` changes follow; without, it was a query's answer.
    Change { user: UserId, status: Status, serial: Serial, promise: bool },
    /// The peer is told of this local user no longer: nobody there may see them, or wants to.
    Hide { user: UserId, serial: Serial },
    /// A local user wants to watch (or no longer) a user of the peer, who `accepted` that or was only asked yet.
    Watch { observer: UserId, target: UserId, on: bool, accepted: bool, serial: Serial },
    /// S1: a local user asks to see a user of the peer, until answered, or (not `on`) asks no longer.
    Ask { observer: UserId, observed: UserId, on: bool, serial: Serial },
    /// S2: a local user's answer to a user of the peer.
    Decide { observed: UserId, observer: UserId, allow: bool, serial: Serial },
    /// An audit: as its machine has it, the peer is told of this local user's changes. Made good where the link knows nothing of it.
    AuditTold { user: UserId, serial: Serial },
    /// An audit: as its machine has it, a local user watches one of the peer's. Made good where the link knows nothing of it.
    AuditWatch { observer: UserId, target: UserId, accepted: bool, serial: Serial },
}

impl LinkSignal {
    /// Whether it is rare and what comes after may rest on it: a status of somebody whom nobody is known to watch is worth nothing.
    pub fn is_wish(&self) -> bool {
        matches!(self, Self::Watch { .. } | Self::Ask { .. } | Self::Decide { .. })
    }
}
