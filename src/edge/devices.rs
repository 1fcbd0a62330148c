//! rollcall's own client API: sessions (C4), idle times (C2) and device types (C3).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::auth::Caller;
use super::error::MatrixError;
use super::json::Fields;
use super::request::Followed;
use super::{EdgeState, MAX_CLIENT_BODY, bad_path, store_error};
use crate::core::signal::{SessionAction, UserSignal};
use crate::model::{DeviceId, UserId};

/// A session that nobody renews ends after this: 2 minutes.
const LEASE_MS: u64 = 120_000;
/// And whoever asks for more gets this: 1 hour.
const LEASE_MAX_MS: u64 = 3_600_000;
/// A device type's bytes.
const MAX_TYPE: usize = 32;

type DevicePath = Result<Path<(String, String)>, PathRejection>;
type Answer = Result<Json<Value>, MatrixError>;

/// `PUT /_rollcall/v1/users/{userId}/poll/{deviceId}`, body `{"lease_ms"?: n}` or none.
pub(crate) async fn put_poll(
    State(edge): State<Arc<EdgeState>>,
    caller: Caller,
    Extension(followed): Extension<Followed>,
    path: DevicePath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let device = own_device(&caller, path)?;
    let body = edge.client_bodies.read(Some(caller.user.clone()), &headers, body, MAX_CLIENT_BODY).await?;
    let lease_ms = body.take_apart_if_any(|fields| Ok(fields.millis("lease_ms")?.flatten()))?;
    let start = start(&edge, device, lease_ms);
    edge.tell(&caller.user, followed, vec![start]).await?;
    Ok(Json(json!({})))
}

/// `DELETE /_rollcall/v1/users/{userId}/poll/{deviceId}`; ends the device's streams here, too.
pub(crate) async fn delete_poll(
    State(edge): State<Arc<EdgeState>>,
    caller: Caller,
    Extension(followed): Extension<Followed>,
    path: DevicePath,
) -> Answer {
    let device = own_device(&caller, path)?;
    edge.streams.end(&caller.user, &device);
    let stop = UserSignal::Session { device, action: SessionAction::Stop, stamp: edge.stamp() };
    edge.tell(&caller.user, followed, vec![stop]).await?;
    Ok(Json(json!({})))
}

/// `GET /_rollcall/v1/users/{userId}/devices/{deviceId}`: what was put there, the idle time as of now.
pub(crate) async fn get_device(State(edge): State<Arc<EdgeState>>, caller: Caller, path: DevicePath) -> Answer {
    let device = own_device(&caller, path)?;
    let known = edge.reader.device(&caller.user, &device).await.map_err(|error| store_error(&error))?;
    let known = known.ok_or_else(|| MatrixError::not_found("this device was never heard of, or is gone"))?;
    let idle_ms = known.idle_since().map(|since| edge.clock.now().since(since));
    Ok(Json(json!({ "idle_ms": idle_ms, "device_type": known.kind() })))
}

/// `PUT /_rollcall/v1/users/{userId}/devices/{deviceId}`, body `{"idle_ms"?: n|null, "device_type"?: text|null}`.
pub(crate) async fn put_device(
    State(edge): State<Arc<EdgeState>>,
    caller: Caller,
    Extension(followed): Extension<Followed>,
    path: DevicePath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let device = own_device(&caller, path)?;
    let body = edge.client_bodies.read(Some(caller.user.clone()), &headers, body, MAX_CLIENT_BODY).await?;
    let signals = body.take_apart(|fields| device_signals(&edge, &device, fields))?;
    if signals.iter().any(|signal| matches!(signal, UserSignal::Device { device_type: None, .. })) {
        // Gone: an open stream would renew its session, and bring it back.
        edge.streams.end(&caller.user, &device);
    }
    edge.tell(&caller.user, followed, signals).await?;
    Ok(Json(json!({})))
}

/// The signal that starts or renews a session, for 2 minutes unless said otherwise, for an hour at most.
pub(crate) fn start(edge: &EdgeState, device: DeviceId, lease_ms: Option<u64>) -> UserSignal {
    let lease_ms = lease_ms.unwrap_or(LEASE_MS).min(LEASE_MAX_MS);
    UserSignal::Session { device, action: SessionAction::Start { lease_ms, edge: None }, stamp: edge.stamp() }
}

fn own_device(caller: &Caller, path: DevicePath) -> Result<DeviceId, MatrixError> {
    let Path((user, device)) = path.map_err(|error| bad_path(&error))?;
    let user = UserId::parse(&user).map_err(|error| MatrixError::invalid(format!("userId: {error}")))?;
    caller.must_be(&user)?;
    DeviceId::parse(&device).map_err(|error| MatrixError::invalid(format!("deviceId: {error}")))
}

fn device_signals(edge: &EdgeState, device: &DeviceId, fields: &Fields) -> Result<Vec<UserSignal>, MatrixError> {
    let mut signals = Vec::new();
    if let Some(device_type) = fields.text("device_type", MAX_TYPE)? {
        if device_type == Some("") {
            return Err(MatrixError::invalid("\"device_type\" is empty"));
        }
        let device_type = device_type.map(Into::into);
        signals.push(UserSignal::Device { device: device.clone(), device_type, stamp: edge.stamp() });
    }
    if let Some(idle_ms) = fields.millis("idle_ms")? {
        signals.push(UserSignal::Idle { device: device.clone(), idle_ms, stamp: edge.stamp() });
    }
    if signals.is_empty() { Err(MatrixError::missing("idle_ms or device_type")) } else { Ok(signals) }
}
