//! Clients at the edge.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use rollcall::bus::{Bus as _, Queue};
use rollcall::config::{EdgeConfig, Secret};
use rollcall::core::signal::{MessageEdit, SessionAction, UserSignal};
use rollcall::edge::EdgeState;
use rollcall::model::{Partition, Presence};
use rollcall::wire::envelope::{Packet, encode};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::edge::{Edge, Own, PATIENCE, assert_error, config, parts};

const USERS: Queue = Queue::Users(Partition(0));
const JOHN: &str = "Bearer @john:a.example|PHONE";
const STATUS: &str = "/_matrix/client/v3/presence/@john:a.example/status";
const POLL: &str = "/_rollcall/v1/users/@john:a.example/poll/PHONE";
const DEVICE: &str = "/_rollcall/v1/users/@john:a.example/devices/PHONE";
const REQUESTS: &str = "/_rollcall/v1/users/@john:a.example/requests";
const LIST: &str = "/_matrix/client/r0/presence/list/@john:a.example";

/// The signals of the next packet to users, all of them to one.
async fn signals(edge: &Edge) -> Vec<UserSignal> {
    let Packet::Users(signals) = edge.own.take(USERS).await.packet() else { panic!("another packet") };
    assert!(signals.iter().all(|signal| signal.to.as_str() == "@john:a.example"));
    signals.into_iter().map(|signal| signal.signal).collect()
}

#[tokio::test]
async fn a_status_is_on_the_queue_before_it_is_answered() {
    let edge = Edge::start(config(), &[]).await;
    let answer = edge.ask(Method::PUT, STATUS, JOHN, r#"{"presence":"online","status_msg":"cupcakes"}"#).await;
    assert_eq!(answer, (StatusCode::OK, json!({})));
    let UserSignal::Status { device, presence, status_msg, .. } = signals(&edge).await.remove(0) else {
        panic!("another signal")
    };
    assert_eq!((device.as_str(), presence), ("PHONE", Presence::Online));
    assert_eq!(status_msg, MessageEdit::Set("cupcakes".into()));
}

#[tokio::test]
async fn a_write_returns_with_the_worker_s_word() {
    let edge = Edge::start(EdgeConfig { apply_wait: Duration::from_secs(600), ..config() }, &[]).await;
    let worker = async {
        let taken = edge.own.take(USERS).await;
        let Packet::Users(signals) = taken.packet() else { panic!("another packet") };
        let ids: Vec<u64> = signals.iter().filter_map(|signal| signal.reply).collect();
        edge.own.bus.reply(&taken.headers.reply_to.unwrap(), encode(&ids)).await;
    };
    let write = edge.ask(Method::PUT, STATUS, JOHN, r#"{"presence":"online"}"#);
    let (answer, ()) = timeout(PATIENCE, futures_util::future::join(write, worker)).await.unwrap();
    assert_eq!(answer.0, StatusCode::OK);
}

#[tokio::test]
async fn a_word_that_does_not_come_holds_nobody_for_long() {
    let edge = Edge::start(EdgeConfig { apply_wait: Duration::from_millis(50), ..config() }, &[]).await;
    let answer = timeout(PATIENCE, edge.ask(Method::PUT, STATUS, JOHN, r#"{"presence":"online"}"#)).await.unwrap();
    assert_eq!(answer.0, StatusCode::OK);
}

#[tokio::test]
async fn sessions_devices_and_lists_become_signals() {
    let edge = Edge::start(config(), &[]).await;
    for (method, path, body) in [
        (Method::PUT, POLL, r#"{"lease_ms":99999999}"#),
        (Method::PUT, POLL, ""),
        (Method::DELETE, POLL, ""),
        (Method::PUT, DEVICE, r#"{"idle_ms":5,"device_type":"mobile"}"#),
        (Method::PUT, DEVICE, r#"{"device_type":null}"#),
        (Method::POST, LIST, r#"{"invite":["@alice:b.example"],"drop":["@bob:b.example"]}"#),
        (Method::GET, LIST, ""),
        (Method::POST, &format!("{REQUESTS}/@alice:b.example"), r#"{"allow":false}"#),
        (Method::GET, REQUESTS, ""),
    ] {
        let answer = edge.ask(method.clone(), path, JOHN, body).await;
        assert_eq!(answer.0, StatusCode::OK, "{method} {path}: {}", answer.1);
    }
    let mut all = Vec::new();
    while edge.own.depth(&USERS).await > 0 {
        all.extend(signals(&edge).await.into_iter().map(brief));
    }
    let expected = [
        "start 3600000",
        "start 120000",
        "stop",
        "type mobile",
        "idle Some(5)",
        "type gone",
        "list 1 1",
        "start 120000",
        "answer @alice:b.example false",
    ];
    assert_eq!(all, expected);
}

fn brief(signal: UserSignal) -> String {
    match signal {
        UserSignal::Session { action: SessionAction::Start { lease_ms, .. }, .. } => format!("start {lease_ms}"),
        UserSignal::Session { action: SessionAction::Stop, .. } => "stop".into(),
        UserSignal::Device { device_type, .. } => format!("type {}", device_type.as_deref().unwrap_or("gone")),
        UserSignal::Idle { idle_ms, .. } => format!("idle {idle_ms:?}"),
        UserSignal::List { add, remove, .. } => format!("list {} {}", add.len(), remove.len()),
        UserSignal::Answer { observer, allow, .. } => format!("answer {observer} {allow}"),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn refusals_say_why_in_matrix_words() {
    let edge = Edge::start(config(), &[]).await;
    let alice = "/_matrix/client/v3/presence/@alice:a.example/status";
    let online = r#"{"presence":"online"}"#;
    for (method, path, token, body, status, errcode, part) in [
        (Method::PUT, STATUS, "", online, 401, "M_MISSING_TOKEN", "Bearer"),
        (Method::PUT, STATUS, "Bearer nonsense", online, 401, "M_UNKNOWN_TOKEN", "|"),
        (Method::PUT, STATUS, "Bearer @john:b.example|X", online, 401, "M_UNKNOWN_TOKEN", "a.example"),
        (Method::PUT, alice, JOHN, online, 403, "M_FORBIDDEN", "another"),
        (Method::GET, alice, JOHN, "", 403, "M_FORBIDDEN", "may not see"),
        (Method::PUT, STATUS, JOHN, "nonsense", 400, "M_NOT_JSON", "not JSON"),
        (Method::PUT, STATUS, JOHN, "[]", 400, "M_BAD_JSON", "object"),
        (Method::PUT, STATUS, JOHN, "{}", 400, "M_MISSING_PARAM", "presence"),
        (Method::PUT, STATUS, JOHN, r#"{"presence":"away"}"#, 400, "M_INVALID_PARAM", "presence"),
        (Method::GET, &format!("{REQUESTS}/@alice:b.example"), JOHN, "", 405, "M_UNRECOGNIZED", "method"),
        (Method::GET, "/_rollcall/v1/users/@alice:a.example/requests", JOHN, "", 403, "M_FORBIDDEN", "another"),
        (Method::POST, &format!("{REQUESTS}/alice"), JOHN, "{}", 400, "M_INVALID_PARAM", "observer"),
        (Method::POST, &format!("{REQUESTS}/@alice:b.example"), JOHN, "{}", 400, "M_MISSING_PARAM", "allow"),
        (Method::POST, &format!("{REQUESTS}/@alice:b.example"), JOHN, r#"{"allow":1}"#, 400, "M_BAD_JSON", "allow"),
        (Method::PUT, DEVICE, JOHN, "{}", 400, "M_MISSING_PARAM", "idle_ms"),
        (Method::PUT, "/_matrix/client/v3/presence/john/status", JOHN, online, 400, "M_INVALID_PARAM", "userId"),
        (Method::GET, "/_matrix/client/v3/sync", JOHN, "", 404, "M_UNRECOGNIZED", "unrecognized"),
        (Method::DELETE, STATUS, JOHN, "", 405, "M_UNRECOGNIZED", "method"),
    ] {
        assert_error(&edge.ask(method, path, token, body).await, status, errcode, part);
    }
    assert_eq!(edge.own.depth(&USERS).await, 0);
}

/// Matrix spec, client-server API, web browser clients.
#[tokio::test]
async fn browsers_are_let_in() {
    let edge = Edge::start(config(), &[]).await;
    for path in [STATUS, LIST, POLL, DEVICE, REQUESTS] {
        let preflight = edge.request(Method::OPTIONS, path).send().await.unwrap();
        assert_eq!(preflight.status(), StatusCode::NO_CONTENT, "{path}");
        assert_lets_browsers_in(&preflight);
        let refused = edge.request(Method::GET, path).send().await.unwrap();
        assert!(refused.status().is_client_error(), "{path}");
        assert_lets_browsers_in(&refused);
    }
    let peer = edge.request(Method::GET, "/_matrix/federation/v1/version").send().await.unwrap();
    assert!(!peer.headers().contains_key("access-control-allow-origin"), "servers are no browsers");
}

fn assert_lets_browsers_in(answer: &reqwest::Response) {
    let header = |name| answer.headers()[name].to_str().unwrap();
    assert_eq!(header("access-control-allow-origin"), "*");
    assert_eq!(header("access-control-allow-methods"), "GET, POST, PUT, DELETE, OPTIONS");
    assert_eq!(header("access-control-allow-headers"), "X-Requested-With, Content-Type, Authorization");
}

#[tokio::test]
async fn foreign_edges_learn_which_events_were_bad() {
    let edge = Edge::start(EdgeConfig { events_token: Some(Secret::new("s3cret")), ..config() }, &[]).await;
    let event = |presence| {
        json!({ "v": 1, "type": "client.status", "id": "1", "ts": 5, "user_id": "@john:a.example",
                "device_id": "PHONE", "presence": presence })
    };
    let events = Value::from(vec![event("online"), event("away")]).to_string();
    let path = "/_rollcall/v1/events";
    let (status, answer) = edge.ask(Method::POST, path, "Bearer s3cret", &events).await;
    assert_eq!((status, &answer["accepted"], &answer["rejected"][0]["index"]), (StatusCode::OK, &1.into(), &1.into()));
    assert!(answer["rejected"][0]["reason"].as_str().unwrap().contains("presence"), "{answer}");
    assert_eq!(signals(&edge).await.len(), 1);
    let bad = event("away").to_string();
    assert_error(&edge.ask(Method::POST, path, "Bearer s3cret", &bad).await, 400, "M_BAD_JSON", "presence");
    assert_error(&edge.ask(Method::POST, path, JOHN, &events).await, 401, "M_UNKNOWN_TOKEN", "events_token");
    assert_error(&edge.ask(Method::POST, path, "", &events).await, 401, "M_MISSING_TOKEN", "Bearer");
}

#[tokio::test]
async fn a_full_queue_is_told_to_the_client() {
    let edge = Edge::start(EdgeConfig { queue_max: 0, ..config() }, &[]).await;
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = edge.ask(Method::PUT, STATUS, JOHN, r#"{"presence":"online"}"#).await;
        if answer.0 != StatusCode::OK {
            assert_error(&answer, 503, "M_LIMIT_EXCEEDED", "at most 0");
            assert_eq!(answer.1["retry_after_ms"], 5_000);
            return;
        }
        assert!(Instant::now() < end, "still let in");
    }
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_edge_open() {
    let edge = Edge::start(config(), &[]).await;
    assert_eq!(edge.ask(Method::GET, "/_matrix/federation/v1/version", "", "").await.0, StatusCode::OK);
    edge.stop().await.unwrap();
}

#[tokio::test]
async fn dev_auth_is_not_for_the_open() {
    let own = Own::start().await;
    let open = EdgeConfig { listen: "0.0.0.0:0".parse().unwrap(), ..config() };
    assert!(EdgeState::start(parts(&own, open, &[])).is_err());
}
