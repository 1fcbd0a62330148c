//! A peer that writes down whatever reaches it before it answers, and answers badly now and then.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use rollcall::clock::{Clock as _, SystemClock};
use rollcall::model::ServerName;
use rollcall::outbound::http::client;
use rollcall::outbound::keys::{SigningKey, SigningKeys, server_keys_json};
use rollcall::outbound::sign::{authorize_put, verify};
use ruma::api::federation::authentication::XMatrix;
use ruma::serde::Base64;
use ruma::signatures::PublicKeySet;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::history::Arrival;

const SEND: &str = "/_matrix/federation/v1/send/";
/// How long the server may refuse our poll.
const POLL_PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Peer {
    pub(super) base: String,
    name: ServerName,
    keys: SigningKeys,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    /// Who sends.
    server: ServerName,
    key: OnceLock<PublicKeySet>,
    document: String,
    rng: Mutex<fastrand::Rng>,
    arrivals: Mutex<Vec<Arrival>>,
    unsigned: Mutex<Vec<String>>,
}

impl Peer {
    /// A peer called `name` of `server`.
    pub(super) async fn start(name: &str, server: &str, rng: fastrand::Rng) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let name = ServerName::parse(name).unwrap();
        let keys = SigningKeys::single(SigningKey::generate("p_1").unwrap());
        let shared = Arc::new(Shared {
            server: ServerName::parse(server).unwrap(),
            key: OnceLock::new(),
            document: server_keys_json(&name, &keys, SystemClock.now(), Duration::from_secs(24 * 3600)),
            rng: Mutex::new(rng),
            arrivals: Mutex::default(),
            unsigned: Mutex::default(),
        });
        let service = Router::new().fallback(answer).with_state(shared.clone());
        let service = service.into_make_service_with_connect_info::<Cut>();
        let serving = async move { axum::serve(Lines(listener), service).await.unwrap() };
        let task = rollcall::lifecycle::spawn("peer", serving);
        Self { base, name, keys, shared, task }
    }

    /// Takes the server's key from its file.
    pub(super) fn trust(&self, key: &Path) {
        let keys = SigningKeys::load(key).unwrap();
        let public = Base64::parse(keys.current().public_base64()).unwrap();
        self.shared.key.set([(keys.current().id(), public)].into()).unwrap();
    }

    /// Asks the server at `base` for the statuses of `users` from now on, until it says that it heard.
    pub(super) async fn poll(&self, base: &str, users: &[String]) {
        let content = json!({ "push": [], "poll": users });
        let edus = json!([{ "edu_type": "m.presence", "content": content }]);
        let now = SystemClock.now().0;
        let body = json!({ "origin": self.name.as_str(), "origin_server_ts": now, "pdus": [], "edus": edus });
        let body = body.to_string();
        let path = format!("{SEND}poll");
        let authorization =
            authorize_put(self.keys.current(), &self.name, &self.shared.server, &path, body.as_bytes()).unwrap();
        let client = client(Duration::from_secs(10)).unwrap();
        let deadline = Instant::now() + POLL_PATIENCE;
        loop {
            let request = client.put(format!("{base}{path}")).header(header::AUTHORIZATION, authorization.clone());
            let answer = request.body(body.clone()).send().await;
            if answer.as_ref().is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return;
            }
            assert!(Instant::now() < deadline, "the poll is refused: {answer:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Everything that arrived, in order.
    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        self.shared.arrivals.lock().unwrap().clone()
    }

    /// How many transactions arrived.
    pub(super) fn count(&self) -> usize {
        self.shared.arrivals.lock().unwrap().len()
    }

    /// Requests that the server did not sign, or not well.
    pub(super) fn unsigned(&self) -> Vec<String> {
        self.shared.unsigned.lock().unwrap().clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, ConnectInfo(cut): ConnectInfo<Cut>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // The sender may die in the middle of it: then there was no request.
    let Ok(body) = axum::body::to_bytes(body, 10 << 20).await else { return StatusCode::BAD_REQUEST.into_response() };
    let path = parts.uri.path().to_owned();
    let Some(txn_id) = path.strip_prefix(SEND) else { return shared.document.clone().into_response() };
    let request = Request::from_parts(parts, body.clone());
    if let Err(reason) = shared.check(&request) {
        shared.unsigned.lock().unwrap().push(format!("{path}: {reason}"));
    }
    let arrival = Arrival { at: Instant::now(), txn_id: txn_id.to_owned(), body };
    shared.arrivals.lock().unwrap().push(arrival);
    let mood = shared.rng.lock().unwrap().u8(..20);
    match mood {
        0..3 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        3..6 => {
            cut.now();
            StatusCode::OK.into_response()
        }
        _ => r#"{"pdus":{}}"#.into_response(),
    }
}

impl Shared {
    fn check(&self, request: &axum::http::Request<Bytes>) -> Result<(), String> {
        let header = request.headers().get(header::AUTHORIZATION).ok_or("no signature")?;
        let scheme = XMatrix::try_from(header).map_err(|error| error.to_string())?;
        if scheme.origin.as_str() != self.server.as_str() {
            return Err(format!("signed by {}", scheme.origin));
        }
        let destination = scheme.destination.as_ref().ok_or("no destination")?;
        let destination = ServerName::parse(destination.as_str()).map_err(|error| error.to_string())?;
        let key = self.key.get().ok_or("no key yet")?.clone();
        verify(&scheme, request, &destination, key).map_err(|error| error.to_string())
    }
}

/// Connections that can be cut before an answer is out.
struct Lines(TcpListener);

struct Line {
    stream: TcpStream,
    cut: Cut,
}

#[derive(Clone, Default)]
struct Cut(Arc<AtomicBool>);

impl Cut {
    fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Lines>> for Cut {
    fn connect_info(stream: IncomingStream<'_, Lines>) -> Self {
        stream.io().cut.clone()
    }
}

impl Listener for Lines {
    type Io = Line;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Line, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        (Line { stream, cut: Cut::default() }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.cut.0.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
