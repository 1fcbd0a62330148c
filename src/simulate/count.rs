//! What a transaction costs on the wire, and what of it is a reminder's.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Outcome, Traffic};
use crate::core::Transaction;
use crate::core::signal::Inbound;
use crate::model::{ServerName, Timestamp};
use crate::outbound::keys::SigningKey;
use crate::outbound::sign::authorize_put;

/// A body as an edge reads it.
pub(super) struct Body {
    pub(super) sent_at: Timestamp,
    pub(super) edus: Vec<Box<RawValue>>,
}

impl Body {
    pub(super) fn read(transaction: &Transaction) -> Self {
        #[derive(Deserialize)]
        struct Parts {
            origin_server_ts: u64,
            edus: Vec<Box<RawValue>>,
        }
        let parts: Parts = serde_json::from_str(transaction.body.get()).expect("our own transaction");
        Self { sent_at: Timestamp(parts.origin_server_ts), edus: parts.edus }
    }

    fn extension(&self) -> Extension {
        self.edus.first().map(|edu| Extension::of(edu)).unwrap_or_default()
    }
}

/// Counts requests between two servers.
pub(super) struct Meter {
    /// Bytes of a request's head and its answer, but for transaction ID and length.
    head_bytes: usize,
}

impl Meter {
    /// Of requests from `from` to `to`, or of as long names.
    pub(super) fn between(from: &ServerName, to: &ServerName) -> Self {
        Self { head_bytes: head_bytes(from, to) }
    }

    /// What a reminder adds to a transaction that says something of users is the watchdogs', and so is a transaction that says nothing.
    pub(super) fn count(&self, transaction: &Transaction, body: &Body, inbound: &Inbound, outcome: &mut Outcome) {
        let (id, length) = (transaction.txn_id.len(), transaction.body.get().len());
        let extension = body.extension();
        outcome.reminders += u64::from(extension.reminds);
        let mut traffic = Traffic {
            transactions: 1,
            entries: inbound.push.len() as u64,
            ids: (inbound.poll.len() + inbound.unpoll.len()) as u64,
            body_bytes: length as u64,
            head_bytes: (self.head_bytes + id + length.to_string().len()) as u64,
        };
        if traffic.entries + traffic.ids == 0 && inbound.permissions.is_empty() {
            outcome.watchdogs += traffic;
            return;
        }
        traffic.body_bytes -= extension.words_bytes;
        outcome.presence += traffic;
        outcome.watchdogs += Traffic { body_bytes: extension.words_bytes, ..Traffic::default() };
        outcome.extension_bytes += extension.bytes - extension.words_bytes;
    }
}

/// The `rollcall` object of a transaction.
#[derive(Default)]
struct Extension {
    /// Its bytes, with its name.
    bytes: u64,
    /// Those of reminders, answers to them, and what is said by bucket.
    words_bytes: u64,
    reminds: bool,
}

impl Extension {
    fn of(edu: &RawValue) -> Self {
        #[derive(Deserialize)]
        struct Edu<'a> {
            #[serde(borrow)]
            content: Content<'a>,
        }
        #[derive(Deserialize)]
        struct Content<'a> {
            #[serde(borrow)]
            rollcall: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Words<'a> {
            #[serde(borrow)]
            reminder: Option<&'a RawValue>,
            #[serde(borrow)]
            answers: Option<&'a RawValue>,
            #[serde(borrow)]
            have: Option<&'a RawValue>,
            #[serde(borrow)]
            differ: Option<&'a RawValue>,
        }
        let object = serde_json::from_str::<Edu<'_>>(edu.get()).ok().and_then(|edu| edu.content.rollcall);
        let Some(object) = object.map(RawValue::get) else { return Self::default() };
        let words: Words<'_> = serde_json::from_str(object).expect("our own object");
        let said = [
            (r#","reminder":"#, words.reminder),
            (r#","answers":"#, words.answers),
            (r#","have":"#, words.have),
            (r#","differ":"#, words.differ),
        ];
        let words_bytes = said.iter().filter_map(|(name, value)| Some(name.len() + value.as_ref()?.get().len()));
        Self {
            bytes: (object.len() + r#""rollcall":,"#.len()) as u64,
            words_bytes: words_bytes.sum::<usize>() as u64,
            reminds: words.reminder.is_some(),
        }
    }
}

/// Bytes of a request as the sender writes it, without transaction ID, length and body, and of the answer to it.
fn head_bytes(from: &ServerName, to: &ServerName) -> usize {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\
                          date: Tue, 24 Nov 2026 00:00:00 GMT\r\n\r\n{\"pdus\":{}}";
    // Always the same: what a signature needs to be quoted differs from key to key.
    let key = SigningKey::from_seed("auto", [7; 32]).expect("a key name");
    let path = "/_matrix/federation/v1/send/";
    let authorization = authorize_put(&key, from, to, path, b"{}").expect("a request that can be signed");
    let agent = concat!("rollcall/", env!("CARGO_PKG_VERSION"));
    let head = format!(
        "PUT {path} HTTP/1.1\r\nauthorization: \r\ncontent-type: application/json\r\nuser-agent: {agent}\r\naccept: */*\r\n\
         host: {to}\r\ncontent-length: \r\n\r\n"
    );
    head.len() + authorization.len() + ANSWER.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reminder_adds_is_told_apart() {
        let edu = |words: &str| {
            let text = format!(
                r#"{{"edu_type":"m.presence","content":{{"rollcall":{{"v":1,"seq":[1,2]{words}}},"push":[]}}}}"#
            );
            Extension::of(&RawValue::from_string(text).unwrap())
        };
        let words = r#","reminder":{"id":"1-2"},"answers":["1-1"],"differ":[7]"#;
        let (without, with) = (edu(""), edu(words));
        assert_eq!((without.words_bytes, without.reminds), (0, false));
        assert_eq!((with.words_bytes, with.reminds), (words.len() as u64, true));
        assert_eq!(with.bytes - with.words_bytes, without.bytes);
    }
}
