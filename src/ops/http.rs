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
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::process;
use super::readiness::Readiness;
use super::status::{Observer, Status};

/// How often what histograms gathered is folded together, whether or not anybody scrapes: it bounds their memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// What the listener answers from.
pub struct OpsState {
    /// Looks at bus and store.
    pub observer: Observer,
    /// Renders metrics.
    pub metrics: PrometheusHandle,
}

/// For how long requests under way have their time after a stop: who sent half of one holds nobody up.
const FINISHING: Duration = Duration::from_secs(3);

/// Serves on `listener` until `stop`; requests under way have a few seconds to finish.
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, state: Arc<OpsState>, stop: CancellationToken) -> io::Result<()> {
    let upkeep = keep_up(state.metrics.clone());
    let overdue = async {
        stop.cancelled().await;
        sleep(FINISHING).await;
    };
    let server = axum::serve(listener, router(state)).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        result = server => result,
        () = overdue => Ok(()),
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
    let text = state.metrics.render() + &process::render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn status(State(state): State<Arc<OpsState>>) -> Json<Status> {
    Json(state.observer.snapshot().await.status)
}

async fn readiness(State(state): State<Arc<OpsState>>) -> impl IntoResponse {
    let Status { ready, checks, .. } = state.observer.snapshot().await.status;
    let readiness = Readiness { ready, checks };
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(readiness))
}
