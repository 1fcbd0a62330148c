//! What a group of jobs writes, merged: one statement for many callers' rows.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use serde::Serialize;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Arguments, Error};

use super::bulk::{Bulk, Piece};
use super::bus::BusRow;
use super::ownership::{Renewal, write_renewals};
use crate::model::Partition;
use crate::store::{Commit, RowChange};

/// The same as an upsert here, where nothing but the primary key can be in conflict, and a fifth faster.
static UPSERT: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new("REPLACE INTO state (partition, kind, key, value) VALUES", "(?,?,?,?)", ""));
static DELETE: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new("DELETE FROM state WHERE (partition, kind, key) IN (VALUES", "(?,?,?)", ")"));
static OUTBOX: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new("INSERT INTO outbox (partition, epoch, number, body) VALUES", "(?,?,?,?)", ""));
static PUBLISH: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new("INSERT INTO bus (queue, body, headers, published_ms) VALUES", "(?,?,?,?)", ""));

/// Deletes what is published, and commits. `CROSS JOIN`: SQLite then looks each partition's rows up, rather than every row's partition.
const COMMIT_PUBLISHED: &str = "
DELETE FROM outbox WHERE (partition, epoch, number) IN (
    SELECT kept.partition, kept.epoch, kept.number FROM json_each(?) AS upto CROSS JOIN outbox AS kept
    WHERE kept.partition = upto.value ->> 0 AND (kept.epoch, kept.number) <= (upto.value ->> 1, upto.value ->> 2)
);
COMMIT";

/// Borrows from the jobs: they may have to be tried again.
#[derive(Default)]
pub(super) struct Batch<'a> {
    rows: Vec<(Partition, &'a RowChange)>,
    outbox: Vec<(Partition, u64, u64, &'a Bytes)>,
    published: BTreeMap<Partition, (u64, u64)>,
    renewals: Vec<Renewal>,
    inserts: Vec<&'a BusRow>,
    deletes: Vec<i64>,
}

impl<'a> Batch<'a> {
    /// Adds a commit that passed the fence.
    pub(super) fn commit(&mut self, commit: &'a Commit) {
        let partition = commit.partition;
        self.rows.extend(commit.rows.iter().map(|row| (partition, row)));
        if let Some((number, body)) = &commit.outbox {
            self.outbox.push((partition, commit.epoch, *number, body));
        }
        if let Some(upto) = commit.published {
            let newest = self.published.entry(partition).or_default();
            *newest = upto.max(*newest);
        }
    }

    /// Adds a lease that goes on.
    pub(super) fn renew(&mut self, renewal: Renewal) {
        self.renewals.push(renewal);
    }

    /// Adds rows to come to and go from the bus.
    pub(super) fn bus(&mut self, inserts: &'a [BusRow], deletes: &[i64]) {
        self.inserts.extend(inserts);
        self.deletes.extend(deletes);
    }

    /// Writes everything within the open transaction but for what [`Self::commit_all`] does. Answers the IDs of the bus rows, in the order
    /// in which they were added.
    pub(super) async fn write(&mut self, connection: &mut SqliteConnection, now_ms: i64) -> Result<Vec<i64>, Error> {
        self.write_state(connection).await?;
        self.write_outbox(connection).await?;
        write_renewals(connection, &self.renewals).await?;
        let ids = self.write_bus(connection, now_ms).await?;
        delete_bus(connection, &self.deletes).await?;
        Ok(ids)
    }

    async fn write_state(&mut self, connection: &mut SqliteConnection) -> Result<(), Error> {
        newest_in_key_order(&mut self.rows);
        let (upserts, deletes): (Vec<_>, Vec<_>) = self.rows.drain(..).partition(|(_, row)| row.value.is_some());
        UPSERT
            .run(connection, &upserts, |arguments, (partition, row)| {
                arguments.add(i64::from(partition.0))?;
                arguments.add(row.key.kind as i32)?;
                arguments.add(row.key.key.as_str())?;
                arguments.add(row.value.as_deref().unwrap_or_default())
            })
            .await?;
        DELETE
            .run(connection, &deletes, |arguments, (partition, row)| {
                arguments.add(i64::from(partition.0))?;
                arguments.add(row.key.kind as i32)?;
                arguments.add(row.key.key.as_str())
            })
            .await?;
        Ok(())
    }

    /// Deletes what is published, which may have been written in this very group, and commits: one question, as at the beginning.
    pub(super) async fn commit_all(self, connection: &mut SqliteConnection) -> Result<(), Error> {
        if self.published.is_empty() {
            return sqlx::query("COMMIT").execute(connection).await.map(drop);
        }
        let upto: Vec<_> =
            self.published.iter().map(|(partition, (epoch, number))| (partition.0, epoch, number)).collect();
        sqlx::query(COMMIT_PUBLISHED).bind(json_array(&upto)).execute(connection).await.map(drop)
    }

    async fn write_outbox(&mut self, connection: &mut SqliteConnection) -> Result<(), Error> {
        OUTBOX
            .run(connection, &self.outbox, |arguments, (partition, epoch, number, body)| {
                arguments.add(i64::from(partition.0))?;
                arguments.add(signed(*epoch))?;
                arguments.add(signed(*number))?;
                arguments.add(&body[..])
            })
            .await?;
        Ok(())
    }

    async fn write_bus(&self, connection: &mut SqliteConnection, now_ms: i64) -> Result<Vec<i64>, Error> {
        let pieces = PUBLISH
            .run(connection, &self.inserts, |arguments, row| {
                arguments.add(row.queue.clone())?;
                arguments.add(&row.body[..])?;
                arguments.add(row.headers.as_deref())?;
                arguments.add(now_ms)
            })
            .await?;
        Ok(pieces.iter().flat_map(ids).collect())
    }
}

/// Sorts by key, because neighbours share pages; of several changes of one row the last stays.
fn newest_in_key_order(rows: &mut Vec<(Partition, &RowChange)>) {
    rows.sort_by(|(p, a), (q, b)| (p, &a.key).cmp(&(q, &b.key)));
    rows.dedup_by(|later, kept| {
        let same = later.0 == kept.0 && later.1.key == kept.1.key;
        if same {
            *kept = *later;
        }
        same
    });
}

/// AUTOINCREMENT within a transaction that alone may write: the rows of one statement have consecutive IDs.
fn ids(piece: &Piece) -> std::ops::RangeInclusive<i64> {
    let rows = i64::try_from(piece.rows).expect("at most 256");
    piece.last_id - rows + 1..=piece.last_id
}

async fn delete_bus(connection: &mut SqliteConnection, ids: &[i64]) -> Result<(), Error> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query("DELETE FROM bus WHERE id IN (SELECT value FROM json_each(?))")
        .bind(json_array(ids))
        .execute(connection)
        .await?;
    Ok(())
}

/// Any number of rows as one argument: one statement for all sizes.
pub(super) fn json_array(rows: &[impl Serialize]) -> String {
    serde_json::to_string(rows).expect("numbers are JSON")
}

/// SQLite's integers are signed. Epochs and numbers start near the present time in seconds and count up: they never get there.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{RowKey, RowKind};

    #[test]
    fn the_last_change_of_a_row_stays() {
        let change = |key: &str, value: Option<&'static str>| RowChange {
            key: RowKey { kind: RowKind::User, key: key.into() },
            value: value.map(Bytes::from),
        };
        let changes = [change("b", Some("1")), change("a", Some("2")), change("b", None), change("b", Some("3"))];
        let mut rows: Vec<_> = changes.iter().map(|change| (Partition(0), change)).collect();
        newest_in_key_order(&mut rows);
        let kept: Vec<_> = rows.iter().map(|(_, row)| (row.key.key.as_str(), row.value.as_deref())).collect();
        assert_eq!(kept, [("a", Some(&b"2"[..])), ("b", Some(&b"3"[..]))]);
    }
}
