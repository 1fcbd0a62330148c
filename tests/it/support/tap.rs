//! A recording reverse proxy: what one server says to another is read on its way, and passed on as it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rollcall::outbound::http::client;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Far beyond what anything here takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_BODY: usize = 16 << 20;

/// One transaction that passed.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub authorization: String,
    pub body: Value,
    /// What the server behind answered.
    pub status: StatusCode,
}

/// Stands in front of one server.
pub struct Tap {
    /// `http://…`
    pub url: String,
    wire: Arc<Wire>,
    task: JoinHandle<()>,
}

struct Wire {
    target: String,
    http: reqwest::Client,
    seen: Mutex<Vec<Seen>>,
    forging: AtomicBool,
}

impl Tap {
    /// In front of `target`, a base URL.
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let wire = Arc::new(Wire {
            target: target.to_owned(),
            http: client(PATIENCE).unwrap(),
            seen: Mutex::default(),
            forging: AtomicBool::new(false),
        });
        let router = Router::new().fallback(pass).with_state(wire.clone());
        let task = rollcall::lifecycle::spawn("tap", async move { axum::serve(listener, router).await.unwrap() });
        Self { url, wire, task }
    }

    /// From now on, whether every `online` is made an `offline` on its way, as somebody in between might like to.
    pub fn forge(&self, forging: bool) {
        self.wire.forging.store(forging, Ordering::Relaxed);
    }

    /// The transactions that passed so far and were answered; requests for keys do not count.
    pub fn transactions(&self) -> Vec<Seen> {
        self.wire.seen.lock().unwrap().clone()
    }

    /// Forgets what passed so far.
    pub fn forget(&self) {
        self.wire.seen.lock().unwrap().clear();
    }

    /// Waits until so many have passed.
    pub async fn wait_for(&self, count: usize) -> Vec<Seen> {
        self.wait_until(|seen| seen.len() >= count).await
    }

    /// Waits until what has passed is as it should be.
    pub async fn wait_until(&self, should: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.transactions();
            if should(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "no more than {} transactions: {seen:?}", seen.len());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(wire): State<Arc<Wire>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = wire.forged(to_bytes(body, MAX_BODY).await.unwrap());
    let path = parts.uri.path_and_query().unwrap().as_str().to_owned();
    let authorization = parts.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let mut onward = wire.http.request(parts.method.clone(), format!("{}{path}", wire.target)).body(body.clone());
    for (name, value) in parts.headers.iter().filter(|(name, _)| ![header::HOST, header::CONTENT_LENGTH].contains(name))
    {
        onward = onward.header(name, value);
    }
    let Ok(answer) = onward.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let (status, text) = (answer.status(), answer.bytes().await.unwrap_or_default());
    if path.contains("/send/") {
        let body = serde_json::from_slice(&body).unwrap();
        let authorization = authorization.unwrap_or_default();
        wire.seen.lock().unwrap().push(Seen { method: parts.method, path, authorization, body, status });
    }
    back(status, text)
}

impl Wire {
    fn forged(&self, body: Bytes) -> Bytes {
        if !self.forging.load(Ordering::Relaxed) {
            return body;
        }
        std::str::from_utf8(&body).unwrap().replace("\"online\"", "\"offline\"").into()
    }
}

fn back(status: StatusCode, body: Bytes) -> Response {
    Response::builder().status(status).body(Body::from(body)).unwrap()
}
