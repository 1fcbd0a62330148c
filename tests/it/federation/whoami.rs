//! `edge.auth = "whoami"`: a homeserver says whose an access token is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use futures_util::future::join_all;
use reqwest::Method;
use rollcall::bus::Queue;
use rollcall::config::{EdgeAuth, EdgeConfig, HomeserverConfig};
use rollcall::core::signal::UserSignal;
use rollcall::model::Partition;
use rollcall::wire::envelope::Packet;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::edge::{Edge, Own, PATIENCE, assert_error, config, homeserver, parts};

const STATUS: &str = "/_matrix/client/v3/presence/@john:a.example/status";
const ONLINE: &str = r#"{"presence":"online"}"#;
const USERS: Queue = Queue::Users(Partition(0));

/// Knows some access tokens, and how often it was asked.
struct Homeserver {
    url: String,
    state: Arc<Known>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Known {
    answers: Mutex<HashMap<String, (u16, Value)>>,
    asked: Mutex<Vec<String>>,
    /// Taken for as long as a question is answered, if there is one.
    turns: Option<Semaphore>,
}

impl Homeserver {
    async fn start() -> Self {
        Self::with(Known::default()).await
    }

    async fn with(known: Known) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(known);
        let router = Router::new().fallback(whoami).with_state(state.clone());
        let task =
            rollcall::lifecycle::spawn("homeserver", async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state, task }
    }

    /// What it says of `token` from now on.
    fn says(&self, token: &str, status: u16, answer: Value) {
        self.state.answers.lock().unwrap().insert(token.to_owned(), (status, answer));
    }

    fn knows_john(&self, token: &str) {
        self.says(token, 200, json!({ "user_id": "@john:a.example", "device_id": "PHONE" }));
    }

    fn forgets(&self, token: &str) {
        self.says(token, 401, json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "gone" }));
    }

    /// The URIs that it was asked.
    fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().clone()
    }

    /// An edge that asks it.
    async fn edge(&self, change: impl FnOnce(&mut HomeserverConfig)) -> Edge {
        let own = Own::start().await;
        let mut parts = parts(&own, EdgeConfig { auth: EdgeAuth::Whoami, ..config() }, &[]);
        parts.homeserver = homeserver(Some(self.url.clone()));
        change(&mut parts.homeserver);
        Edge::with(own, parts).await
    }
}

impl Drop for Homeserver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn whoami(State(known): State<Arc<Known>>, request: Request) -> Response {
    known.asked.lock().unwrap().push(request.uri().to_string());
    let _turn = match &known.turns {
        Some(turns) => Some(turns.acquire().await.unwrap()),
        None => None,
    };
    let token = request.headers()[header::AUTHORIZATION].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let stranger = (401, json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "who?" }));
    let (status, answer) = known.answers.lock().unwrap().get(token).cloned().unwrap_or(stranger);
    (StatusCode::from_u16(status).unwrap(), Json(answer)).into_response()
}

async fn put(edge: &Edge, token: &str) -> (StatusCode, Value) {
    edge.ask(Method::PUT, STATUS, &format!("Bearer {token}"), ONLINE).await
}

/// Asks until the answer has this status; the answer, and how long it took.
async fn until(edge: &Edge, token: &str, status: u16) -> ((StatusCode, Value), Duration) {
    let begun = Instant::now();
    loop {
        let answer = put(edge, token).await;
        if answer.0.as_u16() == status {
            return (answer, begun.elapsed());
        }
        assert!(begun.elapsed() < PATIENCE, "still {answer:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The device of the next signal.
async fn device(edge: &Edge) -> String {
    let Packet::Users(mut signals) = edge.own.take(USERS).await.packet() else { panic!("another packet") };
    let UserSignal::Status { device, .. } = signals.remove(0).signal else { panic!("another signal") };
    device.as_str().to_owned()
}

#[tokio::test]
async fn a_client_is_whom_the_homeserver_says() {
    let homeserver = Homeserver::start().await;
    homeserver.knows_john("t1");
    let edge = homeserver.edge(|_| ()).await;
    assert_eq!(put(&edge, "t1").await, (StatusCode::OK, json!({})));
    assert_eq!(device(&edge).await, "PHONE");
    assert_eq!(homeserver.asked(), ["/_matrix/client/v3/account/whoami"]);
    let alice = "/_matrix/client/v3/presence/@alice:a.example/status";
    assert_error(&edge.ask(Method::PUT, alice, "Bearer t1", ONLINE).await, 403, "M_FORBIDDEN", "another");
    assert_error(&put(&edge, "t2").await, 401, "M_UNKNOWN_TOKEN", "does not know");
    assert_error(&put(&edge, "@john:a.example|PHONE").await, 401, "M_UNKNOWN_TOKEN", "does not know");
    assert_error(&put(&edge, &"x".repeat(9_000)).await, 401, "M_UNKNOWN_TOKEN", "so long");
}

#[tokio::test]
async fn the_homeserver_is_asked_once_for_all_who_wait() {
    let homeserver = Homeserver::start().await;
    homeserver.knows_john("t1");
    let edge = homeserver.edge(|_| ()).await;
    let answers = join_all((0..20).map(|_| put(&edge, "t1"))).await;
    assert!(answers.iter().all(|(status, _)| *status == StatusCode::OK), "{answers:?}");
    let refused = join_all((0..20).map(|_| put(&edge, "t2"))).await;
    assert!(refused.iter().all(|(status, _)| *status == StatusCode::UNAUTHORIZED), "{refused:?}");
    assert_eq!(homeserver.asked().len(), 2, "once for each token");
}

#[tokio::test]
async fn the_homeserver_has_to_answer_64_questions_at_once_and_no_more() {
    let homeserver = Homeserver::with(Known { turns: Some(Semaphore::new(0)), ..Known::default() }).await;
    let edge = homeserver.edge(|_| ()).await;
    let tokens: Vec<_> = (0..100).map(|number| format!("t{number}")).collect();
    let asking = join_all(tokens.iter().map(|token| put(&edge, token)));
    let looking = async {
        while homeserver.asked().len() < 64 {
            sleep(Duration::from_millis(10)).await;
        }
        // Had one more been allowed, it would be there by now.
        sleep(Duration::from_millis(300)).await;
        let asked = homeserver.asked().len();
        homeserver.state.turns.as_ref().unwrap().add_permits(100);
        asked
    };
    let (answers, asked) = timeout(PATIENCE, async { tokio::join!(asking, looking) }).await.unwrap();
    assert_eq!((asked, homeserver.asked().len()), (64, 100));
    assert!(answers.iter().all(|(status, _)| *status == StatusCode::UNAUTHORIZED), "{answers:?}");
}

#[tokio::test]
async fn one_address_does_not_take_all_questions_for_tokens() {
    let homeserver = Homeserver::with(Known { turns: Some(Semaphore::new(0)), ..Known::default() }).await;
    let edge = homeserver.edge(|_| ()).await;
    let put_from = async |address: &str, token: String, query: &str| {
        let request = edge.request(Method::PUT, &format!("{STATUS}{query}")).header("x-forwarded-for", address);
        request.header(header::AUTHORIZATION, format!("Bearer {token}")).body(ONLINE).send().await.unwrap().status()
    };
    let flood = join_all((0..100).map(|number| put_from("198.51.100.7", format!("t{number}"), "")));
    let another = async {
        while homeserver.asked().len() < 16 {
            sleep(Duration::from_millis(10)).await;
        }
        let mine = put_from("203.0.113.9", "mine".into(), "?user_id=%40john%3Aa.example");
        let seen = async {
            while !homeserver.asked().iter().any(|uri| uri.contains("john")) {
                sleep(Duration::from_millis(10)).await;
            }
            let asked = homeserver.asked().len();
            homeserver.state.turns.as_ref().unwrap().add_permits(101);
            asked
        };
        tokio::join!(mine, seen)
    };
    let (flood, (mine, asked)) = timeout(PATIENCE, async { tokio::join!(flood, another) }).await.expect("an answer");
    assert_eq!((mine, asked), (StatusCode::UNAUTHORIZED, 17));
    assert!(flood.iter().all(|status| *status == StatusCode::UNAUTHORIZED), "{flood:?}");
}

#[tokio::test]
async fn a_revoked_token_stops_working_within_the_cache_time() {
    let homeserver = Homeserver::start().await;
    homeserver.knows_john("t1");
    let edge = homeserver.edge(|config| config.cache = Duration::from_secs(1)).await;
    assert_eq!(put(&edge, "t1").await.0, StatusCode::OK);
    homeserver.forgets("t1");
    assert_eq!(put(&edge, "t1").await.0, StatusCode::OK, "it is still believed");
    // Asked for all the while: being used keeps nothing alive.
    let (answer, took) = until(&edge, "t1", 401).await;
    assert_error(&answer, 401, "M_UNKNOWN_TOKEN", "does not know");
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn a_revoked_token_ends_its_stream() {
    let homeserver = Homeserver::start().await;
    homeserver.knows_john("t1");
    let edge = homeserver.edge(|config| config.cache = Duration::from_millis(100)).await;
    let path = "/_rollcall/v1/users/@john:a.example/stream";
    let request = edge.request(Method::GET, path).header("authorization", "Bearer t1");
    let mut stream = request.send().await.unwrap();
    assert_eq!(stream.status(), StatusCode::OK);
    homeserver.forgets("t1");
    let ended = timeout(PATIENCE, async { while stream.chunk().await.unwrap().is_some() {} }).await;
    assert!(ended.is_ok(), "the stream goes on");
}

/// Another request renews what is known of the token between two looks of the stream.
#[tokio::test]
async fn a_revoked_token_ends_its_stream_within_the_cache_time() {
    let homeserver = Homeserver::start().await;
    homeserver.knows_john("t1");
    let cache = Duration::from_secs(4);
    let edge = homeserver.edge(|config| config.cache = cache).await;
    assert_eq!(put(&edge, "t1").await.0, StatusCode::OK);
    sleep(cache * 3 / 4).await;
    let path = "/_rollcall/v1/users/@john:a.example/stream";
    let mut stream = edge.request(Method::GET, path).header("authorization", "Bearer t1").send().await.unwrap();
    assert_eq!(stream.status(), StatusCode::OK);
    while homeserver.asked().len() < 2 {
        assert_eq!(put(&edge, "t1").await.0, StatusCode::OK);
        sleep(Duration::from_millis(20)).await;
    }
    homeserver.forgets("t1");
    let revoked = Instant::now();
    timeout(PATIENCE, async { while stream.chunk().await.unwrap().is_some() {} }).await.expect("the stream ends");
    assert!(revoked.elapsed() < cache * 3 / 2, "{:?}", revoked.elapsed());
}

#[tokio::test]
async fn a_refused_token_is_forgotten_sooner() {
    let homeserver = Homeserver::start().await;
    let edge = homeserver.edge(|config| config.cache_refused = Duration::from_millis(300)).await;
    assert_eq!(put(&edge, "t1").await.0, StatusCode::UNAUTHORIZED);
    homeserver.knows_john("t1");
    until(&edge, "t1", 200).await;
}

#[tokio::test]
async fn a_homeserver_that_is_away_is_no_verdict() {
    let homeserver = Homeserver::start().await;
    let edge = homeserver.edge(|_| ()).await;
    for (status, answer) in [
        (500, json!({})),
        (429, json!({ "errcode": "M_LIMIT_EXCEEDED" })),
        (302, json!({})),
        (200, json!({ "nonsense": 1 })),
        (200, json!({ "user_id": "@john:b.example", "device_id": "PHONE" })),
    ] {
        homeserver.says("t1", status, answer);
        let refused = put(&edge, "t1").await;
        assert_error(&refused, 503, "M_UNKNOWN", "homeserver");
        assert_eq!(refused.1["retry_after_ms"], 2_000);
    }
    homeserver.knows_john("t1");
    assert_eq!(put(&edge, "t1").await.0, StatusCode::OK, "none of that is remembered");
    homeserver.task.abort();
    until(&edge, "t2", 503).await;
    assert_eq!(put(&edge, "t1").await.0, StatusCode::OK, "what is known is known");
}

#[tokio::test]
async fn a_silent_homeserver_holds_nobody_for_long() {
    // Takes connections, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = Own::start().await;
    let mut parts = parts(&own, EdgeConfig { auth: EdgeAuth::Whoami, ..config() }, &[]);
    parts.homeserver = homeserver(Some(format!("http://{}", listener.local_addr().unwrap())));
    parts.homeserver.timeout = Duration::from_millis(100);
    let edge = Edge::with(own, parts).await;
    let answer = timeout(PATIENCE, put(&edge, "t1")).await.unwrap();
    assert_error(&answer, 503, "M_UNKNOWN", "homeserver");
}

#[tokio::test]
async fn what_a_client_has_to_know_of_a_refusal_is_passed_on() {
    let homeserver = Homeserver::start().await;
    let edge = homeserver.edge(|_| ()).await;
    homeserver.says("expired", 401, json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "", "soft_logout": true }));
    homeserver.says("locked", 401, json!({ "errcode": "M_USER_LOCKED", "error": "", "soft_logout": true }));
    homeserver.says("guest", 200, json!({ "user_id": "@1:a.example", "device_id": "G", "is_guest": true }));
    homeserver.says("forbidden", 403, json!({ "errcode": "M_FORBIDDEN", "error": "" }));
    let expired = put(&edge, "expired").await;
    assert_error(&expired, 401, "M_UNKNOWN_TOKEN", "does not know");
    assert_eq!(expired.1["soft_logout"], true, "a client that forgets too much loses its keys");
    assert_error(&put(&edge, "locked").await, 401, "M_USER_LOCKED", "locked");
    assert_error(&put(&edge, "guest").await, 403, "M_GUEST_ACCESS_FORBIDDEN", "guests");
    assert_error(&put(&edge, "forbidden").await, 403, "M_FORBIDDEN", "homeserver");
    assert_eq!(put(&edge, "unknown").await.1.get("soft_logout"), None);
}

#[tokio::test]
async fn application_services_act_for_whom_they_say() {
    let homeserver = Homeserver::start().await;
    homeserver.says("as", 200, json!({ "user_id": "@john:a.example" }));
    let edge = homeserver.edge(|_| ()).await;
    for query in ["", "?user_id=%40john%3Aa.example&x=1", "?user_id=%40bot%3Aa.example"] {
        let answer = edge.ask(Method::PUT, &format!("{STATUS}{query}"), "Bearer as", ONLINE).await;
        assert_eq!(answer.0, StatusCode::OK, "{query}");
        assert_eq!(device(&edge).await, "no-device", "always the same one");
    }
    let path = "/_matrix/client/v3/account/whoami";
    let asked =
        [path.into(), format!("{path}?user_id=%40john%3Aa.example"), format!("{path}?user_id=%40bot%3Aa.example")];
    assert_eq!(homeserver.asked(), asked, "each is another caller");
}
