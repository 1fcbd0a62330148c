//! Declaring the topology, and asking how deep the queues are.

use std::pin::pin;

use futures_util::stream::{self, StreamExt};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use super::subscription::Taken;
use crate::bus::topology::{Argument, ArgumentValue};
use crate::bus::{BusError, Exchange, Queue, QueueDepth, Topology};

/// AMQP 0-9-1, `precondition-failed`.
const PRECONDITION_FAILED: u16 = 406;
/// AMQP 0-9-1, `not-found`.
const NOT_FOUND: u16 = 404;
/// What RabbitMQ says of a classic queue that is there, when its node or its process is not. Whoever asks for one that is not there hears
/// the same code with other words.
const OUT_OF_REACH: [&str; 4] = [
    "is down or inaccessible",
    "process is stopped by supervisor",
    "has crashed and failed to restart",
    "failed to perform operation on queue",
];
/// Questions to the broker that are on their way at once.
const PIPELINE: usize = 64;

/// Declares everything. What exists already with the same options stays as it is.
pub(super) async fn declare(connection: &Connection, topology: &Topology) -> Result<(), BusError> {
    let mut channel = open(connection).await?;
    for exchange in Exchange::ALL {
        declare_exchange(&channel, topology, exchange).await?;
    }
    for queue in topology.queues() {
        match declare_queue(&channel, topology, &queue).await {
            Err(BusError::OutOfReach { name, detail }) if queue == Queue::Dead => {
                tracing::warn!(queue = %name, %detail, "out of reach: nothing can be put aside until it is back");
                // The refusal ended the one before.
                channel = open(connection).await?;
            }
            declared => declared?,
        }
    }
    close(&channel).await;
    Ok(())
}

/// The depth of every queue. A refusal ends the channel that it came on: what was to be asked after it is asked on another.
pub(super) async fn depths(
    connection: &Connection,
    topology: &Topology,
    taken: &Taken,
) -> Result<Vec<QueueDepth>, BusError> {
    let queues = topology.queues();
    let mut depths = Vec::with_capacity(queues.len());
    while depths.len() < queues.len() {
        let channel = open(connection).await?;
        let questions = (depths.len()..queues.len())
            .map(|at| depth(&channel, topology.queue_name(&queues[at]), taken.of(&queues[at])));
        ask(questions, &mut depths).await?;
        close(&channel).await;
    }
    Ok(depths)
}

/// Adds the answers up to the first refusal, that one included: the broker answers in order, so those behind it are not of their own
/// making.
async fn ask<Q>(questions: impl Iterator<Item = Q>, depths: &mut Vec<QueueDepth>) -> Result<(), BusError>
where
    Q: Future<Output = Result<QueueDepth, BusError>>,
{
    let mut answers = pin!(stream::iter(questions).buffered(PIPELINE));
    while let Some(answer) = answers.next().await {
        let depth = answer?;
        let refused = depth.error.is_some();
        depths.push(depth);
        if refused {
            break;
        }
    }
    Ok(())
}

async fn declare_exchange(channel: &Channel, topology: &Topology, exchange: Exchange) -> Result<(), BusError> {
    let name = topology.exchange_name(exchange);
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let kind = ExchangeKind::Custom(exchange.kind().into());
    let arguments = table(topology.exchange_arguments(exchange));
    channel.exchange_declare(short(&name)?, kind, options, arguments).await.map_err(|error| refused(&name, &error))
}

/// Declares one queue and binds it.
pub(super) async fn declare_queue(channel: &Channel, topology: &Topology, queue: &Queue) -> Result<(), BusError> {
    let name = topology.queue_name(queue);
    let passing = queue.is_passing();
    let options = QueueDeclareOptions {
        durable: !passing,
        exclusive: passing,
        auto_delete: passing,
        ..QueueDeclareOptions::default()
    };
    let declaring = channel.queue_declare(short(&name)?, options, table(topology.queue_arguments(queue)));
    declaring.await.map_err(|error| refused(&name, &error))?;
    let exchange = short(&topology.exchange_name(queue.exchange()))?;
    for key in queue.binding_keys() {
        let options = QueueBindOptions::default();
        let binding = channel.queue_bind(short(&name)?, exchange.clone(), short(&key)?, options, FieldTable::default());
        binding.await.map_err(|error| refused(&name, &error))?;
    }
    Ok(())
}

async fn depth(channel: &Channel, name: String, unacked: Option<u64>) -> Result<QueueDepth, BusError> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asking = channel.queue_declare(short(&name)?, options, FieldTable::default());
    let (ready, consumers, error) = match asking.await {
        Ok(answer) => (answer.message_count(), answer.consumer_count(), None),
        Err(error) => match refused(&name, &error) {
            lost @ BusError::Unreachable(_) => return Err(lost),
            refusal => (0, 0, Some(refusal.to_string())),
        },
    };
    Ok(QueueDepth { name, ready: ready.into(), unacked, consumers: consumers.into(), error })
}

async fn open(connection: &Connection) -> Result<Channel, BusError> {
    connection.create_channel().await.map_err(|error| BusError::Unreachable(error.to_string()))
}

async fn close(channel: &Channel) {
    if let Err(error) = channel.close(200, "done".into()).await {
        tracing::debug!(%error, "the channel was gone before it was closed");
    }
}

fn table(arguments: Vec<Argument>) -> FieldTable {
    let mut table = FieldTable::default();
    for argument in arguments {
        let value = match argument.value {
            ArgumentValue::Text(text) => AMQPValue::LongString(text.into()),
            ArgumentValue::Number(number) => AMQPValue::LongLongInt(number),
            ArgumentValue::Flag(flag) => AMQPValue::Boolean(flag),
        };
        table.insert(argument.name.into(), value);
    }
    table
}

fn short(name: &str) -> Result<ShortString, BusError> {
    ShortString::try_new(name).map_err(|_| BusError::Other(format!("a name of more than 255 bytes: {name}")))
}

fn refused(name: &str, error: &lapin::Error) -> BusError {
    match error.kind() {
        ErrorKind::ProtocolError(words) => refusal(name, words.get_id(), words.get_message().as_str()),
        _ => BusError::Unreachable(format!("{name}: {error}")),
    }
}

/// Whether a refusal of the broker's, in its words, is for want of a queue or exchange; not one that is out of reach for now.
pub(super) fn is_missing(reason: &str) -> bool {
    reason.contains("NOT_FOUND - no queue") || reason.contains("NOT_FOUND - no exchange")
}

fn refusal(name: &str, code: u16, words: &str) -> BusError {
    let (name, detail) = (name.into(), words.into());
    match code {
        PRECONDITION_FAILED => BusError::Mismatch { name, detail },
        NOT_FOUND if OUT_OF_REACH.iter().any(|part| words.contains(part)) => BusError::OutOfReach { name, detail },
        _ => BusError::Other(format!("{name}: {detail}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_whose_node_is_down_is_none_that_is_missing() {
        let told = |code, words: &str| refusal("presence.dead", code, words);
        for words in [
            "NOT_FOUND - home node 'rabbit@b' of durable queue 'presence.dead' in vhost '/' is down or inaccessible",
            "NOT_FOUND - queue 'presence.dead' in vhost '/' process is stopped by supervisor",
            "NOT_FOUND - queue 'presence.dead' in vhost '/' has crashed and failed to restart",
            "NOT_FOUND - failed to perform operation on queue 'presence.dead' in vhost '/' due to timeout",
        ] {
            assert!(
                matches!(told(404, words), BusError::OutOfReach { name, .. } if name == "presence.dead"),
                "{words}"
            );
        }
        for words in [
            "NOT_FOUND - no queue 'presence.dead' in vhost '/'",
            "NOT_FOUND - no exchange 'presence.dead' in vhost '/'",
            "NOT_FOUND - vhost 'x' not found",
        ] {
            assert!(matches!(told(404, words), BusError::Other(_)), "{words}");
        }
        let other_options =
            "PRECONDITION_FAILED - inequivalent arg 'x-overflow' for queue 'presence.dead' in vhost '/'";
        assert!(matches!(told(406, other_options), BusError::Mismatch { .. }));
        assert!(matches!(told(403, "ACCESS_REFUSED - access to queue refused"), BusError::Other(_)));
    }
}
