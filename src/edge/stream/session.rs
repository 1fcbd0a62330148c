//! The session that a stream holds (C4): started with it, renewed while it is open, left when it ends. Leaving concerns this edge
//! alone: a client that came back at another edge meanwhile keeps its session there.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::{Instant, sleep_until, timeout};

use super::registry::Stream;
use crate::core::signal::{SessionAction, UserSignal};
use crate::edge::EdgeState;
use crate::edge::auth::{Caller, Credentials};
use crate::edge::request::Followed;
use crate::lifecycle;
use crate::model::DeviceId;

/// The lease of a stream's session, ms: so long it outlives an edge that dies.
const LEASE_MS: u64 = 120_000;
/// When it is renewed, ms: two renewals may fail. Random, so that streams that were opened together part.
const RENEW_MS: std::ops::RangeInclusive<u64> = 30_000..=40_000;
/// Access tokens are looked at again when what is known of them is forgotten, but not more often than this.
const LOOK_MIN: Duration = Duration::from_secs(1);
/// How long a look may take.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// When one is looked at again while the homeserver cannot be asked, ms: that says nothing of the token.
const LOOK_AGAIN_MS: std::ops::RangeInclusive<u64> = 30_000..=60_000;
/// When a renewal that failed is tried again, ms.
const RETRY_MS: std::ops::RangeInclusive<u64> = 3_000..=6_000;

/// Renews the session until the stream's end, then leaves it. An access token that is good no longer ends the stream.
pub(super) fn hold(edge: &Arc<EdgeState>, caller: &Caller, credentials: Credentials, stream: &Arc<Stream>) {
    let holding = keep(edge.clone(), caller.clone(), credentials, stream.clone());
    drop(lifecycle::spawn("stream session", edge.streams.sessions.track_future(holding)));
}

/// The signal that starts or renews the session of `device` at this edge.
pub(super) fn start(edge: &EdgeState, device: &DeviceId) -> UserSignal {
    let name = edge.streams.name.as_str().into();
    let action = SessionAction::Start { lease_ms: LEASE_MS, edge: Some(name) };
    UserSignal::Session { device: device.clone(), action, stamp: edge.stamp() }
}

async fn keep(edge: Arc<EdgeState>, caller: Caller, credentials: Credentials, stream: Arc<Stream>) {
    let mut renew_at = Instant::now() + random(RENEW_MS);
    let mut look_at = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stream.end.cancelled() => break,
            () = sleep_until(renew_at.min(look_at)) => {}
        }
        if Instant::now() >= look_at {
            let Some(looked) = stream.end.run_until_cancelled(look(&edge, &credentials)).await else { break };
            let Some(next) = looked else {
                tracing::debug!(user = %caller.user, "an access token is good no longer: its stream ends");
                stream.end.cancel();
                break;
            };
            look_at = next;
        }
        if Instant::now() >= renew_at {
            // However far workers lag: renewals are few, and without them sessions would end and start again.
            let renewed = edge.say(&caller.user, Followed(None), vec![start(&edge, &caller.device)]).await;
            renew_at = Instant::now() + random(if renewed.is_ok() { RENEW_MS } else { RETRY_MS });
        }
    }
    leave(&edge, &caller).await;
}

fn random(ms: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(ms))
}

/// When to look at the token again; `None`: it is good no longer.
async fn look(edge: &EdgeState, credentials: &Credentials) -> Option<Instant> {
    let refusals = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
    // The session has to be renewed meanwhile.
    match timeout(LOOK_MAX, edge.auth.good_until(credentials)).await {
        Ok(Ok(until)) => Some(until.max(Instant::now() + LOOK_MIN)),
        Ok(Err(error)) if refusals.contains(&error.status()) => None,
        _ => Some(Instant::now() + random(LOOK_AGAIN_MS)),
    }
}

async fn leave(edge: &EdgeState, caller: &Caller) {
    // Stamped before the look: a stream of the same device that opens after it has a newer start.
    let stamp = edge.stamp();
    if edge.streams.goes_on(&caller.user, &caller.device) {
        return;
    }
    let action = SessionAction::Leave { edge: edge.streams.name.as_str().into() };
    let leave = UserSignal::Session { device: caller.device.clone(), action, stamp };
    if edge.say(&caller.user, Followed(None), vec![leave]).await.is_err() {
        tracing::debug!(user = %caller.user, "a session could not be left: its lease will end it");
    }
}
