//! SQLite: one file, one process with workers, group commit.
//!
//! One writer has a connection of its own; readers have others and never wait for it. Every wait for the disk is shared
//! by all who asked meanwhile.

mod batch;
mod bulk;
pub(crate) mod bus;
mod open;
mod ownership;
mod read;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::sqlite::SqlitePool;

use crate::model::{Partition, ServerName, Timestamp};
use crate::store::{Commit, Lease, OutboxRow, Ownership, RowKey, RowKind, Store, StoreError};
use writer::{Reply, Work, Writer};

/// What a process may do with the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Own partitions. One process at a time: it holds a lock on `<file>.lock` until its end.
    Owner,
    /// Read, and put messages on the bus; never own a partition.
    Guest,
}

/// What was done since the file was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Database transactions that were committed.
    pub transactions: u64,
    /// Requests that these carried.
    pub jobs: u64,
}

/// A store in a SQLite file. Dropping it without [`Store::close`] is an unclean end, which loses nothing that was answered.
pub struct Sqlite {
    path: PathBuf,
    mode: Mode,
    writer: Writer,
    pool: SqlitePool,
}

impl Sqlite {
    /// Opens the file; an [`Mode::Owner`] makes it and its folder if need be.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: the file cannot be opened, is damaged or not a store.
    /// [`StoreError::InUse`]: another process owns it.
    /// [`StoreError::Unavailable`]: (as a guest) there is none yet, it is locked for longer than 5 s, or the disk fails.
    pub async fn open(path: &Path, mode: Mode) -> Result<Arc<Self>, StoreError> {
        let lock = match mode {
            Mode::Owner => Some(open::lock(path)?),
            Mode::Guest => None,
        };
        let connection = open::writer(path, mode).await?;
        let writer = Writer::start(connection, lock);
        Ok(Arc::new(Self { path: path.into(), mode, writer, pool: open::readers(path) }))
    }

    /// What this process may do.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How well commits are shared.
    pub fn stats(&self) -> Stats {
        let counts = self.writer.counts();
        Stats { transactions: counts.transactions.load(Ordering::Relaxed), jobs: counts.jobs.load(Ordering::Relaxed) }
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn prepare(&self, server: &ServerName, partitions: u16) -> Result<(), StoreError> {
        let prepared = self.writer.submit(Work::Prepare { server: server.clone(), partitions }).await;
        prepared.map(drop).map_err(|error| match error {
            StoreError::Unusable(why) => open::unusable(&self.path, &why),
            other => other,
        })
    }

    async fn acquire(&self, partition: Partition, owner: &str, lease_ms: u64) -> Result<Option<Lease>, StoreError> {
        if self.mode == Mode::Guest {
            return Ok(None);
        }
        match self.writer.submit(Work::Acquire { partition, owner: owner.into(), lease_ms }).await? {
            Reply::Granted(lease) => Ok(lease),
            Reply::Done | Reply::Foreign(_) => Ok(None),
        }
    }

    async fn renew(&self, lease: Lease, lease_ms: u64, horizon: Timestamp) -> Result<(), StoreError> {
        self.writer.submit(Work::Renew { lease, lease_ms, horizon }).await.map(drop)
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.writer.submit(Work::Release(lease)).await.map(drop)
    }

    async fn ownerships(&self) -> Result<Vec<Ownership>, StoreError> {
        read::ownerships(&self.pool).await.map_err(|error| unavailable(&error))
    }

    async fn load(&self, partition: Partition) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        read::load(&self.pool, partition).await.map_err(|error| unavailable(&error))
    }

    async fn outbox(&self, partition: Partition) -> Result<Vec<OutboxRow>, StoreError> {
        read::outbox(&self.pool, partition).await.map_err(|error| unavailable(&error))
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.writer.submit(Work::Commit(commit)).await.map(drop)
    }

    async fn read(&self, partition: Partition, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        read::row(&self.pool, partition, key).await.map_err(|error| unavailable(&error))
    }

    async fn read_many(
        &self,
        partition: Partition,
        kind: RowKind,
        keys: Vec<String>,
    ) -> Result<BTreeMap<String, Bytes>, StoreError> {
        read::rows(&self.pool, partition, kind, &keys).await.map_err(|error| unavailable(&error))
    }

    async fn count(&self, kind: RowKind) -> Result<u64, StoreError> {
        read::count(&self.pool, kind).await.map_err(|error| unavailable(&error))
    }

    async fn close(&self) {
        if self.writer.is_closed() {
            return;
        }
        // Readers first: a checkpoint cannot finish past a snapshot that is in use.
        self.pool.close().await;
        if let Err(error) = self.writer.submit(Work::Close).await {
            tracing::warn!(%error, "the store did not end cleanly");
        }
    }
}

/// A failed read wrote nothing, and may be tried again.
fn unavailable(error: &sqlx::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}
