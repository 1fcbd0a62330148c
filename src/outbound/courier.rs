//! Carries one transaction to its peer: the same id and the same bytes, until it is answered or too old.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::config::FederationConfig;
use crate::core::signal::Outcome;
use crate::model::ServerName;
use crate::outbound::coding::{Codings, GZIP};
use crate::outbound::failure::Failure;
use crate::outbound::http::{causes, millis, read_answer};
use crate::outbound::kept::Kept;
use crate::outbound::keys::SigningKeys;
use crate::outbound::lanes::Lanes;
use crate::outbound::peers::{PeerError, Peers};
use crate::outbound::sign::{SignError, authorize_put};
use crate::outbound::trouble::Troubles;
use crate::outbound::turns::Turns;
use crate::outbound::waits::{Backoff, beyond, patience};
use crate::policy::Policy;
use crate::wire::outbound::OutboundMessage;

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
    /// An attempt that had less time than this says nothing of its peer when that has passed.
    fair: Duration,
    kept: Kept,
    turns: Turns,
}

/// A transaction as it is sent.
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
    /// It may not wait for its turn: too many do.
    Crowded,
    /// The stop came before its turn.
    Stopped,
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
        let turns = Turns::new(config.concurrency, config.timeout);
        let (lanes, codings, troubles) = (Lanes::default(), Codings::new(), Troubles::new());
        let kept = Kept::new(config.concurrency, config.timeout);
        // Whoever is prompt answers within this. Where no transaction has as much time as a request, a part of its own is enough.
        let fair = config.timeout.min(config.resend) / 4;
        Self { clock, peers, policy, keys, config, local, lanes, codings, troubles, give_up, fair, kept, turns }
    }

    /// [`Self::deliver_until`] the end of time.
    ///
    /// # Errors
    /// When it can never be sent.
    pub async fn deliver(&self, message: &OutboundMessage) -> Result<Report, SignError> {
        let report = self.deliver_until(message, &CancellationToken::new()).await?;
        Ok(report.unwrap_or(Report::of(Outcome::Expired)))
    }

    /// Sends `message` until it is answered or too old, and says which. Returns early once no further attempt fits before its
    /// `not_after`, its destination has been failing for `give_up`, or it would have to wait where too many wait already (its link keeps
    /// what it holds owed), and at once for one that policy denies. While another one for the same destination is under way, it waits.
    /// `None`: `stop` came while it waited; a request that is under way goes on. Dropping the future abandons it: sending it again later is
    /// harmless.
    ///
    /// # Errors
    /// When it can never be sent.
    pub async fn deliver_until(
        &self,
        message: &OutboundMessage,
        stop: &CancellationToken,
    ) -> Result<Option<Report>, SignError> {
        let entering = timeout(self.left(message), self.lanes.enter(&message.destination));
        let report = match stop.run_until_cancelled(entering).await {
            None => None,
            Some(Ok(_lane)) => self.carry(message, stop).await?,
            Some(Err(_)) => Some(Report::of(Outcome::Expired)),
        };
        if report.is_some_and(|report| report.outcome == Outcome::Expired) {
            self.troubles.expired(&message.destination);
        }
        Ok(report)
    }

    async fn carry(&self, message: &OutboundMessage, stop: &CancellationToken) -> Result<Option<Report>, SignError> {
        let mut pause = Backoff::new(self.config.backoff_min, self.config.backoff_max);
        // At the first attempt alone: whatever becomes of that, no other rests on it.
        let mut may_be_gzip = true;
        loop {
            if self.left(message).is_zero() {
                return Ok(Some(Report::of(Outcome::Expired)));
            }
            let verdict = self.attempt(message, std::mem::take(&mut may_be_gzip), stop).await?;
            let (wait, asked) = match verdict {
                Verdict::Done(outcome) => return Ok(Some(Report::of(outcome))),
                Verdict::Denied => return Ok(Some(Report { is_denied: true, ..Report::of(Outcome::Failed) })),
                Verdict::Wait(asked) => (asked.saturating_add(beyond(asked)).max(pause.next()), Some(asked)),
                Verdict::Retry => (pause.next(), None),
                Verdict::AsItIs => continue,
                Verdict::Crowded => return Ok(Some(Report::of(Outcome::Expired))),
                Verdict::Stopped => return Ok(None),
            };
            let expired = || Ok(Some(Report { retry_after_ms: asked.map(millis), ..Report::of(Outcome::Expired) }));
            let is_given_up = self.troubles.has_failed_for(&message.destination, self.give_up);
            if is_given_up || wait >= self.left(message) {
                return expired();
            }
            let Some(_place) = self.turns.place(length(message)) else { return expired() };
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return Ok(None);
            }
        }
    }

    fn left(&self, message: &OutboundMessage) -> Duration {
        Duration::from_millis(message.not_after.since(self.clock.now()))
    }

    async fn attempt(
        &self,
        message: &OutboundMessage,
        may_be_gzip: bool,
        stop: &CancellationToken,
    ) -> Result<Verdict, SignError> {
        let destination = &message.destination;
        if !self.policy.tells(destination) {
            tracing::debug!("federation.outbound denies this destination");
            return Ok(Verdict::Denied);
        }
        if let Some(rest) = self.troubles.rests_for(destination) {
            return Ok(Verdict::Wait(rest));
        }
        let entering = timeout(self.left(message), self.turns.enter(destination, length(message)));
        let _turn = match stop.run_until_cancelled(entering).await {
            None => return Ok(Verdict::Stopped),
            Some(Ok(None)) => return Ok(Verdict::Crowded),
            Some(Ok(Some(turn))) => turn,
            Some(Err(_)) => return Ok(Verdict::Retry),
        };
        // The wait for it has taken its time, too.
        let time = self.left(message).min(self.config.timeout);
        if time.is_zero() {
            return Ok(Verdict::Retry);
        }
        // Not before: most of what is held waits, and needs no further copies.
        let prepared = self.prepare(message)?;
        let gzip = if may_be_gzip { self.codings.for_peer(destination, &prepared.body).await } else { None };
        let started = Instant::now();
        let ended = timeout(time, self.exchange(destination, &prepared, gzip.as_ref())).await;
        // The transaction's own end came too soon. Perhaps the peer has taken it.
        if ended.is_err() && time < self.fair {
            return Ok(Verdict::Retry);
        }
        self.turns.took(destination, matches!(ended, Ok(Ok(_))), started.elapsed());
        let verdict = match ended {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(PeerError::NotNow(reason, why))) => self.retry(destination, reason, &why),
            Ok(Err(PeerError::Never(reason, why))) => self.refused(destination, reason, &why),
            Err(_) => self.retry(destination, Failure::Timeout, "it takes too long"),
        };
        if gzip.is_some() && matches!(verdict, Verdict::Retry | Verdict::AsItIs) {
            self.codings.distrust(destination);
        }
        Ok(verdict)
    }

    fn prepare(&self, message: &OutboundMessage) -> Result<Prepared, SignError> {
        let path = format!("/_matrix/federation/v1/send/{}", percent_encode(&message.txn_id));
        let body = Bytes::copy_from_slice(message.body.get().as_bytes());
        let authorization = authorize_put(self.keys.current(), &self.local, &message.destination, &path, &body)?;
        Ok(Prepared { path, authorization, body })
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
            // Of a body that was slow to come nothing was looked at.
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                self.retry(destination, reason, &why)
            }
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

fn length(message: &OutboundMessage) -> usize {
    message.body.get().len()
}

fn count(reason: Failure) {
    metrics::counter!("rollcall_send_failures_total", "reason" => reason.as_str()).increment(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_ids_are_encoded_whole() {
        assert_eq!(percent_encode("a/b c?~é"), "a%2Fb%20c%3F~%C3%A9");
    }
}
