//! Asks the homeserver whose an access token is (Matrix spec, client-server API, `GET /account/whoami`).

use std::net::IpAddr;
use std::time::Duration;

use axum::http::{HeaderValue, header};
use moka::Expiry;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use super::absence::Absence;
use super::auth::{Caller, Credentials};
use super::error::MatrixError;
use super::shares::Shares;
use crate::config::HomeserverConfig;
use crate::model::{DeviceId, ServerName, UserId};
use crate::outbound::http::{causes, install_crypto, read_answer};

const PATH: &str = "/_matrix/client/v3/account/whoami";
/// An access token's bytes; a longer one is nobody's.
const MAX_TOKEN: usize = 8 << 10;
/// Questions under way at once.
const MAX_ASKING: usize = 64;
/// Of these, for the sake of one address: whoever makes tokens up keeps nobody else waiting.
const MAX_FOR_ONE: usize = MAX_ASKING / 4;
/// What a client is told to wait while the homeserver does not answer.
const RETRY: Duration = Duration::from_secs(2);
/// The device of access tokens that belong to none, as those of application services: one a user.
const NO_DEVICE: &str = "no-device";

/// Why the homeserver cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum HomeserverError {
    /// The address is missing or none.
    #[error("homeserver.url is no address")]
    Address,
    /// The HTTP client.
    #[error(transparent)]
    Client(#[from] reqwest::Error),
}

/// What the homeserver says, remembered for a while. Never the token itself.
pub(crate) struct Whoami {
    http: Client,
    url: Url,
    timeout: Duration,
    cache: Duration,
    local: ServerName,
    answers: Cache<Key, Answer>,
    asking: Semaphore,
    /// Of these, for the sake of one address.
    shares: Shares,
    absence: Absence,
}

/// A hash of what a client showed.
type Key = [u8; 32];

#[derive(Debug, Clone)]
enum Answer {
    Known(Known),
    Refused(MatrixError),
}

/// Whose a token is, and until when that is believed: counted from when it was asked, not from when the answer came.
#[derive(Debug, Clone)]
struct Known {
    caller: Caller,
    until: Instant,
}

/// For how long an answer is good, whether or not it is asked for meanwhile.
struct Lifetimes {
    refused: Duration,
}

impl Expiry<Key, Answer> for Lifetimes {
    fn expire_after_create(&self, _: &Key, answer: &Answer, now: std::time::Instant) -> Option<Duration> {
        Some(match answer {
            Answer::Known(known) => known.until.into_std().saturating_duration_since(now),
            Answer::Refused(_) => self.refused,
        })
    }
}

/// The answer to a good token.
#[derive(Deserialize)]
struct Identity {
    user_id: String,
    device_id: Option<String>,
    #[serde(default)]
    is_guest: bool,
}

/// The answer to a bad one.
#[derive(Deserialize, Default)]
struct Refusal {
    #[serde(default)]
    errcode: String,
    #[serde(default)]
    soft_logout: bool,
}

impl Whoami {
    pub(crate) fn new(config: &HomeserverConfig, local: ServerName) -> Result<Self, HomeserverError> {
        let base = config.url.as_deref().ok_or(HomeserverError::Address)?;
        let url = format!("{base}{PATH}").parse().map_err(|_| HomeserverError::Address)?;
        let lifetimes = Lifetimes { refused: config.cache_refused };
        let answers = Cache::builder()
            .max_capacity(config.cache_max)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(lifetimes)
            .build();
        Ok(Self {
            http: client(config.timeout)?,
            url,
            timeout: config.timeout,
            cache: config.cache,
            local,
            answers,
            asking: Semaphore::new(MAX_ASKING),
            shares: Shares::new(MAX_FOR_ONE),
            absence: Absence::default(),
        })
    }

    /// Whose the token is. Whoever shows the same one at the same time waits for the same answer. 503 while there is none: that
    /// says nothing of the token, and is not remembered.
    pub(crate) async fn caller(&self, shown: &Credentials) -> Result<Caller, MatrixError> {
        self.known(shown).await.map(|known| known.caller)
    }

    /// Until when nobody asks again whether the token is good. Errors as of [`Self::caller`].
    pub(crate) async fn good_until(&self, shown: &Credentials) -> Result<Instant, MatrixError> {
        self.known(shown).await.map(|known| known.until)
    }

    async fn known(&self, shown: &Credentials) -> Result<Known, MatrixError> {
        if shown.token.expose().len() > MAX_TOKEN {
            return Err(MatrixError::unknown_token("no access token is so long"));
        }
        match self.answers.try_get_with(key(shown), self.ask(shown)).await {
            Ok(Answer::Known(known)) => Ok(known),
            Ok(Answer::Refused(error)) => Err(error),
            Err(error) => Err(MatrixError::clone(&error)),
        }
    }

    async fn ask(&self, shown: &Credentials) -> Result<Answer, MatrixError> {
        let bearer = bearer(shown)?;
        // That others wait says nothing of the homeserver.
        let waits = |_| MatrixError::unavailable("too many access tokens are being asked for", RETRY);
        let _turn = timeout(self.timeout, self.turn(shown.from)).await.map_err(waits)?;
        let answer = self.question(shown, bearer).await;
        match &answer {
            Ok(_) => self.absence.end(),
            Err(reason) => self.absence.begin(reason),
        }
        // The reason may tell of our network: it stays in the log.
        let away = "the homeserver cannot be asked whose this access token is";
        answer.map_err(|_| MatrixError::unavailable(away, RETRY))
    }

    /// A turn to ask, for the sake of `from`.
    async fn turn(&self, from: Option<IpAddr>) -> (Option<OwnedSemaphorePermit>, SemaphorePermit<'_>) {
        let open = "the semaphore is never closed";
        let of_share = match from {
            Some(address) => Some(self.shares.of(address).acquire_owned().await.expect(open)),
            None => None,
        };
        (of_share, self.asking.acquire().await.expect(open))
    }

    /// What it says; an error says why that is no verdict.
    async fn question(&self, shown: &Credentials, bearer: HeaderValue) -> Result<Answer, String> {
        let until = Instant::now() + self.cache;
        let asked = self.http.get(self.url_for(shown)).header(header::AUTHORIZATION, bearer).send().await;
        let response = asked.map_err(|error| causes(&error))?;
        match response.status() {
            StatusCode::OK => self.identity(&read(response).await?, until),
            StatusCode::UNAUTHORIZED => Ok(Answer::Refused(unknown(&read(response).await.unwrap_or_default()))),
            StatusCode::FORBIDDEN => {
                Ok(Answer::Refused(MatrixError::forbidden("the homeserver does not let this token act")))
            }
            other => Err(format!("it answers {other}")),
        }
    }

    /// Application services say for whom they act (Matrix spec, application service API, identity assertion).
    fn url_for(&self, shown: &Credentials) -> Url {
        let mut url = self.url.clone();
        for (name, value) in &shown.asserted {
            url.query_pairs_mut().append_pair(name, value);
        }
        url
    }

    fn identity(&self, identity: &Identity, until: Instant) -> Result<Answer, String> {
        let user = UserId::parse(&identity.user_id).map_err(|error| error.to_string())?;
        if !user.belongs_to(&self.local) {
            return Err(format!("it speaks for {}, not for {}", user.server_str(), self.local));
        }
        if identity.is_guest {
            return Ok(Answer::Refused(MatrixError::guest()));
        }
        let device = DeviceId::parse(identity.device_id.as_deref().unwrap_or(NO_DEVICE));
        let caller = Caller { user, device: device.map_err(|error| error.to_string())? };
        Ok(Answer::Known(Known { caller, until }))
    }
}

/// Towards one server that the operator named: no redirects, no proxies.
fn client(timeout: Duration) -> Result<Client, reqwest::Error> {
    install_crypto();
    Client::builder()
        .user_agent(concat!("rollcall/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .timeout(timeout)
        .build()
}

fn key(shown: &Credentials) -> Key {
    let asserted = shown.asserted.iter().flat_map(|(name, value)| [*name, value.as_str()]);
    let mut hash = Sha256::new();
    for part in std::iter::once(shown.token.expose()).chain(asserted) {
        // With lengths, so that no two lists of parts look alike.
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, String> {
    let body = read_answer(response).await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

fn unknown(refusal: &Refusal) -> MatrixError {
    match refusal.errcode.as_str() {
        "M_USER_LOCKED" => MatrixError::locked(),
        _ => MatrixError::unknown_token("the homeserver does not know this access token"),
    }
    .with_soft_logout(refusal.soft_logout)
}

/// What no log of a request prints.
fn bearer(shown: &Credentials) -> Result<HeaderValue, MatrixError> {
    let mut token = HeaderValue::try_from(format!("Bearer {}", shown.token.expose()))
        .map_err(|_| MatrixError::unknown_token("no access token has such characters"))?;
    token.set_sensitive(true);
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::Secret;
    use crate::lifecycle;
    use crate::telemetry::tests::Log;

    #[test]
    fn a_token_that_is_asked_for_shows_in_no_request() {
        let shown = Credentials { token: Secret::new("syt_am9obg"), asserted: Vec::new(), from: None };
        let http = client(Duration::from_secs(1)).unwrap();
        let request = http.get("http://127.0.0.1").header(header::AUTHORIZATION, bearer(&shown).unwrap());
        let request = request.build().unwrap();
        assert_eq!(request.headers()[header::AUTHORIZATION], "Bearer syt_am9obg");
        assert!(!format!("{request:?}").contains("syt_"), "{request:?}");
    }

    #[tokio::test]
    async fn tokens_are_remembered_up_to_a_bound() {
        let long = Duration::from_secs(60);
        let url = Some("http://127.0.0.1:1".into());
        let config = HomeserverConfig { url, timeout: long, cache: long, cache_refused: long, cache_max: 100 };
        let whoami = Whoami::new(&config, ServerName::parse("a.example").unwrap()).unwrap();
        for number in 0..1_000_u32 {
            let shown = Credentials { token: Secret::new(number.to_string()), asserted: Vec::new(), from: None };
            whoami.answers.insert(key(&shown), Answer::Refused(MatrixError::guest())).await;
        }
        whoami.answers.run_pending_tasks().await;
        assert_eq!(whoami.answers.entry_count(), 100);
    }

    /// How many lines of this level speak of the homeserver.
    fn lines(log: &Log, level: &str) -> usize {
        log.text().lines().filter(|line| line.contains(level) && line.contains("the homeserver")).count()
    }

    /// Asks whose some tokens are of a homeserver that gives these answers.
    async fn ask_for(statuses: Vec<StatusCode>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Some(format!("http://{}", listener.local_addr().unwrap()));
        let answers = Arc::new(Mutex::new(statuses.clone().into_iter()));
        let answer = move || std::future::ready(answers.lock().unwrap().next().expect("asked as often as that"));
        let router = axum::Router::new().fallback(answer);
        let serving = lifecycle::spawn("homeserver", async move { axum::serve(listener, router).await });
        let long = Duration::from_secs(60);
        let config = HomeserverConfig { url, timeout: long, cache: long, cache_refused: long, cache_max: 100 };
        let whoami = Whoami::new(&config, ServerName::parse("a.example").unwrap()).unwrap();
        for (number, status) in statuses.into_iter().enumerate() {
            let shown = Credentials { token: Secret::new(format!("t{number}")), asserted: Vec::new(), from: None };
            let error = whoami.caller(&shown).await.unwrap_err();
            assert_eq!(error.status() == StatusCode::SERVICE_UNAVAILABLE, status.is_server_error(), "{error:?}");
        }
        serving.abort();
    }

    #[tokio::test]
    async fn a_homeserver_that_is_away_is_said_once_until_it_is_back() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        let _kept = tracing::subscriber::set_default(subscriber);
        let (away, back) = (StatusCode::BAD_GATEWAY, StatusCode::UNAUTHORIZED);
        ask_for([vec![away; 20], vec![back; 2]].concat()).await;
        assert_eq!((lines(&log, " WARN "), lines(&log, " INFO ")), (1, 1));
    }
}
