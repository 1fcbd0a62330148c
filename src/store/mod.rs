//! The store: who owns which partition, the machines' committed state, and the outbox.
//!
//! One transaction a run of deliveries: [`Store::commit`] writes the changed rows together with the run's outputs, fenced by the
//! epoch. Rows are opaque to the store ([`crate::core::rows`] encodes them), so that another database needs no other trait.

pub mod sqlite;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::model::{Partition, ServerName, Timestamp};

/// What kind of thing a row holds. The numbers are in databases: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RowKind {
    /// A local user's machine; key: user ID.
    User = 1,
    /// A link; key: server name.
    Link = 2,
    /// What is known of a peer's user; key: user ID (in the peer's partition).
    Remote = 3,
    /// A local user promised to a peer; key: server name, NUL, user ID.
    Served = 4,
    /// What a sent transaction held; key: server name, NUL, its number.
    Sent = 5,
    /// A local user's presence list, permissions and watchers; key: user ID.
    Relations = 6,
    /// A permission on its way to or from a peer; key: server name, NUL, observed user, NUL, observer.
    Permit = 7,
    /// A local user who watches another; key: user ID of the watched, NUL, of the watcher.
    Observer = 8,
    /// What a partition did within an hour; key: the hour of the day, UTC, two digits.
    Hour = 9,
}

impl RowKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::User,
        Self::Link,
        Self::Remote,
        Self::Served,
        Self::Sent,
        Self::Relations,
        Self::Permit,
        Self::Observer,
        Self::Hour,
    ];

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Names a row within its partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// What it holds.
    pub kind: RowKind,
    /// Of whom.
    pub key: String,
}

/// A row and its new value; `None` deletes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// Which.
    pub key: RowKey,
    /// What it becomes.
    pub value: Option<Bytes>,
}

/// One run's effects, committed all or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Whose.
    pub partition: Partition,
    /// The fence: must still be the partition's epoch.
    pub epoch: u64,
    /// Changed rows; each key at most once.
    pub rows: Vec<RowChange>,
    /// The run's outputs, encoded, under a number that grows within the epoch; `None`: the run says nothing.
    pub outbox: Option<(u64, Bytes)>,
    /// Outbox rows whose messages are confirmed: up to and including this `(epoch, number)`.
    pub published: Option<(u64, u64)>,
}

/// An outbox row that may not have been published yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// The epoch that wrote it.
    pub epoch: u64,
    /// Its number within the epoch.
    pub number: u64,
    /// The outputs, encoded.
    pub body: Bytes,
}

/// Ownership of a partition, as granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Which partition.
    pub partition: Partition,
    /// The fence for everything that the owner commits.
    pub epoch: u64,
}

/// What the store says of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// Which partition.
    pub partition: Partition,
    /// Who owns it, if the lease is live.
    pub owner: Option<String>,
    /// The newest epoch.
    pub epoch: u64,
    /// Up to when the owner said it had read everything.
    pub horizon: Timestamp,
}

/// Why a store operation failed, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else owns the partition now: stop, nothing was written.
    #[error("partition {0} has another owner")]
    Fenced(Partition),
    /// The transaction may or may not have been committed: end the ownership, reload.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Nothing was written; trying again may help.
    #[error("store: {0}")]
    Unavailable(String),
    /// The database is of another make, or cannot be had: a person has to act.
    #[error("{0}")]
    Unusable(String),
    /// Another process works on it, and may end.
    #[error("{0}")]
    InUse(String),
}

/// A store. Cheap to share.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Checks that the store was made for `server` and `partitions` partitions (the first caller decides on each);
    /// [`StoreError::Unusable`] names both values and the key.
    async fn prepare(&self, server: &ServerName, partitions: u16) -> Result<(), StoreError>;

    /// Takes the partition for `owner` for `lease_ms`, if nobody holds it, with a new epoch:
    /// `max(newest epoch of the whole deployment + 1, unix seconds of the store)`.
    async fn acquire(&self, partition: Partition, owner: &str, lease_ms: u64) -> Result<Option<Lease>, StoreError>;

    /// Holds the partition for another `lease_ms` and publishes the owner's horizon; [`StoreError::Fenced`] when it is lost.
    async fn renew(&self, lease: Lease, lease_ms: u64, horizon: Timestamp) -> Result<(), StoreError>;

    /// Gives the partition up at once.
    async fn release(&self, lease: Lease) -> Result<(), StoreError>;

    /// Every partition's ownership.
    async fn ownerships(&self) -> Result<Vec<Ownership>, StoreError>;

    /// All rows of a partition: ordered by kind, then key.
    async fn load(&self, partition: Partition) -> Result<Vec<(RowKey, Bytes)>, StoreError>;

    /// The outbox of a partition, oldest first.
    async fn outbox(&self, partition: Partition) -> Result<Vec<OutboxRow>, StoreError>;

    /// Writes a run. Many callers' commits may share one database transaction (group commit); each stands or falls alone.
    async fn commit(&self, commit: Commit) -> Result<(), StoreError>;

    /// One committed row, for readers that own nothing.
    async fn read(&self, partition: Partition, key: &RowKey) -> Result<Option<Bytes>, StoreError>;

    /// Those of the committed rows `keys`, all of one kind, that there are, by key.
    async fn read_many(
        &self,
        partition: Partition,
        kind: RowKind,
        keys: Vec<String>,
    ) -> Result<BTreeMap<String, Bytes>, StoreError> {
        let mut found = BTreeMap::new();
        for key in keys {
            let key = RowKey { kind, key };
            if let Some(value) = self.read(partition, &key).await? {
                found.insert(key.key, value);
            }
        }
        Ok(found)
    }

    /// How many rows of a kind there are in all partitions.
    async fn count(&self, kind: RowKind) -> Result<u64, StoreError>;

    /// Ends the store: commits what is on its way, closes files.
    async fn close(&self);
}

/// A shared store.
pub type SharedStore = Arc<dyn Store>;
