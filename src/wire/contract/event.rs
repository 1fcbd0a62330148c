//! The happy path: an event as serde reads it, and the checks that make a signal of it.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::core::signal::{Addressed, MessageEdit, Outcome, PeerSignal, SessionAction, Stamp, UserSignal};
use crate::model::{DeviceId, EdgeName, Presence, ServerName, Timestamp, UserId};
use crate::wire::json::{Maybe, Object, Text};
use crate::wire::matrix;
use crate::wire::reject::{Fault, Reject, class, not_heard, quoted};

use super::kind::Kind;
use super::{Context, MAX_EVENTS, Parsed, Routed};

/// A lease that names no time lasts this long: 2 minutes.
const LEASE_MS: u64 = 120_000;
/// No lease lasts longer than this: 1 hour.
const LEASE_MAX_MS: u64 = 3_600_000;
/// Entries of one list change, each way.
const LIST_MAX: usize = 1_000;
/// EDUs of one transaction (Matrix spec, server-server API, transactions).
const EDUS_MAX: usize = 100;
/// PDUs of one transaction (as above).
const PDUS_MAX: u64 = 50;
/// Bytes of a status message.
const MESSAGE_MAX: usize = 1 << 10;

const SETTABLE: &str = "one of online, unavailable, busy, offline";

/// Every field of every type. One struct for all: no look-ahead for the type, one pass.
#[derive(Deserialize)]
struct Event<'a> {
    v: Option<u64>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    ts: Option<u64>,
    #[serde(borrow)]
    user_id: Option<Text<'a>>,
    #[serde(borrow)]
    device_id: Option<Text<'a>>,
    #[serde(borrow)]
    presence: Option<Text<'a>>,
    #[serde(borrow, default)]
    status_msg: Maybe<Text<'a>>,
    #[serde(default)]
    idle_ms: Maybe<u64>,
    #[serde(borrow, default)]
    device_type: Maybe<Text<'a>>,
    #[serde(borrow)]
    set_presence: Option<Text<'a>>,
    #[serde(borrow)]
    action: Option<Text<'a>>,
    lease_ms: Option<u64>,
    #[serde(borrow)]
    edge: Option<Text<'a>>,
    #[serde(borrow)]
    add: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    remove: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    observer: Option<Text<'a>>,
    allow: Option<bool>,
    #[serde(borrow)]
    origin: Option<Text<'a>>,
    #[serde(borrow)]
    txn_id: Option<Text<'a>>,
    origin_server_ts: Option<u64>,
    #[serde(borrow)]
    edus: Option<Vec<&'a RawValue>>,
    pdus: Option<u64>,
    #[serde(borrow)]
    destination: Option<Text<'a>>,
    #[serde(borrow)]
    outcome: Option<Text<'a>>,
    retry_after_ms: Option<u64>,
}

/// Reads one event. `None`: serde did not take it, and [`super::diagnose`] finds out why.
pub(super) fn parse_one(text: &str, context: &Context, rejects: &mut Vec<Reject>) -> Option<Result<Routed, Fault>> {
    let Object(event) = serde_json::from_str::<Object<Event<'_>>>(text).ok()?;
    Some(event.route(context, rejects))
}

/// Reads an array of events that are all good (but for EDUs within them); an error says no more than that one is not.
pub(super) fn parse_array(text: &str, context: &Context) -> Result<Parsed, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = deserializer.deserialize_seq(Members(context))?;
    deserializer.end()?;
    Ok(parsed)
}

struct Members<'c>(&'c Context);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Parsed, A::Error> {
        let mut parsed = Parsed::default();
        while let Some(Object(event)) = members.next_element::<Object<Event<'_>>>()? {
            if parsed.signals.len() == MAX_EVENTS {
                return Err(A::Error::custom("too many"));
            }
            let (index, rejected) = (parsed.signals.len(), parsed.rejects.len());
            let routed = event.route(self.0, &mut parsed.rejects).map_err(|_| A::Error::custom("a bad event"))?;
            parsed.signals.push(routed);
            for reject in &mut parsed.rejects[rejected..] {
                reject.reason.insert_str(0, &format!("[{index}] "));
            }
        }
        Ok(parsed)
    }
}

impl Event<'_> {
    /// Checks everything. EDUs that cannot be used go to `rejects` without harm to the transaction.
    fn route(self, context: &Context, rejects: &mut Vec<Reject>) -> Result<Routed, Fault> {
        check_version(self.v)?;
        let kind = check_kind(self.kind.as_deref(), context)?;
        check_heard(kind, self.origin.as_deref(), context)?;
        let routed = match kind.source() {
            super::Source::Federation => self.peer_signal(kind, context, rejects).map(Routed::Peer),
            _ => self.user_signal(kind, context).map(Routed::User),
        };
        routed.map_err(|fault| fault.within(format_args!("{}: ", kind.as_str())))
    }

    fn user_signal(self, kind: Kind, context: &Context) -> Result<Addressed<UserId, UserSignal>, Fault> {
        let stamp = self.stamp(context)?;
        let to = local_user("user_id", self.user_id.as_deref(), &context.local)?;
        let signal = match kind {
            Kind::Status => self.status(stamp)?,
            Kind::Idle => {
                UserSignal::Idle { device: self.device()?, idle_ms: nullable("idle_ms", self.idle_ms)?, stamp }
            }
            Kind::Device => self.device_signal(stamp)?,
            Kind::Activity => self.activity(stamp)?,
            Kind::Poll => self.poll(stamp)?,
            Kind::List => {
                UserSignal::List { add: users("add", self.add)?, remove: users("remove", self.remove)?, stamp }
            }
            _ => self.answer(stamp)?,
        };
        Ok(addressed(to, context, signal))
    }

    fn peer_signal(
        self,
        kind: Kind,
        context: &Context,
        rejects: &mut Vec<Reject>,
    ) -> Result<Addressed<ServerName, PeerSignal>, Fault> {
        let received = self.stamp(context)?.ts;
        if kind == Kind::Receipt {
            let to = peer("destination", self.destination.as_deref(), &context.local)?;
            return Ok(addressed(to, context, self.receipt()?));
        }
        let origin = peer("origin", self.origin.as_deref(), &context.local)?;
        let signal = match kind {
            Kind::Heard => PeerSignal::Heard,
            _ => self.transaction(&origin, &context.local, received, rejects)?,
        };
        Ok(addressed(origin, context, signal))
    }

    fn stamp(&self, context: &Context) -> Result<Stamp, Fault> {
        let id = bounded("id", required("id", self.id.as_deref())?, 1..=128)?;
        let ts = Timestamp(required("ts", self.ts)?).min(context.now);
        Ok(Stamp { ts, id: id.into() })
    }

    fn device(&self) -> Result<DeviceId, Fault> {
        let text = required("device_id", self.device_id.as_deref())?;
        DeviceId::parse(text).map_err(|error| Fault::invalid_id("device_id", &error))
    }

    fn status(self, stamp: Stamp) -> Result<UserSignal, Fault> {
        let device = self.device()?;
        let presence = presence("presence", required("presence", self.presence.as_deref())?)?;
        let status_msg = match self.status_msg {
            Maybe::Absent => MessageEdit::Keep,
            Maybe::Null => MessageEdit::Clear,
            Maybe::Is(text) => MessageEdit::Set(bounded("status_msg", &text, 0..=MESSAGE_MAX)?.into()),
        };
        Ok(UserSignal::Status { device, presence, status_msg, stamp })
    }

    fn device_signal(self, stamp: Stamp) -> Result<UserSignal, Fault> {
        let device = self.device()?;
        let device_type = nullable("device_type", self.device_type)?
            .map(|text| bounded("device_type", &text, 1..=32).map(Into::into))
            .transpose()?;
        Ok(UserSignal::Device { device, device_type, stamp })
    }

    fn activity(self, stamp: Stamp) -> Result<UserSignal, Fault> {
        let device = self.device()?;
        let set_presence = self.set_presence.map(|text| presence("set_presence", &text)).transpose()?;
        Ok(UserSignal::Activity { device, set_presence, stamp })
    }

    fn poll(self, stamp: Stamp) -> Result<UserSignal, Fault> {
        let device = self.device()?;
        let edge = self.edge.as_deref().map(edge_name).transpose()?;
        let action = match required("action", self.action.as_deref())? {
            "start" => SessionAction::Start { lease_ms: self.lease_ms.unwrap_or(LEASE_MS).min(LEASE_MAX_MS), edge },
            "stop" => edge.map_or(SessionAction::Stop, |edge| SessionAction::Leave { edge }),
            other => return Err(Fault::must_text("action", "one of start, stop", other)),
        };
        Ok(UserSignal::Session { device, action, stamp })
    }

    fn answer(self, stamp: Stamp) -> Result<UserSignal, Fault> {
        let observer = user("observer", required("observer", self.observer.as_deref())?)?;
        let allow = required("allow", self.allow)?;
        Ok(UserSignal::Answer { observer, allow, stamp })
    }

    fn transaction(
        self,
        origin: &ServerName,
        local: &ServerName,
        received: Timestamp,
        rejects: &mut Vec<Reject>,
    ) -> Result<PeerSignal, Fault> {
        let txn_id = bounded("txn_id", required("txn_id", self.txn_id.as_deref())?, 1..=255)?;
        let sent = Timestamp(required("origin_server_ts", self.origin_server_ts)?);
        let edus = required("edus", self.edus)?;
        at_most("edus", edus.len() as u64, EDUS_MAX as u64)?;
        at_most("pdus", self.pdus.unwrap_or(0), PDUS_MAX)?;
        let (mut inbound, bad) = matrix::parse_edus(origin, local, &edus, received, sent);
        inbound.txn_id = txn_id.into();
        rejects.extend(bad.into_iter().map(|mut reject| {
            reject.reason = format!("federation.transaction from {origin}: {}", reject.reason);
            reject
        }));
        Ok(PeerSignal::Transaction(Box::new(inbound)))
    }

    fn receipt(self) -> Result<PeerSignal, Fault> {
        let txn_id = bounded("txn_id", required("txn_id", self.txn_id.as_deref())?, 1..=255)?;
        let outcome = match required("outcome", self.outcome.as_deref())? {
            "delivered" => Outcome::Delivered,
            "failed" => Outcome::Failed,
            "expired" => Outcome::Expired,
            "too_large" => Outcome::TooLarge,
            other => return Err(Fault::must_text("outcome", "one of delivered, failed, expired, too_large", other)),
        };
        Ok(PeerSignal::Receipt { txn_id: txn_id.into(), outcome, retry_after_ms: self.retry_after_ms })
    }
}

pub(super) fn check_version(v: Option<u64>) -> Result<(), Fault> {
    match required("v", v)? {
        1 => Ok(()),
        other => Err(Fault::must("v", "1", other)),
    }
}

pub(super) fn check_kind(kind: Option<&str>, context: &Context) -> Result<Kind, Fault> {
    let text = required("type", kind)?;
    let kind = Kind::parse(text).ok_or_else(|| Fault::new(class::TYPE, format!("unknown type {}", quoted(text))))?;
    if context.key.allows(kind) {
        return Ok(kind);
    }
    let (kind, key) = (kind.as_str(), context.key.as_str());
    Err(Fault::new(class::TYPE, format!("\"type\" {kind} is not allowed under routing key \"{key}\"")))
}

/// Before anything else of the event is looked at, which the server that it is from may have had a hand in.
pub(super) fn check_heard(kind: Kind, origin: Option<&str>, context: &Context) -> Result<(), Fault> {
    let peer = origin.filter(|_| matches!(kind, Kind::Transaction | Kind::Heard));
    match peer.and_then(|origin| ServerName::parse(origin).ok()) {
        Some(origin) if !context.policy.hears(&origin) => Err(Fault::new(class::DENIED, not_heard(&origin))),
        _ => Ok(()),
    }
}

fn addressed<K, S>(to: K, context: &Context, signal: S) -> Addressed<K, S> {
    Addressed { to, at: context.now, reply: None, trace: None, signal }
}

fn required<T>(field: &str, value: Option<T>) -> Result<T, Fault> {
    value.ok_or_else(|| Fault::missing(field))
}

/// A field that must be there, and may be null.
fn nullable<T>(field: &str, value: Maybe<T>) -> Result<Option<T>, Fault> {
    match value {
        Maybe::Absent => Err(Fault::missing(field)),
        Maybe::Null => Ok(None),
        Maybe::Is(value) => Ok(Some(value)),
    }
}

fn bounded<'t>(field: &str, text: &'t str, bytes: RangeInclusive<usize>) -> Result<&'t str, Fault> {
    if bytes.contains(&text.len()) {
        return Ok(text);
    }
    let rule = format_args!("text of {} to {} bytes", bytes.start(), bytes.end()).to_string();
    Err(Fault::must(field, rule, format_args!("{} of {} bytes", quoted(text), text.len())))
}

fn at_most(field: &str, count: u64, bound: u64) -> Result<(), Fault> {
    if count <= bound {
        return Ok(());
    }
    Err(Fault::new(class::SIZE, format!("\"{field}\" are {count}, at most {bound} are allowed")))
}

fn presence(field: &str, text: &str) -> Result<Presence, Fault> {
    Presence::parse(text).ok_or_else(|| Fault::must_text(field, SETTABLE, text))
}

fn user(field: &str, text: &str) -> Result<UserId, Fault> {
    UserId::parse(text).map_err(|error| Fault::invalid_id(field, &error))
}

fn users(field: &str, texts: Option<Vec<Text<'_>>>) -> Result<Vec<UserId>, Fault> {
    let texts = texts.unwrap_or_default();
    at_most(field, texts.len() as u64, LIST_MAX as u64)?;
    let parse = |(index, text): (usize, &Text<'_>)| user(&format!("{field}[{index}]"), text);
    texts.iter().enumerate().map(parse).collect()
}

fn local_user(field: &str, text: Option<&str>, local: &ServerName) -> Result<UserId, Fault> {
    let user = user(field, required(field, text)?)?;
    if user.belongs_to(local) {
        return Ok(user);
    }
    Err(Fault::foreign(field, user.as_str(), user.server_str(), local))
}

fn peer(field: &str, text: Option<&str>, local: &ServerName) -> Result<ServerName, Fault> {
    let text = required(field, text)?;
    let server = ServerName::parse(text).map_err(|error| Fault::invalid_id(field, &error))?;
    if server == *local {
        return Err(Fault::must_text(field, "another server than the local one", text));
    }
    Ok(server)
}

fn edge_name(name: &str) -> Result<Box<str>, Fault> {
    match EdgeName::parse(name) {
        Ok(_) => Ok(name.into()),
        Err(_) => Err(Fault::must_text("edge", "1 to 64 of a-z, 0-9 and -", name)),
    }
}
