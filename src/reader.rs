//! Reads of committed state for edges: never through the queues.

use serde::de::DeserializeOwned;

use crate::core::rows::{Relations, RemoteRow, UserState, user_key};
use crate::model::{Partition, ServerName, Status, Timestamp, UserId};
use crate::store::{RowKind, SharedStore, StoreError};
use crate::wire::envelope::decode;

/// Reads what workers committed.
#[derive(Clone)]
pub struct Reader {
    store: SharedStore,
    local: ServerName,
    partitions: u16,
}

/// What a reader learns of a user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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

    /// The status of `user` as `reader` may see it: one's own, or that of somebody on one's list; `None`: may not.
    pub async fn status(&self, reader: &UserId, user: &UserId, now: Timestamp) -> Result<Option<Known>, StoreError> {
        let may = reader == user || self.relations(reader).await?.lists(user);
        if may { self.known(user, now).await.map(Some) } else { Ok(None) }
    }

    /// The presence list of `user`: whom, whether accepted, and what is known.
    pub async fn list(&self, user: &UserId, now: Timestamp) -> Result<Vec<(UserId, bool, Known)>, StoreError> {
        self.list_page(user, None, usize::MAX, now).await
    }

    /// Of that list at most `limit` entries after `after`, in the order of their IDs.
    pub async fn list_page(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<(UserId, bool, Known)>, StoreError> {
        let mut list = Vec::new();
        let relations = self.relations(user).await?;
        let rest = relations.listed().filter(|listed| after.is_none_or(|after| *listed > after));
        for listed in rest.take(limit) {
            list.push((listed.clone(), true, self.known(listed, now).await?));
        }
        Ok(list)
    }

    /// How far the slowest partition lags behind, ms; 0 while no horizon was ever published.
    pub async fn lag_ms(&self, now: Timestamp) -> Result<u64, StoreError> {
        let ownerships = self.store.ownerships().await?;
        let published = ownerships.iter().map(|ownership| ownership.horizon).filter(|horizon| horizon.0 > 0);
        Ok(published.map(|horizon| now.since(horizon)).max().unwrap_or(0))
    }

    async fn known(&self, user: &UserId, now: Timestamp) -> Result<Known, StoreError> {
        if user.belongs_to(&self.local) {
            let state: UserState = self.row(RowKind::User, user, user.as_str()).await?;
            return Ok(Known { status: state.status().clone(), stale_ms: 0 });
        }
        let row: RemoteRow = self.row(RowKind::Remote, user, user.server_str()).await?;
        let stale_ms = if row.known_at.0 == 0 { 0 } else { now.since(row.known_at) };
        Ok(Known { status: row.status, stale_ms })
    }

    async fn relations(&self, user: &UserId) -> Result<Relations, StoreError> {
        self.row(RowKind::Relations, user, user.as_str()).await
    }

    async fn row<T: DeserializeOwned + Default>(
        &self,
        kind: RowKind,
        user: &UserId,
        partition_key: &str,
    ) -> Result<T, StoreError> {
        let partition = Partition::of(partition_key, self.partitions);
        let Some(value) = self.store.read(partition, &user_key(kind, user)).await? else { return Ok(T::default()) };
        decode(&value).map_err(|error| StoreError::Unusable(format!("row of {user}: {error}")))
    }
}
