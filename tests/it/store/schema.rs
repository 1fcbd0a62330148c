//! A store that an earlier release left.

use sqlx::AssertSqlSafe;

use super::{Commit, Mode, P0, Sqlite, Store as _, commit, connect, folder, key, open, owned, put};
use rollcall::store::RowKind;

/// The outbox as it was before its rows had numbers of their own.
const BEFORE: &str = "
DROP TABLE outbox;
CREATE TABLE outbox (
    partition INTEGER NOT NULL, epoch INTEGER NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (partition, epoch, number)
) WITHOUT ROWID;
INSERT INTO outbox SELECT * FROM kept;
DROP TABLE kept;
DELETE FROM _sqlx_migrations WHERE version = 2;";

#[tokio::test]
async fn what_an_earlier_release_did_not_publish_is_still_there() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let (lease, row) = (owned(&store, P0).await, key(RowKind::User, "@john:a.example"));
    let run = |number| Commit { outbox: Some((number, format!("run {number}").into())), ..commit(lease, vec![]) };
    store.commit(Commit { rows: vec![put(&row, "there")], ..run(1) }).await.unwrap();
    store.commit(run(2)).await.unwrap();
    store.close().await;
    drop(store);

    let mut connection = connect(&path).await;
    let kept = "CREATE TABLE kept AS SELECT partition, epoch, number, body FROM outbox;";
    sqlx::raw_sql(AssertSqlSafe(format!("{kept}{BEFORE}"))).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();

    let store = Sqlite::open(&path, Mode::Owner).await.unwrap();
    let left: Vec<_> = store.outbox(P0).await.unwrap().into_iter().map(|row| (row.number, row.body)).collect();
    assert_eq!(left, [(1, "run 1".into()), (2, "run 2".into())]);
    assert_eq!(store.load(P0).await.unwrap(), [(row, "there".into())]);
    let lease = owned(&store, P0).await;
    store.commit(Commit { published: Some((lease.epoch, 0)), ..commit(lease, vec![]) }).await.unwrap();
    assert!(store.outbox(P0).await.unwrap().is_empty());
}
