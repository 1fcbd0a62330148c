//! The rows of the embedded bus: queues as one table, written by the same writer as everything else.

use std::sync::Arc;

use bytes::Bytes;
use sqlx::Error;
use sqlx::sqlite::SqliteConnection;

use super::batch::{json_array, signed};
use super::writer::Work;
use super::{Sqlite, unavailable};
use crate::store::StoreError;

/// Rows of each queue that may have been delivered when the process died: the largest prefetch.
const PREFETCH_MAX: i64 = 2000;
/// Rows looked at at once when old ones are dropped.
const TRIM_ROWS: i64 = 256;

/// A message to be stored.
#[derive(Debug, Clone)]
pub(crate) struct BusRow {
    /// The queue's full name.
    pub(crate) queue: Arc<str>,
    /// The payload.
    pub(crate) body: Bytes,
    /// What travels beside it, encoded; `None`: nothing does.
    pub(crate) headers: Option<String>,
}

/// A stored message.
#[derive(Debug, Clone)]
pub(crate) struct StoredRow {
    /// Grows in the order of publishing, over all queues.
    pub(crate) id: i64,
    /// The payload.
    pub(crate) body: Bytes,
    /// What travels beside it, encoded.
    pub(crate) headers: Option<String>,
    /// How often it was delivered and came back.
    pub(crate) deliveries: u32,
}

/// Hears of what was committed, in the order of commits, from the writer itself: must be quick and never wait.
pub(crate) trait BusWatch: Send + Sync {
    /// These rows came, these went.
    fn changed(&self, inserted: Vec<(i64, &BusRow)>, deleted: &[i64]);

    /// How many rows each queue has now (an empty one is not named). Others than this process may have written some of them.
    fn counted(&self, census: &[(String, u64)]);
}

/// A shared watch.
pub(crate) type SharedWatch = Arc<dyn BusWatch>;

impl Sqlite {
    /// Stores and deletes messages, all or nothing; `watch` hears of it before this returns.
    pub(crate) async fn bus_write(
        &self,
        inserts: Vec<BusRow>,
        deletes: Vec<i64>,
        watch: SharedWatch,
    ) -> Result<(), StoreError> {
        self.writer.submit(Work::Bus { inserts, deletes, watch }).await.map(drop)
    }

    /// Counts one more delivery of each.
    pub(crate) async fn bus_returned(&self, ids: Vec<i64>) -> Result<(), StoreError> {
        self.writer.submit(Work::Returned(ids)).await.map(drop)
    }

    /// Asks whether other processes wrote; if so, or if `always`, `watch` gets the count of every queue.
    pub(crate) async fn bus_recount(&self, always: bool, watch: SharedWatch) -> Result<(), StoreError> {
        self.writer.submit(Work::Recount { always, watch }).await.map(drop)
    }

    /// At most `limit` messages of a queue after `after`, oldest first.
    pub(crate) async fn bus_read(&self, queue: &str, after: i64, limit: usize) -> Result<Vec<StoredRow>, StoreError> {
        let rows: Vec<(i64, Vec<u8>, Option<String>, u32)> = sqlx::query_as(
            "SELECT id, body, headers, deliveries FROM bus WHERE queue = ? AND id > ? ORDER BY id LIMIT ?",
        )
        .bind(queue)
        .bind(after)
        .bind(signed(limit as u64))
        .fetch_all(&self.pool)
        .await
        .map_err(|error| unavailable(&error))?;
        let stored = |(id, body, headers, deliveries)| StoredRow { id, body: Bytes::from(body), headers, deliveries };
        Ok(rows.into_iter().map(stored).collect())
    }

    /// The oldest messages of a queue that are older than `ttl_ms` or exceed `max_bytes` of bodies; few at a time.
    pub(crate) async fn bus_surplus(&self, queue: &str, ttl_ms: i64, max_bytes: i64) -> Result<Vec<i64>, StoreError> {
        let bytes: i64 = sqlx::query_scalar("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM bus WHERE queue = ?")
            .bind(queue)
            .fetch_one(&self.pool)
            .await
            .map_err(|error| unavailable(&error))?;
        let oldest: Vec<(i64, i64, bool)> = sqlx::query_as(
            "SELECT id, LENGTH(body), published_ms < unixepoch('subsec') * 1000 - ?
             FROM bus WHERE queue = ? ORDER BY id LIMIT ?",
        )
        .bind(ttl_ms)
        .bind(queue)
        .bind(TRIM_ROWS)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| unavailable(&error))?;
        Ok(surplus(&oldest, bytes - max_bytes))
    }
}

/// Drops from the head while a row is too old or `excess` bytes are still too many.
fn surplus(oldest: &[(i64, i64, bool)], mut excess: i64) -> Vec<i64> {
    let drops = oldest.iter().take_while(|(_, bytes, expired)| {
        let goes = *expired || excess > 0;
        excess -= bytes;
        goes
    });
    drops.map(|(id, ..)| *id).collect()
}

/// How many rows each queue has: of the index only.
pub(super) async fn census(connection: &mut SqliteConnection) -> Result<Vec<(String, u64)>, Error> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT queue, COUNT(*) FROM bus GROUP BY queue").fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(queue, count)| (queue, count.unsigned_abs())).collect())
}

/// These were delivered once more and not acknowledged.
pub(super) async fn count_delivery(connection: &mut SqliteConnection, ids: &[i64]) -> Result<(), Error> {
    sqlx::query("UPDATE bus SET deliveries = deliveries + 1 WHERE id IN (SELECT value FROM json_each(?))")
        .bind(json_array(ids))
        .execute(connection)
        .await?;
    Ok(())
}

/// After an unclean end: whatever may have been delivered counts as delivered. Dead letters are only looked at, which never counts.
pub(super) async fn count_lost_deliveries(connection: &mut SqliteConnection) -> Result<(), Error> {
    let queues: Vec<String> = sqlx::query_scalar("SELECT DISTINCT queue FROM bus WHERE queue NOT LIKE '%dead'")
        .fetch_all(&mut *connection)
        .await?;
    for queue in queues {
        sqlx::query(
            "UPDATE bus SET deliveries = deliveries + 1
             WHERE id IN (SELECT id FROM bus WHERE queue = ? ORDER BY id LIMIT ?)",
        )
        .bind(queue)
        .bind(PREFETCH_MAX)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::sqlite::Mode;

    struct Nobody;

    impl BusWatch for Nobody {
        fn changed(&self, _: Vec<(i64, &BusRow)>, _: &[i64]) {}
        fn counted(&self, _: &[(String, u64)]) {}
    }

    #[test]
    fn the_head_goes_first_and_no_more_than_must() {
        let rows = [(1, 10, true), (2, 10, false), (3, 10, false), (4, 10, true)];
        assert_eq!(surplus(&rows, -1), [1], "a row behind one that stays is left for later");
        assert_eq!(surplus(&rows, 15), [1, 2]);
        assert_eq!(surplus(&rows, 100), [1, 2, 3, 4]);
        assert!(surplus(&[], 5).is_empty());
    }

    #[tokio::test]
    async fn surplus_is_what_is_too_old_or_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("s.db"), Mode::Owner).await.unwrap();
        let row = |queue: &str| BusRow { queue: queue.into(), body: Bytes::from_static(&[0; 100]), headers: None };
        let rows = ["dead", "users", "dead", "dead"].map(row).to_vec();
        store.bus_write(rows, vec![], Arc::new(Nobody)).await.unwrap();
        let hour = 3_600_000;
        assert!(store.bus_surplus("dead", hour, 300).await.unwrap().is_empty());
        assert_eq!(store.bus_surplus("dead", hour, 250).await.unwrap(), [1]);
        assert_eq!(store.bus_surplus("dead", hour, 150).await.unwrap(), [1, 3]);
        // Younger than nothing: everything was published longer ago than an hour from now.
        assert_eq!(store.bus_surplus("dead", -hour, 300).await.unwrap(), [1, 3, 4]);
        store.close().await;
    }
}
