//! The SQLite store, over real files.

mod bus;
mod schema;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollcall::model::{Partition, ServerName, Timestamp};
use rollcall::store::sqlite::{Mode, Sqlite};
use rollcall::store::{Commit, Lease, RowChange, RowKey, RowKind, Store, StoreError};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const LEASE_MS: u64 = 15_000;
/// Far beyond what anything here takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const P0: Partition = Partition(0);
const P1: Partition = Partition(1);

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data").join("rollcall.db");
    (folder, path)
}

/// Opens the file, waiting for a former owner's end.
async fn open(path: &Path) -> Arc<Sqlite> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Sqlite::open(path, Mode::Owner).await {
            Ok(store) => return store,
            Err(error) if Instant::now() > deadline => panic!("{error}"),
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn owned(store: &Sqlite, partition: Partition) -> Lease {
    store.acquire(partition, "worker", LEASE_MS).await.unwrap().expect("nobody else wants it")
}

fn key(kind: RowKind, key: &str) -> RowKey {
    RowKey { kind, key: key.into() }
}

fn put(key: &RowKey, value: &str) -> RowChange {
    RowChange { key: key.clone(), value: Some(Bytes::from(value.to_owned())) }
}

fn commit(lease: Lease, rows: Vec<RowChange>) -> Commit {
    Commit { partition: lease.partition, epoch: lease.epoch, rows, outbox: None, published: None }
}

#[tokio::test]
async fn an_old_epoch_is_fenced_and_writes_nothing() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let old = owned(&store, P0).await;
    let new = owned(&store, P0).await;
    assert!(new.epoch > old.epoch);
    let row = key(RowKind::User, "@a:x");
    let mut late = commit(old, vec![put(&row, "old")]);
    late.outbox = Some((1, "said".into()));
    assert!(matches!(store.commit(late).await, Err(StoreError::Fenced(P0))));
    assert_eq!(store.read(P0, &row).await.unwrap(), None);
    assert!(store.outbox(P0).await.unwrap().is_empty());
    store.commit(commit(new, vec![put(&row, "new")])).await.unwrap();
    assert_eq!(store.read(P0, &row).await.unwrap(), Some("new".into()));
    assert!(matches!(store.renew(old, LEASE_MS, Timestamp(5)).await, Err(StoreError::Fenced(P0))));
    assert!(matches!(store.release(old).await, Err(StoreError::Fenced(P0))));
}

#[tokio::test]
async fn many_rows_are_read_at_once_whatever_their_keys_hold() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let keys = ["@a:x", "@\"quoted\\\":x", "@ünïcode:x", "a\0b"];
    for partition in [P0, P1] {
        let lease = owned(&store, partition).await;
        let rows = keys.iter().map(|name| put(&key(RowKind::Remote, name), name)).collect();
        store.commit(commit(lease, rows)).await.unwrap();
        let others = vec![put(&key(RowKind::User, "@a:x"), "of another kind"), put(&key(RowKind::Remote, "@z:x"), "z")];
        store.commit(commit(lease, others)).await.unwrap();
    }
    let wanted = [&keys[..], &["@missing:x"]].concat().into_iter().map(String::from).collect();
    let found = store.read_many(P1, RowKind::Remote, wanted).await.unwrap();
    let expected = keys.iter().map(|name| ((*name).to_owned(), Bytes::from(*name))).collect();
    assert_eq!(found, expected);
    assert!(store.read_many(P1, RowKind::Remote, vec![]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_released_partition_has_no_owner_and_takes_no_commit() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let lease = owned(&store, P0).await;
    store.renew(lease, LEASE_MS, Timestamp(77)).await.unwrap();
    let before = &store.ownerships().await.unwrap()[0];
    assert_eq!((before.owner.as_deref(), before.epoch, before.horizon), (Some("worker"), lease.epoch, Timestamp(77)));
    store.release(lease).await.unwrap();
    let after = &store.ownerships().await.unwrap()[0];
    assert_eq!((after.owner.as_deref(), after.epoch, after.horizon), (None, lease.epoch, Timestamp(77)));
    let late = commit(lease, vec![put(&key(RowKind::User, "@a:x"), "late")]);
    assert!(matches!(store.commit(late).await, Err(StoreError::Fenced(P0))));
}

#[tokio::test]
async fn a_living_owner_of_this_process_keeps_its_partition() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    owned(&store, P0).await;
    assert_eq!(store.acquire(P0, "other", LEASE_MS).await.unwrap(), None);
    let elsewhere = store.acquire(Partition(1), "other", 0).await.unwrap().expect("it is free");
    assert!(store.acquire(Partition(1), "third", LEASE_MS).await.unwrap().unwrap().epoch > elsewhere.epoch);
}

#[tokio::test]
async fn epochs_grow_over_partitions_and_restarts_and_never_fall_behind_the_clock() {
    let (_folder, path) = folder();
    let mut last = 0;
    for round in 0..3 {
        let store = open(&path).await;
        for partition in [P0, Partition(1), P0] {
            let lease = owned(&store, partition).await;
            assert!(lease.epoch > last, "round {round}: {} after {last}", lease.epoch);
            last = lease.epoch;
        }
        if round == 1 {
            store.close().await;
        }
    }
    // 2020-01-01: an epoch is at least the seconds of the clock.
    assert!(last > 1_577_836_800);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commits_share_few_transactions() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let mut leases = Vec::new();
    for partition in 0..8 {
        leases.push(owned(&store, Partition(partition)).await);
    }
    let before = store.stats();
    let commits = (0..1000).map(|n: usize| {
        let row = key(RowKind::User, &format!("@{n}:x"));
        store.commit(commit(leases[n % 8], vec![put(&row, "v")]))
    });
    for outcome in futures_util::future::join_all(commits).await {
        outcome.unwrap();
    }
    let after = store.stats();
    assert_eq!(after.jobs - before.jobs, 1000);
    assert!(after.transactions - before.transactions < 50, "{before:?} {after:?}");
    assert_eq!(store.count(RowKind::User).await.unwrap(), 1000);
    assert_eq!(store.count(RowKind::Link).await.unwrap(), 0);
}

#[tokio::test]
async fn a_refused_commit_takes_no_neighbour_with_it() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let lease = owned(&store, P0).await;
    let said = |n: u64| {
        let row = key(RowKind::User, &format!("@{n}:x"));
        // Number 30 is given twice: the second time the database refuses it.
        let number = if n == 60 { 30 } else { n };
        Commit { outbox: Some((number, "said".into())), ..commit(lease, vec![put(&row, "v")]) }
    };
    let outcomes = futures_util::future::join_all((0..100).map(|n| store.commit(said(n)))).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_ok(), n != 60, "{n}: {outcome:?}");
    }
    assert!(matches!(outcomes[60], Err(StoreError::Unavailable(_))), "{:?}", outcomes[60]);
    assert_eq!(store.count(RowKind::User).await.unwrap(), 99);
    assert_eq!(store.read(P0, &key(RowKind::User, "@60:x")).await.unwrap(), None);
    assert_eq!(store.outbox(P0).await.unwrap().len(), 99);
}

#[tokio::test]
async fn commits_of_one_row_apply_in_order() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let lease = owned(&store, P0).await;
    let row = key(RowKind::Link, "b.example");
    let change = |n: u32| match n {
        49 => RowChange { key: row.clone(), value: None },
        n => put(&row, &n.to_string()),
    };
    futures_util::future::join_all((0..50).map(|n| store.commit(commit(lease, vec![change(n)])))).await;
    assert_eq!(store.read(P0, &row).await.unwrap(), None);
    futures_util::future::join_all((0..40).map(|n| store.commit(commit(lease, vec![change(n)])))).await;
    assert_eq!(store.read(P0, &row).await.unwrap(), Some("39".into()));
}

#[tokio::test]
async fn load_answers_one_partition_by_kind_then_key() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let (lease, other) = (owned(&store, P0).await, owned(&store, Partition(1)).await);
    let mut keys: Vec<RowKey> =
        (0..700).map(|n| key(RowKind::ALL[n % 5], &format!("{}\0{n}", n * 7919 % 700))).collect();
    store.commit(commit(lease, keys.iter().map(|key| put(key, &key.key)).collect())).await.unwrap();
    store.commit(commit(other, vec![put(&keys[0], "elsewhere")])).await.unwrap();
    let gone = keys.split_off(650).into_iter().map(|key| RowChange { key, value: None }).collect();
    store.commit(commit(lease, gone)).await.unwrap();
    keys.sort();
    let loaded = store.load(P0).await.unwrap();
    assert_eq!(loaded.iter().map(|(key, _)| key).collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
    assert!(loaded.iter().all(|(key, value)| value == key.key.as_bytes()));
}

#[tokio::test]
async fn the_outbox_holds_what_was_not_published() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let old = owned(&store, P0).await;
    for number in 1..=3 {
        let run = Commit { outbox: Some((number, format!("old {number}").into())), ..commit(old, vec![]) };
        store.commit(run).await.unwrap();
    }
    let new = owned(&store, P0).await;
    let run = Commit { outbox: Some((1, "new 1".into())), published: Some((old.epoch, 2)), ..commit(new, vec![]) };
    store.commit(run).await.unwrap();
    let bodies = |rows: Vec<rollcall::store::OutboxRow>| rows.into_iter().map(|row| row.body).collect::<Vec<_>>();
    assert_eq!(bodies(store.outbox(P0).await.unwrap()), ["old 3", "new 1"]);
    store.commit(Commit { published: Some((new.epoch, 1)), ..commit(new, vec![]) }).await.unwrap();
    assert!(store.outbox(P0).await.unwrap().is_empty());
}

#[tokio::test]
async fn partitions_that_commit_together_keep_what_each_did_not_publish() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let leases = [owned(&store, P0).await, owned(&store, P1).await, owned(&store, Partition(2)).await];
    for lease in leases {
        for number in 1..=3 {
            let run = Commit { outbox: Some((number, format!("{number}").into())), ..commit(lease, vec![]) };
            store.commit(run).await.unwrap();
        }
    }
    let published = |lease: Lease, upto| Commit { published: Some((lease.epoch, upto)), ..commit(lease, vec![]) };
    let [first, second, _third] = leases;
    let (a, b) = tokio::join!(store.commit(published(first, 2)), store.commit(published(second, 1)));
    a.and(b).unwrap();
    for (lease, left) in leases.into_iter().zip([1, 2, 3]) {
        assert_eq!(store.outbox(lease.partition).await.unwrap().len(), left, "{}", lease.partition);
    }
}

#[tokio::test]
async fn a_second_owner_is_refused_with_a_sentence() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let Err(StoreError::InUse(why)) = Sqlite::open(&path, Mode::Owner).await else { panic!("two owners") };
    assert!(why.contains("another process works on") && why.contains("rollcall.db"), "{why}");
    let guest = Sqlite::open(&path, Mode::Guest).await.unwrap();
    assert_eq!(guest.acquire(P0, "guest", LEASE_MS).await.unwrap(), None);
    guest.close().await;
    store.close().await;
    assert!(matches!(store.prepare(&ours(), 4).await, Err(StoreError::Unavailable(_))), "closed");
    Sqlite::open(&path, Mode::Owner).await.unwrap();
}

#[tokio::test]
async fn another_number_of_partitions_is_refused_with_both() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    store.prepare(&ours(), 16).await.unwrap();
    store.prepare(&ours(), 16).await.unwrap();
    let Err(StoreError::Unusable(why)) = store.prepare(&ours(), 8).await else { panic!("resized") };
    for part in ["partitions = 16", "says 8", path.to_str().unwrap()] {
        assert!(why.contains(part), "no {part} in: {why}");
    }
}

#[tokio::test]
async fn another_server_name_is_refused_with_both() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    store.prepare(&ours(), 16).await.unwrap();
    let Err(StoreError::Unusable(why)) = store.prepare(&theirs(), 16).await else { panic!("renamed") };
    for part in ["server_name = \"a.example\"", "says \"b.example\"", path.to_str().unwrap()] {
        assert!(why.contains(part), "no {part} in: {why}");
    }
    store.prepare(&ours(), 16).await.unwrap();
}

#[tokio::test]
async fn a_store_without_a_name_takes_the_first_that_comes_with_the_right_partitions() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    store.prepare(&ours(), 16).await.unwrap();
    let mut beside = connect(&path).await;
    sqlx::query("DELETE FROM meta WHERE key = 'server_name'").execute(&mut beside).await.unwrap();
    assert!(matches!(store.prepare(&theirs(), 8).await, Err(StoreError::Unusable(_))));
    store.prepare(&ours(), 16).await.unwrap();
    assert!(matches!(store.prepare(&theirs(), 16).await, Err(StoreError::Unusable(_))));
}

fn ours() -> ServerName {
    ServerName::parse("a.example").unwrap()
}

fn theirs() -> ServerName {
    ServerName::parse("b.example").unwrap()
}

/// A connection of one's own, which makes the file if need be.
async fn connect(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
}

#[tokio::test]
async fn a_new_store_is_for_its_owner_alone() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let lease = owned(&store, P0).await;
    store.commit(commit(lease, vec![put(&key(RowKind::User, "@a:x"), "v")])).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for end in ["", ".lock", "-wal", "-shm"] {
        let file = PathBuf::from(format!("{}{end}", path.display()));
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn what_was_there_keeps_its_mode() {
    let (_folder, path) = folder();
    let (parent, open_to_all) = (path.parent().unwrap(), fs::Permissions::from_mode(0o755));
    fs::create_dir(parent).unwrap();
    fs::set_permissions(parent, open_to_all).unwrap();
    let _store = open(&path).await;
    assert_eq!(fs::metadata(parent).unwrap().permissions().mode() & 0o777, 0o755);
}

#[tokio::test]
async fn a_guest_without_a_store_asks_whether_there_was_a_start() {
    let (_folder, path) = folder();
    let asked = async || match Sqlite::open(&path, Mode::Guest).await {
        Err(StoreError::Unavailable(why)) => why,
        other => panic!("{:?}", other.err()),
    };
    let expected = format!("there is no store at {} yet: ", path.display());
    let why = asked().await;
    assert!(why.starts_with(&expected) && why.contains("data_dir"), "{why}");
    assert!(!path.parent().unwrap().exists(), "asking makes nothing");
    // As an owner leaves it that dies in its first moment.
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "").unwrap();
    assert!(asked().await.starts_with(&expected));
}

#[tokio::test]
async fn foreign_and_damaged_files_are_named() {
    let (folder, path) = folder();
    let refused = async |path: &Path| match Sqlite::open(path, Mode::Owner).await {
        Err(StoreError::Unusable(why)) => assert!(why.contains(path.to_str().unwrap()), "{why}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened"),
    };
    let Err(StoreError::Unavailable(why)) = Sqlite::open(&path, Mode::Guest).await else { panic!("no store") };
    assert!(why.contains(path.to_str().unwrap()) && why.contains("no store at"), "{why}");
    let garbage = folder.path().join("garbage.db");
    fs::write(&garbage, "this is no database, and longer than a header ".repeat(300)).unwrap();
    refused(&garbage).await;
    let foreign = folder.path().join("foreign.db");
    let mut connection = connect(&foreign).await;
    sqlx::query("CREATE TABLE recipes (name TEXT)").execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    refused(&foreign).await;
}
