//! Dead letters: look at them, put them back, or drop them. Works on any bus.
//!
//! What is looked at is taken without being acknowledged, so that it returns when the [`DeadLetters`] are dropped. A letter's name is
//! the hash of its body: others may look and new letters may come meanwhile, and an index would then mean another one.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_64;

use crate::bus::{
    Bus, BusError, Delivery, Exchange, Headers, Outgoing, PublishError, Queue, Subscription, SubscriptionError, Token,
};
use crate::model::{Partition, TraceId};
use crate::wire::reject::FEDERATION;

/// The most that can be held at once: some brokers' limit for unacknowledged messages.
pub const HELD_MAX: u16 = 2000;
/// A message that is there arrives within this time; afterwards somebody else holds it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Shorter names are too easily another's.
const ID_MIN: usize = 6;

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// 16 hex digits, xxh3-64 of the body. Letters with the same body share it.
    pub id: String,
    /// Why it died.
    pub reason: Option<String>,
    /// The queue that it came from, without prefix; or `federation`: a peer's HTTP request.
    pub origin: Option<String>,
    /// The trace that it belongs to.
    pub trace: Option<TraceId>,
    /// The payload.
    pub body: Bytes,
}

/// Why dead letters could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum DeadError {
    /// The bus did not tell how many there are.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The bus gave none out, or did not take an acknowledgement; nothing is lost, ask again.
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    /// Not put back, for this reason; it is still a dead letter.
    #[error("not put back: {0}")]
    Publish(String),
    /// Nothing is called so.
    #[error("no dead letter is called {0:?}: give a number from the list, or at least {ID_MIN} digits of an ID")]
    Unknown(String),
    /// Several letters with different bodies are called so.
    #[error("several dead letters begin with {0:?}: give more digits")]
    Ambiguous(String),
    /// It cannot go back to where it came from.
    #[error("{id} cannot be put back: {reason}")]
    NoWayBack {
        /// Which.
        id: String,
        /// Why.
        reason: String,
    },
}

impl From<PublishError> for DeadError {
    fn from(error: PublishError) -> Self {
        Self::Publish(error.to_string())
    }
}

/// Dead letters, held.
pub struct DeadLetters {
    subscription: Box<dyn Subscription>,
    held: Vec<(DeadLetter, Option<Token>)>,
    remaining: u64,
}

impl DeadLetters {
    /// Takes up to `limit` (at most [`HELD_MAX`]) of the dead letters that are there, oldest first.
    ///
    /// # Errors
    /// [`DeadError::Bus`] or [`DeadError::Subscription`]: nothing changed.
    pub async fn hold(bus: &dyn Bus, limit: u16) -> Result<Self, DeadError> {
        let limit = limit.clamp(1, HELD_MAX);
        let there = ready(bus).await?;
        let subscription = bus.subscribe(&[(Queue::Dead, limit)]).await?;
        let mut letters = Self { subscription, held: Vec::new(), remaining: 0 };
        let wanted = usize::try_from(there.min(limit.into())).expect("at most 2,000");
        while letters.held.len() < wanted {
            let Ok(delivery) = timeout(PATIENCE, letters.subscription.next()).await else { break };
            letters.held.push(letter(delivery?));
        }
        letters.remaining = there.saturating_sub(letters.held.len() as u64);
        Ok(letters)
    }

    /// What is held, oldest first.
    pub fn list(&self) -> impl ExactSizeIterator<Item = &DeadLetter> {
        self.held.iter().map(|(letter, _)| letter)
    }

    /// How many more there were.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The positions of the letters called `name`: a position of up to four digits, or the beginning of an ID.
    ///
    /// # Errors
    /// [`DeadError::Unknown`] or [`DeadError::Ambiguous`].
    pub fn find(&self, name: &str) -> Result<Vec<usize>, DeadError> {
        let unknown = || DeadError::Unknown(name.into());
        if name.len() < ID_MIN {
            let position = name.parse().ok().filter(|position| *position < self.held.len());
            return position.map(|position| vec![position]).ok_or_else(unknown);
        }
        let called: Vec<usize> = (0..self.held.len()).filter(|at| self.held[*at].0.id.starts_with(name)).collect();
        let first = called.first().ok_or_else(unknown)?;
        if called.iter().any(|at| self.held[*at].0.id != self.held[*first].0.id) {
            return Err(DeadError::Ambiguous(name.into()));
        }
        Ok(called)
    }

    /// Puts the letter at `position` back to where it came from, confirmed, then takes it off the dead ones.
    ///
    /// # Errors
    /// It is still a dead letter, unless the error is [`DeadError::Subscription`]: then it may be both.
    pub async fn replay(&mut self, bus: &dyn Bus, position: usize) -> Result<(), DeadError> {
        let message = way_back(&self.held[position].0)?;
        bus.publish(vec![message]).await?;
        self.discard(position).await
    }

    /// Takes the letter at `position` off the dead ones, for good. Doing so twice does nothing.
    ///
    /// # Errors
    /// [`DeadError::Subscription`]: it may be there still.
    pub async fn discard(&mut self, position: usize) -> Result<(), DeadError> {
        match self.held[position].1.take() {
            Some(token) => Ok(self.subscription.ack(vec![token]).await?),
            None => Ok(()),
        }
    }
}

async fn ready(bus: &dyn Bus) -> Result<u64, BusError> {
    let dead = Queue::Dead.to_string();
    let depths = bus.depths().await?;
    // The prefix may be empty or end in anything, but no other queue's name ends in this one's.
    let Some(depth) = depths.into_iter().find(|depth| depth.name.ends_with(&dead)) else { return Ok(0) };
    depth.error.map_or(Ok(depth.ready), |error| Err(BusError::Other(error)))
}

fn letter(delivery: Delivery) -> (DeadLetter, Option<Token>) {
    let Headers { trace, reason, origin, .. } = delivery.headers;
    // What the broker found no queue for comes without a word of its own.
    let unrouted = || origin.is_none().then(|| format!("no queue takes routing key {:?}", delivery.routing_key));
    let reason = reason.or_else(unrouted);
    let id = format!("{:016x}", xxh3_64(&delivery.body));
    (DeadLetter { id, reason, origin, trace, body: delivery.body }, Some(delivery.token))
}

fn way_back(letter: &DeadLetter) -> Result<Outgoing, DeadError> {
    let no_way = |reason: String| DeadError::NoWayBack { id: letter.id.clone(), reason };
    let queue = match letter.origin.as_deref() {
        // What no binding of presence.inbound took has no origin.
        None => Queue::Inbound,
        Some(FEDERATION) => {
            return Err(no_way("a peer sent it over HTTP and was answered: nothing of it can be put back".into()));
        }
        Some(origin) => {
            parse_queue(origin).ok_or_else(|| no_way(format!("it came from {origin:?}, which is no queue")))?
        }
    };
    let key = match queue {
        Queue::Inbound => inbound_key(&letter.body).map_err(no_way)?,
        ref other => other.binding_keys().swap_remove(0),
    };
    let mut message = Outgoing::new(queue.exchange(), key, letter.body.clone());
    message.headers.trace = letter.trace;
    Ok(message)
}

/// Reads a queue's name without prefix.
fn parse_queue(name: &str) -> Option<Queue> {
    let Some((kind, number)) = name.split_once('.') else {
        return match name {
            "inbound" => Some(Queue::Inbound),
            "outbound" => Some(Queue::Outbound),
            _ => None,
        };
    };
    let partition = Partition(number.parse().ok()?);
    match kind {
        _ if kind == Exchange::Users.name() => Some(Queue::Users(partition)),
        _ if kind == Exchange::Peers.name() => Some(Queue::Peers(partition)),
        _ if kind == Exchange::Batch.name() => Some(Queue::Batch(partition)),
        _ => None,
    }
}

/// An edge's event tells by its type which routing key it came with; an array's members all came with the same.
fn inbound_key(body: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Event {
        One(Typed),
        Many(Vec<Typed>),
    }
    let kind = match serde_json::from_slice(body) {
        Ok(Event::One(event)) => event.r#type,
        Ok(Event::Many(mut events)) if !events.is_empty() => events.swap_remove(0).r#type,
        _ => return Err("it is no JSON event with a type".into()),
    };
    match kind.split('.').next() {
        Some(key @ ("client" | "federation")) => Ok(key.into()),
        Some("beat" | "job") => Ok("beat".into()),
        _ => Err(format!("its type {kind:?} belongs to no routing key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(origin: Option<&str>, body: &'static str) -> Result<(Exchange, String), String> {
        let body = Bytes::from_static(body.as_bytes());
        let origin = origin.map(Into::into);
        let letter = DeadLetter { id: "id".into(), reason: None, origin, trace: None, body };
        way_back(&letter).map(|message| (message.exchange, message.routing_key)).map_err(|error| error.to_string())
    }

    #[test]
    fn letters_go_back_to_where_they_came_from() {
        let inbound = |key: &str| Ok((Exchange::Inbound, key.to_owned()));
        assert_eq!(back(Some("inbound"), r#"{"type":"client.idle"}"#), inbound("client"));
        assert_eq!(back(None, r#"[{"type":"federation.heard"}]"#), inbound("federation"));
        assert_eq!(back(None, r#"{"type":"beat"}"#), inbound("beat"));
        assert_eq!(back(Some("users.3"), "x"), Ok((Exchange::Users, "3".into())));
        assert_eq!(back(Some("peers.0"), "x"), Ok((Exchange::Peers, "0".into())));
        assert_eq!(back(Some("batch.15"), "x"), Ok((Exchange::Batch, "15".into())));
        assert_eq!(back(Some("outbound"), "x"), Ok((Exchange::Outbound, "outbound".into())));
    }

    #[test]
    fn what_has_no_way_back_says_why() {
        for (origin, body, reason) in [
            (Some("inbound"), "x", "no JSON event"),
            (Some("inbound"), "[]", "no JSON event"),
            (Some("inbound"), r#"{"type":"else.where"}"#, "belongs to no routing key"),
            (Some("federation"), "x", "over HTTP"),
            (Some("dead"), "x", "which is no queue"),
            (Some("users.x"), "x", "which is no queue"),
        ] {
            let error = back(origin, body).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
