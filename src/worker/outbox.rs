//! A run's outputs as messages, and as the outbox keeps them: what is published again is the same, byte for byte.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bus::{Exchange, Outgoing};
use crate::core::signal::{LinkSignal, Multicast};
use crate::core::{Output, Transaction, Update};
use crate::model::TraceId;
use crate::wire::envelope::{EnvelopeError, Packer, decode_own, encode_long};
use crate::wire::outbound::OutboundMessage;
use crate::wire::update::{Shown, UpdateMessage};

/// One message in an outbox row.
#[derive(Serialize, Deserialize)]
struct Kept {
    exchange: u8,
    routing_key: String,
    #[serde(with = "in_one_piece")]
    body: Bytes,
    trace: Option<TraceId>,
}

/// What serde makes of a `Vec<u8>`, which it takes byte by byte.
mod in_one_piece {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        Vec::deserialize(deserializer).map(Bytes::from)
    }
}

/// A run's outputs on their way out.
#[derive(Default)]
pub(super) struct Leaving {
    /// What must arrive: kept in the outbox until it is confirmed.
    pub(super) messages: Vec<Outgoing>,
    /// To edges with sessions. Not kept: after a crash every live session is told the present anew, and whoever comes back reads it.
    pub(super) updates: Vec<Outgoing>,
    /// How soon the messages are to leave.
    pub(super) haste: Haste,
}

/// How soon messages are to leave: as the one of them that is to leave soonest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Haste {
    /// Changes, which wait in a window anyway.
    #[default]
    Patient,
    /// When runs have ended everywhere.
    Soon,
    /// It waits for nothing else.
    Urgent,
}

impl From<&Output> for Haste {
    fn from(output: &Output) -> Self {
        match output {
            Output::Transmit(_) => Self::Urgent,
            Output::Link(signal) if signal.signal.is_wish() => Self::Urgent,
            Output::Link(Multicast { signal: LinkSignal::Change { .. }, .. }) | Output::Update(_) => Self::Patient,
            Output::Link(_) | Output::User(_) => Self::Soon,
        }
    }
}

impl Leaving {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.updates.is_empty()
    }
}

/// Packs outputs into as few messages as there are destinations among the partitions.
pub(super) fn pack(outputs: Vec<Output>, partitions: u16) -> Leaving {
    let mut packer = Packer::new(partitions);
    let (mut transactions, mut updates) = (Vec::new(), Vec::new());
    let haste = outputs.iter().map(Haste::from).max().unwrap_or_default();
    for output in outputs {
        match output {
            Output::User(signal) => packer.user(signal),
            Output::Link(signal) => packer.links(signal),
            Output::Transmit(transaction) => transactions.push(outbound(transaction)),
            Output::Update(update) => updates.extend(to_edge(update)),
        }
    }
    let mut messages = packer.finish(false);
    messages.append(&mut transactions);
    Leaving { messages, updates, haste }
}

/// Encodes messages for an outbox row.
pub(super) fn keep(messages: &[Outgoing]) -> Bytes {
    let kept: Vec<Kept> = messages
        .iter()
        .map(|message| Kept {
            exchange: number(message.exchange),
            routing_key: message.routing_key.clone(),
            body: message.body.clone(),
            trace: message.headers.trace,
        })
        .collect();
    let bytes: usize = kept.iter().map(|kept| kept.body.len() + 64).sum();
    encode_long(&kept, bytes)
}

/// Decodes an outbox row.
pub(super) fn recall(row: &[u8]) -> Result<Vec<Outgoing>, EnvelopeError> {
    let kept: Vec<Kept> = decode_own(row)?;
    kept.into_iter()
        .map(|kept| {
            let exchange = Exchange::ALL
                .into_iter()
                .find(|exchange| number(*exchange) == kept.exchange)
                .ok_or_else(|| EnvelopeError::Malformed(format!("exchange number {}", kept.exchange)))?;
            let mut message = Outgoing::new(exchange, kept.routing_key, kept.body);
            message.headers.trace = kept.trace;
            Ok(message)
        })
        .collect()
}

fn outbound(transaction: Transaction) -> Outgoing {
    let Transaction { destination, txn_id, not_after, body, trace } = transaction;
    let mut bytes = Vec::with_capacity(body.get().len() + 1_024);
    let message = OutboundMessage { v: 1, destination, txn_id, not_after, body };
    serde_json::to_writer(&mut bytes, &message).expect("strings and numbers are JSON");
    let mut message = Outgoing::new(Exchange::Outbound, "outbound", bytes);
    message.headers.trace = trace;
    message
}

fn to_edge(update: Update) -> Vec<Outgoing> {
    let Update { edge, observer, at, events } = update;
    let shown = events.into_iter().map(|(of, status, known_at)| (of, Shown { status, known_at }));
    let messages = UpdateMessage::split(&observer, shown, at);
    messages.iter().map(|message| Outgoing::new(Exchange::Updates, &*edge, message.encode())).collect()
}

/// The number of an exchange in outbox rows. In databases: never reuse one.
fn number(exchange: Exchange) -> u8 {
    match exchange {
        Exchange::Inbound => 1,
        Exchange::Users => 2,
        Exchange::Peers => 3,
        Exchange::Batch => 4,
        Exchange::Outbound => 5,
        Exchange::Updates => 6,
        Exchange::Dead => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Presence, Serial, ServerName, Status, Timestamp, UserId};

    #[test]
    fn that_somebody_watches_waits_for_nothing_and_changes_are_patient() {
        let user = |id| UserId::parse(id).unwrap();
        let serial = Serial { epoch: 1, counter: 1 };
        let (observer, target) = (user("@bob:a.example"), user("@alice:b.example"));
        let watch = LinkSignal::Watch { observer: observer.clone(), target, on: true, accepted: false, serial };
        let hide = LinkSignal::Hide { user: observer.clone(), serial };
        let change = LinkSignal::Change { user: observer, status: Status::default(), serial, promise: true };
        let haste = |signals: &[&LinkSignal]| {
            let to = vec![ServerName::parse("b.example").unwrap()];
            let address = |signal| Multicast { to: to.clone(), at: Timestamp(1), trace: None, signal };
            let outputs = signals.iter().copied().cloned().map(address).map(Output::Link).collect();
            pack(outputs, 4).haste
        };
        assert_eq!(haste(&[&change, &watch, &hide]), Haste::Urgent);
        assert_eq!(haste(&[&change, &hide, &change]), Haste::Soon, "whoever may not see it is to see it no longer");
        assert_eq!(haste(&[&change, &change]), Haste::Patient);
    }

    #[test]
    fn an_update_goes_to_its_edge_and_not_into_the_outbox() {
        let status = Status {
            presence: Presence::Online,
            status_msg: Some("cup\"cakes".into()),
            last_active: Timestamp(4_000),
            currently_active: true,
            device_types: ["mobile".into()].into(),
        };
        let user = |id| UserId::parse(id).unwrap();
        let update = Update {
            edge: "edge-1".into(),
            observer: user("@bob:a.example"),
            at: Timestamp(9_000),
            events: vec![
                (user("@alice:b.example"), status, Timestamp(8_500)),
                (user("@carol:c.example"), Status::default(), Timestamp(2_000)),
            ],
        };
        let leaving = pack(vec![Output::Update(update)], 4);
        assert_eq!((leaving.messages.len(), leaving.updates.len(), leaving.is_empty()), (0, 1, false));
        let message = &leaving.updates[0];
        assert_eq!((message.exchange, message.routing_key.as_str()), (Exchange::Updates, "edge-1"));
        let golden = concat!(
            r#"{"v":1,"user_id":"@bob:a.example","events":[{"type":"m.presence","sender":"@alice:b.example","content":"#,
            r#"{"presence":"online","currently_active":true,"last_active_ago":5000,"status_msg":"cup\"cakes","#,
            r#""rollcall":{"known":true,"device_types":["mobile"],"stale_ms":500}}},"#,
            r#"{"type":"m.presence","sender":"@carol:c.example","content":{"presence":"unknown","#,
            r#""rollcall":{"known":false,"device_types":[],"stale_ms":7000}}}]}"#
        );
        assert_eq!(std::str::from_utf8(&message.body), Ok(golden));
    }
}
