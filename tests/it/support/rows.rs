//! A store that is only read: the committed rows of a server that is nothing but machines.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use rollcall::model::{Partition, Timestamp};
use rollcall::store::{Commit, Lease, OutboxRow, Ownership, RowKey, RowKind, Store, StoreError};

/// See the module.
pub struct Rows(pub BTreeMap<RowKey, Bytes>);

const ONLY_READ: &str = "readers only read";

#[async_trait]
impl Store for Rows {
    async fn prepare(&self, _: u16) -> Result<(), StoreError> {
        unreachable!("{ONLY_READ}")
    }

    async fn acquire(&self, _: Partition, _: &str, _: u64) -> Result<Option<Lease>, StoreError> {
        unreachable!("{ONLY_READ}")
    }

    async fn renew(&self, _: Lease, _: u64, _: Timestamp) -> Result<(), StoreError> {
        unreachable!("{ONLY_READ}")
    }

    async fn release(&self, _: Lease) -> Result<(), StoreError> {
        unreachable!("{ONLY_READ}")
    }

    async fn ownerships(&self) -> Result<Vec<Ownership>, StoreError> {
        unreachable!("{ONLY_READ}")
    }

    async fn load(&self, _: Partition) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        unreachable!("{ONLY_READ}")
    }

    async fn outbox(&self, _: Partition) -> Result<Vec<OutboxRow>, StoreError> {
        unreachable!("{ONLY_READ}")
    }

    async fn commit(&self, _: Commit) -> Result<(), StoreError> {
        unreachable!("{ONLY_READ}")
    }

    async fn read(&self, _: Partition, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    async fn count(&self, _: RowKind) -> Result<u64, StoreError> {
        unreachable!("{ONLY_READ}")
    }

    async fn close(&self) {}
}
