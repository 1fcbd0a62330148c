//! (b): a real `rollcall serve` on RabbitMQ. The bench is the edge in front and the sender behind.

use std::time::Duration;

use rollcall::bus::amqp::Amqp;
use rollcall::bus::{Bus, Queue, Subscription, Topology};
use rollcall::config::{BusConfig, BusTls, BusUrl, Secret};
use rollcall::core::signal::{Addressed, Outcome, PeerSignal};
use rollcall::model::Timestamp;
use rollcall::wire::envelope::Packer;
use rollcall::wire::outbound::OutboundMessage;

use crate::load::{Load, Seen};
use crate::process::Place;
use crate::{Measured, meter, raw};

const PARTITIONS: u16 = 16;

pub(crate) async fn measure(url: &str, name: &str, load: &Load) -> Measured {
    let local = format!("{name}.example");
    let mut place = Place::new(&local, url, "");
    place.partitions = PARTITIONS;
    place.configure(url, "list.accept = \"everyone\"\npresence.offline_after = \"1h\"");
    let process = place.serve_roles("ingest,worker").await;
    let bus = connect(url, &local).await;
    let mut taker = Taker::start(&bus, load).await;
    publish(url.to_owned(), local.clone(), "federation", load.polls(&local, now())).await;
    taker.until(|seen| seen.answered == load.users).await;
    let (broker, rollcall) = (meter::broker_pid(url), process.id());
    let pids = [broker, rollcall, std::process::id()];
    let packed_before = Packed::of(&place.ops).await;
    let before = pids.map(meter::cpu_seconds);
    let publishing = publish(url.to_owned(), local.clone(), "client", load.bodies(&local, now()));
    let publisher = rollcall::lifecycle::spawn("publisher", publishing);
    taker.until(Seen::is_complete).await;
    publisher.await.expect("the publisher");
    let per_10k = 10_000.0 / load.users as f64;
    let after = pids.map(meter::cpu_seconds);
    let cpu = [0, 1, 2].map(|n| Some((after[n] - before[n]) * per_10k));
    let rss = [meter::rss_mib(broker), meter::rss_mib(rollcall)].map(Some);
    let packed = Packed::of(&place.ops).await.since(&packed_before, per_10k);
    let status = process.terminate().await;
    assert!(status.success(), "{status}");
    bus.close().await;
    Measured { rate: taker.seen.rate(), cpu, rss, packed: Some(packed) }
}

/// What rollcall published and committed, as its metrics tell.
pub(crate) struct Packed(Vec<(&'static str, f64)>);

impl Packed {
    const COUNTED: [(&str, &str); 5] = [
        ("users", "rollcall_published_total{exchange=\"users\"}"),
        ("batch", "rollcall_published_total{exchange=\"batch\"}"),
        ("peers", "rollcall_published_total{exchange=\"peers\"}"),
        ("outbound", "rollcall_published_total{exchange=\"outbound\"}"),
        ("commits", "rollcall_commits_total"),
    ];

    async fn of(ops: &str) -> Self {
        let client = rollcall::outbound::http::client(Duration::from_secs(10)).expect("a client");
        let answer = client.get(format!("http://{ops}/metrics")).send().await.expect("metrics");
        let text = answer.text().await.expect("text");
        let value = |series: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(series))?;
            line.trim().parse().ok()
        };
        Self(Self::COUNTED.map(|(name, series)| (name, value(series).unwrap_or(0.0))).into())
    }

    fn since(self, before: &Self, per_10k: f64) -> Self {
        let grown = self.0.into_iter().zip(&before.0).map(|((name, now), (_, then))| (name, (now - then) * per_10k));
        Self(grown.collect())
    }
}

impl std::fmt::Display for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(name, count)| write!(f, " {name} {count:.0}"))
    }
}

/// The sender's place: takes transactions, says that they were delivered.
struct Taker {
    bus: std::sync::Arc<Amqp>,
    subscription: Box<dyn Subscription>,
    seen: Seen,
}

impl Taker {
    async fn start(bus: &std::sync::Arc<Amqp>, load: &Load) -> Self {
        let subscription = bus.subscribe(&[(Queue::Outbound, 1_000)]).await.expect("subscribe");
        Self { bus: bus.clone(), subscription, seen: Seen::new(load) }
    }

    async fn until(&mut self, done: impl Fn(&Seen) -> bool) {
        while !done(&self.seen) {
            let next = tokio::time::timeout(Duration::from_secs(60), self.subscription.next());
            let delivery =
                next.await.unwrap_or_else(|_| panic!("{} in a minute", self.progress())).expect("a delivery");
            let message: OutboundMessage = serde_json::from_slice(&delivery.body).expect("our own JSON");
            self.seen.transaction(message.destination.as_str(), message.body.get());
            let mut packer = Packer::new(PARTITIONS);
            let signal =
                PeerSignal::Receipt { txn_id: message.txn_id, outcome: Outcome::Delivered, retry_after_ms: None };
            packer.peer(Addressed { to: message.destination, at: Timestamp(now()), reply: None, trace: None, signal });
            self.bus.publish(packer.finish(false)).await.expect("confirmed");
            self.subscription.ack(vec![delivery.token]).await.expect("acknowledged");
        }
    }

    fn progress(&self) -> String {
        format!("nothing more after {} answers and {} changes", self.seen.answered, self.seen.changed)
    }
}

pub(crate) async fn connect(url: &str, local: &str) -> std::sync::Arc<Amqp> {
    let config = BusConfig {
        url: BusUrl::Amqp(vec![Secret::new(url)]),
        tls: BusTls::default(),
        prefix: format!("{local}."),
        confirm_timeout: Duration::from_secs(30),
        confirm_window: 1_000,
        prefetch: 2_000,
    };
    let topology = Topology { prefix: config.prefix.clone(), partitions: PARTITIONS };
    Amqp::connect(&config, topology, "benchmark").await.expect("connect")
}

async fn publish(url: String, local: String, key: &'static str, bodies: Vec<Vec<u8>>) {
    let (_connection, channel) = raw::connect(&url).await;
    raw::publish(channel, format!("{local}.inbound"), key, bodies).await;
}

pub(crate) fn now() -> u64 {
    use rollcall::clock::Clock;
    rollcall::clock::SystemClock.now().0
}
