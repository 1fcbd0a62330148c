//! The Matrix client API: one's own presence (C1) and the presence list (C5, C6).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until};

use super::auth::Caller;
use super::error::MatrixError;
use super::json::Fields;
use super::request::Followed;
use super::{EdgeState, MAX_CLIENT_BODY, devices, store_error, user_id};
use crate::core::signal::{MessageEdit, UserSignal};
use crate::model::{Presence, Status, Timestamp, UserId};
use crate::reader::Known;

/// A status message's bytes.
const MAX_MESSAGE: usize = 1 << 10;
/// Entries in one change of a list, each way.
const MAX_LIST: usize = 1_000;

/// When a status is refused, at the earliest. Longer than it takes to read of somebody with long lists, so that it does not tell them
/// from nobody.
const REFUSAL: Duration = Duration::from_millis(10);

type OneUser = Result<Path<String>, PathRejection>;
type Answer = Result<Json<Value>, MatrixError>;

/// `PUT /_matrix/client/v3/presence/{userId}/status`
pub(crate) async fn put_status(
    State(edge): State<Arc<EdgeState>>,
    caller: Caller,
    Extension(followed): Extension<Followed>,
    user: OneUser,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    caller.must_be(&user_id(user)?)?;
    let body = edge.client_bodies.read(Some(caller.user.clone()), &headers, body, MAX_CLIENT_BODY).await?;
    let (presence, status_msg) = body.take_apart(|fields| Ok((presence(fields)?, message(fields)?)))?;
    let status = UserSignal::Status { device: caller.device, presence, status_msg, stamp: edge.stamp() };
    edge.tell(&caller.user, followed, vec![status]).await?;
    Ok(Json(json!({})))
}

/// `GET /_matrix/client/v3/presence/{userId}/status`
pub(crate) async fn get_status(State(edge): State<Arc<EdgeState>>, caller: Caller, user: OneUser) -> Answer {
    let (begun, user, now) = (Instant::now(), user_id(user)?, edge.clock.now());
    let known = edge.reader.status(&caller.user, &user, now).await.map_err(|error| store_error(&error))?;
    let Some(Known { status, stale_ms }) = known else {
        // The same words, after the same time, whether or not there is such a user.
        sleep_until(begun + REFUSAL).await;
        return Err(MatrixError::forbidden("you may not see this user"));
    };
    let is_known = status.presence != Presence::Unknown;
    let shown = if is_known { status.presence } else { Presence::Offline };
    let mut answer = describe(&status, shown, now);
    answer.insert(
        "rollcall".into(),
        json!({ "known": is_known, "device_types": status.device_types, "stale_ms": stale_ms }),
    );
    Ok(Json(answer.into()))
}

/// `POST /_matrix/client/v3/presence/list/{userId}`
pub(crate) async fn post_list(
    State(edge): State<Arc<EdgeState>>,
    caller: Caller,
    Extension(followed): Extension<Followed>,
    user: OneUser,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    caller.must_be(&user_id(user)?)?;
    let body = edge.client_bodies.read(Some(caller.user.clone()), &headers, body, MAX_CLIENT_BODY).await?;
    let (add, remove) = body.take_apart(|fields| Ok((users(fields, "invite")?, users(fields, "drop")?)))?;
    if !add.is_empty() || !remove.is_empty() {
        let change = UserSignal::List { add, remove, stamp: edge.stamp() };
        edge.tell(&caller.user, followed, vec![change]).await?;
    }
    Ok(Json(json!({})))
}

/// `GET /_matrix/client/v3/presence/list/{userId}`; asking for it starts polling (C5).
pub(crate) async fn get_list(
    State(edge): State<Arc<EdgeState>>,
    caller: Caller,
    Extension(followed): Extension<Followed>,
    user: OneUser,
) -> Result<Response, MatrixError> {
    let user = user_id(user)?;
    caller.must_be(&user)?;
    let turn = edge.lists.turn(&user).await?;
    let now = edge.clock.now();
    let list = edge.reader.list(&user, now).await.map_err(|error| store_error(&error))?;
    let entries = list.into_iter().map(|(user, accepted, known)| entry(&user, accepted, &known, now));
    let answer = edge.lists.answer(&user, entries)?;
    drop(turn);
    // The list is there: it is not withheld because polling could not start.
    if let Err(error) = edge.hint(&user, followed, devices::start(&edge, caller.device, None)).await {
        tracing::debug!(?error, "the list was read, but polling did not start");
    }
    Ok(answer)
}

fn entry(user: &UserId, accepted: bool, known: &Known, now: Timestamp) -> Value {
    let mut entry = describe(&known.status, known.status.presence, now);
    entry.insert("user_id".into(), user.as_str().into());
    entry.insert("accepted".into(), accepted.into());
    entry.into()
}

/// A status as the Matrix spec shows it. Nothing is said of what is not known.
fn describe(status: &Status, presence: Presence, now: Timestamp) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("presence".into(), presence.as_str().into());
    if status.presence == Presence::Unknown {
        return shown;
    }
    shown.insert("currently_active".into(), status.currently_active.into());
    if status.last_active > Timestamp(0) {
        shown.insert("last_active_ago".into(), now.since(status.last_active).into());
    }
    if let Some(message) = &status.status_msg {
        shown.insert("status_msg".into(), Value::from(&**message));
    }
    shown
}

fn presence(fields: &Fields) -> Result<Presence, MatrixError> {
    let text = fields.text("presence", 255)?.flatten().ok_or_else(|| MatrixError::missing("presence"))?;
    Presence::parse(text).ok_or_else(|| {
        MatrixError::invalid(format!("\"presence\" must be one of online, unavailable, busy, offline, not {text:?}"))
    })
}

fn message(fields: &Fields) -> Result<MessageEdit, MatrixError> {
    Ok(match fields.text("status_msg", MAX_MESSAGE)? {
        None => MessageEdit::Keep,
        Some(None) => MessageEdit::Clear,
        Some(Some(text)) => MessageEdit::Set(text.into()),
    })
}

fn users(fields: &Fields, name: &str) -> Result<Vec<UserId>, MatrixError> {
    let Some(value) = fields.field(name) else { return Ok(Vec::new()) };
    let entries = value.as_array().ok_or_else(|| MatrixError::bad_json(format!("{name:?} must be an array")))?;
    if entries.len() > MAX_LIST {
        return Err(MatrixError::invalid(format!("{name:?} holds more than {MAX_LIST} user IDs")));
    }
    let parse = |(index, entry): (usize, &Value)| {
        let text =
            entry.as_str().ok_or_else(|| MatrixError::bad_json(format!("\"{name}[{index}]\" must be a text")))?;
        UserId::parse(text).map_err(|error| MatrixError::invalid(format!("\"{name}[{index}]\": {error}")))
    };
    entries.iter().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).ok().unwrap()
    }

    #[test]
    fn errors_name_the_field() {
        for (body, part) in [
            ("{}", "M_MISSING_PARAM"),
            (r#"{"presence":null}"#, "M_MISSING_PARAM"),
            (r#"{"presence":1}"#, "M_BAD_JSON"),
            (r#"{"presence":"unknown"}"#, "M_INVALID_PARAM"),
        ] {
            let error = format!("{:?}", presence(&fields(body)).unwrap_err());
            assert!(error.contains(part) && error.contains("presence"), "{error}");
        }
        let error = format!("{:?}", users(&fields(r#"{"drop":["@a:b.example","x"]}"#), "drop").unwrap_err());
        assert!(error.contains("drop[1]"), "{error}");
    }

    #[test]
    fn an_absent_message_stays_and_null_clears_it() {
        assert_eq!(message(&fields("{}")), Ok(MessageEdit::Keep));
        assert_eq!(message(&fields(r#"{"status_msg":null}"#)), Ok(MessageEdit::Clear));
        assert_eq!(message(&fields(r#"{"status_msg":"x"}"#)), Ok(MessageEdit::Set("x".into())));
        assert!(message(&fields(&format!(r#"{{"status_msg":"{}"}}"#, "x".repeat(1025)))).is_err());
    }

    #[test]
    fn unknown_says_nothing_that_is_not_known() {
        let unknown = describe(&Status::default(), Presence::Offline, Timestamp(5));
        assert_eq!(Value::from(unknown), json!({ "presence": "offline" }));
        let online = Status { presence: Presence::Online, last_active: Timestamp(3), ..Status::default() };
        assert_eq!(
            Value::from(describe(&online, online.presence, Timestamp(5))),
            json!({ "presence": "online", "currently_active": false, "last_active_ago": 2 })
        );
    }
}
