//! What is particular to the bus in the store; the contract of every bus is tested elsewhere.

use std::sync::Arc;
use std::time::Duration;

use rollcall::bus::embedded::Embedded;
use rollcall::bus::{Bus, Delivery, Exchange, Outgoing, PublishError, Queue, Subscription, Topology};
use rollcall::store::Store;
use rollcall::store::sqlite::{Mode, Sqlite};
use tokio::time::{Instant, sleep, timeout};

use super::{P0, PATIENCE, folder, open};

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
    let mut subscription = bus.subscribe(&[(USERS, 500)]).await.unwrap();
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
    let mut subscription = first.subscribe(&[(USERS, 100)]).await.unwrap();
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
    let mut subscription = second.subscribe(&[(USERS, 100)]).await.unwrap();
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
    let mut subscription = first.subscribe(&[(USERS, 100)]).await.unwrap();
    take(&mut subscription, 3).await;
    first.close().await;
    drop(subscription);
    assert!(matches!(first.publish(messages(0..1)).await, Err(PublishError::Closed)));
    store.close().await;

    let store = open(&path).await;
    let second = bus(&store).await;
    assert_eq!(depth(&second, &USERS).await, (1000, 0));
    let mut subscription = second.subscribe(&[(USERS, 1000)]).await.unwrap();
    let again = take(&mut subscription, 1000).await;
    assert_eq!(numbers(&again), (0..1000).collect::<Vec<_>>());
    let flags: Vec<bool> = again.iter().map(|delivery| delivery.redelivered).collect();
    assert_eq!(flags, [[true; 3].as_slice(), &[false; 997]].concat());
    drop(subscription);
    let mut subscription = second.subscribe(&[(USERS, 1000)]).await.unwrap();
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
    let mut subscription = bus.subscribe(&[(USERS, 400)]).await.unwrap();
    let taken = take(&mut subscription, 400).await;
    let odd = taken.into_iter().skip(1).step_by(2).map(|delivery| delivery.token).collect();
    subscription.ack(odd).await.unwrap();
    drop(subscription);
    let mut subscription = bus.subscribe(&[(USERS, 400)]).await.unwrap();
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
    let mut first = bus.subscribe(&[(USERS, 10)]).await.unwrap();
    let mut second = bus.subscribe(&[(USERS, 10)]).await.unwrap();
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
    let mut first = bus.subscribe(&[(Queue::Outbound, 250)]).await.unwrap();
    let mut second = bus.subscribe(&[(Queue::Outbound, 250)]).await.unwrap();
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
        let mut subscription = bus.subscribe(&[(USERS, 10)]).await.unwrap();
        assert_eq!(next(&mut subscription).await.redelivered, round > 0);
    }
    bus.publish(messages(1..2)).await.unwrap();
    let mut subscription = bus.subscribe(&[(USERS, 10)]).await.unwrap();
    assert_eq!(numbers(&[next(&mut subscription).await]), [1], "the neighbour lives");
    let mut dead = bus.subscribe(&[(Queue::Dead, 10)]).await.unwrap();
    let letter = next(&mut dead).await;
    assert_eq!(numbers(std::slice::from_ref(&letter)), [0]);
    assert_eq!(letter.headers.reason.as_deref(), Some("delivery limit of 50 exceeded"));
    assert_eq!(letter.headers.origin.as_deref(), Some("users.0"));
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
    let mut dead = bus.subscribe(&[(Queue::Dead, 10)]).await.unwrap();
    let letter = next(&mut dead).await;
    assert!(letter.headers.reason.unwrap().contains("klient"));
    bus.publish(vec![Outgoing::new(Exchange::Updates, "edge", "x")]).await.unwrap();
}

#[tokio::test]
async fn a_guests_messages_reach_the_owner() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let bus = bus(&store).await;
    let mut subscription = bus.subscribe(&[(USERS, 10)]).await.unwrap();
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
    let mut subscription = bus.subscribe(&[(USERS, 10)]).await.unwrap();
    bus.publish(vec![Outgoing::new(Exchange::Users, "0", "x").wants_reply()]).await.unwrap();
    let address = next(&mut subscription).await.headers.reply_to.unwrap();
    bus.reply("local-of-a-former-life", "lost".into()).await;
    bus.reply(&address, "applied".into()).await;
    assert_eq!(timeout(PATIENCE, replies.recv()).await.unwrap().unwrap().body, "applied");
}
