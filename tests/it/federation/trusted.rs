//! Repeats, copies of what goes to a homeserver, and edges that are believed.

use reqwest::{Method, StatusCode};
use rollcall::bus::Queue;
use rollcall::config::{EdgeConfig, EdgeFederation, Secret};
use rollcall::core::signal::{Inbound, PeerSignal};
use rollcall::model::Partition;
use rollcall::outbound::sign::authorize_put;
use rollcall::wire::envelope::Packet;
use serde_json::{Value, json};

use super::edge::{Edge, answer, assert_error, config};
use super::name;
use super::peer::Peer;

const PEERS: Queue = Queue::Peers(Partition(0));
const SECRET: &str = "the edge is who it says it is";
const HEADER: &str = "rollcall-edge-secret";

fn body(message: &str) -> String {
    let entry =
        json!({ "user_id": "@bob:b.example", "presence": "online", "last_active_ago": 5, "status_msg": message });
    let edu = json!({ "edu_type": "m.presence", "content": { "push": [entry] } });
    json!({ "origin": "b.example", "origin_server_ts": 5, "pdus": [{ "type": "m.room.message" }], "edus": [edu] })
        .to_string()
}

fn path(txn_id: &str) -> String {
    format!("/_matrix/federation/v1/send/{txn_id}")
}

fn signed(peer: &Peer, destination: &str, txn_id: &str, body: &str) -> String {
    let (key, to) = (peer.keys.current(), name(destination));
    let header = authorize_put(key, &peer.name, &to, &path(txn_id), body.as_bytes()).unwrap();
    header.to_str().unwrap().to_owned()
}

async fn send(edge: &Edge, peer: &Peer, txn_id: &str, body: &str) -> (StatusCode, Value) {
    edge.ask(Method::PUT, &path(txn_id), &signed(peer, "a.example", txn_id, body), body).await
}

async fn next(edge: &Edge) -> (String, Inbound) {
    let Packet::Peers(mut signals) = edge.own.take(PEERS).await.packet() else { panic!("another packet") };
    let signal = signals.remove(0);
    let PeerSignal::Transaction(inbound) = signal.signal else { panic!("another signal") };
    (signal.to.to_string(), *inbound)
}

fn trusting() -> EdgeConfig {
    EdgeConfig { federation: EdgeFederation::Trusted, federation_secret: Some(Secret::new(SECRET)), ..config() }
}

#[tokio::test]
async fn a_repeat_is_answered_and_not_queued_again() {
    let (peer, other) = (Peer::start("b.example", vec![]).await, Peer::start("c.example", vec![]).await);
    let edge = Edge::start(config(), &[&peer, &other]).await;
    for _ in 0..3 {
        assert_eq!(send(&edge, &peer, "1", &body("once")).await, (StatusCode::OK, json!({ "pdus": {} })));
    }
    assert_eq!(edge.own.depth(&PEERS).await, 1);
    let forged = edge.ask(Method::PUT, &path("1"), &signed(&other, "a.example", "1", "{}"), &body("once")).await;
    assert_error(&forged, 401, "M_UNAUTHORIZED", "signature");
    let theirs = json!({ "origin_server_ts": 5, "pdus": [], "edus": [] }).to_string();
    assert_eq!(send(&edge, &other, "1", &theirs).await.0, StatusCode::OK);
    assert_eq!(send(&edge, &peer, "2", &body("twice")).await.0, StatusCode::OK);
    assert_eq!(edge.own.depth(&PEERS).await, 3, "another's ID, and another ID");
}

#[tokio::test]
async fn a_mirrored_copy_is_believed_for_its_own_signature() {
    let peer = Peer::start("b.example", vec![]).await;
    let edge = Edge::start(config(), &[&peer]).await;
    let body = body("copied");
    let good = signed(&peer, "a.example", "m%2F1", &body);
    // What a reverse proxy adds is no part of what is signed.
    let copy = edge.request(Method::PUT, &path("m%2F1")).header("x-forwarded-for", "198.51.100.7");
    let copy = copy.header("x-original-uri", "/elsewhere").header("authorization", good);
    assert_eq!(answer(copy.body(body)).await.0, StatusCode::OK);
    let (from, inbound) = next(&edge).await;
    assert_eq!((from.as_str(), &*inbound.txn_id), ("b.example", "m/1"));
}

#[tokio::test]
async fn a_trusted_edge_is_believed_and_answered_at_once() {
    let edge = Edge::start(trusting(), &[]).await;
    let copy = |txn_id| edge.request(Method::PUT, &path(txn_id)).header(HEADER, SECRET).body(body("said"));
    let answered = answer(copy("1")).await;
    assert_eq!(answered, (StatusCode::OK, json!({ "pdus": {} })));
    let (from, inbound) = next(&edge).await;
    assert_eq!((from.as_str(), inbound.push.len()), ("b.example", 1));
    // With the peer's own header beside it, nobody checks more of that than who and for whom.
    let scheme = |destination: &str| {
        format!(r#"X-Matrix origin="b.example",destination="{destination}",key="ed25519:x",sig="AAAA""#)
    };
    assert_eq!(answer(copy("2").header("authorization", scheme("a.example"))).await.0, StatusCode::OK);
    assert_eq!(next(&edge).await.0, "b.example");
    let elsewhere = answer(copy("3").header("authorization", scheme("c.example"))).await;
    assert_error(&elsewhere, 401, "M_UNAUTHORIZED", "destination");
    let other = scheme("a.example").replace("b.example", "c.example");
    assert_error(&answer(copy("4").header("authorization", other)).await, 403, "M_FORBIDDEN", "origin");
    let ours = copy("5").body(body("said").replace("b.example", "a.example"));
    assert_error(&answer(ours).await, 403, "M_FORBIDDEN", "origin");
    let nobody = copy("6").body(r#"{"origin_server_ts":5}"#);
    assert_error(&answer(nobody).await, 400, "M_MISSING_PARAM", "origin");
}

#[tokio::test]
async fn nobody_is_trusted_without_the_secret() {
    let peer = Peer::start("b.example", vec![]).await;
    let edge = Edge::start(trusting(), &[&peer]).await;
    let request = || edge.request(Method::PUT, &path("1")).body(body("said"));
    for shown in ["", "wrong", "the edge is who it says it i", "the edge is who it says it is not"] {
        let refused = answer(request().header(HEADER, shown)).await;
        assert_error(&refused, 401, "M_UNAUTHORIZED", "trusted edge");
    }
    assert_error(&answer(request()).await, 401, "M_UNAUTHORIZED", "trusted edge");
    assert_error(&send(&edge, &peer, "1", &body("signed")).await, 401, "M_UNAUTHORIZED", "trusted edge");
    assert_eq!(edge.own.depth(&PEERS).await, 0);
    let verifying = EdgeConfig { federation: EdgeFederation::Verify, ..trusting() };
    let edge = Edge::start(verifying, &[&peer]).await;
    let unsigned = edge.request(Method::PUT, &path("1")).header(HEADER, SECRET).body(body("said"));
    assert_error(&answer(unsigned).await, 401, "M_UNAUTHORIZED", "X-Matrix");
}
