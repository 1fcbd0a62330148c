//! Who owns which partition, and the epochs that fence everybody else.

use std::collections::{BTreeSet, HashMap};

use sqlx::Error;
use sqlx::sqlite::SqliteConnection;

use super::batch::signed;
use super::writer::Reply;
use crate::clock::{Clock, SystemClock};
use crate::model::{Partition, Timestamp};
use crate::store::{Lease, StoreError};

/// The partitions that this process acquired since it opened the file. Leases of others are of the dead: the lock on the file
/// proves that no other process works on it.
pub(super) type Held = BTreeSet<Partition>;

/// The fences and the time, as one transaction sees them.
pub(super) struct View {
    /// Ms since the Unix epoch.
    pub(super) now_ms: i64,
    /// SQLite's word on what other connections wrote: as long as it is the same, nobody but this one's own jobs moved a fence.
    version: i64,
    owners: HashMap<Partition, Owned>,
}

struct Owned {
    owner: String,
    epoch: u64,
    lease_until_ms: i64,
}

impl View {
    /// Reads them, within the open transaction; `last` is how the last one that was committed left them.
    pub(super) async fn read(connection: &mut SqliteConnection, last: Option<Self>) -> Result<Self, Error> {
        let now_ms = signed(SystemClock.now().0);
        let version = data_version(&mut *connection).await?;
        if let Some(last) = last.filter(|last| last.version == version) {
            return Ok(Self { now_ms, ..last });
        }
        let rows: Vec<(u16, String, i64, i64)> =
            sqlx::query_as("SELECT partition, owner, epoch, lease_until_ms FROM partitions WHERE owner IS NOT NULL")
                .fetch_all(connection)
                .await?;
        let owners = rows.into_iter().map(|(partition, owner, epoch, lease_until_ms)| {
            (Partition(partition), Owned { owner, epoch: epoch.unsigned_abs(), lease_until_ms })
        });
        Ok(Self { now_ms, version, owners: owners.collect() })
    }

    /// Whether `epoch` is the fence of the partition's present owner.
    pub(super) fn owns(&self, partition: Partition, epoch: u64) -> bool {
        self.owners.get(&partition).is_some_and(|owned| owned.epoch == epoch)
    }

    /// Whether a living worker of this process holds the partition under another name.
    fn taken(&self, held: &Held, partition: Partition, owner: &str) -> bool {
        let live = |owned: &Owned| owned.owner != owner && owned.lease_until_ms > self.now_ms;
        held.contains(&partition) && self.owners.get(&partition).is_some_and(live)
    }
}

/// Differs from before if another connection wrote meanwhile.
pub(super) async fn data_version(connection: &mut SqliteConnection) -> Result<i64, Error> {
    sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await
}

/// The first caller decides on the number of partitions.
pub(super) async fn prepare(
    connection: &mut SqliteConnection,
    partitions: u16,
) -> Result<Result<Reply, StoreError>, Error> {
    sqlx::query("INSERT INTO meta (key, value) VALUES ('partitions', ?) ON CONFLICT DO NOTHING")
        .bind(partitions)
        .execute(&mut *connection)
        .await?;
    let made_for: u16 =
        sqlx::query_scalar("SELECT value FROM meta WHERE key = 'partitions'").fetch_one(connection).await?;
    if made_for == partitions {
        return Ok(Ok(Reply::Done));
    }
    let what = format!("partitions: the store was made for {made_for}, the configuration says {partitions}");
    Ok(Err(StoreError::Unusable(what)))
}

/// Grants the partition with the next epoch of the whole deployment.
pub(super) async fn acquire(
    connection: &mut SqliteConnection,
    view: &mut View,
    held: &Held,
    partition: Partition,
    owner: &str,
    lease_ms: u64,
) -> Result<Option<Lease>, Error> {
    if view.taken(held, partition, owner) {
        return Ok(None);
    }
    let epoch = next_epoch(&mut *connection).await?;
    let lease_until_ms = view.now_ms.saturating_add(signed(lease_ms));
    sqlx::query(
        "INSERT INTO partitions (partition, owner, epoch, lease_until_ms) VALUES (?, ?, ?, ?)
         ON CONFLICT (partition) DO UPDATE
         SET owner = excluded.owner, epoch = excluded.epoch, lease_until_ms = excluded.lease_until_ms",
    )
    .bind(partition.0)
    .bind(owner)
    .bind(epoch)
    .bind(lease_until_ms)
    .execute(connection)
    .await?;
    let epoch = epoch.unsigned_abs();
    view.owners.insert(partition, Owned { owner: owner.into(), epoch, lease_until_ms });
    Ok(Some(Lease { partition, epoch }))
}

/// `max(newest + 1, unix seconds)`: grows over restarts, restored backups and clocks that were set back.
async fn next_epoch(connection: &mut SqliteConnection) -> Result<i64, Error> {
    sqlx::query_scalar(
        "INSERT INTO meta (key, value) VALUES ('epoch', unixepoch())
         ON CONFLICT (key) DO UPDATE SET value = MAX(meta.value + 1, excluded.value)
         RETURNING value",
    )
    .fetch_one(connection)
    .await
}

/// Prolongs the lease. An expired one that nobody took is as good as before: nothing happened in between.
pub(super) async fn renew(
    connection: &mut SqliteConnection,
    view: &mut View,
    lease: Lease,
    lease_ms: u64,
    horizon: Timestamp,
) -> Result<Result<Reply, StoreError>, Error> {
    if !view.owns(lease.partition, lease.epoch) {
        return Ok(Err(StoreError::Fenced(lease.partition)));
    }
    let lease_until_ms = view.now_ms.saturating_add(signed(lease_ms));
    sqlx::query("UPDATE partitions SET lease_until_ms = ?, horizon_ms = MAX(horizon_ms, ?) WHERE partition = ?")
        .bind(lease_until_ms)
        .bind(signed(horizon.0))
        .bind(lease.partition.0)
        .execute(connection)
        .await?;
    if let Some(owned) = view.owners.get_mut(&lease.partition) {
        owned.lease_until_ms = lease_until_ms;
    }
    Ok(Ok(Reply::Done))
}

/// Gives the partition up; its epoch fences what the owner might still say.
pub(super) async fn release(
    connection: &mut SqliteConnection,
    view: &mut View,
    lease: Lease,
) -> Result<Result<Reply, StoreError>, Error> {
    if !view.owns(lease.partition, lease.epoch) {
        return Ok(Err(StoreError::Fenced(lease.partition)));
    }
    sqlx::query("UPDATE partitions SET owner = NULL, lease_until_ms = 0 WHERE partition = ?")
        .bind(lease.partition.0)
        .execute(connection)
        .await?;
    view.owners.remove(&lease.partition);
    Ok(Ok(Reply::Done))
}
