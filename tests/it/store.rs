//! The SQLite store and the bus in it, over real files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollcall::bus::embedded::Embedded;
use rollcall::bus::{Bus, Delivery, Exchange, Outgoing, PublishError, Queue, Subscription, Topology};
use rollcall::model::{Partition, Timestamp};
use rollcall::store::sqlite::{Mode, Sqlite};
use rollcall::store::{Commit, Lease, RowChange, RowKey, RowKind, Store, StoreError};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

const LEASE_MS: u64 = 15_000;
/// Far beyond what anything here takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const P0: Partition = Partition(0);

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
async fn a_second_owner_is_refused_with_a_sentence() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let Err(StoreError::Unusable(why)) = Sqlite::open(&path, Mode::Owner).await else { panic!("two owners") };
    assert!(why.contains("another process works on") && why.contains("rollcall.db"), "{why}");
    let guest = Sqlite::open(&path, Mode::Guest).await.unwrap();
    assert_eq!(guest.acquire(P0, "guest", LEASE_MS).await.unwrap(), None);
    guest.close().await;
    store.close().await;
    assert!(matches!(store.prepare(4).await, Err(StoreError::Unavailable(_))), "closed");
    Sqlite::open(&path, Mode::Owner).await.unwrap();
}

#[tokio::test]
async fn another_number_of_partitions_is_refused_with_both() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    store.prepare(16).await.unwrap();
    store.prepare(16).await.unwrap();
    let Err(StoreError::Unusable(why)) = store.prepare(8).await else { panic!("resized") };
    assert!(why.contains("16") && why.contains('8'), "{why}");
}

#[tokio::test]
async fn foreign_and_damaged_files_are_named() {
    let (folder, path) = folder();
    let refused = async |path: &Path, mode| match Sqlite::open(path, mode).await {
        Err(StoreError::Unusable(why)) => assert!(why.contains(path.to_str().unwrap()), "{why}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened"),
    };
    refused(&path, Mode::Guest).await;
    let garbage = folder.path().join("garbage.db");
    std::fs::write(&garbage, "this is no database, and longer than a header ".repeat(300)).unwrap();
    refused(&garbage, Mode::Owner).await;
    let foreign = folder.path().join("foreign.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&foreign).create_if_missing(true);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("CREATE TABLE recipes (name TEXT)").execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    refused(&foreign, Mode::Owner).await;
}

fn topology() -> Topology {
    Topology { prefix: "presence.".into(), partitions: 4 }
}

async fn bus(store: &Arc<Sqlite>) -> Arc<Embedded> {
    let bus = Embedded::new(Arc::clone(store), topology(), PATIENCE);
    bus.declare().await.unwrap();
    bus
}

fn messages(range: std::ops::Range<usize>) -> Vec<Outgoing> {
    range.map(|n| Outgoing::new(Exchange::Users, "0", n.to_string())).collect()
}

async fn next(subscription: &mut Box<dyn Subscription>) -> Delivery {
    timeout(PATIENCE, subscription.next()).await.expect("a delivery in time").unwrap()
}

async fn take(subscription: &mut Box<dyn Subscription>, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(next(subscription).await);
    }
    taken
}

fn numbers(deliveries: &[Delivery]) -> Vec<usize> {
    deliveries.iter().map(|delivery| std::str::from_utf8(&delivery.body).unwrap().parse().unwrap()).collect()
}

async fn depth(bus: &Embedded, queue: &Queue) -> (u64, u64) {
    let name = topology().queue_name(queue);
    let depths = bus.depths().await.unwrap();
    let depth = depths.into_iter().find(|depth| depth.name == name).unwrap();
    (depth.ready, depth.unacked.unwrap())
}

/// Polls until the depth is so.
async fn settles(bus: &Embedded, queue: &Queue, expected: (u64, u64)) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = depth(bus, queue).await;
        if now == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{queue}: {now:?} instead of {expected:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

const USERS: Queue = Queue::Users(P0);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_stays_in_the_database() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let bus = bus(&store).await;
    for piece in 0..20 {
        bus.publish(messages(piece * 1000..(piece + 1) * 1000)).await.unwrap();
    }
    assert_eq!(bus.buffered(), 0);
    let mut subscription = bus.subscribe(&[USERS], 500).await.unwrap();
    for round in 0..40 {
        let taken = take(&mut subscription, 500).await;
        assert_eq!(numbers(&taken), (round * 500..(round + 1) * 500).collect::<Vec<_>>());
        assert!(bus.buffered() <= 500);
        assert!(timeout(Duration::from_millis(1), subscription.next()).await.is_err(), "past the prefetch");
        subscription.ack(taken.into_iter().map(|delivery| delivery.token).collect()).await.unwrap();
    }
    settles(&bus, &USERS, (0, 0)).await;
}

#[tokio::test]
async fn after_a_crash_what_was_not_acknowledged_comes_again() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let first = bus(&store).await;
    let mut subscription = first.subscribe(&[USERS], 100).await.unwrap();
    first.publish(messages(0..10)).await.unwrap();
    let taken = take(&mut subscription, 10).await;
    let acknowledged = taken.into_iter().take(4).map(|delivery| delivery.token).collect();
    subscription.ack(acknowledged).await.unwrap();
    settles(&first, &USERS, (0, 6)).await;
    // Until the rows are gone too: an acknowledgement on its way may be lost in a crash.
    first.publish(messages(10..11)).await.unwrap();
    drop((subscription, first, store));

    let store = open(&path).await;
    let second = bus(&store).await;
    let mut subscription = second.subscribe(&[USERS], 100).await.unwrap();
    let again = take(&mut subscription, 7).await;
    assert_eq!(numbers(&again), (4..11).collect::<Vec<_>>());
    assert!(again.iter().all(|delivery| delivery.redelivered));
}

#[tokio::test]
async fn after_a_clean_end_only_what_was_delivered_counts_as_such() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let first = bus(&store).await;
    first.publish(messages(0..1000)).await.unwrap();
    let mut subscription = first.subscribe(&[USERS], 100).await.unwrap();
    take(&mut subscription, 3).await;
    first.close().await;
    drop(subscription);
    assert!(matches!(first.publish(messages(0..1)).await, Err(PublishError::Closed)));
    store.close().await;

    let store = open(&path).await;
    let second = bus(&store).await;
    assert_eq!(depth(&second, &USERS).await, (1000, 0));
    let mut subscription = second.subscribe(&[USERS], 1000).await.unwrap();
    let again = take(&mut subscription, 1000).await;
    assert_eq!(numbers(&again), (0..1000).collect::<Vec<_>>());
    let flags: Vec<bool> = again.iter().map(|delivery| delivery.redelivered).collect();
    assert_eq!(flags, [[true; 3].as_slice(), &[false; 997]].concat());
    drop(subscription);
    let mut subscription = second.subscribe(&[USERS], 1000).await.unwrap();
    let thrice = take(&mut subscription, 1000).await;
    assert_eq!(numbers(&thrice), (0..1000).collect::<Vec<_>>());
    assert!(thrice.iter().all(|delivery| delivery.redelivered));
}

#[tokio::test]
async fn what_comes_back_in_a_row_keeps_its_order_and_what_was_acknowledged_stays_away() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let bus = bus(&store).await;
    bus.publish(messages(0..600)).await.unwrap();
    let mut subscription = bus.subscribe(&[USERS], 400).await.unwrap();
    let taken = take(&mut subscription, 400).await;
    let odd = taken.into_iter().skip(1).step_by(2).map(|delivery| delivery.token).collect();
    subscription.ack(odd).await.unwrap();
    drop(subscription);
    let mut subscription = bus.subscribe(&[USERS], 400).await.unwrap();
    let again = take(&mut subscription, 400).await;
    let expected: Vec<usize> = (0..400).step_by(2).chain(400..600).collect();
    assert_eq!(numbers(&again), expected);
    assert!(again.iter().take(200).all(|delivery| delivery.redelivered));
    assert!(again.iter().skip(200).all(|delivery| !delivery.redelivered));
}

#[tokio::test]
async fn a_partition_has_one_consumer_at_a_time() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let bus = bus(&store).await;
    let mut first = bus.subscribe(&[USERS], 10).await.unwrap();
    let mut second = bus.subscribe(&[USERS], 10).await.unwrap();
    bus.publish(messages(0..3)).await.unwrap();
    assert_eq!(numbers(&take(&mut first, 3).await), [0, 1, 2]);
    assert!(second.try_next().is_none());
    let waiting = tokio::join!(take(&mut second, 3), async { drop(first) }).0;
    assert_eq!(numbers(&waiting), [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_of_a_shared_queue_compete() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let bus = bus(&store).await;
    let out = |n: usize| Outgoing::new(Exchange::Outbound, "outbound", n.to_string());
    bus.publish((0..500).map(out).collect()).await.unwrap();
    let mut first = bus.subscribe(&[Queue::Outbound], 250).await.unwrap();
    let mut second = bus.subscribe(&[Queue::Outbound], 250).await.unwrap();
    let (a, b) = tokio::join!(take(&mut first, 250), take(&mut second, 250));
    let mut all: Vec<usize> = [numbers(&a), numbers(&b)].concat();
    all.sort_unstable();
    assert_eq!(all, (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_message_that_keeps_coming_back_becomes_a_dead_letter() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let bus = bus(&store).await;
    bus.publish(messages(0..1)).await.unwrap();
    for round in 0..=Topology::DELIVERY_LIMIT {
        let mut subscription = bus.subscribe(&[USERS], 10).await.unwrap();
        assert_eq!(next(&mut subscription).await.redelivered, round > 0);
    }
    bus.publish(messages(1..2)).await.unwrap();
    let mut subscription = bus.subscribe(&[USERS], 10).await.unwrap();
    assert_eq!(numbers(&[next(&mut subscription).await]), [1], "the neighbour lives");
    let mut dead = bus.subscribe(&[Queue::Dead], 10).await.unwrap();
    let letter = next(&mut dead).await;
    assert_eq!(numbers(std::slice::from_ref(&letter)), [0]);
    assert_eq!(letter.headers.reason.as_deref(), Some("delivery limit of 50 exceeded"));
    assert_eq!(letter.headers.origin.as_deref(), Some("presence.users.0"));
    settles(&bus, &USERS, (0, 1)).await;
}

#[tokio::test]
async fn what_cannot_be_routed_is_an_error_or_a_dead_letter() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let bus = bus(&store).await;
    let nowhere = bus.publish(vec![Outgoing::new(Exchange::Users, "4", "x")]).await;
    assert!(matches!(nowhere, Err(PublishError::Unroutable { .. })), "{nowhere:?}");
    bus.publish(vec![Outgoing::new(Exchange::Inbound, "klient", "x")]).await.unwrap();
    let mut dead = bus.subscribe(&[Queue::Dead], 10).await.unwrap();
    let letter = next(&mut dead).await;
    assert!(letter.headers.reason.unwrap().contains("klient"));
    bus.publish(vec![Outgoing::new(Exchange::Updates, "edge", "x")]).await.unwrap();
}

#[tokio::test]
async fn a_guests_messages_reach_the_owner() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let bus = bus(&store).await;
    let mut subscription = bus.subscribe(&[USERS], 10).await.unwrap();
    let guest = Sqlite::open(&path, Mode::Guest).await.unwrap();
    let beside = Embedded::new(Arc::clone(&guest), topology(), PATIENCE);
    beside.publish(messages(0..2)).await.unwrap();
    bus.publish(messages(2..4)).await.unwrap();
    let mut all = numbers(&take(&mut subscription, 4).await);
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    assert_eq!(depth(&beside, &USERS).await.0, 4);
}

#[tokio::test]
async fn a_reply_reaches_the_process_that_asked() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let bus = bus(&store).await;
    let mut replies = bus.replies();
    let mut subscription = bus.subscribe(&[USERS], 10).await.unwrap();
    bus.publish(vec![Outgoing::new(Exchange::Users, "0", "x").wants_reply()]).await.unwrap();
    let address = next(&mut subscription).await.headers.reply_to.unwrap();
    bus.reply("local-of-a-former-life", "lost".into()).await;
    bus.reply(&address, "applied".into()).await;
    assert_eq!(timeout(PATIENCE, replies.recv()).await.unwrap().unwrap().body, "applied");
}
