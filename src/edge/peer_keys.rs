//! Peers' public keys: asked of the peer itself, believed until they expire, remembered within bounds.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use moka::ops::compute::Op;
use reqwest::Method;
use ruma::CanonicalJsonObject;
use ruma::api::federation::discovery::ServerSigningKeys;
use ruma::signatures::PublicKeySet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::shares::Shares;
use crate::clock::SharedClock;
use crate::lifecycle;
use crate::model::{ServerName, Timestamp};
use crate::outbound::http::{causes, read_answer};
use crate::outbound::peers::Peers;
use crate::outbound::sign::verify_own;
use crate::outbound::well_known::MAX_STRANGERS;
use crate::policy;

/// Servers remembered. Anybody can make us ask for any name: the least used are forgotten.
const MAX_SERVERS: u64 = 10_000;
/// However long a peer says its keys are good for: a key that was withdrawn is believed for no longer than this.
pub const MAX_VALID_MS: u64 = 24 * 3600 * 1000;
/// A peer is asked again for what it could not say no sooner than this.
const ASK_AGAIN_MS: u64 = 30_000;
/// Keys of one server at most, so that an answer of 64 KiB is no way to fill the memory.
pub const MAX_KEYS: usize = 32;
/// Questions that may wait for a peer to be asked.
const MAX_WAITING: usize = 8 * MAX_STRANGERS;
/// Peers that may be asked at once for the sake of one address. Who hosts many servers may send for all of them from one.
const MAX_FOR_ONE: usize = MAX_STRANGERS / 4;
/// Of one host, for all ports that strangers may name: a name with another port is another server, and none of them may exist.
const MAX_FOR_HOST: usize = 4;
/// For how long a request waits until one of them has answered.
const ASKING_WAIT: Duration = Duration::from_secs(5);
/// How long finding and asking a peer may take: its own request waits for this.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(15);

/// Why there is no key to check a signature with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerKeyError {
    /// The peer was asked for this key and has none such: the request is refused.
    #[error("{server} publishes no key {key}")]
    Unknown {
        /// Whom it was asked for.
        server: ServerName,
        /// Which key.
        key: String,
    },
    /// The peer was asked for another key a moment ago, and this one may be newer: try again in half a minute.
    #[error("{server} was asked for another key than {key} a moment ago")]
    Unasked {
        /// Whom it was asked for.
        server: ServerName,
        /// Which key.
        key: String,
    },
    /// The peer could not be asked, or answers nonsense: try again in half a minute.
    #[error("the keys of {server} cannot be fetched: {reason}")]
    Unavailable {
        /// Whom it was asked for.
        server: ServerName,
        /// What went wrong.
        reason: String,
    },
}

/// What is remembered of a server.
#[derive(Debug, Clone)]
struct Answer {
    asked: Timestamp,
    keys: Result<Arc<Keys>, String>,
    /// For the sake of which key, if it answered.
    for_key: Option<Box<str>>,
}

/// The keys of one server: at least one, at most [`MAX_KEYS`].
#[derive(Debug)]
pub struct Keys {
    set: PublicKeySet,
    valid_until: Timestamp,
}

impl Keys {
    /// By their IDs (`ed25519:…`).
    pub fn set(&self) -> &PublicKeySet {
        &self.set
    }

    /// They are good for nothing from this moment on.
    pub fn valid_until(&self) -> Timestamp {
        self.valid_until
    }
}

/// All peers' keys. Cheap to share.
#[derive(Clone)]
pub struct PeerKeys {
    peers: Peers,
    clock: SharedClock,
    known: Cache<ServerName, Answer>,
    /// Peers asked at once.
    asking: Arc<Semaphore>,
    /// Questions that go on whether or not somebody still waits for them: those who ask, and those who wait for one who does.
    waiting: Arc<Semaphore>,
    /// Of these, for the sake of one address.
    shares: Arc<Shares>,
    /// Of these, at one host.
    hosts: Arc<Shares<String>>,
}

impl PeerKeys {
    /// Knows nobody yet.
    pub fn new(peers: Peers, clock: SharedClock) -> Self {
        Self {
            peers,
            clock,
            known: memory(),
            asking: Arc::new(Semaphore::new(MAX_STRANGERS)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            shares: Arc::new(Shares::new(MAX_FOR_ONE)),
            hosts: Arc::new(Shares::new(MAX_FOR_HOST)),
        }
    }

    /// The keys of `server`, among them `key` (`ed25519:…`). Asks the server if need be, whoever else needs it waits for the same answer.
    /// `from`: for the sake of which address; `None` is bound by no share.
    pub async fn with_key(
        &self,
        server: &ServerName,
        key: &str,
        from: Option<IpAddr>,
    ) -> Result<PublicKeySet, PeerKeyError> {
        // However it is spelled, it is one server, and asked as one.
        let server = &lowered(server);
        let now = self.clock.now();
        let answer = match self.known.get(server).await {
            Some(answer) if !answer.is_stale(key, now) => answer,
            _ => self.ask(server, key, from).await,
        };
        let is_asked_for = answer.for_key.as_deref() == Some(shortened(key));
        let unavailable = |reason| PeerKeyError::Unavailable { server: server.clone(), reason };
        let keys = answer.keys.map_err(unavailable)?;
        if keys.valid_until <= now {
            return Err(unavailable("they have expired".into()));
        }
        if keys.set.contains_key(key) {
            return Ok(keys.set.clone());
        }
        let (server, key) = (server.clone(), shortened(key).to_owned());
        // That others asked for keys that they made up, or the server was away a moment ago, is no verdict.
        Err(if is_asked_for { PeerKeyError::Unknown { server, key } } else { PeerKeyError::Unasked { server, key } })
    }

    /// Asks for the sake of `from`. Who hangs up meanwhile takes nothing back: what the server says is remembered all the same, or a
    /// stranger who never waits would have it asked each time.
    async fn ask(&self, server: &ServerName, key: &str, from: Option<IpAddr>) -> Answer {
        // Before it keeps others waiting who need the same server.
        let Ok(places) = timeout(ASKING_WAIT, self.places(from)).await else { return self.busy() };
        let (keys, server, key) = (self.clone(), server.clone(), key.to_owned());
        let asking = lifecycle::spawn("question for keys", async move {
            let _places = places;
            // Others' questions to the same server come first, and each of them may take its time.
            timeout(2 * ASKING_WAIT + ASK_TIMEOUT, keys.ask_once(&server, &key)).await.unwrap_or_else(|_| keys.busy())
        });
        asking.await.unwrap_or_else(|_| self.busy())
    }

    fn busy(&self) -> Answer {
        Answer { asked: self.clock.now(), keys: Err("too many servers are being asked".into()), for_key: None }
    }

    /// Asks, unless somebody else has while this waited.
    async fn ask_once(&self, server: &ServerName, key: &str) -> Answer {
        let answer = self.known.entry_by_ref(server).and_compute_with(async |entry| {
            let now = self.clock.now();
            let known = entry.map(|entry| entry.into_value());
            if known.as_ref().is_some_and(|answer| !answer.is_stale(key, now)) {
                return Op::Nop;
            }
            // That others are slow says nothing of this server: it is not remembered.
            let Ok(_of_host) = timeout(ASKING_WAIT, self.place_at_host(server)).await else { return Op::Nop };
            let Ok(Ok(_permit)) = timeout(ASKING_WAIT, self.asking.acquire()).await else { return Op::Nop };
            let fetched = timeout(ASK_TIMEOUT, self.fetch(server, now)).await;
            let keys = fetched.unwrap_or_else(|_| Err("it takes too long".into())).map(Arc::new);
            let for_key = keys.is_ok().then(|| shortened(key).into());
            Op::Put(Answer { asked: now, keys: prefer(keys, known, now), for_key })
        });
        let answer = answer.await.into_entry().map(|entry| entry.into_value());
        // If nobody could be asked, what is remembered is no verdict on a key that may be new.
        answer.filter(|answer| !answer.is_stale(key, self.clock.now())).unwrap_or_else(|| self.busy())
    }

    /// A place among those who ask for the sake of `from`, and one among all who wait for an answer.
    async fn places(&self, from: Option<IpAddr>) -> (Option<OwnedSemaphorePermit>, OwnedSemaphorePermit) {
        let open = "the semaphore is never closed";
        let of_share = match from {
            Some(from) => Some(self.shares.of(from).acquire_owned().await.expect(open)),
            None => None,
        };
        (of_share, self.waiting.clone().acquire_owned().await.expect(open))
    }

    /// A place among those who ask the host of `server` under names with ports or in odd spellings: strangers can make up thousands of
    /// those. The plain one is kept from nothing.
    async fn place_at_host(&self, server: &ServerName) -> Option<OwnedSemaphorePermit> {
        let place = self.hosts.of_owner(made_up_host(server)?).acquire_owned();
        Some(place.await.expect("the semaphore is never closed"))
    }

    async fn fetch(&self, server: &ServerName, now: Timestamp) -> Result<Keys, String> {
        let request = self.peers.request(Method::GET, server, "/_matrix/key/v2/server").await;
        let request = request.map_err(|error| error.to_string())?;
        let response = request.send().await.map_err(|error| causes(&error))?;
        if !response.status().is_success() {
            return Err(format!("it answers {}", response.status()));
        }
        let document = read_answer(response).await.map_err(|error| error.to_string())?;
        read_keys(server, &document, now)
    }
}

fn memory() -> Cache<ServerName, Answer> {
    Cache::builder().max_capacity(MAX_SERVERS).time_to_live(Duration::from_millis(MAX_VALID_MS)).build()
}

/// The host of a name that is more than its host as one writes it.
fn made_up_host(server: &ServerName) -> Option<String> {
    let host = policy::host_of(server);
    (host != server.as_str()).then_some(host)
}

fn lowered(server: &ServerName) -> ServerName {
    ServerName::parse(&server.as_str().to_ascii_lowercase()).unwrap_or_else(|_| server.clone())
}

/// As much of a key's ID as is worth repeating.
fn shortened(key: &str) -> &str {
    &key[..key.floor_char_boundary(100)]
}

impl Answer {
    /// Whether to ask again for the sake of `key`. Nobody is asked twice within half a minute.
    fn is_stale(&self, key: &str, now: Timestamp) -> bool {
        // A clock that was set back must not keep an answer for longer.
        let aged = now < self.asked || now.since(self.asked) >= ASK_AGAIN_MS;
        let good = |keys: &Arc<Keys>| now < keys.valid_until && keys.set.contains_key(key);
        aged && !self.keys.as_ref().is_ok_and(good)
    }
}

/// The new keys; those known before, as long as they are good, if there are no new ones: who asks for a key that does not exist
/// while a peer is away must not make it a stranger.
fn prefer(new: Result<Arc<Keys>, String>, known: Option<Answer>, now: Timestamp) -> Result<Arc<Keys>, String> {
    let known = known.and_then(|answer| answer.keys.ok()).filter(|keys| now < keys.valid_until);
    new.or_else(|reason| known.ok_or(reason))
}

/// The keys in a key document of `server`, which has to bear its own signature. They are good for [`MAX_VALID_MS`] from `now` at most.
///
/// # Errors
/// What is wrong with it.
pub fn read_keys(server: &ServerName, document: &[u8], now: Timestamp) -> Result<Keys, String> {
    let object: CanonicalJsonObject = serde_json::from_slice(document).map_err(|error| error.to_string())?;
    let parsed: ServerSigningKeys = serde_json::from_slice(document).map_err(|error| error.to_string())?;
    let name = ServerName::parse(parsed.server_name.as_str()).map_err(|error| error.to_string())?;
    if !name.as_str().eq_ignore_ascii_case(server.as_str()) {
        return Err(format!("it says that it is {name}"));
    }
    let keys = parsed.verify_keys.into_iter().take(MAX_KEYS);
    let set: PublicKeySet = keys.map(|(id, key)| (id.to_string(), key.key)).collect();
    verify_own(&name, object, set.clone()).map_err(|error| error.to_string())?;
    let valid_until = Timestamp(parsed.valid_until_ts.get().into()).min(now.plus(MAX_VALID_MS));
    Ok(Keys { set, valid_until })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::keys::{SigningKey, SigningKeys, server_keys_json};

    const NOW: Timestamp = Timestamp(1_795_400_000_000);

    fn document() -> serde_json::Value {
        let keys = SigningKeys::single(SigningKey::generate("a_1").unwrap());
        let hour = Duration::from_secs(3600);
        serde_json::from_str(&server_keys_json(&name("b.example"), &keys, NOW, hour)).unwrap()
    }

    fn name(text: &str) -> ServerName {
        ServerName::parse(text).unwrap()
    }

    fn read(server: &str, document: &serde_json::Value) -> Result<Keys, String> {
        read_keys(&name(server), document.to_string().as_bytes(), NOW)
    }

    #[test]
    fn a_server_s_own_word_is_believed_until_it_expires() {
        let keys = read("b.example", &document()).unwrap();
        assert!(keys.set.contains_key("ed25519:a_1"));
        assert_eq!(keys.valid_until, NOW.plus(3_600_000));
    }

    #[tokio::test]
    async fn servers_are_remembered_up_to_a_bound() {
        let memory = memory();
        for number in 0..MAX_SERVERS + 100 {
            let answer = Answer { asked: NOW, keys: Err(String::new()), for_key: None };
            memory.insert(name(&format!("{number}.example")), answer).await;
        }
        memory.run_pending_tasks().await;
        assert!(memory.entry_count() <= MAX_SERVERS, "{}", memory.entry_count());
    }

    #[test]
    fn a_name_is_the_same_in_any_case_of_letters() {
        read("B.Example", &document()).unwrap();
    }

    #[test]
    fn a_host_is_one_whatever_port_a_name_has_and_however_it_is_spelled() {
        for (server, of) in [
            ("b.example", None),
            ("b.example:8448", Some("b.example")),
            ("b.example:+8448", Some("b.example")),
            ("b.example.:1", Some("b.example")),
            ("b.example.", Some("b.example")),
            ("192.0.2.1", None),
            ("192.0.2.1:1", Some("192.0.2.1")),
            ("0x0c0000201", Some("192.0.2.1")),
            ("[2001:db8::1]", None),
            ("[2001:db8:0::1]", Some("[2001:db8::1]")),
            ("[2001:db8::1]:8448", Some("[2001:db8::1]")),
        ] {
            assert_eq!(made_up_host(&name(server)).as_deref(), of, "{server}");
        }
    }

    #[test]
    fn nobody_is_believed_for_more_than_a_day() {
        let keys = SigningKeys::single(SigningKey::generate("a_1").unwrap());
        let document = server_keys_json(&name("b.example"), &keys, NOW, Duration::from_secs(365 * 24 * 3600));
        let keys = read_keys(&name("b.example"), document.as_bytes(), NOW).unwrap();
        assert_eq!(keys.valid_until, NOW.plus(24 * 3_600_000));
    }

    #[test]
    fn nobody_else_s_word_is() {
        let good = document();
        assert!(read("c.example", &good).unwrap_err().contains("it is b.example"));
        let mut unsigned = good.clone();
        unsigned["signatures"] = serde_json::json!({});
        assert!(read("b.example", &unsigned).unwrap_err().contains("not signed"));
        let mut altered = good.clone();
        altered["valid_until_ts"] = (NOW.0 + 1).into();
        assert!(read("b.example", &altered).is_err());
        let mut by_another = good;
        by_another["verify_keys"] = document()["verify_keys"].clone();
        assert!(read("b.example", &by_another).is_err());
    }
}
