//! How much one user and one address may ask.

use reqwest::{Method, Response, StatusCode};
use rollcall::config::{EdgeConfig, EdgeFederation, LimitsConfig, Rate, Secret};
use serde_json::Value;

use super::edge::{Edge, answer, assert_error, config};

const JOHN: &str = "Bearer @john:a.example|PHONE";
const STATUS: &str = "/_matrix/client/v3/presence/@john:a.example/status";
const VERSION: &str = "/_matrix/federation/v1/version";
const EVENTS: &str = "/_rollcall/v1/events";
/// Three at once, then one a second.
const THREE: Rate = Rate { per_second: 1, burst: 3 };
const MANY: Rate = Rate { per_second: 1_000_000, burst: 1_000_000 };

fn limited(user: Rate, address: Rate) -> EdgeConfig {
    EdgeConfig { limits: LimitsConfig { user, address, max: 1_000 }, ..config() }
}

async fn from(edge: &Edge, address: &str, path: &str) -> Response {
    edge.request(Method::GET, path).header("x-forwarded-for", address).send().await.unwrap()
}

async fn is_refused(edge: &Edge, address: &str, path: &str) -> bool {
    from(edge, address, path).await.status() == StatusCode::TOO_MANY_REQUESTS
}

/// Asks until the answer is a refusal for asking too much; that answer.
async fn exhaust(ask: impl AsyncFn() -> (StatusCode, Value)) -> (StatusCode, Value) {
    for _ in 0..50 {
        let answer = ask().await;
        if answer.0 == StatusCode::TOO_MANY_REQUESTS {
            return answer;
        }
    }
    panic!("50 requests at once are let through")
}

#[tokio::test]
async fn a_user_who_asks_too_much_is_told_when_to_come_back() {
    let edge = Edge::start(limited(THREE, MANY), &[]).await;
    let refused = exhaust(async || edge.ask(Method::GET, STATUS, JOHN, "").await).await;
    assert_error(&refused, 429, "M_LIMIT_EXCEEDED", "too much");
    let wait = refused.1["retry_after_ms"].as_u64().unwrap();
    assert!((1..=1_000).contains(&wait), "{wait}");
    let tablet = exhaust(async || edge.ask(Method::GET, STATUS, "Bearer @john:a.example|TABLET", "").await).await;
    assert_error(&tablet, 429, "M_LIMIT_EXCEEDED", "too much");
    let alice = "/_matrix/client/v3/presence/@alice:a.example/status";
    let other = edge.ask(Method::GET, alice, "Bearer @alice:a.example|PHONE", "").await;
    assert_eq!(other.0, StatusCode::OK, "another user has a share of their own");
}

#[tokio::test]
async fn an_address_that_asks_too_much_is_refused_before_it_says_who_it_is() {
    let edge = Edge::start(limited(MANY, THREE), &[]).await;
    let one = "198.51.100.7";
    assert_eq!(from(&edge, one, STATUS).await.status(), StatusCode::UNAUTHORIZED);
    exhaust(async || (from(&edge, one, STATUS).await.status(), Value::Null)).await;
    let refused = from(&edge, one, STATUS).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.headers()["access-control-allow-origin"], "*", "browsers may read it");
    assert!(is_refused(&edge, one, VERSION).await, "peers are no exception");
    assert_eq!(from(&edge, "203.0.113.9", VERSION).await.status(), StatusCode::OK);
    for _ in 0..10 {
        let own = edge.ask(Method::GET, VERSION, "", "").await;
        assert_eq!(own.0, StatusCode::OK, "a trusted proxy's own requests are not limited");
    }
}

#[tokio::test]
async fn strangers_do_not_choose_their_address() {
    let edge = Edge::start(EdgeConfig { trusted_proxies: Vec::new(), ..limited(MANY, THREE) }, &[]).await;
    let mut refused = 0;
    for last in 1..=50 {
        refused += u8::from(is_refused(&edge, &format!("198.51.100.{last}"), VERSION).await);
    }
    assert!(refused > 0, "50 requests at once are let through");
}

#[tokio::test]
async fn edges_may_send_much_and_guess_little() {
    let token = Some(Secret::new("s3cret-s3cret-s3cret"));
    let edge = Edge::start(EdgeConfig { events_token: token, ..limited(MANY, THREE) }, &[]).await;
    let post = async |token: &str| {
        let request = edge.request(Method::POST, EVENTS).header("x-forwarded-for", "198.51.100.7");
        answer(request.header("authorization", token).body("[]")).await
    };
    for _ in 0..10 {
        assert_eq!(post("Bearer s3cret-s3cret-s3cret").await.0, StatusCode::OK);
    }
    let refused = exhaust(async || post("Bearer guess").await).await;
    assert_error(&refused, 429, "M_LIMIT_EXCEEDED", "too much");
    assert_eq!(post("Bearer s3cret-s3cret-s3cret").await.0, StatusCode::OK);
}

#[tokio::test]
async fn trusted_edges_may_hand_on_much_and_guess_little() {
    let federation_secret = Some(Secret::new("the edge is who it says it is"));
    let trusting = EdgeConfig { federation: EdgeFederation::Trusted, federation_secret, ..limited(MANY, THREE) };
    let edge = Edge::start(trusting, &[]).await;
    let put = async |secret: &str, txn_id: &str| {
        let path = format!("/_matrix/federation/v1/send/{txn_id}");
        let request = edge.request(Method::PUT, &path).header("x-forwarded-for", "198.51.100.7");
        let body = r#"{"origin":"b.example","origin_server_ts":5}"#;
        answer(request.header("rollcall-edge-secret", secret).body(body)).await
    };
    let good = async |txn_id: &str| put("the edge is who it says it is", txn_id).await.0;
    for txn_id in 0..10 {
        assert_eq!(good(&txn_id.to_string()).await, StatusCode::OK);
    }
    for txn_id in ["1", &"x".repeat(300)] {
        let refused = exhaust(async || put("guess", txn_id).await).await;
        assert_error(&refused, 429, "M_LIMIT_EXCEEDED", "too much");
    }
    let get = async || from(&edge, "198.51.100.7", "/_matrix/federation/v1/send/1").await.status();
    exhaust(async || (get().await, Value::Null)).await;
    assert_eq!(good("10").await, StatusCode::OK);
}
