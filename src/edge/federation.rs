//! The Matrix server-server API: transactions in, our key out.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ruma::api::federation::authentication::XMatrix;
use serde_json::{Value, json};

use super::error::MatrixError;
use super::publisher::Pack;
use super::request::Followed;
use super::transaction::Transaction;
use super::{EdgeState, bad_path, body};
use crate::bus::{Exchange, Outgoing};
use crate::core::signal::{Addressed, Inbound, PeerSignal};
use crate::edge::peer_keys::PeerKeyError;
use crate::model::{ServerName, Timestamp, TraceId};
use crate::outbound::{keys, sign};
use crate::wire::contract::{Reject, Routed};
use crate::wire::matrix::parse_edus;

/// 50 PDUs and 100 EDUs of 64 KiB each, and a little around them.
const MAX_BODY: usize = 10 << 20;
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
) -> Result<Json<Value>, MatrixError> {
    let Path(txn_id) = txn_id.map_err(|error| bad_path(&error))?;
    if !(1..=MAX_TXN_ID).contains(&txn_id.len()) {
        return Err(MatrixError::invalid(format!("txnId has {} bytes, not 1 to {MAX_TXN_ID}", txn_id.len())));
    }
    edge.admission.admit().await?;
    let now = edge.clock.now();
    let scheme = scheme(&edge, request.headers())?;
    let (parts, body) = request.into_parts();
    let body = body::read(&edge.bodies, &parts.headers, body, MAX_BODY).await?;
    let origin = authenticate(&edge, scheme, parts, body.bytes.clone()).await?;
    let (inbound, rejects) = read(&edge, &origin, &txn_id, &body.bytes, now)?;
    let pack = Pack {
        signals: vec![Routed::Peer(Addressed {
            to: origin,
            at: now,
            reply: None,
            trace: followed.0,
            signal: PeerSignal::Transaction(Box::new(inbound)),
        })],
        messages: rejects.into_iter().map(|reject| dead(reject, followed.0)).collect(),
    };
    edge.publisher.publish(pack).await?;
    Ok(Json(json!({ "pdus": {} })))
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

/// What the request says of its origin, as far as that can be judged without the origin's key.
fn scheme(edge: &EdgeState, headers: &HeaderMap) -> Result<XMatrix, MatrixError> {
    let mut schemes = headers.get_all(header::AUTHORIZATION).into_iter().map(XMatrix::try_from);
    let scheme = match schemes.next() {
        Some(Ok(scheme)) => scheme,
        Some(Err(error)) => return Err(MatrixError::unauthorized(format!("Authorization is no X-Matrix: {error}"))),
        None => return Err(MatrixError::unauthorized("no Authorization: X-Matrix …")),
    };
    match &scheme.destination {
        Some(destination) if destination.as_str() != edge.local.as_str() => {
            Err(MatrixError::unauthorized(format!("\"destination\" is {destination}, not {}", edge.local)))
        }
        _ if scheme.origin.as_str() == edge.local.as_str() => {
            Err(MatrixError::forbidden(format!("\"origin\" is {}, which is this server", scheme.origin)))
        }
        _ if !edge.policy.hears(&origin(&scheme)?) => {
            Err(MatrixError::forbidden(format!("{} is not listened to here", scheme.origin)))
        }
        _ => Ok(scheme),
    }
}

/// The origin, once its signature is found good.
async fn authenticate(
    edge: &Arc<EdgeState>,
    scheme: XMatrix,
    parts: Parts,
    body: Bytes,
) -> Result<ServerName, MatrixError> {
    let origin = origin(&scheme)?;
    let keys = edge.peer_keys.with_key(&origin, scheme.key.as_str()).await.map_err(|error| refuse(&error))?;
    // Checking builds the whole body as a tree, many times its size: only so much of that at once, and not on a thread that serves
    // others.
    let _share = edge.checking.wait(body.len()).await;
    let local = edge.local.clone();
    let request = Request::from_parts(parts, body);
    tokio::task::spawn_blocking(move || sign::verify(&scheme, &request, &local, keys))
        .await
        .map_err(|_| MatrixError::bad_json("the body cannot be checked"))?
        .map_err(|error| MatrixError::unauthorized(format!("signature: {error}")))?;
    Ok(origin)
}

fn origin(scheme: &XMatrix) -> Result<ServerName, MatrixError> {
    ServerName::parse(scheme.origin.as_str()).map_err(|error| MatrixError::unauthorized(error.to_string()))
}

fn refuse(error: &PeerKeyError) -> MatrixError {
    tracing::debug!(%error, "refused");
    match error {
        PeerKeyError::Unknown { .. } => MatrixError::unauthorized(error.to_string()),
        // The reason may tell of our network: it stays in the log.
        PeerKeyError::Unavailable { server, .. } => {
            MatrixError::unavailable(format!("the keys of {server} cannot be fetched"), KEYS_RETRY)
        }
    }
}

fn read(
    edge: &EdgeState,
    origin: &ServerName,
    txn_id: &str,
    body: &[u8],
    now: Timestamp,
) -> Result<(Inbound, Vec<Reject>), MatrixError> {
    let transaction = Transaction::parse(body)?;
    if transaction.origin.as_deref().is_some_and(|named| named != origin.as_str()) {
        return Err(MatrixError::forbidden(format!("\"origin\" is not {origin}, which signed it")));
    }
    let sent = Timestamp(transaction.origin_server_ts);
    let (mut inbound, rejects) = parse_edus(origin, &edge.local, &transaction.edus, now, sent);
    inbound.txn_id = txn_id.into();
    Ok((inbound, rejects))
}

fn dead(reject: Reject, trace: Option<TraceId>) -> Outgoing {
    metrics::counter!("rollcall_dead_letters_total", "origin" => "federation", "reason" => reject.class).increment(1);
    let mut message = Outgoing::new(Exchange::Dead, "", reject.body);
    message.headers.reason = Some(reject.reason);
    message.headers.origin = Some("federation".into());
    message.headers.trace = trace;
    message
}
