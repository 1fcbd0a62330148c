//! The machines' rows, as the store keeps them: [`crate::wire::envelope`] encodes them behind a version byte.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use super::link::{LinkState, PermitRow, RemoteRow};
use super::signal::Permission;
pub use super::user::{Relations, UserState};
use crate::model::{Serial, ServerName, Timestamp, UserId};
use crate::store::{RowChange, RowKey, RowKind};
use crate::wire::envelope::encode;

/// A local user promised to a peer, or hidden from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServedRow {
    /// The newest change that the peer should have been told of and was not yet; the first serial of all: whichever it is.
    pub owed: Option<Serial>,
    /// The user was hidden as of this word of their machine's, heard then: a tombstone, until something newer is told.
    pub hidden: Option<(Serial, Timestamp)>,
    /// What a peer that speaks rollcall was told last, as [`super::digest::weight`] weighs it; 0: nothing, or not noted.
    pub told: u128,
}

impl ServedRow {
    /// Whether the peer is told of the user's changes.
    pub fn is_promised(&self) -> bool {
        self.hidden.is_none() || self.owed.is_some()
    }
}

/// A local user watches another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObserverRow {
    /// Of the word that said so.
    pub serial: Serial,
}

/// What a sent transaction held.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SentRow {
    /// Its number on the link.
    pub seq: Serial,
    /// When it was made.
    pub at: Timestamp,
    /// Whose statuses, and which.
    pub entries: Vec<(UserId, Serial)>,
    /// Whom it polled.
    pub polls: Vec<UserId>,
    /// Whom it unpolled.
    pub unpolls: Vec<UserId>,
    /// What it said of permission, and as of which word of the user's machine.
    pub permissions: Vec<(Permission, Serial)>,
    /// Whether it carries a reminder.
    pub remind: bool,
}

impl SentRow {
    /// How many users it is about.
    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.polls.len() + self.unpolls.len() + self.permissions.len()
    }

    /// Whether it polls or unpolls this user of the peer.
    pub(super) fn names(&self, localpart: &str) -> bool {
        self.polls.iter().chain(&self.unpolls).any(|user| user.localpart() == localpart)
    }
}

/// The key of a user's row.
pub fn user_key(kind: RowKind, user: &UserId) -> RowKey {
    RowKey { kind, key: user.as_str().to_owned() }
}

/// The key of a link's own row.
pub fn link_key(server: &ServerName) -> RowKey {
    RowKey { kind: RowKind::Link, key: server.as_str().to_owned() }
}

/// The key of a row beneath a link.
pub(super) fn under_link(kind: RowKind, server: &ServerName, what: &str) -> RowKey {
    RowKey { kind, key: format!("{server}\0{what}") }
}

/// The key of a local user who watches `observed`.
pub(super) fn observer_key(observed: &UserId, observer: &UserId) -> RowKey {
    RowKey { kind: RowKind::Observer, key: format!("{observed}\0{observer}") }
}

/// The key of what a transaction held.
pub(super) fn sent_key(server: &ServerName, seq: Serial) -> RowKey {
    under_link(RowKind::Sent, server, &format!("{}-{}", seq.epoch, seq.counter))
}

pub(super) fn put<T: Serialize>(key: RowKey, value: &T) -> RowChange {
    RowChange { key, value: Some(encode(value)) }
}

pub(super) fn delete(key: RowKey) -> RowChange {
    RowChange { key, value: None::<Bytes> }
}
