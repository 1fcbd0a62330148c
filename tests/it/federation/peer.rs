//! A peer made for tests: answers as it is told, remembers what it was asked, signs with a key of its own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use rollcall::model::ServerName;
use rollcall::outbound::keys::{SigningKey, SigningKeys, server_keys_json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::name;
use crate::federation::courier::now;

/// One request that came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What it answers next.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Now(StatusCode, String),
    /// The same, and that the next one may come in gzip.
    OffersGzip(StatusCode, String),
    /// 200 once it is notified.
    When(Arc<Notify>),
    /// The head of 200 at once, and then a byte now and then, for ever.
    Dribble,
    Never,
}

/// See [`Answer::Dribble`].
pub(crate) fn dribble() -> Response {
    let bytes = futures_util::stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Ok::<_, std::io::Error>(" "), ()))
    });
    Body::from_stream(bytes).into_response()
}

pub(crate) struct Peer {
    pub(crate) name: ServerName,
    pub(crate) base: String,
    pub(crate) keys: SigningKeys,
    state: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    script: Mutex<VecDeque<Answer>>,
    /// Served under `/_matrix/key/v2/server`, if there is one.
    document: Mutex<Option<String>>,
    dribbles: AtomicBool,
}

impl Peer {
    /// Starts `server`; it plays `script` for whatever it is asked, its last line for ever.
    pub(crate) async fn start(server: &str, script: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let keys = SigningKeys::single(SigningKey::generate("p_1").unwrap());
        let state = Arc::new(Shared { script: Mutex::new(script.into()), ..Shared::default() });
        let router = Router::new().fallback(answer).with_state(state.clone());
        let task = rollcall::lifecycle::spawn("peer", async move { axum::serve(listener, router).await.unwrap() });
        let peer = Self { name: name(server), base, keys, state, task };
        peer.publish(server_keys_json(&peer.name, &peer.keys, now(), Duration::from_secs(3600)));
        peer
    }

    /// What it says its keys are.
    pub(crate) fn publish(&self, document: String) {
        *self.state.document.lock().unwrap() = Some(document);
    }

    /// It says its keys byte by byte, for ever.
    pub(crate) fn dribbles(&self) {
        self.state.dribbles.store(true, Ordering::Relaxed);
    }

    /// All requests but those for keys.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.all().into_iter().filter(|seen| !is_key(&seen.uri)).collect()
    }

    /// How often its keys were asked for.
    pub(crate) fn asked_for_keys(&self) -> usize {
        self.all().iter().filter(|seen| is_key(&seen.uri)).count()
    }

    fn all(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn is_key(uri: &Uri) -> bool {
    uri.path() == "/_matrix/key/v2/server"
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let uri = parts.uri.clone();
    let seen = Seen { at: Instant::now(), method: parts.method, uri: parts.uri, headers: parts.headers, body };
    shared.seen.lock().unwrap().push(seen);
    if is_key(&uri) && shared.dribbles.load(Ordering::Relaxed) {
        return dribble();
    }
    if is_key(&uri) {
        let document = shared.document.lock().unwrap().clone();
        return document.map_or(StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response);
    }
    let next = shared.next();
    match next {
        Answer::When(gate) => {
            gate.notified().await;
            StatusCode::OK.into_response()
        }
        Answer::Dribble => dribble(),
        Answer::Now(status, body) => (status, body).into_response(),
        Answer::OffersGzip(status, body) => (status, [("accept-encoding", "gzip")], body).into_response(),
        Answer::Never => std::future::pending().await,
    }
}

impl Shared {
    fn next(&self) -> Answer {
        let mut script = self.script.lock().unwrap();
        match script.len() {
            0 => Answer::Now(StatusCode::OK, "{}".into()),
            1 => script[0].clone(),
            _ => script.pop_front().unwrap(),
        }
    }
}
