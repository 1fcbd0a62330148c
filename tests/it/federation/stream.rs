//! Push to clients at the edge. What workers would say is put onto the bus by the test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Method, StatusCode};
use rollcall::bus::embedded::Embedded;
use rollcall::bus::{
    Bus, BusError, Delivery, Exchange, Outgoing, PublishError, Queue, QueueDepth, Reply, Subscription,
    SubscriptionError, Token,
};
use rollcall::config::{EdgeConfig, StreamConfig};
use rollcall::core::signal::{SessionAction, UserSignal};
use rollcall::edge::EdgeParts;
use rollcall::model::{Partition, Presence, Status, Timestamp};
use rollcall::store::{Commit, RowChange, Store as _};
use rollcall::wire::envelope::Packet;
use rollcall::wire::update::{Shown, UpdateMessage};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::edge::{Edge, Own, PATIENCE, config, parts};
use crate::support::pair::{Server, user};
use crate::support::sse::EventStream;

const USERS: Queue = Queue::Users(Partition(0));
const JOHN: &str = "@john:a.example";
const ALICE: &str = "@alice:b.example";
const POLL: &str = "/_rollcall/v1/users/@john:a.example/poll/PHONE";
const NOW: Timestamp = Timestamp(1_795_400_000_000);

fn with(change: impl FnOnce(&mut StreamConfig)) -> EdgeConfig {
    let mut config = config();
    change(&mut config.stream);
    config
}

/// What a worker says to `edge-1`.
async fn tell(edge: &Edge, events: impl IntoIterator<Item = (String, String)>) {
    let shown = events.into_iter().map(|(of, message)| {
        let status = Status { presence: Presence::Online, status_msg: Some(message.into()), ..Status::default() };
        (user(&of), Shown { status, known_at: NOW })
    });
    let messages = UpdateMessage::split(&user(JOHN), shown, NOW);
    let publish = messages.iter().map(|message| Outgoing::new(Exchange::Updates, "edge-1", message.encode()));
    edge.own.bus.publish(publish.collect()).await.unwrap();
}

async fn tell_one(edge: &Edge, of: &str, message: &str) {
    tell(edge, [(of.to_owned(), message.to_owned())]).await;
}

/// A stream of John's that has had its list.
async fn open(edge: &Edge, device: &str) -> EventStream {
    let mut stream = EventStream::open(&edge.base, JOHN, device).await;
    assert_eq!(stream.status, 200, "{}", stream.head);
    assert_eq!(stream.data().await.unwrap(), json!({ "v": 1, "user_id": JOHN, "events": [] }));
    stream
}

/// The sessions that John's machine was told of, in order.
async fn sessions(edge: &Edge, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let Packet::Users(signals) = edge.own.take(USERS).await.packet() else { panic!("another packet") };
        all.extend(signals.into_iter().map(|signal| match signal.signal {
            UserSignal::Session { device, action: SessionAction::Start { edge, lease_ms }, .. } => {
                assert_eq!(lease_ms, 120_000);
                format!("{device} start {}", edge.as_deref().unwrap_or("-"))
            }
            UserSignal::Session { device, action: SessionAction::Leave { edge }, .. } => {
                format!("{device} leave {edge}")
            }
            UserSignal::Session { device, action: SessionAction::Stop, .. } => format!("{device} stop"),
            other => panic!("{other:?}"),
        }));
    }
    all
}

/// Puts what the machines of `server` would have committed into the store.
async fn commit(own: &Own, server: &Server) {
    let lease = own.store.acquire(Partition(0), "test", 60_000).await.unwrap().unwrap();
    let rows = server.rows.iter().map(|(key, value)| RowChange { key: key.clone(), value: Some(value.clone()) });
    let (partition, epoch) = (lease.partition, lease.epoch);
    let commit = Commit { partition, epoch, rows: rows.collect(), outbox: None, published: None };
    own.store.commit(commit).await.unwrap();
    own.store.release(lease).await.unwrap();
}

/// John and `count` others of his server list each other.
fn friends(count: usize) -> Server {
    let mut server = Server::new("a.example");
    for n in 0..count {
        let friend = format!("@u{n:03}:a.example");
        server.list(NOW, JOHN, &[&friend], &[]);
        server.list(NOW, &friend, &[JOHN], &[]);
        server.set(NOW, &friend, Presence::Online, Some("first"));
    }
    server
}

#[tokio::test]
async fn a_stream_begins_with_the_list_and_goes_on_with_what_changes() {
    let edge = Edge::start(config(), &[]).await;
    commit(&edge.own, &friends(300)).await;
    let mut stream = EventStream::open(&edge.base, JOHN, "PHONE").await;
    assert!(stream.head.contains("content-type: text/event-stream"), "{}", stream.head);
    assert!(stream.head.contains("cache-control: no-store") && stream.head.contains("x-accel-buffering: no"));
    assert!(stream.line().await.unwrap().starts_with("retry: "));
    let mut listed = BTreeMap::new();
    while listed.len() < 300 {
        let message = stream.data().await.unwrap();
        assert_eq!((&message["v"], &message["user_id"]), (&json!(1), &json!(JOHN)));
        for event in message["events"].as_array().unwrap() {
            assert_eq!(event["type"], "m.presence");
            let before = listed.insert(event["sender"].clone().to_string(), event["content"].clone());
            assert_eq!(before, None, "each once");
        }
    }
    assert!(listed.values().all(|content| content["status_msg"] == "first" && content["presence"] == "online"));
    tell_one(&edge, ALICE, "cupcakes").await;
    let content = stream.until_event(ALICE, |content| content["status_msg"] == "cupcakes").await;
    assert_eq!(content["rollcall"]["known"], true);
    assert!(content["rollcall"]["stale_ms"].is_u64());
}

#[tokio::test]
async fn every_stream_of_a_user_is_told_and_nobody_else_s() {
    let edge = Edge::start(config(), &[]).await;
    let (mut phone, mut web) = (open(&edge, "PHONE").await, open(&edge, "WEB").await);
    let mut jane = EventStream::open(&edge.base, "@jane:a.example", "X").await;
    assert_eq!(jane.data().await.unwrap()["events"], json!([]));
    tell_one(&edge, ALICE, "hello").await;
    for stream in [&mut phone, &mut web] {
        stream.until_event(ALICE, |content| content["status_msg"] == "hello").await;
    }
    // Heartbeats come each second; two of them without a word of Alice.
    for _ in 0..2 {
        while jane.line().await.unwrap() != ":" {}
    }
}

#[tokio::test]
async fn a_stream_holds_a_session_while_it_is_open() {
    let edge = Edge::start(config(), &[]).await;
    let first = open(&edge, "PHONE").await;
    assert_eq!(sessions(&edge, 1).await, ["PHONE start edge-1"]);
    let second = open(&edge, "PHONE").await;
    let web = open(&edge, "WEB").await;
    assert_eq!(sessions(&edge, 2).await, ["PHONE start edge-1", "WEB start edge-1"]);
    drop(first);
    drop(web);
    assert_eq!(sessions(&edge, 1).await, ["WEB leave edge-1"], "the phone has another stream");
    drop(second);
    assert_eq!(sessions(&edge, 1).await, ["PHONE leave edge-1"]);
}

#[tokio::test]
async fn an_explicit_stop_ends_the_device_s_stream() {
    let edge = Edge::start(config(), &[]).await;
    let (mut phone, mut web) = (open(&edge, "PHONE").await, open(&edge, "WEB").await);
    let token = format!("Bearer {JOHN}|WEB");
    assert_eq!(edge.ask(Method::DELETE, POLL, &token, "").await.0, StatusCode::OK);
    assert_eq!(phone.data().await, None);
    tell_one(&edge, ALICE, "hello").await;
    web.until_event(ALICE, |content| content["status_msg"] == "hello").await;
}

#[tokio::test]
async fn streams_are_bounded_for_each_user_and_in_all() {
    let edge = Edge::start(with(|stream| (stream.max, stream.per_user) = (3, 2)), &[]).await;
    let first = open(&edge, "A").await;
    let _second = open(&edge, "B").await;
    let refused = EventStream::open(&edge.base, JOHN, "C").await;
    assert_eq!(refused.status, 429, "{}", refused.head);
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    let _third = EventStream::open(&edge.base, "@jane:a.example", "D").await;
    let refused = EventStream::open(&edge.base, "@jim:a.example", "E").await;
    assert_eq!(refused.status, 503, "{}", refused.head);
    let path = format!("/_rollcall/v1/users/{JOHN}/stream");
    let answer = edge.ask(Method::GET, &path, &format!("Bearer {JOHN}|C"), "").await;
    assert_eq!(answer.1["errcode"], "M_LIMIT_EXCEEDED", "{answer:?}");
    drop(first);
    let deadline = Instant::now() + PATIENCE;
    while EventStream::open(&edge.base, JOHN, "C").await.status != 200 {
        assert!(Instant::now() < deadline, "the place is not given back");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_stream_is_for_oneself_and_takes_its_token_from_the_header_alone() {
    let edge = Edge::start(config(), &[]).await;
    let mallory = "Authorization: Bearer @mallory:a.example|X\r\n";
    assert_eq!(EventStream::ask(&edge.base, JOHN, mallory).await.status, 403);
    assert_eq!(EventStream::ask(&edge.base, JOHN, "").await.status, 401);
    let path = format!("/_rollcall/v1/users/{JOHN}/stream?access_token={JOHN}%7CPHONE");
    assert_eq!(edge.ask(Method::GET, &path, "", "").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(edge.own.depth(&USERS).await, 0, "no session began");
}

/// Megabytes for 200 users, and a client that reads nothing: what waits for it is 200 statuses, and those are the newest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_gets_the_newest_and_costs_no_more() {
    const OF: usize = 200;
    const BUFFER: usize = 512 << 10;
    let edge = Edge::start(with(|stream| stream.buffer = BUFFER), &[]).await;
    let mut slow = open(&edge, "PHONE").await;
    let name = |n: usize| format!("@u{n:03}:b.example");
    let (mut told, mut most, mut round, mut stuck) = (0, 0, 0, 0);
    // Until the connection takes no more, and then for a while.
    while stuck < 20 {
        let message = format!("{round:03}{}", "x".repeat(1_000));
        tell(&edge, (0..OF).map(|n| (name(n), message.clone()))).await;
        (told, round) = (told + OF * message.len(), round + 1);
        assert!(round < 500, "{told} bytes went to somebody who does not read");
        let waits = settled(&edge).await;
        (most, stuck) = (most.max(waits), stuck + usize::from(waits > 0));
    }
    assert!((OF * 1_000..=BUFFER).contains(&most), "{most} bytes wait");
    let last = format!("{:03}", round - 1);
    let (mut newest, mut taken) = (BTreeMap::new(), 0);
    while newest.len() < OF || newest.values().any(|text| *text != last) {
        let message = timeout(PATIENCE, slow.data()).await.expect("all of it within the deadline").unwrap();
        for event in message["events"].as_array().unwrap() {
            let text = event["content"]["status_msg"].as_str().unwrap();
            newest.insert(event["sender"].as_str().unwrap().to_owned(), text[..3].to_owned());
            taken += 1;
        }
    }
    assert!(taken <= (round - 10) * OF, "{taken} of {} were sent: the old should stay out", round * OF);
    assert_eq!(edge.state.buffered(), 0);
}

/// Waits until nothing more comes in; what waits then.
async fn settled(edge: &Edge) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let mut before = edge.state.buffered();
    let mut same = 0;
    while same < 10 {
        sleep(Duration::from_millis(5)).await;
        let now = edge.state.buffered();
        same = if now == before { same + 1 } else { 0 };
        before = now;
        assert!(Instant::now() < deadline, "it never settles");
    }
    before
}

/// What does not fit is read from the store when the client reads again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_far_behind_gets_its_list_again() {
    const BUFFER: usize = 4 << 10;
    let edge = Edge::start(with(|stream| stream.buffer = BUFFER), &[]).await;
    let mut server = friends(100);
    commit(&edge.own, &server).await;
    let mut slow = EventStream::open(&edge.base, JOHN, "PHONE").await;
    slow.until_event("@u099:a.example", |content| content["status_msg"] == "first").await;
    (0..100).for_each(|n| server.set(NOW.plus(1), &format!("@u{n:03}:a.example"), Presence::Busy, Some("newest")));
    commit(&edge.own, &server).await;
    let text = "y".repeat(1_000);
    for _ in 0..100 {
        tell(&edge, (0..100).map(|n| (format!("@u{n:03}:a.example"), text.clone()))).await;
    }
    assert!(settled(&edge).await <= BUFFER);
    let mut last: BTreeMap<String, Value> = BTreeMap::new();
    while last.len() < 100 || last.values().any(|content| content["status_msg"] != "newest") {
        let message = timeout(PATIENCE, slow.data()).await.unwrap_or_else(|_| panic!("{last:?}")).unwrap();
        for event in message["events"].as_array().unwrap() {
            last.insert(event["sender"].as_str().unwrap().to_owned(), event["content"].clone());
        }
    }
    assert!(last.values().all(|content| content["presence"] == "busy"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_streams_and_sessions_even_of_those_who_do_not_read() {
    let edge = Edge::start(with(|stream| stream.buffer = 1 << 20), &[]).await;
    let mut reader = open(&edge, "A").await;
    let _stuck = open(&edge, "B").await;
    // More than kernel and connection take for the one who does not read.
    let text = "z".repeat(1_000);
    for round in 0..100 {
        tell(&edge, (0..100).map(|n| (format!("@r{round}u{n}:b.example"), text.clone()))).await;
        settle_reader(&edge, &mut reader, round).await;
    }
    sessions(&edge, 2).await;
    let bus = edge.own.bus.clone();
    let reading = async { while reader.data().await.is_some() {} };
    let leaving = async {
        let mut subscription = bus.subscribe(&[(USERS, 10)]).await.unwrap();
        let mut left = 0;
        while left < 2 {
            let delivery = subscription.next().await.unwrap();
            let Packet::Users(signals) = rollcall::wire::envelope::decode(&delivery.body).unwrap() else { panic!() };
            let leave =
                |signal: &UserSignal| matches!(signal, UserSignal::Session { action: SessionAction::Leave { .. }, .. });
            left += signals.iter().filter(|signal| leave(&signal.signal)).count();
            subscription.ack(vec![delivery.token]).await.unwrap();
        }
    };
    let (stopped, (), ()) = tokio::join!(edge.stop(), reading, leaving);
    stopped.unwrap();
}

async fn settle_reader(edge: &Edge, reader: &mut EventStream, round: usize) {
    let marker = format!("@marker{round}:b.example");
    tell_one(edge, &marker, "here").await;
    reader.until_event(&marker, |content| content["status_msg"] == "here").await;
}

/// Updates may be lost with the queue: then everybody reads the present.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_the_queue_sends_every_list_again() {
    let own = Own::start().await;
    let mut server = friends(3);
    commit(&own, &server).await;
    let bus = Arc::new(Breaking { inner: own.bus.clone(), break_now: Arc::default() });
    let parts = EdgeParts { bus: bus.clone(), ..parts(&own, config(), &[]) };
    let edge = Edge::with(own, parts).await;
    let mut stream = EventStream::open(&edge.base, JOHN, "PHONE").await;
    stream.until_event("@u002:a.example", |content| content["status_msg"] == "first").await;
    server.set(NOW.plus(1), "@u002:a.example", Presence::Busy, Some("missed"));
    commit(&edge.own, &server).await;
    bus.break_now.notify_one();
    stream.until_event("@u002:a.example", |content| content["status_msg"] == "missed").await;
    // And what comes over the new queue arrives; nobody knows when it is there.
    let deadline = Instant::now() + PATIENCE;
    let arrived = stream.until_event(ALICE, |content| content["status_msg"] == "again");
    let telling = async {
        while Instant::now() < deadline {
            tell_one(&edge, ALICE, "again").await;
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        _ = arrived => {}
        () = telling => panic!("nothing comes over the new queue"),
    }
}

/// A bus whose subscriptions to updates end on demand.
struct Breaking {
    inner: Arc<Embedded>,
    break_now: Arc<Notify>,
}

struct Breakable {
    inner: Box<dyn Subscription>,
    break_now: Arc<Notify>,
}

#[async_trait]
impl Bus for Breaking {
    async fn declare(&self) -> Result<(), BusError> {
        self.inner.declare().await
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Result<(), PublishError> {
        self.inner.publish(messages).await
    }

    async fn reply(&self, address: &str, body: Bytes) {
        self.inner.reply(address, body).await;
    }

    fn replies(&self) -> mpsc::Receiver<Reply> {
        self.inner.replies()
    }

    async fn subscribe(&self, queues: &[(Queue, u16)]) -> Result<Box<dyn Subscription>, SubscriptionError> {
        let inner = self.inner.subscribe(queues).await?;
        Ok(Box::new(Breakable { inner, break_now: self.break_now.clone() }))
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, BusError> {
        self.inner.depths().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[async_trait]
impl Subscription for Breakable {
    async fn next(&mut self) -> Result<Delivery, SubscriptionError> {
        tokio::select! {
            () = self.break_now.notified() => Err(SubscriptionError::Lost("as the test wants it".into())),
            next = self.inner.next() => next,
        }
    }

    fn try_next(&mut self) -> Option<Delivery> {
        self.inner.try_next()
    }

    async fn ack(&mut self, tokens: Vec<Token>) -> Result<(), SubscriptionError> {
        self.inner.ack(tokens).await
    }
}
