//! Reads of committed state for edges: never through the queues.

use crate::model::{ServerName, Status, Timestamp, UserId};
use crate::store::{SharedStore, StoreError};

/// Reads what workers committed.
#[derive(Clone)]
pub struct Reader {
    store: SharedStore,
    local: ServerName,
    partitions: u16,
}

/// What a reader learns of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The status; presence `unknown` if nothing is known.
    pub status: Status,
    /// The age of the last knowledge, ms; 0 for local users.
    pub stale_ms: u64,
}

impl Reader {
    /// Reads from `store`.
    pub fn new(store: SharedStore, local: ServerName, partitions: u16) -> Self {
        Self { store, local, partitions }
    }

    /// The status of `user` as `reader` may see it; `None`: may not.
    pub async fn status(&self, reader: &UserId, user: &UserId, now: Timestamp) -> Result<Option<Known>, StoreError> {
        let _ = (reader, user, now, &self.store, &self.local, self.partitions);
        Ok(None)
    }

    /// The presence list of `user`: whom, whether they let themselves be seen, and what is known of them.
    pub async fn list(&self, user: &UserId, now: Timestamp) -> Result<Vec<(UserId, bool, Known)>, StoreError> {
        let _ = (user, now);
        Ok(Vec::new())
    }

    /// How far the slowest partition lags behind, ms.
    pub async fn lag_ms(&self, now: Timestamp) -> Result<u64, StoreError> {
        let _ = now;
        Ok(0)
    }
}
