//! Internal messages: a version byte, then bincode. This file alone knows bincode.
//!
//! Structs are frozen once released; a change is a new variant at the end. Readers accept this version and the one before; a
//! *newer* version is no poison: its reader gives the partition up (see [`EnvelopeError::Newer`]).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bus::{Exchange, Outgoing};
use crate::core::signal::{Addressed, LinkSignal, MessageEdit, Multicast, PeerSignal, UserSignal};
use crate::model::{Partition, ServerName, Status, Timestamp, TraceId, UserId};

/// What writers write.
pub const VERSION: u8 = 1;
/// A packet is closed at this many bytes, so that no message nears the broker's limits.
const PACKET_BYTES: usize = 128 << 10;
/// Most of what is encoded fits, without an allocation that is too large for it: rows of users.
const USUAL_BYTES: usize = 256;
/// What one decoded message may claim to allocate, in bytes.
const DECODE_LIMIT: usize = 64 << 20;

/// What an internal message holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packet {
    /// On `presence.users.<n>`.
    Users(Vec<Addressed<UserId, UserSignal>>),
    /// On `presence.peers.<n>`.
    Peers(Vec<Addressed<ServerName, PeerSignal>>),
    /// What [`Packet::Links`] was before: read, and written no longer.
    Batch(Vec<Addressed<ServerName, LinkSignal>>),
    /// On `presence.users.<n>` and `presence.peers.<n>`: everything published before `at` has been read once this is.
    Beat {
        /// The worker that published it.
        worker: Box<str>,
        /// Its clock when it did.
        at: Timestamp,
    },
    /// On `presence.users.<n>` and `presence.peers.<n>`: a periodic job is due.
    Job(Job),
    /// On `presence.batch.<n>`.
    Links(Vec<Multicast>),
}

impl Packet {
    /// As it is written today.
    pub fn renewed(self) -> Self {
        match self {
            Self::Batch(signals) => Self::Links(signals.into_iter().map(Multicast::from).collect()),
            packet => packet,
        }
    }

    /// Its signals, each by itself and to one machine; a beat and a job are none.
    pub fn singles(self) -> Vec<Self> {
        match self.renewed() {
            Self::Users(signals) => signals.into_iter().map(|signal| Self::Users(vec![signal])).collect(),
            Self::Peers(signals) => signals.into_iter().map(|signal| Self::Peers(vec![signal])).collect(),
            Self::Links(signals) => {
                let single = |signal: &Multicast, to| Self::Links(vec![Multicast { to: vec![to], ..signal.clone() }]);
                let to_each = |signal: Multicast| signal.to.clone().into_iter().map(move |to| single(&signal, to));
                signals.into_iter().flat_map(to_each).collect()
            }
            Self::Batch(_) | Self::Beat { .. } | Self::Job(_) => Vec::new(),
        }
    }

    /// About how many bytes its signals take once they are where they are to wait: each link keeps what it is told for itself.
    pub fn weight(&self) -> usize {
        let Self::Links(signals) = self else { return 0 };
        signals.iter().map(|signal| signal.to.len() * signal.weight_for_one()).sum()
    }

    /// How many signals it holds.
    #[expect(clippy::len_without_is_empty, reason = "a packet is never empty")]
    pub fn len(&self) -> usize {
        match self {
            Self::Users(signals) => signals.len(),
            Self::Peers(signals) => signals.len(),
            Self::Batch(signals) => signals.len(),
            Self::Links(signals) => signals.iter().map(|signal| signal.to.len()).sum(),
            Self::Beat { .. } | Self::Job(_) => 1,
        }
    }
}

/// The deployment's periodic jobs. Each reaches every partition as an event; the machines hold the logic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Drop what was remembered of sent transactions for long enough.
    Compact,
    /// Compare what users' machines and links believe of each other, repair.
    Audit,
    /// Try peers that were given up.
    Probe,
    /// Drop what is known of peers' users whom nobody watches any longer, where the peer could not be told so.
    Expire,
    /// Write down what happened within the hour.
    Statistics,
}

/// Why a message could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Written by a later release: leave it to those who can read it.
    #[error("envelope version {0} is newer than {VERSION}")]
    Newer(u8),
    /// Damaged or foreign: dead-letter it.
    #[error("not an internal message: {0}")]
    Malformed(String),
}

/// Encodes any of our structs behind a version byte.
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    let config = bincode::config::standard();
    let mut usual = [VERSION; USUAL_BYTES];
    if let Ok(written) = bincode::serde::encode_into_slice(value, &mut usual[1..], config) {
        return Bytes::copy_from_slice(&usual[..=written]);
    }
    encode_long(value, 8 * USUAL_BYTES)
}

/// The same of what takes about so many bytes, and more than the most.
pub fn encode_long<T: Serialize>(value: &T, bytes: usize) -> Bytes {
    let mut buffer = Vec::with_capacity(bytes);
    buffer.push(VERSION);
    bincode::serde::encode_into_std_write(value, &mut buffer, bincode::config::standard())
        .expect("our own structs encode, and a Vec takes all");
    buffer.into()
}

/// Decodes what [`encode`] wrote, as it may have come over a wire: claims of more than 64 MiB are refused.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EnvelopeError> {
    decode_with(bytes, bincode::config::standard().with_limit::<DECODE_LIMIT>())
}

/// Decodes what this process's own kind wrote into its own store: whatever was committed can be read back.
pub fn decode_own<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EnvelopeError> {
    decode_with(bytes, bincode::config::standard())
}

fn decode_with<T: DeserializeOwned>(bytes: &[u8], config: impl bincode::config::Config) -> Result<T, EnvelopeError> {
    let (version, payload) = bytes.split_first().ok_or_else(|| EnvelopeError::Malformed("empty".into()))?;
    match *version {
        VERSION => {}
        0 => return Err(EnvelopeError::Malformed("version 0".into())),
        newer => return Err(EnvelopeError::Newer(newer)),
    }
    let (value, read) = bincode::serde::decode_from_slice(payload, config)
        .map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
    if read == payload.len() {
        Ok(value)
    } else {
        Err(EnvelopeError::Malformed(format!("{} bytes too many", payload.len() - read)))
    }
}

/// Packs signals for many machines into as few messages as there are partitions, in order per partition.
#[derive(Debug)]
pub struct Packer {
    partitions: u16,
    users: Lane<Addressed<UserId, UserSignal>>,
    peers: Lane<Addressed<ServerName, PeerSignal>>,
    links: Lane<Multicast>,
}

type Lane<T> = BTreeMap<Partition, Vec<T>>;

impl Packer {
    /// For a deployment with so many partitions.
    pub fn new(partitions: u16) -> Self {
        Self { partitions, users: Lane::new(), peers: Lane::new(), links: Lane::new() }
    }

    /// Adds a signal to a local user's machine.
    pub fn user(&mut self, signal: Addressed<UserId, UserSignal>) {
        let partition = Partition::of(signal.to.as_str(), self.partitions);
        self.users.entry(partition).or_default().push(signal);
    }

    /// Adds a signal to a link, from outside.
    pub fn peer(&mut self, signal: Addressed<ServerName, PeerSignal>) {
        let partition = Partition::of(signal.to.as_str(), self.partitions);
        self.peers.entry(partition).or_default().push(signal);
    }

    /// Adds a signal to links, from a user's machine.
    pub fn links(&mut self, signal: Multicast) {
        let Multicast { to, at, trace, signal } = signal;
        let mut lanes: BTreeMap<Partition, Vec<ServerName>> = BTreeMap::new();
        for server in to {
            lanes.entry(Partition::of(server.as_str(), self.partitions)).or_default().push(server);
        }
        for (partition, mut to) in lanes {
            let lane = self.links.entry(partition).or_default();
            while !to.is_empty() {
                let rest = to.split_off(to.len().min(Multicast::MAX));
                lane.push(Multicast { to, at, trace, signal: signal.clone() });
                to = rest;
            }
        }
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.peers.is_empty() && self.links.is_empty()
    }

    /// The messages. `reply_here`: some of the signals ask for a reply to this process.
    pub fn finish(self, reply_here: bool) -> Vec<Outgoing> {
        let mut messages = Vec::new();
        pack(&mut messages, Exchange::Users, self.users, Packet::Users);
        pack(&mut messages, Exchange::Peers, self.peers, Packet::Peers);
        pack(&mut messages, Exchange::Batch, self.links, Packet::Links);
        if reply_here {
            messages = messages.into_iter().map(Outgoing::wants_reply).collect();
        }
        messages
    }
}

fn pack<T: Weigh>(messages: &mut Vec<Outgoing>, exchange: Exchange, lanes: Lane<T>, packet: impl Fn(Vec<T>) -> Packet) {
    for (partition, signals) in lanes {
        let mut rest = signals;
        while !rest.is_empty() {
            let tail = rest.split_off(fitting(&rest));
            let trace = rest.iter().find_map(Weigh::trace);
            messages.push(outgoing(exchange, partition, &packet(rest), trace));
            rest = tail;
        }
    }
}

/// How many of `signals` (at least one) fit into a packet.
fn fitting<T: Weigh>(signals: &[T]) -> usize {
    let mut size = 0;
    let fits = |signal: &&T| {
        size += signal.weight();
        size <= PACKET_BYTES
    };
    signals.iter().take_while(fits).count().max(1)
}

/// Of what a packet is made.
trait Weigh {
    /// About how many bytes it takes: what may be large is counted, the rest guessed.
    fn weight(&self) -> usize;

    fn trace(&self) -> Option<TraceId>;
}

/// A signal with its address and stamp.
const SMALL: usize = 160;
/// A user ID in a list.
const ID: usize = 48;

impl Weigh for Addressed<UserId, UserSignal> {
    fn weight(&self) -> usize {
        match &self.signal {
            UserSignal::List { add, remove, .. } => SMALL + (add.len() + remove.len()) * ID,
            UserSignal::Status { status_msg: MessageEdit::Set(text), .. } => SMALL + text.len(),
            _ => SMALL,
        }
    }

    fn trace(&self) -> Option<TraceId> {
        self.trace
    }
}

impl Weigh for Addressed<ServerName, PeerSignal> {
    fn weight(&self) -> usize {
        let PeerSignal::Transaction(inbound) = &self.signal else { return SMALL };
        let statuses = inbound.push.iter().map(|(_, status)| ID + status_weight(status)).sum::<usize>();
        SMALL + statuses + (inbound.poll.len() + inbound.unpoll.len() + 2 * inbound.permissions.len()) * ID
    }

    fn trace(&self) -> Option<TraceId> {
        self.trace
    }
}

impl Multicast {
    fn weight_for_one(&self) -> usize {
        let status = if let LinkSignal::Change { status, .. } = &self.signal { status_weight(status) } else { 0 };
        SMALL + status
    }
}

impl Weigh for Multicast {
    fn weight(&self) -> usize {
        self.weight_for_one() + self.to.iter().map(|server| server.as_str().len() + 1).sum::<usize>()
    }

    fn trace(&self) -> Option<TraceId> {
        self.trace
    }
}

fn status_weight(status: &Status) -> usize {
    32 + status.status_msg.as_deref().map_or(0, str::len) + status.device_types.len() * 16
}

/// Joins messages for one queue, in order: packets of one kind become one packet, as long as it is not too large.
pub fn join(messages: Vec<Outgoing>) -> Vec<Outgoing> {
    let mut joined: Vec<Outgoing> = Vec::new();
    let mut open: Option<Joint> = None;
    for message in messages {
        open = match (open, Joint::of(&message)) {
            (Some(mut joint), Some(next)) if joint.takes(&next) => {
                joint.add(next);
                Some(joint)
            }
            (before, next) => {
                joined.extend(before.map(Joint::close));
                if next.is_none() {
                    joined.push(message);
                }
                next
            }
        };
    }
    joined.extend(open.map(Joint::close));
    joined
}

/// Packets of signals that are being joined. A list is its length and then its members, so that no member is decoded.
struct Joint {
    first: Outgoing,
    kind: u8,
    count: u64,
    members: Vec<Bytes>,
    bytes: usize,
}

impl Joint {
    /// `None`: no packet of signals.
    fn of(message: &Outgoing) -> Option<Self> {
        let [VERSION, kind @ (0..=2 | 5), rest @ ..] = &message.body[..] else { return None };
        let (count, read) = bincode::decode_from_slice(rest, bincode::config::standard()).ok()?;
        let members = message.body.slice(2 + read..);
        Some(Self { first: message.clone(), kind: *kind, count, bytes: members.len(), members: vec![members] })
    }

    fn takes(&self, next: &Self) -> bool {
        self.kind == next.kind && self.bytes + next.bytes <= PACKET_BYTES
    }

    fn add(&mut self, next: Self) {
        self.count += next.count;
        self.bytes += next.bytes;
        self.members.extend(next.members);
        self.first.headers.trace = self.first.headers.trace.or(next.first.headers.trace);
    }

    fn close(self) -> Outgoing {
        let Self { mut first, kind, count, members, bytes } = self;
        if members.len() > 1 {
            let mut body = Vec::with_capacity(bytes + 16);
            body.extend([VERSION, kind]);
            bincode::encode_into_std_write(count, &mut body, bincode::config::standard()).expect("a Vec takes all");
            members.iter().for_each(|members| body.extend_from_slice(members));
            first.body = body.into();
        }
        first
    }
}

fn outgoing(exchange: Exchange, partition: Partition, packet: &Packet, trace: Option<TraceId>) -> Outgoing {
    let mut message = Outgoing::new(exchange, partition.to_string(), encode(packet));
    message.headers.trace = trace;
    message
}

/// A packet that every partition gets, on both of the queues whose order counts for the horizon.
pub fn broadcast(packet: &Packet, partitions: u16) -> Vec<Outgoing> {
    let body = encode(packet);
    (0..partitions)
        .flat_map(|n| [Exchange::Users, Exchange::Peers].map(|exchange| (exchange, n)))
        .map(|(exchange, n)| Outgoing::new(exchange, n.to_string(), body.clone()))
        .collect()
}
