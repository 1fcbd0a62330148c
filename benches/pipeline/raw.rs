//! (a): lapin and one quorum queue, nothing else.

use std::collections::VecDeque;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use rollcall::bus::Bus;
use tokio::time::Instant;

use crate::load::Load;
use crate::{Measured, meter};

const QUEUE: &str = "bench.raw";
/// Unconfirmed publishes, as `bus.confirm_window`.
const WINDOW: usize = 1_000;
/// As `bus.prefetch`.
const PREFETCH: u16 = 2_000;
/// Deliveries acknowledged at once.
const ACK_EVERY: usize = 200;

/// One queue of its own, by the default exchange: the ceiling.
pub(crate) async fn measure(url: &str, events: usize) -> Measured {
    let (_connection, channel) = connect(url).await;
    declare(&channel).await;
    let measured = through(url, events, ("", QUEUE), QUEUE).await;
    channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await.expect("delete");
    measured
}

/// By the exchange and the queue that edges publish to, declared as rollcall declares them, and nothing behind: what the
/// first hop alone costs.
pub(crate) async fn first_hop(url: &str, events: usize) -> Measured {
    const LOCAL: &str = "raw.example";
    let bus = crate::rabbitmq::connect(url, LOCAL).await;
    bus.declare().await.expect("declare");
    bus.close().await;
    // The exchange and the queue that it leads to have one name.
    let inbound = format!("{LOCAL}.inbound");
    through(url, events, (&inbound, "client"), &inbound).await
}

async fn through(url: &str, events: usize, (exchange, key): (&str, &'static str), queue: &str) -> Measured {
    let bodies = Load::new(events, 1, 1).bodies("raw.example", 1_795_400_000_000);
    let publishing = connect(url).await;
    let consuming = connect(url).await;
    let pid = meter::broker_pid(url);
    let pids = [pid, std::process::id()];
    let before = pids.map(meter::cpu_seconds);
    let begun = Instant::now();
    let publisher = rollcall::lifecycle::spawn("publisher", publish(publishing.1, exchange.into(), key, bodies));
    consume(&consuming.1, queue, events).await;
    let elapsed = begun.elapsed();
    publisher.await.expect("the publisher");
    let per_10k = 10_000.0 / events as f64;
    let [broker, own] = pids.map(meter::cpu_seconds);
    let cpu = [broker - before[0], own - before[1]].map(|seconds| Some(seconds * per_10k));
    let rate = events as f64 / elapsed.as_secs_f64();
    Measured { rate, cpu: [cpu[0], None, cpu[1]], rss: [Some(meter::rss_mib(pid)), None], packed: None }
}

/// A connection and a channel that confirms.
pub(crate) async fn connect(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("connect");
    let channel = connection.create_channel().await.expect("a channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    (connection, channel)
}

async fn declare(channel: &Channel) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), arguments).await.expect("declare");
}

/// As an edge publishes: persistent, mandatory, confirmed, a bounded window of them at once.
pub(crate) async fn publish(channel: Channel, exchange: String, key: &'static str, bodies: Vec<Vec<u8>>) {
    let mut unconfirmed = VecDeque::with_capacity(WINDOW);
    for body in bodies {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let published = channel.basic_publish(exchange.as_str().into(), key.into(), options, &body, persistent).await;
        unconfirmed.push_back(published.expect("published"));
        if unconfirmed.len() >= WINDOW {
            let oldest = unconfirmed.pop_front().expect("a full window");
            assert!(oldest.await.expect("confirmed").is_ack());
        }
    }
    for confirm in unconfirmed {
        assert!(confirm.await.expect("confirmed").is_ack());
    }
}

async fn consume(channel: &Channel, queue: &str, events: usize) {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("qos");
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(queue.into(), "raw".into(), options, arguments).await.expect("consume");
    for taken in 1..=events {
        let delivery = consumer.next().await.expect("open").expect("a delivery");
        if taken.is_multiple_of(ACK_EVERY) || taken == events {
            delivery.ack(BasicAckOptions { multiple: true }).await.expect("ack");
        }
    }
}
