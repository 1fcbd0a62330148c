//! The AMQP contract for an edge that has no AMQP: `POST /_rollcall/v1/events`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Extensions, HeaderMap, Request};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::EdgeState;
use super::auth::bearer;
use super::error::MatrixError;
use super::publisher::Pack;
use super::request::{self, Followed};
use crate::wire::contract::{Context, MAX_BODY, Parsed, Reject, Source, class, parse};

/// Rejects that an answer lists: whoever sends more rubbish learns no more from it.
const MAX_LISTED: usize = 1_000;

/// Answers 200 once every event that can be understood is confirmed.
pub(crate) async fn post_events(
    State(edge): State<Arc<EdgeState>>,
    Extension(followed): Extension<Followed>,
    request: Request<Body>,
) -> Result<Json<Value>, MatrixError> {
    let (parts, body) = request.into_parts();
    authorize(&edge, &parts.extensions, &parts.headers)?;
    edge.admission.admit().await?;
    let body = edge.edge_bodies.read(None, &parts.headers, body, MAX_BODY).await?;
    let (local, policy) = (edge.local.clone(), edge.policy.clone());
    let context = Context { local, now: edge.clock.now(), key: Source::Any, policy };
    let Parsed { mut signals, rejects } = parse(&body.bytes, &context);
    count(&rejects);
    if let (true, Some(reject)) = (signals.is_empty(), rejects.first()) {
        return Err(refuse(reject));
    }
    if let Some(trace) = followed.0 {
        signals.iter_mut().for_each(|signal| signal.set_trace(trace));
    }
    let accepted = signals.len();
    edge.publisher.publish(Pack { signals, ..Pack::default() }).await?;
    Ok(Json(json!({ "accepted": accepted, "rejected": listed(&rejects) })))
}

/// Who may speak for every user and origin: the bearer of the configured token; under dev auth, and without one, anybody.
fn authorize(edge: &EdgeState, extensions: &Extensions, headers: &HeaderMap) -> Result<(), MatrixError> {
    let Some(token) = &edge.config.events_token else {
        return if edge.auth.is_dev() { Ok(()) } else { Err(MatrixError::unrecognized()) };
    };
    let given = bearer(headers).ok_or_else(MatrixError::missing_token)?;
    if token.is(given.as_bytes()) {
        return Ok(());
    }
    // Whoever has the token may send as much as the queues take; whoever guesses may not.
    request::limit(edge, extensions, headers)?;
    Err(MatrixError::unknown_token("this is not edge.events_token"))
}

/// What is said if nothing can be used.
fn refuse(reject: &Reject) -> MatrixError {
    match reject.class {
        class::DENIED => MatrixError::forbidden(&*reject.reason),
        _ => MatrixError::bad_json(&*reject.reason),
    }
}

/// They are the caller's, and no dead letters.
fn count(rejects: &[Reject]) {
    for reject in rejects {
        let kind = if reject.class == class::DENIED { "denied" } else { "invalid" };
        metrics::counter!("rollcall_events_total", "type" => kind).increment(1);
    }
}

fn listed(rejects: &[Reject]) -> Vec<Value> {
    let entry = |reject: &Reject| json!({ "index": index(&reject.reason), "reason": reject.reason });
    rejects.iter().take(MAX_LISTED).map(entry).collect()
}

/// A reason begins with the place, `[3] `, unless the body was one event.
fn index(reason: &str) -> usize {
    let place = reason.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    place.and_then(|(index, _)| index.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reject_says_which_event_it_was() {
        assert_eq!(index("[17] \"user_id\" is missing"), 17);
        assert_eq!(index("client.status: \"user_id\" is missing"), 0);
    }
}
