//! What every HTTP client here has in common: its bounds, all stated.

use std::time::Duration;

use reqwest::{Client, ClientBuilder, Response, redirect};

use crate::model::Timestamp;

/// Connecting takes longer than this only when nobody is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A window is a few seconds: a connection that was idle for longer than this is not worth its file descriptor.
pub(super) const POOL_IDLE: Duration = Duration::from_secs(30);
/// Nobody needs more of an answer than this, in bytes.
pub const MAX_ANSWER: usize = 64 << 10;

/// Why an answer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The peer says more than anybody asked for.
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    /// The connection broke.
    #[error("{0}")]
    Broken(String),
}

impl From<reqwest::Error> for ReadError {
    fn from(error: reqwest::Error) -> Self {
        Self::Broken(causes(&error))
    }
}

/// A client that goes wherever it is sent: for addresses that come from the configuration, never from strangers.
/// `timeout` bounds a whole request, its answer included.
pub fn client(timeout: Duration) -> Result<Client, reqwest::Error> {
    builder(timeout).build()
}

/// HTTP/1.1, rustls, no proxies, no redirects (a signature names one server), no compression asked for, one idle connection a host.
pub(super) fn builder(timeout: Duration) -> ClientBuilder {
    install_crypto();
    Client::builder()
        .user_agent(concat!("rollcall/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .timeout(timeout)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(POOL_IDLE)
}

/// Makes ring the process's cryptography, unless something is already.
pub fn install_crypto() {
    // The error says that one is installed: it serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The body of an answer, at most [`MAX_ANSWER`] bytes of it.
pub async fn read_answer(mut response: Response) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(ReadError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// From `now` to an HTTP date (RFC 9110, section 5.6.7), zero if it has passed; `None`: it is none.
pub(super) fn until(date: &str, now: Timestamp) -> Option<Duration> {
    let date = httpdate::parse_http_date(date).ok()?;
    let now = std::time::UNIX_EPOCH + Duration::from_millis(now.0);
    Some(date.duration_since(now).unwrap_or_default())
}

/// An error with its causes, in one line: reqwest's own text leaves out the one that helps. Without the address.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}
