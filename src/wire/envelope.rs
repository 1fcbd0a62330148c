//! Internal messages: a version byte, then bincode. This file alone knows bincode.
//!
//! Structs are frozen once released; a change is a new variant at the end. Readers accept this version and the one before; a
//! *newer* version is no poison: its reader gives the partition up (see [`EnvelopeError::Newer`]).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bus::{Exchange, Outgoing};
use crate::core::signal::{Addressed, LinkSignal, PeerSignal, UserSignal};
use crate::model::{Partition, ServerName, Timestamp, TraceId, UserId};

/// What writers write.
pub const VERSION: u8 = 1;
/// A packet is closed at this many bytes, so that no message nears the broker's limits.
const PACKET_BYTES: usize = 128 << 10;
/// What one decoded message may claim to allocate, in bytes.
const DECODE_LIMIT: usize = 64 << 20;

/// What an internal message holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packet {
    /// On `presence.users.<n>`.
    Users(Vec<Addressed<UserId, UserSignal>>),
    /// On `presence.peers.<n>`.
    Peers(Vec<Addressed<ServerName, PeerSignal>>),
    /// On `presence.batch.<n>`.
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
}

/// The deployment's periodic jobs. Each reaches every partition as an event; the machines hold the logic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Drop what was remembered of sent transactions for long enough.
    Compact,
    /// Compare promises with watchers, repair.
    Audit,
    /// Try dead destinations again.
    Probe,
    /// Drop stale remote state that nobody watches.
    Expire,
    /// Roll up statistics.
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
    let mut buffer = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut buffer, bincode::config::standard())
        .expect("our own structs encode, and a Vec takes all");
    buffer.into()
}

/// Decodes what [`encode`] wrote.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EnvelopeError> {
    let (version, payload) = bytes.split_first().ok_or_else(|| EnvelopeError::Malformed("empty".into()))?;
    match *version {
        VERSION => {}
        0 => return Err(EnvelopeError::Malformed("version 0".into())),
        newer => return Err(EnvelopeError::Newer(newer)),
    }
    let config = bincode::config::standard().with_limit::<DECODE_LIMIT>();
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
    users: Lane<UserId, UserSignal>,
    peers: Lane<ServerName, PeerSignal>,
    links: Lane<ServerName, LinkSignal>,
}

type Lane<K, S> = BTreeMap<Partition, Vec<Addressed<K, S>>>;

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

    /// Adds a signal to a link, from a user's machine.
    pub fn link(&mut self, signal: Addressed<ServerName, LinkSignal>) {
        let partition = Partition::of(signal.to.as_str(), self.partitions);
        self.links.entry(partition).or_default().push(signal);
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
        pack(&mut messages, Exchange::Batch, self.links, Packet::Batch);
        if reply_here {
            messages = messages.into_iter().map(Outgoing::wants_reply).collect();
        }
        messages
    }
}

fn pack<K, S>(
    messages: &mut Vec<Outgoing>,
    exchange: Exchange,
    lanes: Lane<K, S>,
    packet: impl Fn(Vec<Addressed<K, S>>) -> Packet,
) where
    Addressed<K, S>: Serialize,
{
    for (partition, signals) in lanes {
        let mut rest = signals;
        while !rest.is_empty() {
            let tail = rest.split_off(fitting(&rest));
            let trace = rest.iter().find_map(|signal| signal.trace);
            messages.push(outgoing(exchange, partition, &packet(rest), trace));
            rest = tail;
        }
    }
}

/// How many of `signals` (at least one) fit into a packet.
fn fitting<T: Serialize>(signals: &[T]) -> usize {
    // Most packets are far from the limit: 64 signals of a generous size need no counting.
    if signals.len() <= 64 {
        return signals.len();
    }
    let mut size = 0;
    for (count, chunk) in signals.chunks(64).enumerate() {
        size += encode(&chunk).len();
        if size > PACKET_BYTES && count > 0 {
            return count * 64;
        }
    }
    signals.len()
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
