//! Push to clients (P1): server-sent events, one stream a request. A stream holds a session of its device open; the updates of the
//! session come over [`crate::bus::Queue::Updates`] to this edge and wait, newest of each user, until the client takes them.
//!
//! | file | what |
//! |---|---|
//! | `inlet` | from the bus to the streams |
//! | `registry` | which streams are open, and their bounds |
//! | `buffer` | what waits for one client |
//! | `feed` | from the buffer to the client |
//! | `session` | the lease, as long as the stream is open |

mod buffer;
mod feed;
mod inlet;
mod registry;
mod session;

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse as _, Response};

pub(super) use self::inlet::listen;
pub(crate) use self::registry::Streams;

use super::auth::{Caller, Credentials};
use super::error::MatrixError;
use super::request::Followed;
use super::{EdgeState, user_id};

const HEADERS: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    (header::CACHE_CONTROL, "no-store"),
    // nginx would gather events for a while.
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// `GET /_rollcall/v1/users/{userId}/stream`: first the presence list as it is, then what changes.
pub(crate) async fn get_stream(
    State(edge): State<Arc<EdgeState>>,
    caller: Caller,
    credentials: Credentials,
    Extension(followed): Extension<Followed>,
    user: Result<Path<String>, PathRejection>,
) -> Result<Response, MatrixError> {
    caller.must_be(&user_id(user)?)?;
    // Before there is a session that would have to be left again.
    edge.admission.admit().await?;
    let open = edge.streams.open(&caller)?;
    // From here on the session ends with the stream, even if the client does not wait for the answer.
    session::hold(&edge, &caller, credentials, open.stream());
    edge.tell(&caller.user, followed, vec![session::start(&edge, &caller.device)]).await?;
    Ok((HEADERS, feed::body(edge, open)).into_response())
}
