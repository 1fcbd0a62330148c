//! An edge at work on loopback, with a bus and a store of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use reqwest::{Method, RequestBuilder, StatusCode};
use rollcall::bus::embedded::Embedded;
use rollcall::bus::{Bus as _, Headers, Queue, Topology};
use rollcall::clock::SystemClock;
use rollcall::config::{
    ConnectionsConfig, EdgeAuth, EdgeConfig, EdgeFederation, HomeserverConfig, LimitsConfig, ListAccept, Rate,
    StreamConfig,
};
use rollcall::core::settings::Rules;
use rollcall::edge::{EdgeParts, EdgeState, PeerKeys, serve};
use rollcall::outbound::http::client;
use rollcall::outbound::keys::{SigningKey, SigningKeys};
use rollcall::pace::Moments;
use rollcall::policy::Policy;
use rollcall::reader::Reader;
use rollcall::store::sqlite::{Mode, Sqlite};
use rollcall::wire::envelope::{Packet, decode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use rollcall::model::EdgeName;

use super::peer::Peer;
use super::{courier, name};

/// How long a test waits for what has to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A bus in a folder of its own, with one partition.
pub(super) struct Own {
    pub(super) bus: Arc<Embedded>,
    pub(super) store: Arc<Sqlite>,
    _folder: tempfile::TempDir,
}

impl Own {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("rollcall.db"), Mode::Owner).await.unwrap();
        let topology = Topology { prefix: "presence.".into(), partitions: 1 };
        let bus = Embedded::new(store.clone(), topology, Duration::from_secs(10));
        bus.declare().await.unwrap();
        Self { bus, store, _folder: folder }
    }

    /// The next message of `queue`, acknowledged.
    pub(super) async fn take(&self, queue: Queue) -> Taken {
        let mut subscription = self.bus.subscribe(&[(queue, 10)]).await.unwrap();
        let delivery = tokio::time::timeout(PATIENCE, subscription.next()).await.unwrap().unwrap();
        subscription.ack(vec![delivery.token]).await.unwrap();
        Taken { body: delivery.body, headers: delivery.headers }
    }

    /// How many messages wait in `queue`.
    pub(super) async fn depth(&self, queue: &Queue) -> u64 {
        let name = format!("presence.{queue}");
        self.bus.depths().await.unwrap().into_iter().find(|depth| depth.name == name).unwrap().ready
    }

    /// Waits until nothing is left in `queue`, neither waiting nor held.
    pub(super) async fn drained(&self, queue: &Queue) {
        let name = format!("presence.{queue}");
        let end = Instant::now() + PATIENCE;
        loop {
            let depth = self.bus.depths().await.unwrap().into_iter().find(|depth| depth.name == name).unwrap();
            if depth.ready == 0 && depth.unacked.unwrap_or(0) == 0 {
                return;
            }
            assert!(Instant::now() < end, "{name} is not empty: {depth:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A message that was taken off its queue.
pub(super) struct Taken {
    pub(super) body: Bytes,
    pub(super) headers: Headers,
}

impl Taken {
    pub(super) fn packet(&self) -> Packet {
        decode(&self.body).unwrap()
    }
}

pub(super) struct Edge {
    pub(super) base: String,
    pub(super) own: Own,
    pub(super) state: Arc<EdgeState>,
    http: reqwest::Client,
    serving: JoinHandle<io::Result<()>>,
    stop: DropGuard,
}

/// More than any test asks unless it asks for less.
const MANY: Rate = Rate { per_second: 1_000_000, burst: 1_000_000 };

/// A homeserver at `url`, whose answers are remembered for as long as a test lasts.
pub(super) fn homeserver(url: Option<String>) -> HomeserverConfig {
    HomeserverConfig {
        url,
        timeout: Duration::from_secs(10),
        cache: Duration::from_secs(600),
        cache_refused: Duration::from_secs(600),
        cache_max: 1_000,
    }
}

pub(super) fn config() -> EdgeConfig {
    EdgeConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        auth: EdgeAuth::Dev,
        events_token: None,
        federation: EdgeFederation::Verify,
        federation_secret: None,
        trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
        connections: ConnectionsConfig {
            max: 1_000,
            per_address: 1_000,
            head_timeout: Duration::from_secs(600),
            body_timeout: Duration::from_secs(600),
        },
        limits: LimitsConfig { user: MANY, address: MANY, max: 1_000 },
        tls: None,
        apply_wait: Duration::ZERO,
        lag_max: Duration::from_secs(10),
        queue_max: 1_000_000,
        name: Some(EdgeName::parse("edge-1").unwrap()),
        stream: StreamConfig {
            max: 100,
            per_user: 4,
            buffer: 16 << 10,
            heartbeat: Duration::from_secs(1),
            stall_max: Duration::from_secs(60),
        },
    }
}

impl Edge {
    /// An edge of `a.example`.
    pub(super) async fn start(config: EdgeConfig, peers: &[&Peer]) -> Self {
        let own = Own::start().await;
        let parts = parts(&own, config, peers);
        Self::with(own, parts).await
    }

    /// An edge of these parts.
    pub(super) async fn with(own: Own, parts: EdgeParts) -> Self {
        let state = EdgeState::start(parts).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let serving = rollcall::lifecycle::spawn("edge", serve(listener, state.clone(), stop.clone()));
        Self { base, own, state, http: client(Duration::from_secs(60)).unwrap(), serving, stop: stop.drop_guard() }
    }

    /// Stops it, and waits until it has.
    pub(super) async fn stop(self) -> io::Result<()> {
        drop(self.stop);
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap()
    }

    /// A request that is still to be sent.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request; the status and the body's JSON.
    pub(super) async fn ask(&self, method: Method, path: &str, authorization: &str, body: &str) -> (StatusCode, Value) {
        let request = self.request(method, path).body(body.to_owned());
        let request = match authorization {
            "" => request,
            value => request.header("authorization", value),
        };
        answer(request).await
    }
}

/// Sends a request; the status and the body's JSON.
pub(super) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null))
}

pub(super) fn parts(own: &Own, config: EdgeConfig, peers: &[&Peer]) -> EdgeParts {
    let clock = Arc::new(SystemClock);
    let mut federation = courier::config("nobody.example", "http://127.0.0.1:1");
    federation.resolve.extend(peers.iter().map(|peer| (peer.name.clone(), peer.base.clone())));
    EdgeParts {
        bus: own.bus.clone(),
        clock: clock.clone(),
        reader: Reader::new(
            own.store.clone(),
            name("a.example"),
            1,
            Rules { accept: ListAccept::Reciprocal, symmetric: true },
        ),
        config,
        homeserver: homeserver(None),
        local: name("a.example"),
        partitions: 1,
        pack_linger: Duration::from_millis(1),
        moments: Moments::default(),
        keys: Arc::new(SigningKeys::single(SigningKey::generate("a_1").unwrap())),
        peer_keys: PeerKeys::new(courier::peers(&federation), clock),
        policy: Policy::new(&federation.servers),
        embedded_bus: true,
    }
}

/// Whether an answer is this error, and its text holds `part`.
pub(super) fn assert_error(answer: &(StatusCode, Value), status: u16, errcode: &str, part: &str) {
    let (got, body) = answer;
    assert_eq!((got.as_u16(), &body["errcode"]), (status, &Value::from(errcode)), "{body}");
    assert!(body["error"].as_str().unwrap().contains(part), "{body} does not say {part:?}");
}
