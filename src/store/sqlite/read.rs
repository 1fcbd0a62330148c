//! Reads: on connections of their own, from a snapshot of what is committed.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Error, Row};

use crate::model::{Partition, Timestamp};
use crate::store::{OutboxRow, Ownership, RowKey, RowKind};

/// See [`crate::store::Store::load`].
pub(super) async fn load(pool: &SqlitePool, partition: Partition) -> Result<Vec<(RowKey, Bytes)>, Error> {
    sqlx::query("SELECT kind, key, value FROM state WHERE partition = ? ORDER BY kind, key")
        .bind(partition.0)
        .fetch(pool)
        .and_then(async |row| state_row(&row))
        .try_collect()
        .await
}

fn state_row(row: &SqliteRow) -> Result<(RowKey, Bytes), Error> {
    let number: u8 = row.try_get(0)?;
    let unknown = || Error::Decode(format!("a row of kind {number}: written by a later release?").into());
    let kind = RowKind::from_number(number).ok_or_else(unknown)?;
    Ok((RowKey { kind, key: row.try_get(1)? }, Bytes::from(row.try_get::<Vec<u8>, _>(2)?)))
}

/// See [`crate::store::Store::outbox`].
pub(super) async fn outbox(pool: &SqlitePool, partition: Partition) -> Result<Vec<OutboxRow>, Error> {
    let rows: Vec<(i64, i64, Vec<u8>)> =
        sqlx::query_as("SELECT epoch, number, body FROM outbox WHERE partition = ? ORDER BY epoch, number")
            .bind(partition.0)
            .fetch_all(pool)
            .await?;
    let outbox_row = |(epoch, number, body): (i64, i64, Vec<u8>)| OutboxRow {
        epoch: epoch.unsigned_abs(),
        number: number.unsigned_abs(),
        body: body.into(),
    };
    Ok(rows.into_iter().map(outbox_row).collect())
}

/// See [`crate::store::Store::read`].
pub(super) async fn row(pool: &SqlitePool, partition: Partition, key: &RowKey) -> Result<Option<Bytes>, Error> {
    let value: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT value FROM state WHERE partition = ? AND kind = ? AND key = ?")
            .bind(partition.0)
            .bind(key.kind as i32)
            .bind(&key.key)
            .fetch_optional(pool)
            .await?;
    Ok(value.map(Bytes::from))
}

/// See [`crate::store::Store::read_many`]. One statement however many they are: each costs a way to the connection's thread and back.
pub(super) async fn rows(
    pool: &SqlitePool,
    partition: Partition,
    kind: RowKind,
    keys: &[String],
) -> Result<BTreeMap<String, Bytes>, Error> {
    let keys = serde_json::to_string(keys).map_err(|error| Error::Encode(error.into()))?;
    let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
        "SELECT key, value FROM state WHERE partition = ? AND kind = ? AND key IN (SELECT value FROM json_each(?))",
    )
    .bind(partition.0)
    .bind(kind as i32)
    .bind(keys)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(key, value)| (key, Bytes::from(value))).collect())
}

/// See [`crate::store::Store::count`]. One range of the tree per partition.
pub(super) async fn count(pool: &SqlitePool, kind: RowKind) -> Result<u64, Error> {
    let rows: i64 = sqlx::query_scalar(
        "SELECT COALESCE(SUM((SELECT COUNT(*) FROM state WHERE state.partition = partitions.partition AND kind = ?)), 0)
         FROM partitions",
    )
    .bind(kind as i32)
    .fetch_one(pool)
    .await?;
    Ok(rows.unsigned_abs())
}

/// See [`crate::store::Store::ownerships`].
pub(super) async fn ownerships(pool: &SqlitePool) -> Result<Vec<Ownership>, Error> {
    let rows: Vec<(u16, Option<String>, i64, i64)> = sqlx::query_as(
        "SELECT partition, IIF(lease_until_ms > unixepoch('subsec') * 1000, owner, NULL), epoch, horizon_ms
         FROM partitions ORDER BY partition",
    )
    .fetch_all(pool)
    .await?;
    let ownership = |(partition, owner, epoch, horizon): (u16, Option<String>, i64, i64)| Ownership {
        partition: Partition(partition),
        owner,
        epoch: epoch.unsigned_abs(),
        horizon: Timestamp(horizon.unsigned_abs()),
    };
    Ok(rows.into_iter().map(ownership).collect())
}
