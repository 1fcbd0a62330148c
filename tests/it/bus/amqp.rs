//! The contract on RabbitMQ, and what is RabbitMQ's own: each queue argument shown by its effect.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use rollcall::bus::amqp::Amqp;
use rollcall::bus::{BusError, Exchange, Outgoing, PublishError, Queue, SharedBus, Topology};
use rollcall::config::{BusConfig, BusTls, BusUrl, Secret};
use rollcall::model::Partition;
use tokio::time::timeout;

use super::contract::{
    self, Deployment, PARTITIONS, QUIET, USERS, body, next, number, numbered, numbers, take, tokens,
};
use crate::support::broker;

/// Queues of one's own on a broker.
pub(super) struct OnBroker {
    urls: Vec<String>,
    topology: Topology,
    bus: SharedBus,
}

impl OnBroker {
    pub(super) async fn at(urls: Vec<String>) -> Self {
        let topology = Topology { prefix: format!("test-{:08x}.", fastrand::u32(..)), partitions: PARTITIONS };
        let bus = connect(urls.clone(), topology.clone()).await.unwrap();
        bus.declare().await.unwrap();
        Self { urls, topology, bus }
    }

    pub(super) async fn shared() -> Self {
        Self::at(vec![broker::shared_url().await]).await
    }
}

impl Deployment for OnBroker {
    fn bus(&self) -> &SharedBus {
        &self.bus
    }

    async fn restart(&mut self) {
        self.bus.close().await;
        self.bus = connect(self.urls.clone(), self.topology.clone()).await.unwrap();
    }

    fn topology(&self) -> Topology {
        self.topology.clone()
    }
}

pub(super) async fn connect(urls: Vec<String>, topology: Topology) -> Result<SharedBus, BusError> {
    let config = config(urls, &topology.prefix, Duration::from_secs(20));
    Ok(Amqp::connect(&config, topology, "a test").await? as SharedBus)
}

pub(super) fn config(urls: Vec<String>, prefix: &str, confirm_timeout: Duration) -> BusConfig {
    BusConfig {
        url: BusUrl::Amqp(urls.into_iter().map(Secret::new).collect()),
        tls: BusTls::default(),
        prefix: prefix.into(),
        confirm_timeout,
        confirm_window: 200,
        prefetch: 100,
    }
}

contract::tests!(OnBroker::shared());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_address_is_used_when_the_first_is_dead() {
    let deployment = OnBroker::at(vec!["amqp://127.0.0.1:1".into(), broker::shared_url().await]).await;
    deployment.bus.publish(numbered(0..1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_address_is_named_with_its_password() {
    let urls = vec!["amqp://me:secret@127.0.0.1:1".into(), "amqp://me:secret@127.0.0.1:2".into()];
    let error = connect(urls, Topology { prefix: "p.".into(), partitions: 1 }).await.err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, BusError::Unreachable(_)), "{text}");
    assert!(text.contains("127.0.0.1:1: ") && text.contains("127.0.0.1:2: ") && !text.contains("secret"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_another_make_is_named() {
    let deployment = OnBroker::shared().await;
    let name = deployment.topology.queue_name(&USERS);
    let channel = foreign_channel().await;
    channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    channel.queue_declare(name.as_str().into(), QueueDeclareOptions::durable(), FieldTable::default()).await.unwrap();
    let error = deployment.bus.declare().await.unwrap_err();
    assert!(matches!(&error, BusError::Mismatch { name: named, .. } if *named == name), "{error}");
}

/// The bus cannot know what a person deleted: the broker's return says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_queue_makes_its_messages_unroutable() {
    let deployment = OnBroker::shared().await;
    let name = deployment.topology.queue_name(&USERS);
    let mut subscription = deployment.bus.subscribe(&[(USERS, 1)]).await.unwrap();
    foreign_channel().await.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    assert!(subscription.next().await.is_err(), "the broker cancelled the consumer");
    let error = deployment.bus.publish(numbered(0..1)).await.unwrap_err();
    assert!(matches!(error, PublishError::Unroutable { .. }), "{error}");
    let depths = deployment.bus.depths().await.unwrap();
    assert_eq!(depths.len(), deployment.topology.queues().len());
    let refused: Vec<_> = depths.iter().filter_map(|depth| Some((&depth.name, depth.error.as_ref()?))).collect();
    assert!(matches!(refused[..], [(of, error)] if *of == name && error.contains("NOT_FOUND")), "{refused:?}");
}

/// `x-single-active-consumer`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_owner_gets_nothing_until_the_first_is_gone() {
    let deployment = OnBroker::shared().await;
    let mut first = deployment.bus.subscribe(&[(USERS, 5)]).await.unwrap();
    let mut second = deployment.bus.subscribe(&[(USERS, 5)]).await.unwrap();
    deployment.bus.publish(numbered(0..10)).await.unwrap();
    assert_eq!(numbers(&take(&mut *first, 5).await), [0, 1, 2, 3, 4]);
    assert!(timeout(QUIET, second.next()).await.is_err(), "two owners take turns");
    drop(first);
    let again = take(&mut *second, 5).await;
    assert_eq!(numbers(&again), [0, 1, 2, 3, 4]);
    assert!(again.iter().all(|delivery| delivery.redelivered));
}

/// `x-delivery-limit`, `x-dead-letter-exchange`, and that the broker's reason is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_coming_back_is_put_aside() {
    let deployment = OnBroker::shared().await;
    deployment.bus.publish(numbered(7..8)).await.unwrap();
    let mut dead = deployment.bus.subscribe(&[(Queue::Dead, 1)]).await.unwrap();
    let mut attempts = 0;
    let letter = loop {
        let mut subscription = deployment.bus.subscribe(&[(USERS, 1)]).await.unwrap();
        tokio::select! {
            delivery = next(&mut *subscription) => attempts += u32::from(number(&delivery) == 7),
            letter = dead.next() => break letter.unwrap(),
        }
    };
    assert_eq!(i64::from(attempts), Topology::DELIVERY_LIMIT + 1);
    assert_eq!((number(&letter), letter.headers.reason.as_deref()), (7, Some("delivery_limit")));
    assert_eq!(letter.headers.origin, Some(USERS.to_string()));
}

/// What was prefetched and not read returns too, in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_a_channel_returns_what_it_held_in_order() {
    let deployment = OnBroker::shared().await;
    deployment.bus.publish(numbered(0..300)).await.unwrap();
    let mut first = deployment.bus.subscribe(&[(USERS, 100)]).await.unwrap();
    let mut second = deployment.bus.subscribe(&[(USERS, 1000)]).await.unwrap();
    let taken = take(&mut *first, 40).await;
    first.ack(tokens(taken.into_iter().filter(|delivery| number(delivery).is_multiple_of(2)))).await.unwrap();
    drop(first);
    let again = take(&mut *second, 280).await;
    let odd = (0..40).filter(|n| n % 2 == 1);
    assert_eq!(numbers(&again), odd.chain(40..300).collect::<Vec<_>>());
    assert!(again[..20].iter().all(|delivery| delivery.redelivered));
}

/// As after a broker came back empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_subscribes_to_a_queue_that_is_gone_declares_it_anew() {
    let deployment = OnBroker::shared().await;
    let name = deployment.topology.queue_name(&USERS);
    foreign_channel().await.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let mut subscription = deployment.bus.subscribe(&[(USERS, 10)]).await.unwrap();
    deployment.bus.publish(numbered(0..3)).await.unwrap();
    assert_eq!(numbers(&take(&mut *subscription, 3).await), [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unroutable_neighbours_do_not_fail_each_other() {
    let deployment = OnBroker::shared().await;
    let name = deployment.topology.queue_name(&USERS);
    foreign_channel().await.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let publishes = (0..40u32).map(|n| {
        let bus = Arc::clone(&deployment.bus);
        let key = if n % 4 == 0 { "0" } else { "1" };
        async move {
            let messages = (0..20).map(|_| Outgoing::new(Exchange::Users, key, body(n))).collect();
            (key, bus.publish(messages).await)
        }
    });
    for (key, outcome) in futures_util::future::join_all(publishes).await {
        match outcome {
            Ok(()) => assert_eq!(key, "1"),
            Err(error) => assert!(
                matches!(&error, PublishError::Unroutable { routing_key, .. } if routing_key == "0" && key == "0"),
                "{error}"
            ),
        }
    }
    let mut subscription = deployment.bus.subscribe(&[(Queue::Users(Partition(1)), 1000)]).await.unwrap();
    assert_eq!(take(&mut *subscription, 600).await.len(), 600);
}

/// One message a call, so that confirms and returns of different callers meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_that_comes_back_fails_its_own_caller_and_nobody_else() {
    const ROUNDS: u32 = 30;
    let deployment = OnBroker::shared().await;
    let name = deployment.topology.queue_name(&USERS);
    foreign_channel().await.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    for round in 0..ROUNDS {
        let publishes: Vec<_> = (0..100u32)
            .map(|n| {
                let bus = Arc::clone(&deployment.bus);
                let key = if (n + round) % 3 == 0 { "0" } else { "1" };
                let publish = async move { bus.publish(vec![Outgoing::new(Exchange::Users, key, body(n))]).await };
                (key, rollcall::lifecycle::spawn("a publish", publish))
            })
            .collect();
        for (key, publish) in publishes {
            match (key, publish.await.unwrap()) {
                ("1", Ok(())) => {}
                ("0", Err(PublishError::Unroutable { routing_key, .. })) => assert_eq!(routing_key, "0"),
                (key, outcome) => panic!("round {round}: {outcome:?} with routing key {key}"),
            }
        }
    }
    let routed = (0..ROUNDS).map(|round| (0..100).filter(|n| (n + round) % 3 != 0).count()).sum();
    let mut subscription = deployment.bus.subscribe(&[(Queue::Users(Partition(1)), 4_000)]).await.unwrap();
    assert_eq!(take(&mut *subscription, routed).await.len(), routed);
    assert!(timeout(QUIET, subscription.next()).await.is_err(), "one came twice");
}

async fn foreign_channel() -> lapin::Channel {
    let connection = Connection::connect(&broker::shared_url().await, ConnectionProperties::default()).await.unwrap();
    connection.create_channel().await.unwrap()
}
