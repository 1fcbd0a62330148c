//! Carries one transaction to its peer: the same id and the same bytes, until it is answered or too old.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::clock::SharedClock;
use crate::config::FederationConfig;
use crate::core::signal::Outcome;
use crate::model::ServerName;
use crate::outbound::http::{causes, read_answer};
use crate::outbound::keys::SigningKeys;
use crate::outbound::resolve::SharedResolver;
use crate::outbound::sign::{SignError, authorize_put};
use crate::wire::outbound::OutboundMessage;

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The end that it took.
    pub outcome: Outcome,
    /// For how long the peer wants to be left alone, ms, if it said so last.
    pub retry_after_ms: Option<u64>,
}

/// Carries transactions. Cheap to share; many may be on their way at once.
pub struct Courier {
    clock: SharedClock,
    http: Client,
    resolver: SharedResolver,
    keys: Arc<SigningKeys>,
    config: FederationConfig,
    local: ServerName,
    requests: Semaphore,
}

/// A transaction as every attempt sends it.
struct Prepared {
    path: String,
    authorization: HeaderValue,
    body: Bytes,
}

/// What an attempt says.
enum Verdict {
    /// This is the end.
    Done(Outcome),
    /// The peer asks for patience.
    Wait(Duration),
    /// No answer, or none that says anything of the transaction.
    Retry,
}

impl Courier {
    /// Sends in the name of `local`, with the current one of `keys`, at most `config.concurrency` requests at once.
    pub fn new(
        clock: SharedClock,
        http: Client,
        resolver: SharedResolver,
        keys: Arc<SigningKeys>,
        config: FederationConfig,
        local: ServerName,
    ) -> Self {
        let requests = Semaphore::new(config.concurrency.clamp(1, Semaphore::MAX_PERMITS));
        Self { clock, http, resolver, keys, config, local, requests }
    }

    /// Sends `message` until it is answered or too old, and says which. Returns early once no further attempt fits before its
    /// `not_after`. Dropping the future abandons it: sending it again later is harmless. An error means that it can never be sent.
    pub async fn deliver(&self, message: &OutboundMessage) -> Result<Report, SignError> {
        let prepared = self.prepare(message)?;
        let mut pause = Backoff::new(self.config.backoff_min, self.config.backoff_max);
        loop {
            let left = Duration::from_millis(message.not_after.since(self.clock.now()));
            if left.is_zero() {
                return Ok(Report { outcome: Outcome::Expired, retry_after_ms: None });
            }
            let (wait, asked) = match self.attempt(&message.destination, &prepared, left).await {
                Verdict::Done(outcome) => return Ok(Report { outcome, retry_after_ms: None }),
                Verdict::Wait(wait) => (wait, true),
                Verdict::Retry => (pause.next(), false),
            };
            if wait >= Duration::from_millis(message.not_after.since(self.clock.now())) {
                return Ok(Report { outcome: Outcome::Expired, retry_after_ms: asked.then(|| millis(wait)) });
            }
            sleep(wait).await;
        }
    }

    fn prepare(&self, message: &OutboundMessage) -> Result<Prepared, SignError> {
        let path = format!("/_matrix/federation/v1/send/{}", percent_encode(&message.txn_id));
        let body = Bytes::copy_from_slice(message.body.get().as_bytes());
        let authorization = authorize_put(self.keys.current(), &self.local, &message.destination, &path, &body)?;
        Ok(Prepared { path, authorization, body })
    }

    async fn attempt(&self, destination: &ServerName, prepared: &Prepared, left: Duration) -> Verdict {
        let base = match self.resolver.base(destination).await {
            Ok(base) => base,
            Err(error) => return retry(&error),
        };
        let Some(url) = base.at(&prepared.path) else {
            tracing::error!("the transaction ID cannot stand in a URL");
            return Verdict::Done(Outcome::Failed);
        };
        let _permit = self.requests.acquire().await.expect("the semaphore is never closed");
        let request = self
            .http
            .put(url)
            .header(AUTHORIZATION, prepared.authorization.clone())
            .header(CONTENT_TYPE, "application/json")
            .timeout(left.min(self.config.timeout))
            .body(prepared.body.clone());
        let started = Instant::now();
        match request.send().await {
            Ok(response) => {
                metrics::histogram!("rollcall_send_seconds").record(started.elapsed().as_secs_f64());
                metrics::counter!("rollcall_sent_bytes_total").increment(prepared.body.len() as u64);
                judge(response).await
            }
            Err(error) => retry(&causes(&error)),
        }
    }
}

fn retry(why: &dyn std::fmt::Display) -> Verdict {
    tracing::debug!(%why, "no answer");
    Verdict::Retry
}

/// What an answer means. It is read to its end, so that the connection serves again.
async fn judge(response: Response) -> Verdict {
    let status = response.status();
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let answer = read_answer(response).await.unwrap_or_default();
    if status.is_success() {
        return Verdict::Done(Outcome::Delivered);
    }
    tracing::debug!(%status, answer = %excerpt(&answer), "refused");
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Verdict::Done(Outcome::TooLarge),
        StatusCode::TOO_MANY_REQUESTS => patience(&answer, asked).map_or(Verdict::Retry, Verdict::Wait),
        status if status.is_server_error() => Verdict::Retry,
        _ => Verdict::Done(Outcome::Failed),
    }
}

/// How long a 429 asks to wait: `retry_after_ms` of its body, or else its `Retry-After`, in seconds.
fn patience(answer: &[u8], header_seconds: Option<u64>) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Limited {
        retry_after_ms: Option<u64>,
    }
    let body = serde_json::from_slice::<Limited>(answer).ok().and_then(|limited| limited.retry_after_ms);
    body.map(Duration::from_millis).or(header_seconds.map(Duration::from_secs))
}

fn excerpt(answer: &[u8]) -> String {
    String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned()
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Exponential back-off, each wait between half and the whole of its step, so that what failed together does not return together.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    step: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { step: min.min(max), max }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.step.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.step = (self.step * 2).min(self.max);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_ids_are_encoded_whole() {
        assert_eq!(percent_encode("a/b c?~é"), "a%2Fb%20c%3F~%C3%A9");
    }

    #[test]
    fn back_off_doubles_up_to_its_bound() {
        let mut pause = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for whole in [1.0, 2.0, 4.0, 5.0, 5.0] {
            let wait = pause.next().as_secs_f64();
            assert!((whole / 2.0..=whole).contains(&wait), "{wait} of {whole}");
        }
    }

    #[test]
    fn patience_is_the_body_s_then_the_header_s() {
        assert_eq!(patience(br#"{"retry_after_ms":70}"#, Some(9)), Some(Duration::from_millis(70)));
        assert_eq!(patience(b"<html>", Some(9)), Some(Duration::from_secs(9)));
        assert_eq!(patience(b"{}", None), None);
    }
}
