//! Who owns which partition, and the epochs that fence everybody else.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;

use serde::Serialize;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Decode, Encode, Error, Sqlite, Type};

use super::batch::{json_array, signed};
use super::writer::Reply;
use crate::clock::{Clock, SystemClock};
use crate::model::{Partition, ServerName, Timestamp};
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
    /// Reads them, within the open transaction, which began at `version`; `last` is how the last one that was committed left them.
    pub(super) async fn read(
        connection: &mut SqliteConnection,
        version: i64,
        last: Option<Self>,
    ) -> Result<Self, Error> {
        let now_ms = signed(SystemClock.now().0);
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

/// Begins a transaction; the [`data_version`] in it. One question, because each costs the way to SQLite's thread and back.
pub(super) async fn begin(connection: &mut SqliteConnection) -> Result<i64, Error> {
    sqlx::query_scalar("BEGIN IMMEDIATE; PRAGMA data_version").fetch_one(connection).await
}

/// Differs from before if another connection wrote meanwhile.
pub(super) async fn data_version(connection: &mut SqliteConnection) -> Result<i64, Error> {
    sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await
}

/// The first caller decides what the store is made for. One made before names were kept takes the first that comes, once the
/// number of partitions has been found right.
pub(super) async fn prepare(
    connection: &mut SqliteConnection,
    server: &ServerName,
    partitions: u16,
) -> Result<Result<Reply, StoreError>, Error> {
    let made_for: u16 = settle(connection, "partitions", partitions).await?;
    if made_for != partitions {
        return Ok(Err(made_otherwise("partitions", &made_for, &partitions)));
    }
    let made_for: String = settle(connection, "server_name", server.as_str()).await?;
    if made_for != server.as_str() {
        return Ok(Err(made_otherwise("server_name", &made_for, &server.as_str())));
    }
    Ok(Ok(Reply::Done))
}

/// Keeps `value` under `key` if there is none, and answers what is kept.
async fn settle<'q, V, K>(connection: &mut SqliteConnection, key: &'static str, value: V) -> Result<K, Error>
where
    V: Encode<'q, Sqlite> + Type<Sqlite>,
    K: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + Send + Unpin,
{
    sqlx::query("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(key)
        .bind(value)
        .execute(&mut *connection)
        .await?;
    sqlx::query_scalar("SELECT value FROM meta WHERE key = ?").bind(key).fetch_one(connection).await
}

fn made_otherwise(key: &str, made_for: &dyn Debug, configured: &dyn Debug) -> StoreError {
    let both = format!("it was made for {key} = {made_for:?}, the configuration says {configured:?}");
    StoreError::Unusable(format!("{both}; that is fixed for the life of a store"))
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

/// What is to be written of a lease that goes on: partition, epoch, its new end, the horizon.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Renewal(u16, i64, i64, i64);

/// Prolongs the lease; its row is written with those of others. An expired one that nobody took is as good as before: nothing happened in
/// between.
pub(super) fn renew(view: &mut View, lease: Lease, lease_ms: u64, horizon: Timestamp) -> Result<Renewal, StoreError> {
    let until_ms = view.now_ms.saturating_add(signed(lease_ms));
    match view.owners.get_mut(&lease.partition).filter(|owned| owned.epoch == lease.epoch) {
        Some(owned) => owned.lease_until_ms = until_ms,
        None => return Err(StoreError::Fenced(lease.partition)),
    }
    Ok(Renewal(lease.partition.0, signed(lease.epoch), until_ms, signed(horizon.0)))
}

/// Writes renewals of a group, but for those whose partition was given up, or taken, later in the same group.
pub(super) async fn write_renewals(connection: &mut SqliteConnection, renewals: &[Renewal]) -> Result<(), Error> {
    if renewals.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE partitions SET lease_until_ms = renewed.value ->> 2, horizon_ms = MAX(horizon_ms, renewed.value ->> 3)
         FROM json_each(?) AS renewed
         WHERE partition = renewed.value ->> 0 AND epoch = renewed.value ->> 1 AND owner IS NOT NULL",
    )
    .bind(json_array(renewals))
    .execute(connection)
    .await
    .map(drop)
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
