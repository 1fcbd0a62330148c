//! The Matrix server-server API: transactions in, our key out.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::http::{Request, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ruma::api::federation::authentication::XMatrix;
use ruma::signatures::PublicKeySet;
use serde_json::{Value, json};

use super::body::Held;
use super::error::MatrixError;
use super::inflate::Coding;
use super::publisher::Pack;
use super::request::{self, Followed};
use super::transaction::Transaction;
use super::{EdgeState, MAX_CHECKING, address, bad_path, trusted, weight, x_matrix};
use crate::bus::{Exchange, Outgoing};
use crate::config::EdgeFederation;
use crate::core::signal::{Addressed, PeerSignal};
use crate::edge::peer_keys::PeerKeyError;
use crate::model::{ServerName, Timestamp, TraceId};
use crate::outbound::coding::GZIP;
use crate::outbound::{keys, sign};
use crate::wire::contract::{Reject, Routed};
use crate::wire::matrix::parse_edus;
use crate::wire::reject::FEDERATION;
use crate::wire::reject::not_heard;

/// 50 PDUs and 100 EDUs of 64 KiB each, and a little around them.
const MAX_BODY: usize = 10 << 20;
/// A body's bytes that are checked, or read, where they came in, in some tenths of a millisecond: a thread of its own, which a larger
/// body is given, would cost as much again.
const DONE_HERE: usize = 16 << 10;
/// A transaction ID's bytes.
const MAX_TXN_ID: usize = 255;
/// For how long peers may believe our key document without asking again.
const KEYS_VALID: Duration = Duration::from_secs(24 * 3600);
/// What a peer is told whose keys cannot be fetched just now.
const KEYS_RETRY: Duration = Duration::from_secs(30);

/// `PUT /_matrix/federation/v1/send/{txnId}`
pub(crate) async fn put_send(
    State(edge): State<Arc<EdgeState>>,
    Extension(followed): Extension<Followed>,
    txn_id: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Result<Response, MatrixError> {
    let (parts, body) = request.into_parts();
    if edge.config.federation == EdgeFederation::Trusted {
        trusted::prove(&edge, &parts)?;
    }
    let Path(txn_id) = txn_id.map_err(|error| bad_path(&error))?;
    if !(1..=MAX_TXN_ID).contains(&txn_id.len()) {
        return Err(MatrixError::invalid(format!("txnId has {} bytes, not 1 to {MAX_TXN_ID}", txn_id.len())));
    }
    edge.admission.admit().await?;
    let arrival = Arrival { txn_id: txn_id.into(), now: edge.clock.now(), trace: followed.0 };
    let taken = Json(json!({ "pdus": {} }));
    Ok(match edge.config.federation {
        EdgeFederation::Verify => {
            take_signed(&edge, parts, body, arrival).await?;
            // The next one may come in gzip (RFC 9110, section 12.5.3).
            ([(header::ACCEPT_ENCODING, GZIP)], taken).into_response()
        }
        EdgeFederation::Trusted => {
            take_trusted(&edge, parts, body, arrival).await?;
            taken.into_response()
        }
    })
}

/// What is known of a transaction but its body.
struct Arrival {
    txn_id: Arc<str>,
    now: Timestamp,
    trace: Option<TraceId>,
}

/// Returns once a transaction that its origin signed is confirmed.
async fn take_signed(edge: &Arc<EdgeState>, parts: Parts, body: Body, arrival: Arrival) -> Result<(), MatrixError> {
    let unsigned = || MatrixError::unauthorized("no Authorization: X-Matrix …");
    let schemes = x_matrix::schemes(&edge.local, &parts.headers)?;
    let origin = peer(edge, schemes.first().ok_or_else(unsigned)?.origin.as_str())?;
    let from = request::caller(edge, &parts.extensions, &parts.headers);
    let body = edge.peer_bodies.read(from.map(address::owner), &parts.headers, body, MAX_BODY).await?;
    let coding = Coding::of(&parts.headers)?;
    let (scheme, keys) = published(edge, &origin, schemes, from).await?;
    // Not before: it takes room, and keys may take their time.
    let body = uncoded(edge, coding, body).await?;
    authenticate(edge, scheme, keys, Request::from_parts(parts, body.bytes.clone())).await?;
    let txn_id = arrival.txn_id.clone();
    let (origin, pack) = read(edge, Some(origin), body.bytes.clone(), arrival).await?;
    let pack = Pack { body: Some(body), ..pack };
    edge.answered.once(origin, &txn_id, edge.publisher.publish(pack)).await
}

/// Returns once a transaction that a trusted edge hands on, who has proved to be one, waits for its turn: nobody cares what becomes of
/// a copy.
async fn take_trusted(edge: &Arc<EdgeState>, parts: Parts, body: Body, arrival: Arrival) -> Result<(), MatrixError> {
    let schemes = x_matrix::schemes(&edge.local, &parts.headers)?;
    let named = schemes.first().map(|scheme| peer(edge, scheme.origin.as_str())).transpose()?;
    let body = edge.peer_bodies.read(None, &parts.headers, body, MAX_BODY).await?;
    let coding = Coding::of(&parts.headers)?;
    let body = uncoded(edge, coding, body).await?;
    let txn_id = arrival.txn_id.clone();
    let (origin, pack) = read(edge, named, body.bytes.clone(), arrival).await?;
    let pack = Pack { body: Some(body), ..pack };
    edge.answered.once(origin, &txn_id, async { edge.publisher.enqueue(pack).map(drop) }).await
}

/// `GET /_matrix/key/v2/server`
pub(crate) async fn get_key(State(edge): State<Arc<EdgeState>>) -> Response {
    let document = keys::server_keys_json(&edge.local, &edge.keys, edge.clock.now(), KEYS_VALID);
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

/// `GET /_matrix/federation/v1/version`
pub(crate) async fn get_version() -> Json<Value> {
    Json(json!({ "server": { "name": "rollcall", "version": env!("CARGO_PKG_VERSION") } }))
}

/// The first signature by a key that `origin` publishes, and its keys: an old and a new key may sign side by side.
async fn published(
    edge: &EdgeState,
    origin: &ServerName,
    schemes: Vec<XMatrix>,
    from: Option<IpAddr>,
) -> Result<(XMatrix, PublicKeySet), MatrixError> {
    let mut refusal = None;
    for scheme in schemes {
        match edge.peer_keys.with_key(origin, scheme.key.as_str(), from).await {
            Ok(keys) => return Ok((scheme, keys)),
            // A key that may be new outweighs those that are none.
            Err(error @ PeerKeyError::Unasked { .. }) => refusal = Some(error),
            Err(error @ PeerKeyError::Unknown { .. }) => refusal = refusal.or(Some(error)),
            Err(error) => return Err(refuse(&error)),
        }
    }
    Err(refusal.map_or_else(|| MatrixError::unauthorized("no signature"), |error| refuse(&error)))
}

/// A name that a peer goes by, who is listened to. Nobody else speaks for this server.
fn peer(edge: &EdgeState, name: &str) -> Result<ServerName, MatrixError> {
    let name = ServerName::parse(name).map_err(|error| MatrixError::unauthorized(error.to_string()))?;
    if name == edge.local {
        return Err(MatrixError::forbidden(format!("\"origin\" is {name}, which is this server")));
    }
    if !edge.policy.hears(&name) {
        return Err(MatrixError::forbidden(not_heard(&name)));
    }
    Ok(name)
}

/// A body as it is meant.
async fn uncoded(edge: &EdgeState, coding: Coding, body: Held) -> Result<Held, MatrixError> {
    match coding {
        Coding::Identity => Ok(body),
        Coding::Gzip => body.inflate(MAX_BODY, &edge.inflating).await,
    }
}

/// Returns once the origin's signature is found good.
async fn authenticate(
    edge: &Arc<EdgeState>,
    scheme: XMatrix,
    keys: PublicKeySet,
    request: Request<Bytes>,
) -> Result<(), MatrixError> {
    let (size, local) = (request.body().len(), edge.local.clone());
    let cannot = || MatrixError::bad_json("the body cannot be checked");
    let check = move || {
        let is_good = sign::is_signed_as_sent(&scheme, &request, &local, &keys);
        (is_good, scheme, request, local, keys)
    };
    // The body, and what was signed beside it.
    let share = edge.checking.wait(size).await;
    let (is_good, scheme, request, local, keys) = work_on(size, check).await.ok_or_else(cannot)?;
    drop(share);
    if is_good {
        return Ok(());
    }
    // Checking what it means builds the whole body as a tree, many times its size: only so much of that at once.
    let weight = weight_of(request.body().clone()).await?;
    let _share = edge.checking.wait(weight).await;
    work_on(size, move || sign::verify(&scheme, &request, &local, keys))
        .await
        .ok_or_else(cannot)?
        .map_err(|error| MatrixError::unauthorized(format!("signature: {error}")))
}

/// What checking `body` takes of memory. Nobody has shown yet who wrote it.
async fn weight_of(body: Bytes) -> Result<usize, MatrixError> {
    let weight = work_on(body.len(), move || weight::of_trees(&body)).await;
    match weight.ok_or_else(|| MatrixError::bad_json("the body cannot be weighed"))? {
        weight if weight > MAX_CHECKING => Err(MatrixError::too_large_to_check()),
        weight => Ok(weight),
    }
}

/// Works on so many bytes of a body; `None`: the work panicked.
async fn work_on<T: Send + 'static>(size: usize, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match size <= DONE_HERE {
        true => catch_unwind(AssertUnwindSafe(work)).ok(),
        false => tokio::task::spawn_blocking(work).await.ok(),
    }
}

fn refuse(error: &PeerKeyError) -> MatrixError {
    tracing::debug!(%error, "refused");
    match error {
        PeerKeyError::Unknown { .. } => MatrixError::unauthorized(error.to_string()),
        // The reason may tell of our network: it stays in the log.
        PeerKeyError::Unasked { server, .. } | PeerKeyError::Unavailable { server, .. } => {
            MatrixError::unavailable(format!("the keys of {server} cannot be fetched"), KEYS_RETRY)
        }
    }
}

/// The origin, which is `named` if anybody was, and what its transaction says.
async fn read(
    edge: &Arc<EdgeState>,
    named: Option<ServerName>,
    body: Bytes,
    arrival: Arrival,
) -> Result<(ServerName, Pack), MatrixError> {
    let edge = edge.clone();
    let read = work_on(body.len(), move || read_now(&edge, named, &body, &arrival)).await;
    read.ok_or_else(|| MatrixError::bad_json("the body cannot be read"))?
}

fn read_now(
    edge: &EdgeState,
    named: Option<ServerName>,
    body: &[u8],
    arrival: &Arrival,
) -> Result<(ServerName, Pack), MatrixError> {
    let transaction = Transaction::parse(body)?;
    let origin = match (named, transaction.origin.as_deref()) {
        (Some(named), Some(origin)) if named.as_str() != origin => {
            return Err(MatrixError::forbidden(format!("\"origin\" is not {named}, which signed it")));
        }
        (Some(named), _) => named,
        (None, Some(origin)) => peer(edge, origin)?,
        (None, None) => return Err(MatrixError::missing("origin")),
    };
    let sent = Timestamp(transaction.origin_server_ts);
    let (mut inbound, rejects) = parse_edus(&origin, &edge.local, &transaction.edus, arrival.now, sent);
    inbound.txn_id = (&*arrival.txn_id).into();
    let signal = PeerSignal::Transaction(Box::new(inbound));
    let signal = Addressed { to: origin.clone(), at: arrival.now, reply: None, trace: arrival.trace, signal };
    let letters = rejects.into_iter().map(|reject| dead(reject, arrival.trace)).collect();
    Ok((origin, Pack { signals: vec![Routed::Peer(signal)], letters, body: None }))
}

fn dead(reject: Reject, trace: Option<TraceId>) -> Outgoing {
    metrics::counter!("rollcall_dead_letters_total", "origin" => FEDERATION, "reason" => reject.class).increment(1);
    let mut message = Outgoing::new(Exchange::Dead, "", reject.body);
    message.headers.reason = Some(reject.reason);
    message.headers.origin = Some(FEDERATION.into());
    message.headers.trace = trace;
    message
}
