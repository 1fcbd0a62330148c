//! What lies on `presence.updates`, and what the `data:` lines of a stream are (P1): for one observer, what is known of others.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::{Presence, Status, Timestamp, UserId};

/// Events are spread over messages of about so many bytes: a message is then small for the broker and for whoever streams it on.
pub const MESSAGE_BYTES: usize = 16 << 10;
/// Bytes of an event besides its texts, generously.
const EVENT_BYTES: usize = 256;

/// One message for one observer. Ages are those of the moment at which it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateMessage {
    /// The version of this contract: 1.
    pub v: u8,
    /// The local user whose clients are to know.
    pub user_id: UserId,
    /// At most one of each sender.
    pub events: Vec<PresenceEvent>,
}

/// An `m.presence` event (Matrix spec, client-server API, presence), with what rollcall adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceEvent {
    /// `m.presence`.
    #[serde(rename = "type")]
    pub kind: Box<str>,
    /// Of whom.
    pub sender: UserId,
    /// What.
    pub content: Content,
}

/// What is known of somebody. What is not known is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// May be `unknown`, which the Matrix spec does not have.
    pub presence: Presence,
    /// Absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currently_active: Option<bool>,
    /// Ms. Absent when unknown, and when there never was any activity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_active_ago: Option<u64>,
    /// Absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_msg: Option<Box<str>>,
    /// What the Matrix spec has no field for.
    pub rollcall: Beyond,
}

/// See [`Content::rollcall`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beyond {
    /// False exactly when the presence is `unknown`.
    pub known: bool,
    /// What the user is reached on.
    pub device_types: BTreeSet<Box<str>>,
    /// The age of the last knowledge, ms; 0 for local users, and where nothing was ever known.
    pub stale_ms: u64,
}

/// What is known of one user, in times that do not age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The status.
    pub status: Status,
    /// When that was known last; 0: never, or, as of local users, it always is.
    pub known_at: Timestamp,
}

impl UpdateMessage {
    /// What `observer` is to know of others, as of `now`, in as many messages as that takes: at least one.
    pub fn split(observer: &UserId, events: impl IntoIterator<Item = (UserId, Shown)>, now: Timestamp) -> Vec<Self> {
        let empty = || Self { v: 1, user_id: observer.clone(), events: Vec::new() };
        let (mut messages, mut bytes) = (vec![empty()], 0);
        for (sender, mut shown) in events {
            if sender.server_str() == observer.server_str() {
                shown.known_at = Timestamp(0);
            }
            bytes += shown.size(&sender);
            if bytes > MESSAGE_BYTES && messages.last().is_some_and(|message| !message.events.is_empty()) {
                bytes = shown.size(&sender);
                messages.push(empty());
            }
            let event = PresenceEvent { kind: "m.presence".into(), sender, content: shown.content(now) };
            messages.last_mut().expect("never empty").events.push(event);
        }
        messages
    }

    /// The JSON.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }

    /// Reads one that was made about `now`.
    ///
    /// # Errors
    /// What serde says of a body that is none.
    pub fn decode(body: &[u8], now: Timestamp) -> Result<(UserId, Vec<(UserId, Shown)>), serde_json::Error> {
        let Self { user_id, events, .. } = serde_json::from_slice(body)?;
        let shown = |PresenceEvent { sender, content, .. }: PresenceEvent| {
            let ages = sender.server_str() != user_id.server_str();
            (sender, content.shown(ages, now))
        };
        let events = events.into_iter().map(shown).collect();
        Ok((user_id, events))
    }
}

impl Shown {
    /// About how much memory, and how much of a message, it takes.
    pub fn size(&self, sender: &UserId) -> usize {
        let message = self.status.status_msg.as_ref().map_or(0, |text| text.len());
        let types: usize = self.status.device_types.iter().map(|kind| kind.len() + size_of::<Box<str>>()).sum();
        EVENT_BYTES + sender.as_str().len() + message + types
    }

    fn content(self, now: Timestamp) -> Content {
        let Self { status, known_at } = self;
        let known = status.presence != Presence::Unknown;
        let stale_ms = if known_at == Timestamp(0) { 0 } else { now.since(known_at) };
        let was_active = status.last_active > Timestamp(0);
        Content {
            presence: status.presence,
            currently_active: known.then_some(status.currently_active),
            last_active_ago: (known && was_active).then(|| now.since(status.last_active)),
            status_msg: status.status_msg.filter(|_| known),
            rollcall: Beyond {
                known,
                device_types: if known { status.device_types } else { BTreeSet::new() },
                stale_ms,
            },
        }
    }
}

impl Content {
    fn shown(self, ages: bool, now: Timestamp) -> Shown {
        let Beyond { device_types, stale_ms, known } = self.rollcall;
        let never = !known && stale_ms == 0;
        let status = Status {
            presence: self.presence,
            status_msg: self.status_msg,
            last_active: self.last_active_ago.map_or(Timestamp(0), |ago| now.minus(ago)),
            currently_active: self.currently_active.unwrap_or(false),
            device_types,
        };
        let known_at = if ages && !never { now.minus(stale_ms) } else { Timestamp(0) };
        Shown { status, known_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_400_060_000);

    fn user(n: usize) -> UserId {
        UserId::parse(&format!("@u{n}:{}.example", if n == 0 { "a" } else { "b" })).unwrap()
    }

    fn shown(text: &str) -> Shown {
        let status = Status {
            presence: Presence::Busy,
            status_msg: Some(text.into()),
            last_active: NOW.minus(5_000),
            currently_active: true,
            device_types: ["mobile".into()].into(),
        };
        Shown { status, known_at: NOW.minus(700) }
    }

    #[test]
    fn ages_go_on_while_an_update_waits() {
        let [message] = UpdateMessage::split(&user(0), [(user(1), shown("x"))], NOW).try_into().unwrap();
        let (observer, events) = UpdateMessage::decode(&message.encode(), NOW).unwrap();
        assert_eq!((observer, &events), (user(0), &vec![(user(1), shown("x"))]));
        let later = UpdateMessage::split(&user(0), events, NOW.plus(10_000)).remove(0).events.remove(0).content;
        assert_eq!((later.last_active_ago, later.rollcall.stale_ms), (Some(15_000), 10_700));
        let local =
            UpdateMessage::split(&user(0), [(user(0), shown("x"))], NOW.plus(10_000)).remove(0).events.remove(0);
        assert_eq!(local.content.rollcall.stale_ms, 0);
    }

    #[test]
    fn of_the_unknown_nothing_is_said_but_for_how_long() {
        let unknown = Shown { status: Status { presence: Presence::Unknown, ..shown("x").status }, ..shown("") };
        let content = UpdateMessage::split(&user(0), [(user(1), unknown)], NOW).remove(0).events.remove(0).content;
        let rollcall = r#"{"known":false,"device_types":[],"stale_ms":700}"#;
        assert_eq!(
            serde_json::to_string(&content).unwrap(),
            format!(r#"{{"presence":"unknown","rollcall":{rollcall}}}"#)
        );
    }

    #[test]
    fn much_is_spread_over_messages_and_nothing_is_one_message() {
        assert_eq!(UpdateMessage::split(&user(0), [], NOW).len(), 1);
        let long = "é\n".repeat(341);
        let messages = UpdateMessage::split(&user(0), (1..500).map(|n| (user(n), shown(&long))), NOW);
        let senders: Vec<_> = messages.iter().flat_map(|message| &message.events).map(|event| &event.sender).collect();
        assert_eq!(senders, (1..500).map(user).collect::<Vec<_>>().iter().collect::<Vec<_>>());
        assert!(messages.len() > 10 && messages.iter().all(|message| message.encode().len() < 2 * MESSAGE_BYTES));
    }
}
