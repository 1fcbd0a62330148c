//! What every request goes through: a trace, a span, a count, the bound of its address, and CORS where clients are browsers.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::door::Remote;
use super::error::MatrixError;
use super::{EdgeState, address};
use crate::config::EdgeFederation;
use crate::model::TraceId;

/// The trace that a request's signals belong to, if somebody follows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Followed(pub(crate) Option<TraceId>);

const CORS: [(HeaderName, &str); 3] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE, OPTIONS"),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With, Content-Type, Authorization"),
];

/// The routes whose callers may prove themselves before the bound of their address counts; the second if copies come from a trusted edge.
pub(crate) const EVENTS: &str = "/_rollcall/v1/events";
pub(crate) const SEND: &str = "/_matrix/federation/v1/send/{txnId}";

/// Around every handler.
pub(crate) async fn observe(State(edge): State<Arc<EdgeState>>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none".into(), |path| path.as_str().to_owned());
    let (begun, method) = (Instant::now(), method(request.method()));
    let for_clients = is_for_clients(request.uri().path());
    let (trace, followed) = trace(request.headers());
    request.extensions_mut().insert(followed);
    let span = tracing::info_span!("request", trace_id = %trace, method = %request.method(), route);
    let mut response = match admit(&edge, &request, &route) {
        Err(error) => error.into_response(),
        Ok(()) if for_clients && request.method() == Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => next.run(request).instrument(span.clone()).await,
    };
    span.in_scope(|| tracing::debug!(code = response.status().as_u16(), "answered"));
    metrics::histogram!("rollcall_http_request_seconds", "route" => route.clone(), "method" => method)
        .record(begun.elapsed().as_secs_f64());
    metrics::counter!("rollcall_http_requests_total", "route" => route, "code" => response.status().as_str().to_owned())
        .increment(1);
    if for_clients {
        for (name, value) in CORS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

/// The name in metrics: strangers may make up any.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

fn admit(edge: &EdgeState, request: &Request, route: &str) -> Result<(), MatrixError> {
    let proves_itself = match (request.method(), route) {
        (&Method::POST, EVENTS) => true,
        (&Method::PUT, SEND) => edge.config.federation == EdgeFederation::Trusted,
        _ => false,
    };
    if proves_itself { Ok(()) } else { limit(edge, request.extensions(), request.headers()) }
}

/// Counts a request against the address that it comes from, if it comes from any but a trusted proxy's own.
pub(crate) fn limit(edge: &EdgeState, extensions: &Extensions, headers: &HeaderMap) -> Result<(), MatrixError> {
    caller(edge, extensions, headers).map_or(Ok(()), |address| edge.limits.address(address))
}

/// The address that a request comes from; `None`: it is a trusted proxy's own, and no bound of addresses counts.
pub(crate) fn caller(edge: &EdgeState, extensions: &Extensions, headers: &HeaderMap) -> Option<IpAddr> {
    let remote = Remote::of(extensions)?;
    address::client(remote.address, headers, &edge.config.trusted_proxies)
}

fn is_for_clients(path: &str) -> bool {
    path.starts_with("/_matrix/client/") || path.starts_with("/_rollcall/")
}

/// The request's own trace ID or a new one. It goes through the queues only if the client asked by sending one, or when somebody
/// reads debug logs: a packet of many events costs least without.
fn trace(headers: &HeaderMap) -> (TraceId, Followed) {
    let sent = headers.get("traceparent").and_then(|value| TraceId::from_traceparent(value.to_str().ok()?));
    let trace = sent.unwrap_or_else(|| TraceId(fastrand::u128(1..)));
    let followed = sent.is_some() || tracing::enabled!(tracing::Level::DEBUG);
    (trace, Followed(followed.then_some(trace)))
}
