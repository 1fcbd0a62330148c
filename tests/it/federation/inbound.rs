//! Peers' transactions at the edge: whom it believes, and what it answers.

use reqwest::{Method, StatusCode};
use rollcall::bus::Queue;
use rollcall::config::{ServerLists, ServerRules};
use rollcall::core::signal::PeerSignal;
use rollcall::model::{Partition, Presence};
use rollcall::outbound::keys::{SigningKey, SigningKeys};
use rollcall::outbound::sign::{authorize_put, verify_own};
use rollcall::wire::envelope::Packet;
use ruma::CanonicalJsonObject;
use ruma::serde::Base64;
use serde_json::{Value, json};

use super::courier::everybody;
use super::edge::{Edge, Own, answer, assert_error, config, parts};
use super::name;
use super::peer::Peer;

const PATH: &str = "/_matrix/federation/v1/send/1";
const PEERS: Queue = Queue::Peers(Partition(0));

fn body(edus: impl Into<Value>) -> String {
    let edus = edus.into();
    json!({ "origin": "b.example", "origin_server_ts": 5, "pdus": [], "edus": edus }).to_string()
}

fn push(user: &str, presence: &str) -> Value {
    let entry = json!({ "user_id": user, "presence": presence, "last_active_ago": 1000 });
    json!({ "edu_type": "m.presence", "content": { "push": [entry] } })
}

fn signed(keys: &SigningKeys, origin: &str, destination: &str, body: &str) -> String {
    let header = authorize_put(keys.current(), &name(origin), &name(destination), PATH, body.as_bytes()).unwrap();
    header.to_str().unwrap().to_owned()
}

async fn send(edge: &Edge, authorization: &str, body: &str) -> (StatusCode, Value) {
    edge.ask(Method::PUT, PATH, authorization, body).await
}

#[tokio::test]
async fn a_signed_transaction_is_on_the_queue_before_it_is_answered() {
    let peer = Peer::start("b.example", vec![]).await;
    let edge = Edge::start(config(), &[&peer]).await;
    let body = body(json!([push("@bob:b.example", "online")]));
    let answer = send(&edge, &signed(&peer.keys, "b.example", "a.example", &body), &body).await;
    assert_eq!(answer, (StatusCode::OK, json!({ "pdus": {} })));
    assert_eq!(edge.own.depth(&PEERS).await, 1);
    let Packet::Peers(signals) = edge.own.take(PEERS).await.packet() else { panic!("another packet") };
    let PeerSignal::Transaction(inbound) = &signals[0].signal else { panic!("another signal") };
    assert_eq!((signals.len(), signals[0].to.as_str(), &*inbound.txn_id), (1, "b.example", "1"));
    assert_eq!((inbound.push[0].0.as_str(), inbound.push[0].1.presence), ("@bob:b.example", Presence::Online));
}

#[tokio::test]
async fn nobody_speaks_for_another() {
    let peer = Peer::start("b.example", vec![]).await;
    let edge = Edge::start(config(), &[&peer]).await;
    let body = body(json!([]));
    let forger = SigningKeys::single(SigningKey::generate("p_1").unwrap());
    let stranger = SigningKeys::single(SigningKey::generate("p_2").unwrap());
    let good = signed(&peer.keys, "b.example", "a.example", &body);
    for (authorization, body, status, errcode, part) in [
        (signed(&stranger, "b.example", "a.example", &body), body.clone(), 401, "M_UNAUTHORIZED", "ed25519:p_2"),
        (signed(&forger, "b.example", "a.example", &body), body.clone(), 401, "M_UNAUTHORIZED", "signature"),
        (good, body.replace("5", "6"), 401, "M_UNAUTHORIZED", "signature"),
        (signed(&peer.keys, "b.example", "c.example", &body), body.clone(), 401, "M_UNAUTHORIZED", "is c.example"),
        (signed(&peer.keys, "a.example", "a.example", &body), body.clone(), 403, "M_FORBIDDEN", "origin"),
        (String::new(), body.clone(), 401, "M_UNAUTHORIZED", "X-Matrix"),
        ("Bearer x".into(), body.clone(), 401, "M_UNAUTHORIZED", "X-Matrix"),
    ] {
        assert_error(&send(&edge, &authorization, &body).await, status, errcode, part);
    }
    assert_eq!(edge.own.depth(&PEERS).await, 0);
    assert_eq!(peer.asked_for_keys(), 1, "an unknown key is no reason to ask again at once");
    // Asked for another key a moment ago, its server may have a new one.
    let third = SigningKeys::single(SigningKey::generate("p_3").unwrap());
    let answer = send(&edge, &signed(&third, "b.example", "a.example", &body), &body).await;
    assert_error(&answer, 503, "M_UNKNOWN", "keys of b.example");
    assert_eq!(peer.asked_for_keys(), 1);
}

/// Matrix spec, server-server API, request authentication: one header for each signature.
#[tokio::test]
async fn of_several_signatures_the_first_by_a_published_key_counts() {
    let (peer, other) = (Peer::start("b.example", vec![]).await, Peer::start("c.example", vec![]).await);
    let edge = Edge::start(config(), &[&peer, &other]).await;
    let body = body(json!([]));
    let send = async |headers: &[&str]| {
        let request = edge.request(Method::PUT, PATH).body(body.clone());
        answer(headers.iter().fold(request, |request, header| request.header("authorization", *header))).await
    };
    let [forger, new] = ["p_1", "p_2"].map(|id| SigningKeys::single(SigningKey::generate(id).unwrap()));
    let sign = |keys: &SigningKeys, origin: &str| signed(keys, origin, "a.example", &body);
    let (good, unpublished) = (&*sign(&peer.keys, "b.example"), &*sign(&new, "b.example"));
    for headers in [
        &[unpublished, good][..],
        &[good, unpublished],
        &["Bearer x", good],
        &[good, "Bearer x"],
        &["Bearer x", unpublished, unpublished, unpublished, good],
    ] {
        assert_eq!(send(headers).await.0, StatusCode::OK, "{headers:?}");
    }
    let (forged, another) = (&*sign(&forger, "b.example"), &*sign(&other.keys, "c.example"));
    let elsewhere = &*signed(&peer.keys, "b.example", "c.example", &body);
    for (headers, part) in [
        (&[forged, good][..], "signature"),
        (&[unpublished, unpublished], "ed25519:p_2"),
        (&[unpublished, unpublished, unpublished, unpublished, good], "ed25519:p_2"),
        (&[good, another], "a request has one"),
        (&[good, elsewhere], "is c.example"),
        (&["Bearer x", "Bearer y"], "Authorization is no X-Matrix"),
    ] {
        assert_error(&send(headers).await, 401, "M_UNAUTHORIZED", part);
    }
}

#[tokio::test]
async fn a_body_that_names_another_origin_is_refused() {
    let peer = Peer::start("b.example", vec![]).await;
    let edge = Edge::start(config(), &[&peer]).await;
    let body = body(json!([])).replace("b.example", "c.example");
    let answer = send(&edge, &signed(&peer.keys, "b.example", "a.example", &body), &body).await;
    assert_error(&answer, 403, "M_FORBIDDEN", "origin");
}

#[tokio::test]
async fn a_peer_is_asked_for_its_keys_once() {
    let peer = Peer::start("b.example", vec![]).await;
    let edge = Edge::start(config(), &[&peer]).await;
    let body = body(json!([]));
    let good = signed(&peer.keys, "b.example", "a.example", &body);
    let answers = futures_util::future::join_all((0..20).map(|_| send(&edge, &good, &body))).await;
    assert!(answers.iter().all(|(status, _)| *status == StatusCode::OK), "{answers:?}");
    assert_eq!(peer.asked_for_keys(), 1);
}

#[tokio::test]
async fn keys_that_cannot_be_had_are_no_verdict() {
    let peer = Peer::start("b.example", vec![]).await;
    peer.publish("<html>".into());
    let edge = Edge::start(config(), &[&peer]).await;
    let body = body(json!([]));
    let good = signed(&peer.keys, "b.example", "a.example", &body);
    for _ in 0..2 {
        assert_error(&send(&edge, &good, &body).await, 503, "M_UNKNOWN", "keys of b.example");
    }
    assert_eq!(peer.asked_for_keys(), 1, "a failure is remembered");
}

#[tokio::test]
async fn bounds_are_kept_and_named() {
    let peer = Peer::start("b.example", vec![]).await;
    let edge = Edge::start(config(), &[&peer]).await;
    let edus = vec![json!({ "edu_type": "m.typing", "content": {} }); 101];
    for (body, errcode, part) in
        [(body(edus), "M_BAD_JSON", "edus"), (json!({ "edus": [] }).to_string(), "M_BAD_JSON", "origin_server_ts")]
    {
        let answer = send(&edge, &signed(&peer.keys, "b.example", "a.example", &body), &body).await;
        assert_error(&answer, 400, errcode, part);
    }
    let huge = " ".repeat((10 << 20) + 1);
    let refused = send(&edge, &signed(&peer.keys, "b.example", "a.example", "{}"), &huge).await;
    assert_error(&refused, 413, "M_TOO_LARGE", "longer");
}

/// Whoever has no key of the origin's can name one all the same: what its signature takes to be checked is bounded before.
#[tokio::test]
async fn a_body_that_would_fill_memory_is_not_checked() {
    let peer = Peer::start("b.example", vec![]).await;
    let edge = Edge::start(config(), &[&peer]).await;
    let authorization = signed(&peer.keys, "b.example", "a.example", "{}");
    let members = |count: usize| format!(r#"{{"x":[{}]}}"#, vec![r#"{"":0}"#; count].join(","));
    assert_error(&send(&edge, &authorization, &members(1_000_000)).await, 413, "M_TOO_LARGE", "members");
    assert_error(&send(&edge, &authorization, &members(10_000)).await, 401, "M_UNAUTHORIZED", "signature");
}

#[tokio::test]
async fn a_bad_entry_is_put_aside_with_its_reason() {
    let peer = Peer::start("b.example", vec![]).await;
    let edge = Edge::start(config(), &[&peer]).await;
    let body = body(json!([push("@bob:b.example", "online"), push("@eve:c.example", "online")]));
    let answer = send(&edge, &signed(&peer.keys, "b.example", "a.example", &body), &body).await;
    assert_eq!(answer.0, StatusCode::OK);
    let Packet::Peers(signals) = edge.own.take(PEERS).await.packet() else { panic!("another packet") };
    let PeerSignal::Transaction(inbound) = &signals[0].signal else { panic!("another signal") };
    assert_eq!(inbound.push.len(), 1);
    let dead = edge.own.take(Queue::Dead).await;
    assert!(dead.headers.reason.unwrap().contains("@eve:c.example"));
    assert_eq!(dead.headers.origin.as_deref(), Some("federation"));
}

#[tokio::test]
async fn the_key_document_bears_its_own_signature() {
    let edge = Edge::start(config(), &[]).await;
    let (status, document) = edge.ask(Method::GET, "/_matrix/key/v2/server", "", "").await;
    assert_eq!(status, StatusCode::OK);
    let key = Base64::parse(document["verify_keys"]["ed25519:a_1"]["key"].as_str().unwrap()).unwrap();
    let object: CanonicalJsonObject = serde_json::from_value(document).unwrap();
    verify_own(&name("a.example"), object, [("ed25519:a_1".to_owned(), key)].into()).unwrap();
    let (status, one) = edge.ask(Method::GET, "/_matrix/key/v2/server/ed25519:a_1", "", "").await;
    assert_eq!((status, one["verify_keys"].as_object().unwrap().len()), (StatusCode::OK, 1));
}

#[tokio::test]
async fn who_is_denied_is_refused_before_anybody_is_asked_for_keys() {
    let peer = Peer::start("b.example", vec![]).await;
    let own = Own::start().await;
    let parts = parts(&own, config(), &[&peer]);
    let policy = parts.policy.clone();
    let edge = Edge::with(own, parts).await;
    policy.replace(&without_b());
    let body = body(json!([]));
    let good = signed(&peer.keys, "b.example", "a.example", &body);
    assert_error(&send(&edge, &good, &body).await, 403, "M_FORBIDDEN", "b.example");
    assert_eq!((peer.asked_for_keys(), edge.own.depth(&PEERS).await), (0, 0));
    policy.replace(&everybody());
    assert_eq!(send(&edge, &good, &body).await.0, StatusCode::OK);
}

fn without_b() -> ServerLists {
    let inbound = ServerRules { allow: vec!["*".into()], deny: vec!["b.example".into()] };
    ServerLists { inbound, outbound: everybody().outbound }
}

#[tokio::test]
async fn of_events_those_of_a_server_that_is_denied_are_rejected() {
    let own = Own::start().await;
    let parts = parts(&own, config(), &[]);
    parts.policy.replace(&without_b());
    let edge = Edge::with(own, parts).await;
    let heard = |origin: &str| json!({ "v": 1, "type": "federation.heard", "id": "1", "ts": 5, "origin": origin });
    let post = async |events: Value| edge.ask(Method::POST, "/_rollcall/v1/events", "", &events.to_string()).await;
    let rejected = json!([{ "index": 1, "reason": "[1] b.example is not listened to here" }]);
    let taken = post(json!([heard("c.example"), heard("b.example")])).await;
    assert_eq!(taken, (StatusCode::OK, json!({ "accepted": 1, "rejected": rejected })));
    for events in [heard("b.example"), json!([heard("b.example")])] {
        assert_error(&post(events).await, 403, "M_FORBIDDEN", "b.example is not listened to here");
    }
    let Packet::Peers(signals) = edge.own.take(PEERS).await.packet() else { panic!("another packet") };
    assert_eq!((signals.len(), signals[0].to.as_str()), (1, "c.example"));
    assert_eq!(edge.own.depth(&PEERS).await, 0);
}
