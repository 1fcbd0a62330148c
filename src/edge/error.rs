//! What a request that fails is answered: a status, and a Matrix error body.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An error as Matrix has it: `{"errcode": …, "error": …}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixError {
    status: StatusCode,
    errcode: &'static str,
    text: String,
    retry_after: Option<Duration>,
    /// Whether the client may keep what it knows: its access token alone has gone.
    soft_logout: bool,
}

impl MatrixError {
    pub(crate) fn new(status: StatusCode, errcode: &'static str, text: impl Into<String>) -> Self {
        Self { status, errcode, text: text.into(), retry_after: None, soft_logout: false }
    }

    /// What it is answered with.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// 400: the body is no JSON at all.
    pub(crate) fn not_json(error: &serde_json::Error) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", format!("the body is not JSON: {error}"))
    }

    /// 400: the body is JSON, but not of the shape that is asked for.
    pub(crate) fn bad_json(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", text)
    }

    /// 400: `field` has to be there.
    pub(crate) fn missing(field: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", format!("{field:?} is missing"))
    }

    /// 400: a value that is not allowed; `text` names the field.
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", text)
    }

    /// 401: no access token.
    pub(crate) fn missing_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", "no access token: send Authorization: Bearer …")
    }

    /// 401: an access token that nobody knows.
    pub(crate) fn unknown_token(text: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", text)
    }

    /// 401: the account is locked.
    pub(crate) fn locked() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_USER_LOCKED", "this account is locked")
    }

    /// 403: guests have no presence.
    pub(crate) fn guest() -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN", "guests have no presence")
    }

    /// The same, where the homeserver says whether a client may keep its state (Matrix spec, client-server API, soft logout).
    pub(crate) fn with_soft_logout(self, soft_logout: bool) -> Self {
        Self { soft_logout, ..self }
    }

    /// 401: a peer that did not prove who it is.
    pub(crate) fn unauthorized(text: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", text)
    }

    /// 403.
    pub(crate) fn forbidden(text: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", text)
    }

    /// 404: the path is there, what it names is not.
    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", text)
    }

    /// 404: no such path here.
    pub(crate) fn unrecognized() -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "unrecognized request")
    }

    /// 405: the path is there, for other methods.
    pub(crate) fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "unrecognized method for this path")
    }

    /// 408: a body that is slow in coming. The same may be sent again.
    pub(crate) fn timed_out(text: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", text)
    }

    /// 413.
    pub(crate) fn too_large(max: usize) -> Self {
        let text = format!("the body is longer than {max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", text)
    }

    /// 413: a body of so many members that its signature cannot be checked.
    pub(crate) fn too_large_to_check() -> Self {
        let text = "the body has too many members for its signature to be checked";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", text)
    }

    /// 415: a body that comes in a coding, or such that it cannot be read here.
    pub(crate) fn unsupported(text: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "M_UNKNOWN", text)
    }

    /// 429: one's own share is used up.
    pub(crate) fn too_many(text: impl Into<String>, retry_after: Duration) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", text);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// 503: there is more to do than can be done; nothing of this request was.
    pub(crate) fn busy(text: impl Into<String>, retry_after: Duration) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "M_LIMIT_EXCEEDED", text);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// 503: something that this needs is away. Perhaps the request took effect: sending it again is harmless.
    pub(crate) fn unavailable(text: impl Into<String>, retry_after: Duration) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", text);
        Self { retry_after: Some(retry_after), ..error }
    }
}

impl IntoResponse for MatrixError {
    fn into_response(self) -> Response {
        let mut body = json!({ "errcode": self.errcode, "error": self.text });
        if let Some(wait) = self.retry_after {
            body["retry_after_ms"] = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).into();
        }
        if self.soft_logout {
            body["soft_logout"] = true.into();
        }
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::REQUEST_TIMEOUT {
            // Nobody waits for the rest of the body (RFC 9110, section 15.5.9).
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            let value = HeaderValue::from_str(&seconds.to_string()).expect("digits are a header value");
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        response
    }
}
