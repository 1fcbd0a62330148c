//! The JSON contract between edges and the pipeline: one event or an array of them, read in one pass.
//!
//! The happy path borrows from the body and builds signals as it goes. Only when something is wrong is the body read again,
//! member by member, so that a bad member is put aside alone and its reason names the field.

mod diagnose;
mod event;
mod internal;
mod kind;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::core::signal::{Addressed, PeerSignal, UserSignal};
use crate::model::{ServerName, Timestamp, TraceId, UserId};
use crate::policy::Policy;
pub use crate::wire::reject::{Reject, class};
pub use internal::{encode_beat, encode_job, parse_internal};

use crate::wire::reject::Fault;
use kind::Kind;

/// A body is at most this large: 1 MiB.
pub const MAX_BODY: usize = 1 << 20;
/// An array holds at most so many members. No array of valid events within [`MAX_BODY`] has more.
pub const MAX_EVENTS: usize = 20_000;

/// What a body is read against.
#[derive(Debug, Clone)]
pub struct Context {
    /// The local server: `client.*` events speak for its users alone.
    pub local: ServerName,
    /// The time of receipt: no event counts as later than it.
    pub now: Timestamp,
    /// How the body came, which says what types it may hold.
    pub key: Source,
    /// Whose transactions count.
    pub policy: Policy,
}

/// Where a body came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Routing key `client`: `client.*` events only.
    Client,
    /// Routing key `federation`: `federation.*` events only.
    Federation,
    /// A trusted way in that has no routing keys, such as `POST /_rollcall/v1/events`.
    Any,
}

impl Source {
    /// The source that a routing key of exchange `presence.inbound` names.
    pub fn from_routing_key(key: &str) -> Option<Self> {
        match key {
            "client" => Some(Self::Client),
            "federation" => Some(Self::Federation),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Federation => "federation",
            Self::Any => "any",
        }
    }

    fn allows(self, kind: Kind) -> bool {
        self == Self::Any || self == kind.source()
    }
}

/// What a body held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// What is to be done, in the order of the body.
    pub signals: Vec<Routed>,
    /// What cannot be used, each by itself.
    pub rejects: Vec<Reject>,
}

/// A signal, and which kind of machine it goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routed {
    /// To a local user.
    User(Addressed<UserId, UserSignal>),
    /// To a link.
    Peer(Addressed<ServerName, PeerSignal>),
}

/// What [`Routed::kind`] may say.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    Kind::ALL.iter().map(|kind| kind.as_str()).chain(["internal"])
}

impl Routed {
    /// The type of the event that it was, such as `client.status`; signals that no event causes are `internal`.
    pub fn kind(&self) -> &'static str {
        let kind = match self {
            Self::User(signal) => match signal.signal {
                UserSignal::Status { .. } => Kind::Status,
                UserSignal::Idle { .. } => Kind::Idle,
                UserSignal::Device { .. } => Kind::Device,
                UserSignal::Activity { .. } => Kind::Activity,
                UserSignal::Session { .. } => Kind::Poll,
                UserSignal::List { .. } => Kind::List,
                UserSignal::Answer { .. } => Kind::Answer,
                UserSignal::Watched { .. }
                | UserSignal::Tell { .. }
                | UserSignal::Queried { .. }
                | UserSignal::Invited { .. }
                | UserSignal::Answered { .. }
                | UserSignal::Observed { .. }
                | UserSignal::Update { .. }
                | UserSignal::Refresh { .. }
                | UserSignal::AuditTold { .. }
                | UserSignal::AuditWatch { .. } => return "internal",
            },
            Self::Peer(signal) => match signal.signal {
                PeerSignal::Transaction(_) => Kind::Transaction,
                PeerSignal::Heard => Kind::Heard,
                PeerSignal::Receipt { .. } => Kind::Receipt,
            },
        };
        kind.as_str()
    }

    /// Makes it part of a trace.
    pub fn set_trace(&mut self, trace: TraceId) {
        match self {
            Self::User(signal) => signal.trace = Some(trace),
            Self::Peer(signal) => signal.trace = Some(trace),
        }
    }
}

/// Reads a body: one event or an array of events, at most [`MAX_BODY`] bytes. Never fails as a whole: whatever cannot be used is
/// among [`Parsed::rejects`], the rest counts.
pub fn parse(body: &[u8], context: &Context) -> Parsed {
    match text(body) {
        Ok(text) => parse_text(text, context),
        Err(fault) => {
            let reject = Reject { body: Bytes::copy_from_slice(body), reason: fault.text, class: fault.class };
            Parsed { signals: Vec::new(), rejects: vec![reject] }
        }
    }
}

/// The body as text, unless it is too large or no text.
fn text(body: &[u8]) -> Result<&str, Fault> {
    if body.len() > MAX_BODY {
        let size = body.len();
        return Err(Fault::new(class::SIZE, format!("the body has {size} bytes, at most {MAX_BODY} are allowed")));
    }
    std::str::from_utf8(body).map_err(|error| Fault::new(class::JSON, format!("not JSON: {error}")))
}

fn parse_text(text: &str, context: &Context) -> Parsed {
    if !text.trim_ascii_start().starts_with('[') {
        let mut parsed = Parsed::default();
        member(text, "", context, &mut parsed);
        return parsed;
    }
    event::parse_array(text, context).unwrap_or_else(|_| parse_singly(text, context))
}

/// Reads an array of which something is wrong: each member stands or falls alone.
fn parse_singly(text: &str, context: &Context) -> Parsed {
    let mut parsed = Parsed::default();
    let members: Vec<&RawValue> = match serde_json::from_str(text) {
        Ok(members) => members,
        Err(error) => {
            parsed.rejects.push(Reject::new(text, Fault::new(class::JSON, format!("not JSON: {error}"))));
            return parsed;
        }
    };
    if members.len() > MAX_EVENTS {
        let reason = format!("the array has {} members, at most {MAX_EVENTS} are allowed", members.len());
        parsed.rejects.push(Reject::new(text, Fault::new(class::SIZE, reason)));
        return parsed;
    }
    for (index, raw) in members.into_iter().enumerate() {
        member(raw.get(), &format!("[{index}] "), context, &mut parsed);
    }
    parsed
}

fn member(text: &str, place: &str, context: &Context, parsed: &mut Parsed) {
    let rejected = parsed.rejects.len();
    let routed = match event::parse_one(text, context, &mut parsed.rejects) {
        Some(routed) => routed,
        None => diagnose::parse_again(text, context, &mut parsed.rejects),
    };
    for reject in &mut parsed.rejects[rejected..] {
        reject.reason.insert_str(0, place);
    }
    match routed {
        Ok(routed) => parsed.signals.push(routed),
        Err(fault) => parsed.rejects.push(Reject::new(text, fault.within(place))),
    }
}

#[cfg(test)]
mod tests;
