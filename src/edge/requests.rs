//! rollcall's own client API: who asks to see the user, and what the user says to that (S1, S2).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::auth::Caller;
use super::error::MatrixError;
use super::request::Followed;
use super::{EdgeState, MAX_CLIENT_BODY, bad_path, store_error, user_id};
use crate::core::signal::UserSignal;
use crate::model::{Timestamp, UserId};

type OneUser = Result<Path<String>, PathRejection>;
type TwoUsers = Result<Path<(String, String)>, PathRejection>;
type Answer = Result<Json<Value>, MatrixError>;

/// `GET /_rollcall/v1/users/{userId}/requests`: an array of `{"observer": user ID, "since": ms since the Unix epoch}`.
pub(crate) async fn get_requests(State(edge): State<Arc<EdgeState>>, caller: Caller, user: OneUser) -> Answer {
    let user = user_id(user)?;
    caller.must_be(&user)?;
    let questions = edge.reader.questions(&user).await.map_err(|error| store_error(&error))?;
    let entry = |(observer, since): (UserId, Timestamp)| json!({ "observer": observer, "since": since });
    Ok(Json(questions.into_iter().map(entry).collect()))
}

/// `POST /_rollcall/v1/users/{userId}/requests/{observer}`, body `{"allow": bool}`. Nobody need have asked: false also revokes.
pub(crate) async fn post_request(
    State(edge): State<Arc<EdgeState>>,
    caller: Caller,
    Extension(followed): Extension<Followed>,
    path: TwoUsers,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let Path((user, observer)) = path.map_err(|error| bad_path(&error))?;
    caller.must_be(&parse("userId", &user)?)?;
    let observer = parse("observer", &observer)?;
    let body = edge.client_bodies.read(Some(caller.user.clone()), &headers, body, MAX_CLIENT_BODY).await?;
    let allow = body.take_apart(|fields| fields.flag("allow")?.ok_or_else(|| MatrixError::missing("allow")))?;
    let answer = UserSignal::Answer { observer, allow, stamp: edge.stamp() };
    edge.tell(&caller.user, followed, vec![answer]).await?;
    Ok(Json(json!({})))
}

fn parse(name: &str, text: &str) -> Result<UserId, MatrixError> {
    UserId::parse(text).map_err(|error| MatrixError::invalid(format!("{name}: {error}")))
}
