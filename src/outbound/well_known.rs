//! `https://<host>/.well-known/matrix/server`: who stands in for a host, and for how long that is believed.
//!
//! What may be remembered is decided by `lifetime` and `Entry::after`, which know no clock; [`WellKnown`] asks and remembers.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::{AGE, CACHE_CONTROL, EXPIRES, LOCATION};
use moka::future::Cache;
use moka::ops::compute::Op;
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::clients::Clients;
use super::failure::Failure;
use super::http::{causes, millis, read_answer, until};
use super::resolve::{ResolveError, Route};
use crate::clock::SharedClock;
use crate::model::{ServerName, Timestamp};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 3_600_000;
/// When an answer does not say how long it is good for (Matrix spec: the recommended default).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// However long it says (Matrix spec: the recommended maximum).
pub const MAX_LIFETIME: Duration = Duration::from_secs(48 * 3600);
const MAX_LIFETIME_MS: u64 = 48 * HOUR_MS;
/// However short: nobody is asked more often.
pub const MIN_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// Hosts remembered. Anybody can make us ask for any: the least used are forgotten.
const MAX_HOSTS: u64 = 10_000;
/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// Asking takes no longer than this, redirects included, whatever a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Peers that may be looked for at once for the sake of requests from whom nothing is known yet.
pub const MAX_STRANGERS: usize = 64;
/// Hosts asked at once: strangers leave as much to those whom we have something to say.
const MAX_ASKING: usize = 2 * MAX_STRANGERS;
/// For how long a caller waits until one of them has answered.
const ASKING_WAIT: Duration = Duration::from_secs(5);

/// What asking came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Somebody stands in for the host, for this long.
    Delegate(ServerName, Duration),
    /// The host says that nobody does, or nothing that can be understood.
    None,
    /// The host could not be asked.
    Failed,
}

/// What is remembered of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Who stands in for it.
    delegate: Option<ServerName>,
    /// Not asked again before.
    until: Timestamp,
    /// While the host cannot be asked, its last word is good until then.
    kept_until: Timestamp,
    /// Failures in a row.
    failures: u32,
    /// When somebody stood in for it last.
    named: Option<Timestamp>,
}

impl Entry {
    /// What is remembered after `answer`, where `known` was before. After failures the host is asked ever more rarely, up to once an
    /// hour (Matrix spec), and what it said before holds for as long as it might have been believed at most. A host that somebody stood in
    /// for of late, and nobody does, may just be mended: it is soon asked again.
    pub(super) fn after(answer: Answer, known: Option<Self>, now: Timestamp) -> Self {
        let settled = |delegate, good_ms, kept_ms, named| Self {
            delegate,
            until: now.plus(good_ms),
            kept_until: now.plus(kept_ms),
            failures: 0,
            named,
        };
        let named = known.as_ref().and_then(|known| known.named).filter(|named| now < named.plus(MAX_LIFETIME_MS));
        match answer {
            Answer::Delegate(name, lifetime) => settled(Some(name), millis(lifetime), MAX_LIFETIME_MS, Some(now)),
            Answer::None => {
                let good_ms = if named.is_some() { millis(MIN_LIFETIME) } else { HOUR_MS };
                settled(None, good_ms, HOUR_MS, named)
            }
            Answer::Failed => {
                let failures = known.as_ref().map_or(0, |known| known.failures).saturating_add(1);
                let kept = known.filter(|known| now < known.kept_until);
                Self {
                    until: now.plus((MINUTE_MS << (failures - 1).min(6)).min(HOUR_MS)),
                    kept_until: kept.as_ref().map_or(now, |kept| kept.kept_until),
                    delegate: kept.and_then(|kept| kept.delegate),
                    failures,
                    named,
                }
            }
        }
    }

    /// Whether the host need not be asked. A clock that was set back keeps nothing for longer than the bound.
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.until && self.until <= now.plus(MAX_LIFETIME_MS)
    }
}

/// For how long an answer with these headers is good (RFC 9111 as far as a private cache goes), within bounds.
pub fn lifetime(headers: &HeaderMap, now: Timestamp) -> Duration {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let seconds = |text: &str| text.trim().trim_matches('"').parse().ok().map(Duration::from_secs);
    // Several lines are one list (RFC 9110, section 5.3).
    let lines: Vec<_> = headers.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok()).collect();
    let directives = lines.join(",").to_ascii_lowercase();
    let mut directives =
        directives.split(',').map(|directive| directive.trim().split_once('=').unwrap_or((directive.trim(), "")));
    let said = if directives.clone().any(|(name, _)| matches!(name, "no-store" | "no-cache")) {
        Some(Duration::ZERO)
    } else if let Some((_, age)) = directives.find(|(name, _)| *name == "max-age") {
        let age = seconds(age).unwrap_or_default();
        Some(age.saturating_sub(text(AGE).and_then(seconds).unwrap_or_default()))
    } else {
        // What is no date has passed (RFC 9111, section 5.3).
        text(EXPIRES).map(|expires| until(expires, now).unwrap_or_default())
    };
    said.unwrap_or(DEFAULT_LIFETIME).clamp(MIN_LIFETIME, MAX_LIFETIME)
}

/// Asks hosts, and remembers what they said within bounds.
pub struct WellKnown {
    clients: Arc<Clients>,
    clock: SharedClock,
    timeout: Duration,
    known: Cache<String, Entry>,
    asking: Semaphore,
}

impl WellKnown {
    /// Knows nothing yet. Asks for `timeout` at most: less than the caller waits, or a host that does not answer is asked again each time.
    pub fn new(clients: Arc<Clients>, clock: SharedClock, timeout: Duration) -> Self {
        let known = Cache::builder().max_capacity(MAX_HOSTS).time_to_live(MAX_LIFETIME).build();
        Self { clients, clock, timeout: timeout.min(TIMEOUT), known, asking: Semaphore::new(MAX_ASKING) }
    }

    /// Who stands in for `host`, as its own HTTPS server on `port` says; `None`: nobody. Whoever else needs it waits for the same
    /// answer.
    ///
    /// # Errors
    /// When too many are being asked.
    pub async fn delegate(&self, host: &str, port: u16) -> Result<Option<ServerName>, ResolveError> {
        // However it is spelled, it is one host, and asked as one.
        let host = &*host.to_ascii_lowercase();
        if let Some(entry) = self.known.get(host).await.filter(|entry| entry.is_fresh(self.clock.now())) {
            return Ok(entry.delegate);
        }
        let asked = self.known.entry_by_ref(host).and_compute_with(async |entry| {
            let now = self.clock.now();
            let known = entry.map(|entry| entry.into_value());
            if known.as_ref().is_some_and(|known| known.is_fresh(now)) {
                return Op::Nop;
            }
            let Ok(Ok(_permit)) = timeout(ASKING_WAIT, self.asking.acquire()).await else { return Op::Nop };
            Op::Put(Entry::after(self.ask(host, port).await, known, now))
        });
        let busy =
            || ResolveError::Unavailable(Failure::Other, "too many hosts are being asked for .well-known".into());
        asked.await.into_entry().map(|entry| entry.into_value().delegate).ok_or_else(busy)
    }

    async fn ask(&self, host: &str, port: u16) -> Answer {
        let asked = timeout(self.timeout, self.follow(host, port)).await;
        let answer = asked.unwrap_or_else(|_| Err("it takes too long".into())).unwrap_or_else(|why| {
            tracing::debug!(host, why, "no .well-known");
            Answer::Failed
        });
        tracing::debug!(host, ?answer, ".well-known");
        answer
    }

    async fn follow(&self, host: &str, port: u16) -> Result<Answer, String> {
        let first = format!("https://{host}:{port}/.well-known/matrix/server");
        let mut url = Url::parse(&first).map_err(|error| error.to_string())?;
        for _ in 0..=MAX_REDIRECTS {
            let client = self.clients.by(Route::Host, &url).map_err(|error| error.to_string())?;
            let response = client.get(url.clone()).send().await.map_err(|error| causes(&error))?;
            match next(&url, &response)? {
                Some(elsewhere) => url = elsewhere,
                None => return self.read(response).await,
            }
        }
        Err(format!("more than {MAX_REDIRECTS} redirects"))
    }

    async fn read(&self, response: Response) -> Result<Answer, String> {
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(format!("it answers {status}"));
        }
        let lifetime = lifetime(response.headers(), self.clock.now());
        let body = read_answer(response).await.map_err(|error| error.to_string())?;
        let delegate = status.is_success().then(|| delegate(&body)).flatten();
        Ok(delegate.map_or(Answer::None, |name| Answer::Delegate(name, lifetime)))
    }
}

/// Where an answer sends us, if it does. Never off HTTPS: whoever can redirect there unseen could answer as well.
fn next(from: &Url, response: &Response) -> Result<Option<Url>, String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let url = from.join(location.ok_or("a redirect to nowhere")?).map_err(|error| error.to_string())?;
    match url.scheme() {
        "https" => Ok(Some(url)),
        scheme => Err(format!("a redirect to {scheme}")),
    }
}

/// The server in a `.well-known` document; `None`: it names none.
pub fn delegate(document: &[u8]) -> Option<ServerName> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(rename = "m.server")]
        server: String,
    }
    let document: Document = serde_json::from_slice(document).ok()?;
    ServerName::parse(&document.server).ok()
}

#[cfg(test)]
mod tests;
