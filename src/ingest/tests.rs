//! Every outcome of a publish is given by hand here, because the order of effects under failure is what matters; a real broker
//! fails when it likes.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::bus::{Bus, BusError, Exchange, Headers, PublishError, QueueDepth, Reply};
use crate::clock::Clock;
use crate::lifecycle;
use crate::model::{Timestamp, TraceId};
use crate::policy::without_b;
use crate::wire::contract::{Parsed, encode_beat, encode_job};
use crate::wire::envelope::{self, Job, Packet};
use crate::wire::reject::class;

const NOW: Timestamp = Timestamp(1_795_400_000_000);
const PARTITIONS: u16 = 2;
type Confirm = oneshot::Sender<Result<(), PublishError>>;

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        NOW
    }
}

/// The bus's side of the bench.
struct HandBus {
    deliveries: Arc<tokio::sync::Mutex<mpsc::Receiver<Result<Delivery, SubscriptionError>>>>,
    publishes: mpsc::Sender<(Vec<Outgoing>, Confirm)>,
    acks: mpsc::Sender<Vec<u64>>,
    subscriptions: Arc<Mutex<u32>>,
}

struct HandSubscription {
    deliveries: Arc<tokio::sync::Mutex<mpsc::Receiver<Result<Delivery, SubscriptionError>>>>,
    acks: mpsc::Sender<Vec<u64>>,
}

#[async_trait]
impl Bus for HandBus {
    async fn declare(&self) -> Result<(), BusError> {
        Ok(())
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Result<(), PublishError> {
        let (confirm, confirmed) = oneshot::channel();
        self.publishes.send((messages, confirm)).await.expect("the test listens");
        confirmed.await.unwrap_or(Err(PublishError::Closed))
    }

    async fn reply(&self, _: &str, _: Bytes) {}

    fn replies(&self) -> mpsc::Receiver<Reply> {
        mpsc::channel(1).1
    }

    async fn subscribe(&self, queues: &[(Queue, u16)]) -> Result<Box<dyn Subscription>, SubscriptionError> {
        assert_eq!(queues[0].0, Queue::Inbound);
        *self.subscriptions.lock().unwrap() += 1;
        Ok(Box::new(HandSubscription { deliveries: self.deliveries.clone(), acks: self.acks.clone() }))
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, BusError> {
        Ok(vec![])
    }

    async fn close(&self) {}
}

#[async_trait]
impl Subscription for HandSubscription {
    async fn next(&mut self) -> Result<Delivery, SubscriptionError> {
        match self.deliveries.lock().await.recv().await {
            Some(delivery) => delivery,
            None => std::future::pending().await,
        }
    }

    fn try_next(&mut self) -> Option<Delivery> {
        self.deliveries.try_lock().ok()?.try_recv().ok()?.ok()
    }

    async fn ack(&mut self, tokens: Vec<Token>) -> Result<(), SubscriptionError> {
        self.acks.send(tokens.into_iter().map(|token| token.0).collect()).await.expect("the test listens");
        Ok(())
    }
}

/// The test's side of the bench.
struct Bench {
    deliveries: mpsc::Sender<Result<Delivery, SubscriptionError>>,
    publishes: mpsc::Receiver<(Vec<Outgoing>, Confirm)>,
    acks: mpsc::Receiver<Vec<u64>>,
    subscriptions: Arc<Mutex<u32>>,
    ingest: Option<Ingest>,
    stop: CancellationToken,
}

impl Bench {
    fn new() -> Self {
        let (deliveries, taken) = mpsc::channel(100);
        let (publish, publishes) = mpsc::channel(100);
        let (ack, acks) = mpsc::channel(100);
        let subscriptions = Arc::new(Mutex::new(0));
        let bus = Arc::new(HandBus {
            deliveries: Arc::new(tokio::sync::Mutex::new(taken)),
            publishes: publish,
            acks: ack,
            subscriptions: subscriptions.clone(),
        });
        let ingest = Ingest {
            bus,
            clock: Arc::new(Still),
            local: ServerName::parse("a.example").unwrap(),
            policy: Policy::everybody(),
            partitions: PARTITIONS,
            linger: Duration::from_millis(1),
            prefetch: 100,
        };
        Self { deliveries, publishes, acks, subscriptions, ingest: Some(ingest), stop: CancellationToken::new() }
    }

    fn start(&mut self) -> JoinHandle<Result<(), IngestError>> {
        lifecycle::spawn("ingest", self.ingest.take().expect("started once").run(self.stop.clone()))
    }

    fn deliver(&self, token: u64, routing_key: &str, body: impl Into<Bytes>) {
        self.send(delivery(token, routing_key, body.into()));
    }

    fn send(&self, delivery: Delivery) {
        self.deliveries.try_send(Ok(delivery)).unwrap();
    }

    async fn published(&mut self) -> (Vec<Outgoing>, Confirm) {
        timeout(Duration::from_secs(10), self.publishes.recv()).await.expect("a publish").unwrap()
    }

    async fn acked(&mut self) -> Vec<u64> {
        timeout(Duration::from_secs(10), self.acks.recv()).await.expect("an acknowledgement").unwrap()
    }

    /// Everything that can happen without time passing has happened: there is one thread.
    async fn settle(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }
}

fn delivery(token: u64, routing_key: &str, body: Bytes) -> Delivery {
    Delivery {
        queue: Queue::Inbound,
        routing_key: routing_key.into(),
        body,
        headers: Headers::default(),
        redelivered: false,
        returns: 0,
        token: Token(token),
    }
}

fn activity(localpart: &str) -> String {
    format!(r#"{{"v":1,"type":"client.activity","id":"1","ts":1,"user_id":"@{localpart}:a.example","device_id":"D"}}"#)
}

/// Whom the signals in these messages are for.
fn users(messages: &[Outgoing]) -> Vec<String> {
    let of = |message: &Outgoing| match envelope::decode(&message.body) {
        Ok(Packet::Users(signals)) => signals.iter().map(|signal| signal.to.localpart().to_owned()).collect(),
        _ => vec![],
    };
    messages.iter().flat_map(of).collect()
}

fn packets(messages: &[Outgoing]) -> Vec<Packet> {
    messages.iter().map(|message| envelope::decode(&message.body).unwrap()).collect()
}

#[tokio::test]
async fn what_is_there_goes_together_and_is_acknowledged_after_the_confirm() {
    let mut bench = Bench::new();
    let trace = TraceId(7);
    bench.deliver(1, "client", activity("x"));
    bench.send(Delivery {
        headers: Headers { trace: Some(trace), ..Headers::default() },
        ..delivery(2, "client", activity("x").into())
    });
    bench.start();
    let (messages, confirm) = bench.published().await;
    assert_eq!(users(&messages), ["x", "x"]);
    let [Packet::Users(signals)] = &packets(&messages)[..] else { panic!("one packet") };
    assert_eq!((signals[0].trace, signals[1].trace, signals[0].at), (None, Some(trace), NOW));
    bench.settle().await;
    assert!(bench.acks.try_recv().is_err());
    confirm.send(Ok(())).unwrap();
    assert_eq!(bench.acked().await, [1, 2]);
}

#[tokio::test]
async fn beats_leave_after_everything_taken_before_them() {
    let mut bench = Bench::new();
    bench.start();
    bench.deliver(1, "client", activity("early"));
    let (_, early) = bench.published().await;
    bench.deliver(2, "beat", encode_beat("w", NOW.minus(9)));
    bench.deliver(3, "client", activity("late"));
    bench.deliver(4, "beat", encode_beat("w", NOW.minus(5)));
    bench.deliver(5, "beat", encode_job(Job::Audit, NOW));
    let (messages, late) = bench.published().await;
    assert_eq!(users(&messages), ["late"]);
    late.send(Ok(())).unwrap();
    bench.settle().await;
    assert!(bench.publishes.try_recv().is_err(), "the early event is not confirmed yet");
    assert!(bench.acks.try_recv().is_err());
    early.send(Ok(())).unwrap();
    assert_eq!(bench.acked().await, [1]);
    let (messages, confirm) = bench.published().await;
    let beat = Packet::Beat { worker: "w".into(), at: NOW.minus(5) };
    let each = 2 * usize::from(PARTITIONS);
    assert_eq!(packets(&messages), [vec![beat; each], vec![Packet::Job(Job::Audit); each]].concat());
    confirm.send(Ok(())).unwrap();
    assert_eq!(bench.acked().await, [2, 3, 4, 5]);
}

#[tokio::test]
async fn the_unconfirmed_is_sent_again_byte_for_byte() {
    let mut bench = Bench::new();
    bench.deliver(1, "client", activity("x"));
    bench.start();
    let (first, confirm) = bench.published().await;
    confirm.send(Err(PublishError::Unconfirmed(Duration::ZERO, "test".into()))).unwrap();
    let (second, confirm) = bench.published().await;
    assert_eq!(first, second);
    assert!(bench.acks.try_recv().is_err());
    confirm.send(Ok(())).unwrap();
    assert_eq!(bench.acked().await, [1]);
}

#[tokio::test]
async fn what_no_queue_takes_becomes_a_dead_letter() {
    let mut bench = Bench::new();
    bench.deliver(1, "client", activity("x"));
    bench.start();
    let unroutable = || PublishError::Unroutable { exchange: "presence.users".into(), routing_key: "1".into() };
    for _ in 0..2 {
        bench.published().await.1.send(Err(unroutable())).unwrap();
    }
    let (messages, confirm) = bench.published().await;
    assert_eq!(messages[0].exchange, Exchange::Dead);
    assert_eq!(messages[0].headers.reason, Some(unroutable().to_string()));
    confirm.send(Ok(())).unwrap();
    assert_eq!(bench.acked().await, [1]);
}

#[tokio::test]
async fn the_suspect_goes_alone() {
    let mut bench = Bench::new();
    bench.deliver(1, "client", activity("a"));
    bench.send(Delivery { redelivered: true, returns: 2, ..delivery(2, "client", activity("b").into()) });
    bench.deliver(3, "client", activity("c"));
    bench.start();
    for (token, user) in [(1, "a"), (2, "b"), (3, "c")] {
        let (messages, confirm) = bench.published().await;
        assert_eq!(users(&messages), [user]);
        confirm.send(Ok(())).unwrap();
        assert_eq!(bench.acked().await, [token]);
    }
}

#[tokio::test]
async fn bad_input_is_kept_with_its_reason_and_harms_nobody() {
    let mut bench = Bench::new();
    bench.deliver(1, "client", "nonsense");
    bench.deliver(2, "federation", activity("x"));
    bench.deliver(3, "client", activity("y"));
    bench.deliver(4, "beat", "{}");
    bench.start();
    let (messages, confirm) = bench.published().await;
    assert_eq!(users(&messages), ["y"]);
    confirm.send(Ok(())).unwrap();
    assert_eq!(bench.acked().await, [3]);
    let (dead, confirm) = bench.published().await;
    let reasons: Vec<_> = dead.iter().map(|message| message.headers.reason.as_deref().unwrap()).collect();
    let expected = [
        "not JSON: expected ident at line 1 column 2",
        r#""type" client.activity is not allowed under routing key "federation""#,
        "not a beat or job: missing field `v` at line 1 column 2",
    ];
    assert_eq!(reasons, expected);
    assert_eq!(dead[0].body, "nonsense");
    let from_inbound = |message: &Outgoing| message.headers.origin.as_deref() == Some("inbound");
    assert!(dead.iter().all(|message| message.exchange == Exchange::Dead && from_inbound(message)));
    confirm.send(Ok(())).unwrap();
    assert_eq!(bench.acked().await, [1, 2, 4]);
}

#[tokio::test]
async fn what_a_server_says_that_is_denied_is_dropped() {
    let mut bench = Bench::new();
    bench.ingest.as_ref().unwrap().policy.replace(&without_b());
    let heard = |origin| format!(r#"{{"v":1,"type":"federation.heard","id":"1","ts":1,"origin":"{origin}"}}"#);
    bench.deliver(1, "federation", heard("b.example"));
    // Not even one that cannot be read is kept.
    let bad = heard("b.example").replace("heard", "transaction");
    bench.deliver(2, "federation", format!("[{bad},{}]", heard("c.example")));
    bench.start();
    let (messages, confirm) = bench.published().await;
    let [Packet::Peers(signals)] = &packets(&messages)[..] else { panic!("one packet") };
    assert_eq!((signals.len(), signals[0].to.as_str()), (1, "c.example"));
    confirm.send(Ok(())).unwrap();
    assert_eq!(bench.acked().await, [1, 2], "no dead letter holds them up");
}

#[tokio::test]
async fn while_no_dead_letters_are_taken_only_what_cannot_be_understood_waits() {
    let mut bench = Bench::new();
    let task = bench.start();
    bench.deliver(1, "client", "nonsense");
    let (letters, away) = bench.published().await;
    assert_eq!(letters[0].exchange, Exchange::Dead);
    bench.deliver(2, "client", activity("x"));
    bench.deliver(3, "beat", encode_beat("w", NOW));
    let (messages, confirm) = bench.published().await;
    assert_eq!(users(&messages), ["x"]);
    confirm.send(Ok(())).unwrap();
    let (beats, confirm) = bench.published().await;
    assert!(beats.iter().all(|message| message.exchange != Exchange::Dead));
    confirm.send(Ok(())).unwrap();
    assert_eq!(bench.acked().await, [2, 3]);
    bench.deliver(4, "client", activity("y"));
    let (_, late) = bench.published().await;
    bench.stop.cancel();
    away.send(Err(PublishError::Unconfirmed(Duration::ZERO, "test".into()))).unwrap();
    bench.settle().await;
    late.send(Ok(())).unwrap();
    assert_eq!(bench.acked().await, [4], "the end waits for what can be finished");
    timeout(Duration::from_secs(10), task).await.expect("ends").unwrap().unwrap();
}

#[tokio::test]
async fn a_lost_subscription_is_taken_up_again_and_its_acknowledgements_are_forgotten() {
    let mut bench = Bench::new();
    bench.deliver(1, "client", activity("x"));
    bench.start();
    let (_, confirm) = bench.published().await;
    bench.deliveries.try_send(Err(SubscriptionError::Lost("test".into()))).unwrap();
    bench.deliver(2, "client", activity("y"));
    let (messages, again) = bench.published().await;
    assert_eq!(users(&messages), ["y"]);
    assert_eq!(*bench.subscriptions.lock().unwrap(), 2);
    assert!(confirm.send(Ok(())).is_err(), "nobody waits for it");
    again.send(Ok(())).unwrap();
    assert_eq!(bench.acked().await, [2]);
}

#[tokio::test]
async fn stopping_finishes_what_was_begun() {
    let mut bench = Bench::new();
    let task = bench.start();
    bench.deliver(1, "client", activity("x"));
    let (_, confirm) = bench.published().await;
    bench.stop.cancel();
    bench.settle().await;
    assert!(!task.is_finished());
    confirm.send(Ok(())).unwrap();
    assert_eq!(bench.acked().await, [1]);
    timeout(Duration::from_secs(10), task).await.expect("ends").unwrap().unwrap();
}

#[tokio::test]
async fn a_closed_bus_ends_it() {
    let mut bench = Bench::new();
    bench.deliver(1, "client", activity("x"));
    let task = bench.start();
    bench.published().await.1.send(Err(PublishError::Closed)).unwrap();
    let ended = timeout(Duration::from_secs(10), task).await.expect("ends").unwrap();
    assert!(matches!(ended, Err(IngestError::BusClosed)));
}

#[test]
fn a_panic_costs_the_body_that_causes_it() {
    let body = Bytes::from_static(b"poison");
    let parsed = pack::guarded(&body, |_| -> Parsed { panic!("no {}", "way") });
    assert_eq!(parsed.rejects.len(), 1);
    assert_eq!(parsed.rejects[0].body, body);
    assert_eq!(parsed.rejects[0].reason, "the parser failed: no way");
    assert_eq!(parsed.rejects[0].class, class::PANIC);
}
