//! Carries one transaction to its peer: the same id and the same bytes, until it is answered or too old.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::clock::SharedClock;
use crate::config::FederationConfig;
use crate::core::signal::Outcome;
use crate::model::{ServerName, Timestamp};
use crate::outbound::coding::{Codings, GZIP};
use crate::outbound::failure::Failure;
use crate::outbound::http::{self, causes, millis, read_answer};
use crate::outbound::kept::Kept;
use crate::outbound::keys::SigningKeys;
use crate::outbound::lanes::Lanes;
use crate::outbound::peers::{PeerError, Peers};
use crate::outbound::sign::{SignError, authorize_put};
use crate::outbound::trouble::Troubles;
use crate::policy::Policy;
use crate::wire::outbound::OutboundMessage;

/// A longer wait than this is not lengthened any further.
const MAX_BEYOND: Duration = Duration::from_secs(60);

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The end that it took.
    pub outcome: Outcome,
    /// For how long the peer wants to be left alone, ms, if it said so last.
    pub retry_after_ms: Option<u64>,
    /// It was never sent: `federation.outbound` denies its destination.
    pub is_denied: bool,
}

/// Carries transactions. Cheap to share; many may be on their way at once, one to each destination.
pub struct Courier {
    clock: SharedClock,
    peers: Peers,
    policy: Policy,
    keys: Arc<SigningKeys>,
    config: FederationConfig,
    local: ServerName,
    lanes: Lanes,
    codings: Codings,
    troubles: Troubles,
    give_up: Duration,
    kept: Kept,
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
    /// It may not even begin.
    Denied,
    /// The peer asks for patience, or has asked before.
    Wait(Duration),
    /// No answer, or none that says anything of the transaction.
    Retry,
    /// It does not take it in gzip.
    AsItIs,
}

impl Report {
    /// Nothing more is to be said.
    pub fn of(outcome: Outcome) -> Self {
        Self { outcome, retry_after_ms: None, is_denied: false }
    }

    /// The name in metrics.
    pub fn as_str(&self) -> &'static str {
        if self.is_denied { "denied" } else { self.outcome.as_str() }
    }
}

impl Courier {
    /// Sends in the name of `local`, with the current one of `keys`, at most `config.concurrency` requests at once. A peer that has been
    /// failing for `give_up` gets each transaction once.
    pub fn new(
        clock: SharedClock,
        peers: Peers,
        policy: Policy,
        keys: Arc<SigningKeys>,
        config: FederationConfig,
        local: ServerName,
        give_up: Duration,
    ) -> Self {
        let requests = Semaphore::new(config.concurrency.clamp(1, Semaphore::MAX_PERMITS));
        let (lanes, codings, troubles) = (Lanes::default(), Codings::new(), Troubles::new());
        let kept = Kept::new(config.concurrency, config.timeout);
        Self { clock, peers, policy, keys, config, local, lanes, codings, troubles, give_up, kept, requests }
    }

    /// Sends `message` until it is answered or too old, and says which. Returns early once no further attempt fits before its
    /// `not_after`, or its destination has been failing for `give_up`, and at once for one that policy denies. While another one for
    /// the same destination is under way, it waits. Dropping the future abandons it: sending it again later is harmless. An error
    /// means that it can never be sent.
    pub async fn deliver(&self, message: &OutboundMessage) -> Result<Report, SignError> {
        let prepared = self.prepare(message)?;
        let report = match timeout(self.left(message), self.lanes.enter(&message.destination)).await {
            Ok(_lane) => self.carry(message, &prepared).await,
            Err(_) => Report::of(Outcome::Expired),
        };
        if report.outcome == Outcome::Expired {
            self.troubles.expired(&message.destination);
        }
        Ok(report)
    }

    async fn carry(&self, message: &OutboundMessage, prepared: &Prepared) -> Report {
        let mut pause = Backoff::new(self.config.backoff_min, self.config.backoff_max);
        // At the first attempt alone: whatever becomes of that, no other rests on it.
        let mut gzip = self.codings.for_peer(&message.destination, &prepared.body).await;
        loop {
            if self.left(message).is_zero() {
                return Report::of(Outcome::Expired);
            }
            let gzip = gzip.take();
            let verdict = self.attempt(message, prepared, gzip.as_ref()).await;
            if gzip.is_some() && matches!(verdict, Verdict::Retry | Verdict::AsItIs) {
                self.codings.distrust(&message.destination);
            }
            let (wait, asked) = match verdict {
                Verdict::Done(outcome) => return Report::of(outcome),
                Verdict::Denied => return Report { is_denied: true, ..Report::of(Outcome::Failed) },
                Verdict::Wait(asked) => (asked.saturating_add(beyond(asked)).max(pause.next()), Some(asked)),
                Verdict::Retry => (pause.next(), None),
                Verdict::AsItIs => continue,
            };
            let is_given_up = self.troubles.has_failed_for(&message.destination, self.give_up);
            if is_given_up || wait >= self.left(message) {
                return Report { retry_after_ms: asked.map(millis), ..Report::of(Outcome::Expired) };
            }
            sleep(wait).await;
        }
    }

    fn left(&self, message: &OutboundMessage) -> Duration {
        Duration::from_millis(message.not_after.since(self.clock.now()))
    }

    fn prepare(&self, message: &OutboundMessage) -> Result<Prepared, SignError> {
        let path = format!("/_matrix/federation/v1/send/{}", percent_encode(&message.txn_id));
        let body = Bytes::copy_from_slice(message.body.get().as_bytes());
        let authorization = authorize_put(self.keys.current(), &self.local, &message.destination, &path, &body)?;
        Ok(Prepared { path, authorization, body })
    }

    async fn attempt(&self, message: &OutboundMessage, prepared: &Prepared, gzip: Option<&Bytes>) -> Verdict {
        if !self.policy.tells(&message.destination) {
            tracing::debug!("federation.outbound denies this destination");
            return Verdict::Denied;
        }
        if let Some(rest) = self.troubles.rests_for(&message.destination) {
            return Verdict::Wait(rest);
        }
        let _permit = self.requests.acquire().await.expect("the semaphore is never closed");
        // The wait for it has taken its time, too.
        let time = self.left(message).min(self.config.timeout);
        if time.is_zero() {
            return Verdict::Retry;
        }
        match timeout(time, self.exchange(&message.destination, prepared, gzip)).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(PeerError::NotNow(reason, why))) => self.retry(&message.destination, reason, &why),
            Ok(Err(PeerError::Never(reason, why))) => self.refused(&message.destination, reason, &why),
            Err(_) => self.retry(&message.destination, Failure::Timeout, "it takes too long"),
        }
    }

    async fn exchange(
        &self,
        destination: &ServerName,
        prepared: &Prepared,
        gzip: Option<&Bytes>,
    ) -> Result<Verdict, PeerError> {
        let is_kept = self.kept.admits(destination, Instant::now());
        let request = match is_kept {
            true => self.peers.request_kept(Method::PUT, destination, &prepared.path).await?,
            false => self.peers.request(Method::PUT, destination, &prepared.path).await?,
        };
        let request =
            request.header(AUTHORIZATION, prepared.authorization.clone()).header(CONTENT_TYPE, "application/json");
        let body = gzip.unwrap_or(&prepared.body);
        let request = match gzip {
            Some(_) => request.header(CONTENT_ENCODING, GZIP),
            None => request,
        };
        let request = request.body(body.clone());
        let started = Instant::now();
        let response =
            request.send().await.map_err(|error| PeerError::NotNow(Failure::of_request(&error), causes(&error)))?;
        metrics::histogram!("rollcall_send_seconds").record(started.elapsed().as_secs_f64());
        metrics::counter!("rollcall_sent_bytes_total").increment(body.len() as u64);
        Ok(self.judge(destination, response, gzip.is_some()).await)
    }

    /// What an answer means. It is read to its end, so that the connection serves again.
    async fn judge(&self, destination: &ServerName, response: Response, was_gzip: bool) -> Verdict {
        let status = response.status();
        if status.is_success() {
            self.codings.heard(destination, response.headers());
        }
        let header = response.headers().get(RETRY_AFTER).cloned();
        let answer = read_answer(response).await.unwrap_or_default();
        if status.is_success() {
            self.troubles.over(destination);
            return Verdict::Done(Outcome::Delivered);
        }
        let (reason, why) = (Failure::of_status(status), format!("{status}: {}", excerpt(&answer)));
        match status {
            // The link takes it apart: no trouble.
            StatusCode::PAYLOAD_TOO_LARGE => {
                count(reason);
                Verdict::Done(Outcome::TooLarge)
            }
            // A homeserver that is busy with another transaction of ours says 429 and no time: that is waited out as any failure is.
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let retry = self.retry(destination, reason, &why);
                let asked = patience(&answer, header.as_ref(), self.clock.now());
                asked.map_or(retry, |asked| self.rest(destination, status, asked))
            }
            status if status.is_server_error() => self.retry(destination, reason, &why),
            // Only what it says to the thing itself is its word.
            _ if was_gzip => {
                count(reason);
                tracing::debug!(why, "refused in gzip, and sent as it is");
                Verdict::AsItIs
            }
            _ => self.refused(destination, reason, &why),
        }
    }

    fn retry(&self, destination: &ServerName, reason: Failure, why: &str) -> Verdict {
        count(reason);
        self.troubles.failing(destination, reason, why);
        Verdict::Retry
    }

    /// Whatever its link does meanwhile, it is left alone.
    fn rest(&self, destination: &ServerName, status: StatusCode, asked: Duration) -> Verdict {
        self.troubles.rest(destination, asked);
        if status == StatusCode::TOO_MANY_REQUESTS {
            self.troubles.is_well(destination);
        }
        Verdict::Wait(asked)
    }

    fn refused(&self, destination: &ServerName, reason: Failure, why: &str) -> Verdict {
        count(reason);
        self.troubles.refusing(destination, reason, why);
        Verdict::Done(Outcome::Failed)
    }
}

fn count(reason: Failure) {
    metrics::counter!("rollcall_send_failures_total", "reason" => reason.as_str()).increment(1);
}

/// How long an answer asks to wait: `retry_after_ms` of its body, or else its `Retry-After`, in seconds or as a date.
fn patience(answer: &[u8], header: Option<&HeaderValue>, now: Timestamp) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Limited {
        retry_after_ms: Option<u64>,
    }
    let body = serde_json::from_slice::<Limited>(answer).ok().and_then(|limited| limited.retry_after_ms);
    let header = || {
        let text = header?.to_str().ok()?.trim();
        text.parse().ok().map(Duration::from_secs).or_else(|| http::until(text, now))
    };
    body.map(Duration::from_millis).or_else(header)
}

/// Somewhat more than was asked for, never less: so that whoever was told the same does not come at the same moment.
fn beyond(asked: Duration) -> Duration {
    asked.min(MAX_BEYOND).mul_f64(fastrand::f64() / 4.0)
}

/// The beginning of what a stranger says, on one line.
fn excerpt(answer: &[u8]) -> String {
    String::from_utf8_lossy(&answer[..answer.len().min(200)]).replace(char::is_control, " ")
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
    fn what_failed_together_does_not_return_together() {
        let first = || Backoff::new(Duration::from_secs(1), Duration::from_secs(5)).next();
        let waits: std::collections::BTreeSet<_> = (0..100).map(|_| first()).collect();
        assert!(waits.len() > 50, "{} different waits", waits.len());
    }

    #[test]
    fn patience_is_the_body_s_then_the_header_s() {
        let now = Timestamp(1_795_400_000_500);
        let patience = |body: &[u8], header: &str| patience(body, Some(&HeaderValue::from_str(header).unwrap()), now);
        assert_eq!(patience(br#"{"retry_after_ms":70}"#, "9"), Some(Duration::from_millis(70)));
        assert_eq!(patience(b"<html>", "9"), Some(Duration::from_secs(9)));
        assert_eq!(patience(b"{}", "Mon, 23 Nov 2026 02:13:23 GMT"), Some(Duration::from_millis(2_500)));
        assert_eq!(patience(b"{}", "Mon, 23 Nov 2020 02:13:23 GMT"), Some(Duration::ZERO));
        assert_eq!(patience(b"{}", "soon"), None);
    }

    #[test]
    fn nobody_comes_sooner_than_asked_nor_much_later() {
        for _ in 0..100 {
            assert!(beyond(Duration::from_secs(4)) <= Duration::from_secs(1));
            assert!(beyond(Duration::from_secs(100_000)) <= MAX_BEYOND / 4);
        }
    }
}
