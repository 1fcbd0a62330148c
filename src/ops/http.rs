//! The operations listener: `/livez`, `/readyz`, `/metrics`, `/status` and the dashboard on `/`.
//!
//! It has no authentication: whoever reaches it sees counts and names of queues and workers, never users or peers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Router, body::Body};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::status::{Observer, Snapshot, Status};

/// How often what histograms gathered is folded together, whether or not anybody scrapes: it bounds their memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// What the listener answers from.
pub struct OpsState {
    /// Looks at bus and store.
    pub observer: Observer,
    /// Renders metrics.
    pub metrics: PrometheusHandle,
    /// Past this lag, not ready; `edge.lag_max`.
    pub lag_max: Duration,
}

/// Serves on `listener` until `stop`; requests under way are finished.
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, state: Arc<OpsState>, stop: CancellationToken) -> io::Result<()> {
    let upkeep = keep_up(state.metrics.clone());
    let server = axum::serve(listener, router(state)).with_graceful_shutdown(stop.cancelled_owned());
    tokio::select! {
        result = server => result,
        () = upkeep => Ok(()),
    }
}

/// The routes.
pub fn router(state: Arc<OpsState>) -> Router {
    Router::new()
        .route("/", get(dashboard))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(state)
}

async fn keep_up(metrics: PrometheusHandle) {
    let mut ticks = interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

/// The page holds no data, so only its own script and style are let in.
async fn dashboard() -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("dashboard.html")))
}

async fn metrics(State(state): State<Arc<OpsState>>) -> Response<Body> {
    // For the gauges of queues and partitions.
    state.observer.snapshot().await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render()).into_response()
}

async fn status(State(state): State<Arc<OpsState>>) -> Json<Status> {
    Json(state.observer.snapshot().await.status)
}

async fn readiness(State(state): State<Arc<OpsState>>) -> impl IntoResponse {
    let readiness = Readiness::of(&state.observer.snapshot().await, state.lag_max);
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(readiness))
}

/// The answer of `/readyz`.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Readiness {
    ready: bool,
    checks: [Check; 4],
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

impl Readiness {
    fn of(snapshot: &Snapshot, lag_max: Duration) -> Self {
        let checks = [
            reached("broker", &snapshot.broker),
            reached("store", &snapshot.store),
            owners(&snapshot.status),
            lag(&snapshot.status, lag_max),
        ];
        Self { ready: checks.iter().all(|check| check.ok), checks }
    }
}

fn reached(name: &'static str, result: &Result<(), String>) -> Check {
    Check { name, ok: result.is_ok(), detail: result.clone().err().unwrap_or_else(|| "answers".into()) }
}

fn owners(status: &Status) -> Check {
    let total = status.partitions.len();
    let owned = status.partitions.iter().filter(|partition| partition.owner.is_some()).count();
    Check { name: "partitions", ok: owned == total, detail: format!("{owned} of {total} have an owner") }
}

fn lag(status: &Status, max: Duration) -> Check {
    let (ok, detail) = match status.lag_ms() {
        Some(ms) => (Duration::from_millis(ms) <= max, format!("{ms} ms of at most {} ms", max.as_millis())),
        None => (false, "no partition has read a beat yet".into()),
    };
    Check { name: "lag", ok, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::status::PartitionStatus;

    fn seen(owner: Option<&str>, lag_ms: Option<u64>) -> Snapshot {
        let partition = PartitionStatus { partition: 0, owner: owner.map(Into::into), epoch: 1, lag_ms };
        let status = Status { partitions: vec![partition], ..Status::default() };
        Snapshot { status, broker: Ok(()), store: Ok(()) }
    }

    fn failing(snapshot: &Snapshot) -> Vec<&'static str> {
        let readiness = Readiness::of(snapshot, Duration::from_secs(10));
        let failing: Vec<_> = readiness.checks.iter().filter(|check| !check.ok).map(|check| check.name).collect();
        assert_eq!(readiness.ready, failing.is_empty());
        failing
    }

    #[test]
    fn every_check_can_fail_alone() {
        assert_eq!(failing(&seen(Some("a"), Some(10_000))), [""; 0]);
        assert_eq!(failing(&seen(None, Some(0))), ["partitions"]);
        assert_eq!(failing(&seen(Some("a"), Some(10_001))), ["lag"]);
        assert_eq!(failing(&seen(Some("a"), None)), ["lag"]);
        let unreachable = Err("refused".to_owned());
        assert_eq!(failing(&Snapshot { broker: unreachable.clone(), ..seen(Some("a"), Some(0)) }), ["broker"]);
        assert_eq!(failing(&Snapshot { store: unreachable, ..seen(Some("a"), Some(0)) }), ["store"]);
    }
}
