//! A store that is only read: the committed rows of a server that is nothing but machines.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use rollcall::model::{Partition, ServerName, Timestamp};
use rollcall::store::{Commit, Lease, OutboxRow, Ownership, RowKey, RowKind, Store, StoreError};

/// See the module.
pub struct Rows {
    rows: BTreeMap<RowKey, Bytes>,
    /// How often one was asked for.
    pub reads: AtomicUsize,
}

impl Rows {
    pub fn new(rows: BTreeMap<RowKey, Bytes>) -> Self {
        Self { rows, reads: AtomicUsize::default() }
    }
}

const ONLY_READ: &str = "readers only read";

#[async_trait]
impl Store for Rows {
    async fn prepare(&self, _: &ServerName, _: u16) -> Result<(), StoreError> {
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
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(self.rows.get(key).cloned())
    }

    async fn count(&self, _: RowKind) -> Result<u64, StoreError> {
        unreachable!("{ONLY_READ}")
    }

    async fn close(&self) {}
}
