//! From `presence.outbound` to the peer, and the receipt back to the link.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use rollcall::bus::{Bus as _, Exchange, Outgoing, Queue};
use rollcall::clock::SystemClock;
use rollcall::core::signal::{Outcome, PeerSignal};
use rollcall::lifecycle::spawn;
use rollcall::model::Partition;
use rollcall::outbound::keys::{SigningKey, SigningKeys};
use rollcall::outbound::sender::Sender;
use rollcall::policy::Policy;
use rollcall::wire::envelope::Packet;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::courier::{GIVE_UP, config, now, peers};
use super::edge::{Own, PATIENCE};
use super::name;
use super::peer::{Answer, Peer};

const PEERS: Queue = Queue::Peers(Partition(0));

fn sender(own: &Own, peer: &Peer) -> Sender {
    let config = config("b.example", &peer.base);
    Sender {
        bus: own.bus.clone(),
        clock: Arc::new(SystemClock),
        peers: peers(&config),
        policy: Policy::new(&config.servers),
        keys: Arc::new(SigningKeys::single(SigningKey::generate("a_1").unwrap())),
        config,
        local: name("a.example"),
        partitions: 1,
        give_up: GIVE_UP,
    }
}

async fn publish(own: &Own, body: impl Into<String>) {
    own.bus.publish(vec![Outgoing::new(Exchange::Outbound, "outbound", body.into())]).await.unwrap();
}

fn message(txn_id: &str, good_for_ms: u64) -> String {
    let not_after = now().plus(good_for_ms);
    json!({ "v": 1, "destination": "b.example", "txn_id": txn_id, "not_after": not_after, "body": { "pdus": [] } })
        .to_string()
}

async fn receipt(own: &Own) -> (String, Outcome) {
    let Packet::Peers(signals) = own.take(PEERS).await.packet() else { panic!("another packet") };
    match &signals[0].signal {
        PeerSignal::Receipt { txn_id, outcome, .. } => (txn_id.to_string(), *outcome),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_delivered_is_receipted_then_acknowledged() {
    let (own, peer) = (Own::start().await, Peer::start("b.example", vec![]).await);
    let stop = CancellationToken::new();
    let task = spawn("sender", sender(&own, &peer).run(stop.clone()));
    publish(&own, message("1", 30_000)).await;
    assert_eq!(receipt(&own).await, ("1".into(), Outcome::Delivered));
    publish(&own, message("2", 0)).await;
    assert_eq!(receipt(&own).await, ("2".into(), Outcome::Expired));
    assert_eq!(peer.seen().len(), 1);
    own.drained(&Queue::Outbound).await;
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_cannot_be_sent_is_a_dead_letter_and_stops_nothing() {
    let (own, peer) = (Own::start().await, Peer::start("b.example", vec![]).await);
    let stop = CancellationToken::new();
    drop(spawn("sender", sender(&own, &peer).run(stop.clone())));
    publish(&own, "nonsense").await;
    publish(&own, message("1", 30_000)).await;
    assert_eq!(receipt(&own).await, ("1".into(), Outcome::Delivered));
    let dead = own.take(Queue::Dead).await;
    assert_eq!((&*dead.body, dead.headers.origin.as_deref()), (&b"nonsense"[..], Some("outbound")));
    assert!(dead.headers.reason.unwrap().contains("line 1"));
    own.drained(&Queue::Outbound).await;
    stop.cancel();
}

#[tokio::test]
async fn a_sender_that_ends_in_between_leaves_it_to_the_next() {
    let (own, peer) = (Own::start().await, Peer::start("b.example", vec![Answer::Never, ok()]).await);
    publish(&own, message("1", 30_000)).await;
    let stop = CancellationToken::new();
    let first = spawn("sender", sender(&own, &peer).run(stop.clone()));
    let end = Instant::now() + PATIENCE;
    while peer.seen().is_empty() {
        assert!(Instant::now() < end, "nothing was sent");
        sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    first.await.unwrap().unwrap();
    let stop = CancellationToken::new();
    drop(spawn("sender", sender(&own, &peer).run(stop.clone())));
    assert_eq!(receipt(&own).await, ("1".into(), Outcome::Delivered));
    let seen = peer.seen();
    assert_eq!((seen.len(), &seen[0].uri, &seen[0].body), (2, &seen[1].uri, &seen[1].body));
    stop.cancel();
}

#[tokio::test]
async fn a_stop_waits_for_what_is_under_way_and_leaves_what_waits_to_the_next() {
    let gate = Arc::new(Notify::new());
    let own = Own::start().await;
    let peer = Peer::start("b.example", vec![Answer::When(gate.clone())]).await;
    let failing = Peer::start("c.example", vec![Answer::Now(StatusCode::BAD_GATEWAY, String::new())]).await;
    let mut sender = sender(&own, &peer);
    sender.config.resolve.insert(failing.name.clone(), failing.base.clone());
    sender.config.backoff_min = Duration::from_secs(60);
    sender.config.backoff_max = Duration::from_secs(60);
    sender.peers = peers(&sender.config);
    publish(&own, message("1", 300_000)).await;
    publish(&own, message("2", 300_000).replace("b.example", "c.example")).await;
    let stop = CancellationToken::new();
    let task = spawn("sender", sender.run(stop.clone()));
    let end = Instant::now() + PATIENCE;
    while peer.seen().is_empty() || failing.seen().is_empty() {
        assert!(Instant::now() < end, "nothing was sent");
        sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    publish(&own, message("3", 300_000)).await;
    assert!(!task.is_finished());
    gate.notify_one();
    let stopped = Instant::now();
    task.await.unwrap().unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(4), "nothing but a back-off is left");
    assert_eq!(receipt(&own).await, ("1".into(), Outcome::Delivered));
    for txn_id in ["2", "3"] {
        let left = own.take(Queue::Outbound).await;
        let left: serde_json::Value = serde_json::from_slice(&left.body).unwrap();
        assert_eq!(left["txn_id"], txn_id);
    }
    assert_eq!((peer.seen().len(), failing.seen().len()), (1, 1));
}

fn ok() -> Answer {
    Answer::Now(StatusCode::OK, "{}".into())
}
