//! What happens when the broker fails. Each test breaks a broker of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rollcall::bus::amqp::Amqp;
use rollcall::bus::{Bus, Exchange, Outgoing, PublishError, SharedBus, Subscription, SubscriptionError};
use rollcall::lifecycle::spawn;
use tokio::time::{sleep, timeout};

use super::amqp::{OnBroker, config, connect};
use super::contract::{DEADLINE, Deployment, USERS, body, next, number, numbered, numbers, take};
use crate::support::broker::{Broker, shared_url};

/// kill -9 under load, twice: whatever was confirmed is there, and publishing goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_loses_nothing_that_it_confirmed() {
    let broker = Broker::start().await;
    let deployment = OnBroker::at(vec![broker.url()]).await;
    let load = Load::default();
    let publishers: Vec<_> = (0..4).map(|n| spawn("load", load.clone().run(deployment.bus().clone(), n))).collect();
    let mut subscription = deployment.bus().subscribe(&[(USERS, 100)]).await.unwrap();
    for _ in 0..2 {
        load.wait_for(200).await;
        broker.kill9();
        let lost = timeout(DEADLINE, async { while subscription.next().await.is_ok() {} }).await;
        assert!(lost.is_ok(), "the subscription ends with its connection");
        broker.restart().await;
        load.wait_for(200).await;
        subscription = resubscribe(deployment.bus()).await;
    }
    load.stop.store(true, Ordering::Relaxed);
    let mut missing = BTreeSet::new();
    for publisher in publishers {
        missing.extend(timeout(DEADLINE, publisher).await.unwrap().unwrap());
    }
    while !missing.is_empty() {
        let delivery = next(&mut *subscription).await;
        missing.remove(&number(&delivery));
        subscription.ack(vec![delivery.token]).await.unwrap();
    }
}

/// Publishers that go on until told otherwise.
#[derive(Clone, Default)]
struct Load {
    confirmed: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// Publishes ten at a time; returns what was confirmed.
    async fn run(self, bus: SharedBus, publisher: u32) -> Vec<u32> {
        let mut confirmed = Vec::new();
        let mut from = publisher * 10_000_000;
        while !self.stop.load(Ordering::Relaxed) {
            match bus.publish(numbered(from..from + 10)).await {
                Ok(()) => confirmed.extend(from..from + 10),
                Err(PublishError::Unconfirmed(..)) => continue,
                Err(error) => panic!("{error}"),
            }
            self.confirmed.fetch_add(10, Ordering::Relaxed);
            from += 10;
        }
        confirmed
    }

    /// Until so many more are confirmed.
    async fn wait_for(&self, more: usize) {
        let enough = self.confirmed.load(Ordering::Relaxed) + more;
        let waiting = async {
            while self.confirmed.load(Ordering::Relaxed) < enough {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, waiting).await.expect("publishers go on");
    }
}

async fn resubscribe(bus: &SharedBus) -> Box<dyn Subscription> {
    let subscribing = async {
        loop {
            match bus.subscribe(&[(USERS, 100)]).await {
                Ok(subscription) => return subscription,
                Err(SubscriptionError::Lost(_)) => sleep(Duration::from_millis(100)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(DEADLINE, subscribing).await.expect("a subscription after the restart")
}

/// The other node of a cluster; here a broker of its own, so that it shows where messages went.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_address_takes_over() {
    let (first, second) = (Broker::start().await, shared_url().await);
    let deployment = OnBroker::at(vec![second.clone()]).await;
    let bus = connect(vec![first.url(), second], deployment.topology()).await.unwrap();
    bus.declare().await.unwrap();
    bus.publish(numbered(0..10)).await.unwrap();
    first.kill9();
    bus.publish(numbered(10..20)).await.unwrap();
    let mut subscription = resubscribe(&bus).await;
    assert_eq!(numbers(&take(&mut *subscription, 10).await), (10..20).collect::<Vec<_>>());
}

/// A dead broker costs a caller its time-out and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_publishing_ends_at_its_deadline() {
    let broker = Broker::start().await;
    let patience = Duration::from_secs(2);
    let topology = OnBroker::at(vec![broker.url()]).await.topology();
    let bus = Amqp::connect(&config(vec![broker.url()], &topology.prefix, patience), topology, "a test").await.unwrap();
    broker.kill9();
    let outcome = timeout(patience * 3, bus.publish(numbered(0..3))).await.expect("an end in time");
    assert!(matches!(outcome, Err(PublishError::Unconfirmed(limit, _)) if limit == patience), "{outcome:?}");
    broker.restart().await;
    timeout(DEADLINE, async { while bus.publish(numbered(0..3)).await.is_err() {} })
        .await
        .expect("a publish after the restart");
}

/// A frozen broker closes nothing: heartbeats notice it, and what it held comes again once it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_noticed() {
    let broker = Broker::start().await;
    let topology = OnBroker::at(vec![broker.url()]).await.topology();
    let patience = Duration::from_secs(3);
    let bus: SharedBus =
        Amqp::connect(&config(vec![broker.url()], &topology.prefix, patience), topology, "a test").await.unwrap();
    bus.publish(numbered(0..3)).await.unwrap();
    let mut subscription = bus.subscribe(&[(USERS, 5)]).await.unwrap();
    take(&mut *subscription, 3).await;
    broker.pause();
    let outcome = timeout(patience * 3, bus.publish(numbered(3..4))).await.expect("an end in time");
    assert!(matches!(outcome, Err(PublishError::Unconfirmed(..))), "{outcome:?}");
    let end = timeout(DEADLINE, subscription.next()).await.expect("heartbeats notice");
    assert!(matches!(end, Err(SubscriptionError::Lost(_))));
    broker.resume();
    let publishing = async { while bus.publish(numbered(3..4)).await.is_err() {} };
    timeout(DEADLINE, publishing).await.expect("a publish after the thaw");
    let again = take(&mut *resubscribe(&bus).await, 4).await;
    assert_eq!(numbers(&again), [0, 1, 2, 3]);
}

/// Where an answer to `bus` goes: by a question that was published there and came back.
async fn address_of_a_question(bus: &SharedBus, which: u32) -> String {
    let question = Outgoing::new(Exchange::Users, "0", body(which)).wants_reply();
    timeout(DEADLINE, async { while bus.publish(vec![question.clone()]).await.is_err() {} }).await.expect("a publish");
    let mut subscription = resubscribe(bus).await;
    loop {
        let delivery = next(&mut *subscription).await;
        if number(&delivery) == which {
            return delivery.headers.reply_to.expect("a reply address");
        }
    }
}

/// The first answer of a process to itself tells it its own address, until it has another channel. Later ones need no broker, and those to
/// others still do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_answers_itself_goes_by_no_broker() {
    let broker = Broker::start().await;
    let deployment = OnBroker::at(vec![broker.url()]).await;
    let mut replies = deployment.bus().replies();
    let other = connect(vec![broker.url()], deployment.topology()).await.unwrap();
    let mut others = other.replies();
    for round in 0..2 {
        let address = address_of_a_question(deployment.bus(), round).await;
        let mut answered = async |text: &'static str| {
            deployment.bus().reply(&address, text.into()).await;
            timeout(DEADLINE, replies.recv()).await.expect("an answer").unwrap().body
        };
        assert_eq!(answered("by the broker").await, "by the broker");
        let elsewhere = address_of_a_question(&other, 10 + round).await;
        deployment.bus().reply(&elsewhere, "to another".into()).await;
        assert_eq!(timeout(DEADLINE, others.recv()).await.expect("an answer").unwrap().body, "to another");
        broker.kill9();
        assert_eq!(answered("by none").await, "by none");
        broker.restart().await;
    }
}

/// Short of memory, the broker blocks publishers; nothing fails, acknowledgements and deliveries go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_publish_waits() {
    let broker = Broker::start().await;
    let deployment = OnBroker::at(vec![broker.url()]).await;
    let bus = deployment.bus().clone();
    bus.publish(numbered(0..20)).await.unwrap();
    broker.ctl(&["set_vm_memory_high_watermark", "0.00001"]).await;
    let publish = spawn("blocked publish", {
        let bus = bus.clone();
        async move { bus.publish(numbered(20..40)).await }
    });
    let mut subscription = bus.subscribe(&[(USERS, 5)]).await.unwrap();
    for _ in 0..20 {
        let delivery = next(&mut *subscription).await;
        subscription.ack(vec![delivery.token]).await.unwrap();
    }
    assert!(!publish.is_finished(), "a blocked broker confirmed");
    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    timeout(DEADLINE, publish).await.unwrap().unwrap().expect("the publish completes once unblocked");
    take(&mut *subscription, 5).await;
}
