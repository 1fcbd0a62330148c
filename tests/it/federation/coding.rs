//! Transactions in gzip: for those who take it, and never lost on those who do not.

use std::io::{Read as _, Write as _};

use axum::body::Bytes;
use axum::http::HeaderValue;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use reqwest::{Method, RequestBuilder, StatusCode};
use rollcall::bus::Queue;
use rollcall::core::signal::{Outcome, PeerSignal};
use rollcall::model::Partition;
use rollcall::outbound::courier::Courier;
use rollcall::outbound::sign::authorize_put;
use rollcall::wire::envelope::Packet;
use rollcall::wire::outbound::OutboundMessage;
use serde_json::{Value, json};

use super::courier::{courier, ended, key, message};
use super::edge::{Edge, answer, assert_error, config};
use super::name;
use super::peer::{Answer, Peer, Seen};

const PATH: &str = "/_matrix/federation/v1/send/1";
const PEERS: Queue = Queue::Peers(Partition(0));

/// A transaction of `b.example` about a hundred of its users.
fn large() -> String {
    let push = |n| json!({ "user_id": format!("@user{n}:b.example"), "presence": "online", "last_active_ago": n });
    let push: Vec<Value> = (0..100).map(push).collect();
    let edus = [json!({ "edu_type": "m.presence", "content": { "push": push } })];
    json!({ "origin": "b.example", "origin_server_ts": 5, "pdus": [], "edus": edus }).to_string()
}

fn offers(status: StatusCode) -> Answer {
    Answer::OffersGzip(status, "{}".into())
}

fn says(status: StatusCode) -> Answer {
    Answer::Now(status, "{}".into())
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn is_gzip(seen: &Seen) -> bool {
    seen.headers.get("content-encoding").is_some_and(|coding| coding == "gzip")
}

/// What a request said, whatever its coding.
fn content(seen: &Seen) -> Bytes {
    if !is_gzip(seen) {
        return seen.body.clone();
    }
    let mut inflated = Vec::new();
    GzDecoder::new(&*seen.body).read_to_end(&mut inflated).unwrap();
    assert!(seen.body.len() * 5 < inflated.len(), "{} of {} bytes", seen.body.len(), inflated.len());
    inflated.into()
}

/// A transaction for `edge` in some coding.
fn coded_request(edge: &Edge, signed: &HeaderValue, coding: &str, coded: Vec<u8>) -> RequestBuilder {
    let request = edge.request(Method::PUT, PATH).header("authorization", signed.clone());
    request.header("content-encoding", coding).body(coded)
}

/// Sends a large transaction, and then another.
async fn deliver_two(courier: &Courier) -> [Outcome; 2] {
    let large = |txn_id: &str| OutboundMessage {
        txn_id: txn_id.into(),
        body: serde_json::from_str(&large()).unwrap(),
        ..message(30_000)
    };
    let first = courier.deliver(&large("1")).await.unwrap();
    let second = courier.deliver(&large("2")).await.unwrap();
    assert_eq!((first, second), (ended(first.outcome), ended(second.outcome)));
    [first.outcome, second.outcome]
}

/// What of each request was its transaction's ID, and whether it came in gzip. All said the same.
fn sent(peer: &Peer) -> Vec<(String, bool)> {
    let seen = peer.seen();
    assert!(seen.iter().all(|seen| content(seen) == large()));
    seen.iter().map(|seen| (seen.uri.path().rsplit('/').next().unwrap().to_owned(), is_gzip(seen))).collect()
}

#[tokio::test]
async fn who_offers_to_take_gzip_gets_it() {
    let peer = Peer::start("b.example", vec![offers(StatusCode::OK)]).await;
    let courier = courier(&peer.base, key());
    assert_eq!(deliver_two(&courier).await, [Outcome::Delivered, Outcome::Delivered]);
    assert_eq!(sent(&peer), [("1".to_owned(), false), ("2".to_owned(), true)]);
    courier.deliver(&message(30_000)).await.unwrap();
    assert!(!is_gzip(&peer.seen()[2]), "a small one is not worth it");
}

/// A homeserver that says nothing of codings, whatever was there before.
#[tokio::test]
async fn who_offers_nothing_gets_everything_as_it_is() {
    let peer = Peer::start("b.example", vec![says(StatusCode::OK)]).await;
    assert_eq!(deliver_two(&courier(&peer.base, key())).await, [Outcome::Delivered, Outcome::Delivered]);
    assert_eq!(sent(&peer), [("1".to_owned(), false), ("2".to_owned(), false)]);
}

/// An older release took the place of a newer one, something stands before the peer that does not know gzip, or it just fails. For a
/// while nothing more comes in gzip.
#[tokio::test]
async fn what_is_not_taken_in_gzip_is_sent_again_as_it_is() {
    use StatusCode as Is;
    for refusal in [
        says(Is::BAD_REQUEST),
        says(Is::BAD_GATEWAY),
        offers(Is::UNAUTHORIZED),
        offers(Is::UNSUPPORTED_MEDIA_TYPE),
        offers(Is::INTERNAL_SERVER_ERROR),
    ] {
        let peer = Peer::start("b.example", vec![offers(Is::OK), refusal, offers(Is::OK)]).await;
        let courier = courier(&peer.base, key());
        assert_eq!(deliver_two(&courier).await, [Outcome::Delivered, Outcome::Delivered]);
        assert_eq!(deliver_two(&courier).await, [Outcome::Delivered, Outcome::Delivered]);
        let all = [("1", false), ("2", true), ("2", false), ("1", false), ("2", false)];
        assert_eq!(sent(&peer), all.map(|(txn_id, is_gzip)| (txn_id.to_owned(), is_gzip)));
        let signature = |n: usize| peer.seen()[n].headers["authorization"].clone();
        assert_eq!(signature(1), signature(2), "what is signed is the content");
    }
}

/// A peer that is busy takes gzip all the same.
#[tokio::test]
async fn who_asks_for_patience_gets_gzip_again_next_time() {
    let busy = Answer::Now(StatusCode::TOO_MANY_REQUESTS, r#"{"retry_after_ms":10}"#.into());
    let peer = Peer::start("b.example", vec![offers(StatusCode::OK), busy, offers(StatusCode::OK)]).await;
    let courier = courier(&peer.base, key());
    assert_eq!(deliver_two(&courier).await, [Outcome::Delivered, Outcome::Delivered]);
    assert_eq!(deliver_two(&courier).await, [Outcome::Delivered, Outcome::Delivered]);
    let all = [("1", false), ("2", true), ("2", false), ("1", true), ("2", true)];
    assert_eq!(sent(&peer), all.map(|(txn_id, is_gzip)| (txn_id.to_owned(), is_gzip)));
}

#[tokio::test]
async fn a_refusal_of_the_thing_itself_is_final() {
    let peer = Peer::start("b.example", vec![offers(StatusCode::OK), offers(StatusCode::FORBIDDEN)]).await;
    assert_eq!(deliver_two(&courier(&peer.base, key())).await, [Outcome::Delivered, Outcome::Failed]);
    assert_eq!(sent(&peer), [("1".to_owned(), false), ("2".to_owned(), true), ("2".to_owned(), false)]);
}

#[tokio::test]
async fn a_transaction_in_gzip_counts_and_says_that_the_next_one_may_be() {
    let peer = Peer::start("b.example", vec![]).await;
    let edge = Edge::start(config(), &[&peer]).await;
    let body = large();
    let signed = authorize_put(peer.keys.current(), &peer.name, &name("a.example"), PATH, body.as_bytes()).unwrap();
    let request = |coded| coded_request(&edge, &signed, "gzip", coded);
    let response = request(gzip(body.as_bytes())).send().await.unwrap();
    assert_eq!((response.status(), &response.headers()["accept-encoding"]), (StatusCode::OK, &"gzip".parse().unwrap()));
    let Packet::Peers(signals) = edge.own.take(PEERS).await.packet() else { panic!("another packet") };
    let PeerSignal::Transaction(inbound) = &signals[0].signal else { panic!("another signal") };
    assert_eq!(inbound.push.len(), 100);
    // The signature is of what it becomes.
    let other = body.replace("online", "offline");
    assert_error(&answer(request(gzip(other.as_bytes()))).await, 401, "M_UNAUTHORIZED", "signature");
    assert_error(&answer(request(body.into_bytes())).await, 415, "M_UNKNOWN", "not gzip");
}

/// Ten kilobytes that become ten megabytes are not read to their end, whoever sends them.
#[tokio::test]
async fn a_small_body_does_not_become_a_huge_one() {
    let peer = Peer::start("b.example", vec![]).await;
    let edge = Edge::start(config(), &[&peer]).await;
    let signed = authorize_put(peer.keys.current(), &peer.name, &name("a.example"), PATH, b"{}").unwrap();
    let request = |coding, coded| coded_request(&edge, &signed, coding, coded);
    let bomb = gzip(&vec![b' '; 9 << 20]);
    assert_error(&answer(request("gzip", bomb)).await, 415, "M_UNKNOWN", "100 times");
    assert_error(&answer(request("br", vec![b'x'])).await, 415, "M_UNKNOWN", "Content-Encoding");
    let large: Vec<u8> = (0..11 << 20).map(|_| fastrand::alphanumeric() as u8 & 0x4f).collect();
    assert_error(&answer(request("gzip", gzip(&large))).await, 415, "M_UNKNOWN", "10485760");
    assert_eq!(edge.own.depth(&PEERS).await, 0);
}
