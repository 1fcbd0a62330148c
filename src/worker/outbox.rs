//! A run's outputs as messages, and as the outbox keeps them: what is published again is the same, byte for byte.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bus::{Exchange, Outgoing};
use crate::core::{Output, Transaction};
use crate::model::TraceId;
use crate::wire::envelope::{EnvelopeError, Packer, decode_own, encode};
use crate::wire::outbound::OutboundMessage;

/// One message in an outbox row.
#[derive(Serialize, Deserialize)]
struct Kept {
    exchange: u8,
    routing_key: String,
    body: Vec<u8>,
    trace: Option<TraceId>,
}

/// Packs outputs into as few messages as there are destinations among the partitions.
pub(super) fn messages(outputs: Vec<Output>, partitions: u16) -> Vec<Outgoing> {
    let mut packer = Packer::new(partitions);
    let mut transactions = Vec::new();
    for output in outputs {
        match output {
            Output::User(signal) => packer.user(signal),
            Output::Link(signal) => packer.link(signal),
            Output::Transmit(transaction) => transactions.push(outbound(transaction)),
            Output::Update(_) => {}
        }
    }
    let mut messages = packer.finish(false);
    messages.append(&mut transactions);
    messages
}

/// Encodes messages for an outbox row.
pub(super) fn keep(messages: &[Outgoing]) -> Bytes {
    let kept: Vec<Kept> = messages
        .iter()
        .map(|message| Kept {
            exchange: number(message.exchange),
            routing_key: message.routing_key.clone(),
            body: message.body.to_vec(),
            trace: message.headers.trace,
        })
        .collect();
    encode(&kept)
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
    let message = OutboundMessage { v: 1, destination, txn_id, not_after, body };
    let body = serde_json::to_vec(&message).expect("strings and numbers are JSON");
    let mut message = Outgoing::new(Exchange::Outbound, "outbound", body);
    message.headers.trace = trace;
    message
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
