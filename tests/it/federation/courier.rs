//! One transaction on its way: the same bytes until answered or too old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, StatusCode};
use rollcall::clock::{Clock as _, SystemClock};
use rollcall::config::FederationConfig;
use rollcall::core::signal::Outcome;
use rollcall::model::Timestamp;
use rollcall::outbound::courier::{Courier, Report};
use rollcall::outbound::http::client;
use rollcall::outbound::keys::{SigningKey, SigningKeys};
use rollcall::outbound::resolve::Configured;
use rollcall::outbound::sign;
use rollcall::wire::outbound::OutboundMessage;
use ruma::api::federation::authentication::XMatrix;
use ruma::serde::Base64;
use tokio::net::TcpListener;

use super::name;
use super::peer::{Answer, Peer};

/// Deliberately not canonical: it has to arrive as it is.
const BODY: &str = r#"{ "pdus":[], "edus":[],"origin":"a.example" ,"origin_server_ts":5 }"#;

pub(super) fn now() -> Timestamp {
    SystemClock.now()
}

pub(super) fn config(peer: &str, base: &str) -> FederationConfig {
    FederationConfig {
        resolve: BTreeMap::from([(name(peer), base.to_owned())]),
        resend: Duration::from_secs(60),
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(100),
        timeout: Duration::from_secs(10),
        concurrency: 4,
        plain_refresh: Duration::from_secs(1_500),
        plain_promise: Duration::from_secs(1_800),
    }
}

fn courier(base: &str, keys: SigningKeys) -> Courier {
    let config = config("b.example", base);
    let resolver = Arc::new(Configured::new(&config.resolve).unwrap());
    let http = client(config.timeout).unwrap();
    Courier::new(Arc::new(SystemClock), http, resolver, Arc::new(keys), config, name("a.example"))
}

fn key() -> SigningKeys {
    SigningKeys::single(SigningKey::generate("a_1").unwrap())
}

fn message(good_for_ms: u64) -> OutboundMessage {
    OutboundMessage {
        v: 1,
        destination: name("b.example"),
        txn_id: "1795400000-17/x".into(),
        not_after: now().plus(good_for_ms),
        body: serde_json::from_str(BODY).unwrap(),
    }
}

async fn deliver(peer: &Peer, good_for_ms: u64) -> Report {
    courier(&peer.base, key()).deliver(&message(good_for_ms)).await.unwrap()
}

fn say(status: StatusCode, body: &str) -> Answer {
    Answer::Now(status, body.into())
}

fn ended(outcome: Outcome) -> Report {
    Report { outcome, retry_after_ms: None }
}

#[tokio::test]
async fn a_failing_peer_gets_the_same_bytes_again() {
    let script = vec![say(StatusCode::INTERNAL_SERVER_ERROR, "oops"), say(StatusCode::OK, "{}")];
    let peer = Peer::start("b.example", script).await;
    assert_eq!(deliver(&peer, 30_000).await, ended(Outcome::Delivered));
    let seen = peer.seen();
    assert_eq!(seen.len(), 2);
    for request in &seen {
        assert_eq!(request.method, "PUT");
        assert_eq!(request.uri, "/_matrix/federation/v1/send/1795400000-17%2Fx");
        assert_eq!(request.body, BODY);
        assert_eq!(request.headers["content-type"], "application/json");
        assert_eq!(request.headers["authorization"], seen[0].headers["authorization"]);
    }
}

#[tokio::test]
async fn what_arrives_is_signed_for_whom_it_is_meant() {
    let peer = Peer::start("b.example", vec![]).await;
    let keys = key();
    let public = BTreeMap::from([("ed25519:a_1".into(), Base64::parse(keys.current().public_base64()).unwrap())]);
    courier(&peer.base, keys).deliver(&message(30_000)).await.unwrap();
    let seen = peer.seen().remove(0);
    let scheme = XMatrix::try_from(&seen.headers["authorization"]).unwrap();
    assert_eq!((scheme.origin.as_str(), scheme.key.as_str()), ("a.example", "ed25519:a_1"));
    let request = Request::builder().method(seen.method).uri(seen.uri).body(seen.body).unwrap();
    sign::verify(&scheme, &request, &name("b.example"), public.clone()).unwrap();
    sign::verify(&scheme, &request, &name("c.example"), public).unwrap_err();
}

#[tokio::test]
async fn a_peer_that_asks_for_patience_gets_it() {
    let limited = say(StatusCode::TOO_MANY_REQUESTS, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":300}"#);
    let peer = Peer::start("b.example", vec![limited, say(StatusCode::OK, "{}")]).await;
    assert_eq!(deliver(&peer, 30_000).await, ended(Outcome::Delivered));
    let seen = peer.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(300));
}

#[tokio::test]
async fn patience_beyond_its_time_ends_it_at_once() {
    let limited = say(StatusCode::TOO_MANY_REQUESTS, r#"{"retry_after_ms":60000}"#);
    let peer = Peer::start("b.example", vec![limited]).await;
    let report = deliver(&peer, 30_000).await;
    assert_eq!(report, Report { outcome: Outcome::Expired, retry_after_ms: Some(60_000) });
    assert_eq!(peer.seen().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_final() {
    for (status, outcome) in [
        (StatusCode::PAYLOAD_TOO_LARGE, Outcome::TooLarge),
        (StatusCode::FORBIDDEN, Outcome::Failed),
        (StatusCode::FOUND, Outcome::Failed),
    ] {
        let peer = Peer::start("b.example", vec![say(status, "{}")]).await;
        assert_eq!(deliver(&peer, 30_000).await, ended(outcome));
        assert_eq!(peer.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_peer_that_never_answers_well_gets_it_until_it_is_too_old() {
    let peer = Peer::start("b.example", vec![say(StatusCode::BAD_GATEWAY, "")]).await;
    let message = message(400);
    let report = courier(&peer.base, key()).deliver(&message).await.unwrap();
    assert_eq!(report, ended(Outcome::Expired));
    assert!(peer.seen().len() > 1);
}

#[tokio::test]
async fn a_peer_that_hangs_holds_it_no_longer_than_its_time() {
    let peer = Peer::start("b.example", vec![Answer::Never]).await;
    let expired = tokio::time::timeout(Duration::from_secs(8), deliver(&peer, 400)).await;
    assert_eq!(expired.expect("config.timeout is 10 s, its own time 0.4 s"), ended(Outcome::Expired));
    assert_eq!(peer.seen().len(), 1);
}

#[tokio::test]
async fn a_peer_that_is_away_costs_it_its_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let report = courier(&format!("http://{address}"), key()).deliver(&message(300)).await.unwrap();
    assert_eq!(report, ended(Outcome::Expired));
}

#[tokio::test]
async fn what_is_too_old_is_not_sent() {
    let peer = Peer::start("b.example", vec![]).await;
    assert_eq!(deliver(&peer, 0).await, ended(Outcome::Expired));
    assert!(peer.seen().is_empty());
}
