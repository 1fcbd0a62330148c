//! Step 1, in: HTTP requests become signals, confirmed by the bus before they are answered.
//!
//! | file | what |
//! |---|---|
//! | `client`, `devices`, `requests` | clients: status, list, sessions, devices, permission |
//! | `stream` | clients: push of updates |
//! | `events` | foreign edges without AMQP |
//! | `federation`, `x_matrix`, `weight`, `transaction`, `answered`, `trusted`, `peer_keys` | peers |
//! | `publisher`, `applied`, `admission` | the way to the queues, the word back, the bound |
//! | `serving`, `door`, `places`, `tls` | connections |
//! | `address`, `limits`, `shares`, `auth`, `whoami`, `absence` | who is there, and how much they may ask |
//! | `request`, `body`, `inflate`, `json`, `error` | what all of them share |

mod absence;
mod address;
mod admission;
mod answered;
mod applied;
mod auth;
mod body;
mod client;
mod devices;
mod door;
mod error;
mod events;
mod federation;
pub mod inflate;
mod json;
mod limits;
mod lists;
pub mod peer_keys;
mod places;
mod publisher;
mod request;
mod requests;
mod serving;
mod shares;
mod stream;
mod tls;
pub mod transaction;
mod trusted;
mod weight;
mod whoami;
pub mod x_matrix;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::routing::{get, post, put};
use axum::{Router, middleware};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use ulid::Ulid;

pub use self::auth::OpenDoor;
pub use self::error::MatrixError;
pub use self::peer_keys::PeerKeys;
pub use self::serving::serve;
pub use self::tls::TlsError;
pub(crate) use self::tls::mistakes as tls_mistakes;
pub use self::whoami::HomeserverError;

use self::admission::Admission;
use self::answered::Answered;
use self::applied::Applied;
use self::auth::Authenticator;
use self::body::{Bodies, Budget};
use self::limits::Limits;
use self::lists::Lists;
use self::publisher::{Pack, Publisher};
use self::request::Followed;
use self::stream::Streams;
use self::tls::Certificates;
use crate::bus::SharedBus;
use crate::clock::SharedClock;
use crate::config::{EdgeConfig, HomeserverConfig};
use crate::core::signal::{Addressed, Stamp, UserSignal};
use crate::lifecycle;
use crate::model::{EdgeName, ServerName, UserId};
use crate::outbound::keys::SigningKeys;
use crate::pace::{Moments, Tempo};
use crate::policy::Policy;
use crate::reader::Reader;
use crate::store::StoreError;
use crate::wire::contract::Routed;

/// A client's body in bytes: a list change of 2,000 user IDs of ordinary length.
const MAX_CLIENT_BODY: usize = 128 << 10;
/// Bytes of clients' bodies that are held at once.
const MAX_CLIENT_BODIES: usize = 32 << 20;
/// And of those of one user: some of the largest size.
const MAX_CLIENT_BODIES_OF_ONE: usize = 4 * MAX_CLIENT_BODY;
/// Bytes of other edges' bodies: no client takes their room.
const MAX_EDGE_BODIES: usize = 32 << 20;
/// Bytes of peers': strangers may fill these, so clients have their own.
const MAX_PEER_BODIES: usize = 64 << 20;
/// And of those that come from one address: room for one of the largest size and some others.
const MAX_PEER_BODIES_OF_ONE: usize = 16 << 20;
/// Bytes that the trees of transactions take whose signatures are being checked at once.
const MAX_CHECKING: usize = 256 << 20;
/// Bodies of peers that are being inflated at once, each on a thread of its own for some tens of milliseconds at most.
const INFLATING: usize = 2;

/// What the edge is made of.
pub struct EdgeParts {
    /// Where signals go.
    pub bus: SharedBus,
    /// The time of receipt.
    pub clock: SharedClock,
    /// What workers committed.
    pub reader: Reader,
    /// `edge.*`
    pub config: EdgeConfig,
    /// `homeserver.*`
    pub homeserver: HomeserverConfig,
    /// The Matrix server that this edge speaks for.
    pub local: ServerName,
    /// How many slices the key space has.
    pub partitions: u16,
    /// `worker.pack_linger`
    pub pack_linger: Duration,
    /// Those of its process: for what comes when much does.
    pub moments: Moments,
    /// The local server's signing keys.
    pub keys: Arc<SigningKeys>,
    /// Peers' keys.
    pub peer_keys: PeerKeys,
    /// Which peers are listened to.
    pub policy: Policy,
    /// The bus is embedded: `edge.queue_max` bounds it, for nobody else does.
    pub embedded_bus: bool,
}

/// Why an edge does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Anybody could be anybody.
    #[error(transparent)]
    Open(#[from] OpenDoor),
    /// The homeserver cannot be asked.
    #[error(transparent)]
    Homeserver(#[from] HomeserverError),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The certificates, and which are in use.
type Tls = (Certificates, watch::Receiver<Arc<rustls::ServerConfig>>);

/// An edge at work.
pub struct EdgeState {
    clock: SharedClock,
    reader: Reader,
    config: EdgeConfig,
    local: ServerName,
    keys: Arc<SigningKeys>,
    peer_keys: PeerKeys,
    policy: Policy,
    auth: Authenticator,
    limits: Limits,
    answered: Answered,
    tls: Mutex<Option<Tls>>,
    admission: Admission,
    publisher: Publisher,
    applied: Arc<Applied>,
    client_bodies: Bodies<UserId>,
    edge_bodies: Bodies,
    peer_bodies: Bodies,
    checking: Budget,
    lists: Lists,
    /// Turns to inflate a body.
    inflating: Arc<Semaphore>,
    stamps: AtomicU64,
    streams: Arc<Streams>,
    /// Ends what takes updates off the bus.
    _listening: DropGuard,
}

impl EdgeState {
    /// Starts the edge's tasks: they end with the last clone of the state, and with the bus. Call it once a process: it takes the
    /// bus's replies. Fails if the configured listener is not safe with the configured authentication, and if files or addresses that
    /// either needs are of no use.
    pub fn start(parts: EdgeParts) -> Result<Arc<Self>, StartError> {
        let auth = Authenticator::new(parts.config.auth, &parts.homeserver, parts.local.clone())?;
        auth.check(parts.config.listen)?;
        let tls = parts.config.tls.as_ref().map(Certificates::load).transpose()?;
        let applied = Applied::new();
        drop(lifecycle::spawn("edge replies", applied.clone().listen(parts.bus.replies())));
        let name = parts.config.name.clone().unwrap_or_else(random_name);
        tracing::info!(%name, "the edge's name");
        let body_timeout = parts.config.connections.body_timeout;
        let (streams, stop) = (Streams::new(name, parts.config.stream.clone()), CancellationToken::new());
        let listening = stream::listen(parts.bus.clone(), parts.clock.clone(), streams.clone(), stop.clone());
        drop(lifecycle::spawn("edge updates", listening));
        Ok(Arc::new(Self {
            limits: Limits::new(&parts.config.limits),
            admission: Admission {
                reader: parts.reader.clone(),
                bus: parts.bus.clone(),
                clock: parts.clock.clone(),
                lag_max: parts.config.lag_max,
                depth_max: parts.embedded_bus.then_some(parts.config.queue_max),
                last: Mutex::new(None),
            },
            publisher: Publisher::start(
                parts.bus,
                parts.partitions,
                parts.pack_linger,
                Tempo::of_callers(parts.pack_linger, parts.moments),
            ),
            clock: parts.clock,
            reader: parts.reader,
            config: parts.config,
            local: parts.local,
            keys: parts.keys,
            peer_keys: parts.peer_keys,
            policy: parts.policy,
            auth,
            answered: Answered::new(),
            tls: Mutex::new(tls),
            applied,
            client_bodies: Bodies::new(MAX_CLIENT_BODIES, MAX_CLIENT_BODIES_OF_ONE, body_timeout),
            edge_bodies: Bodies::new(MAX_EDGE_BODIES, MAX_EDGE_BODIES, body_timeout),
            peer_bodies: Bodies::new(MAX_PEER_BODIES, MAX_PEER_BODIES_OF_ONE, body_timeout),
            checking: Budget::new(MAX_CHECKING),
            lists: Lists::new(),
            inflating: Arc::new(Semaphore::new(INFLATING)),
            stamps: AtomicU64::new(0),
            streams,
            _listening: stop.drop_guard(),
        }))
    }

    /// The stamp of an event that came in now. Within one edge, later is greater, also within a millisecond.
    fn stamp(&self) -> Stamp {
        let count = u128::from(self.stamps.fetch_add(1, Ordering::Relaxed));
        let ts = self.clock.now();
        // 48 bits of time, 64 of the count, 16 so that two edges hardly ever agree.
        let id = Ulid::from_parts(ts.0, count << 16 | u128::from(fastrand::u16(..)));
        Stamp { ts, id: id.to_string().into() }
    }

    /// Hands `signals` to the machine of `user` and waits for the confirm, then a little for the word that they are applied.
    async fn tell(&self, user: &UserId, followed: Followed, signals: Vec<UserSignal>) -> Result<(), MatrixError> {
        self.admission.admit().await?;
        let waiter = self.applied.register();
        let mut signals = self.address(user, followed, signals);
        // They travel together and in order: the last one's word is good for all.
        if let (Some(Routed::User(last)), Some(waiter)) = (signals.last_mut(), &waiter) {
            last.reply = Some(waiter.id());
        }
        self.publisher.publish(Pack { signals, ..Pack::default() }).await?;
        if let Some(waiter) = waiter {
            let applied = waiter.wait(self.config.apply_wait).await;
            tracing::debug!(applied, "confirmed");
        }
        Ok(())
    }

    /// Hands a signal to the machine of `user` and waits for the confirm alone.
    async fn hint(&self, user: &UserId, followed: Followed, signal: UserSignal) -> Result<(), MatrixError> {
        self.admission.admit().await?;
        self.say(user, followed, vec![signal]).await
    }

    /// The same however much waits.
    async fn say(&self, user: &UserId, followed: Followed, signals: Vec<UserSignal>) -> Result<(), MatrixError> {
        let signals = self.address(user, followed, signals);
        self.publisher.publish(Pack { signals, ..Pack::default() }).await
    }

    /// Bytes that wait for clients of streams: what tests of bounds ask for.
    pub fn buffered(&self) -> usize {
        self.streams.buffered()
    }

    fn address(&self, user: &UserId, followed: Followed, signals: Vec<UserSignal>) -> Vec<Routed> {
        let at = self.clock.now();
        let address = |signal| Addressed { to: user.clone(), at, reply: None, trace: followed.0, signal };
        signals.into_iter().map(address).map(Routed::User).collect()
    }
}

/// Every path that the edge serves.
fn router(edge: Arc<EdgeState>) -> Router {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        router = router
            .route(
                &format!("/_matrix/client/{version}/presence/{{userId}}/status"),
                get(client::get_status).put(client::put_status),
            )
            .route(
                &format!("/_matrix/client/{version}/presence/list/{{userId}}"),
                get(client::get_list).post(client::post_list),
            );
    }
    router
        .route("/_rollcall/v1/users/{userId}/poll/{deviceId}", put(devices::put_poll).delete(devices::delete_poll))
        .route("/_rollcall/v1/users/{userId}/devices/{deviceId}", get(devices::get_device).put(devices::put_device))
        .route("/_rollcall/v1/users/{userId}/requests", get(requests::get_requests))
        .route("/_rollcall/v1/users/{userId}/requests/{observer}", post(requests::post_request))
        .route("/_rollcall/v1/users/{userId}/stream", get(stream::get_stream))
        .route(request::EVENTS, post(events::post_events))
        .route(request::SEND, put(federation::put_send))
        .route("/_matrix/federation/v1/version", get(federation::get_version))
        .route("/_matrix/key/v2/server", get(federation::get_key))
        // The form of before Matrix 1.1: peers that still ask for one key by its ID take the same document.
        .route("/_matrix/key/v2/server/{keyId}", get(federation::get_key))
        .fallback(async || MatrixError::unrecognized())
        .method_not_allowed_fallback(async || MatrixError::wrong_method())
        .layer(middleware::from_fn_with_state(edge.clone(), request::observe))
        .with_state(edge)
}

fn random_name() -> EdgeName {
    EdgeName::parse(&format!("edge-{:016x}", fastrand::u64(..))).expect("hex digits")
}

fn user_id(path: Result<Path<String>, PathRejection>) -> Result<UserId, MatrixError> {
    let Path(user) = path.map_err(|error| bad_path(&error))?;
    UserId::parse(&user).map_err(|error| MatrixError::invalid(format!("userId: {error}")))
}

fn bad_path(error: &PathRejection) -> MatrixError {
    MatrixError::invalid(format!("the path: {error}"))
}

fn store_error(error: &StoreError) -> MatrixError {
    tracing::warn!(%error, "cannot read");
    MatrixError::unavailable("the store does not answer", Duration::from_secs(1))
}
