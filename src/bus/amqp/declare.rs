//! Declaring the topology, and asking how deep the queues are.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use super::subscription::Taken;
use crate::bus::topology::{Argument, ArgumentValue};
use crate::bus::{BusError, Exchange, Queue, QueueDepth, Topology};

/// AMQP 0-9-1, `precondition-failed`.
const PRECONDITION_FAILED: u16 = 406;
/// Questions to the broker that are on their way at once.
const PIPELINE: usize = 64;

/// Declares everything. What exists already with the same options stays as it is.
pub(super) async fn declare(connection: &Connection, topology: &Topology) -> Result<(), BusError> {
    let channel = open(connection).await?;
    for exchange in Exchange::ALL {
        declare_exchange(&channel, topology, exchange).await?;
    }
    for queue in topology.queues() {
        declare_queue(&channel, topology, &queue).await?;
    }
    close(&channel).await;
    Ok(())
}

/// The depth of every queue; an error names the first that does not exist.
pub(super) async fn depths(
    connection: &Connection,
    topology: &Topology,
    taken: &Taken,
) -> Result<Vec<QueueDepth>, BusError> {
    let channel = open(connection).await?;
    let questions = topology.queues().into_iter().map(|queue| {
        let unacked = taken.of(&queue);
        depth(&channel, topology.queue_name(&queue), unacked)
    });
    let depths = stream::iter(questions).buffered(PIPELINE).try_collect().await?;
    close(&channel).await;
    Ok(depths)
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
    let answer = asking.await.map_err(|error| refused(&name, &error))?;
    let (ready, consumers) = (u64::from(answer.message_count()), u64::from(answer.consumer_count()));
    Ok(QueueDepth { name, ready, unacked, consumers })
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
        ErrorKind::ProtocolError(words) if words.get_id() == PRECONDITION_FAILED => {
            BusError::Mismatch { name: name.into(), detail: words.get_message().to_string() }
        }
        ErrorKind::ProtocolError(words) => BusError::Other(format!("{name}: {}", words.get_message())),
        _ => BusError::Unreachable(format!("{name}: {error}")),
    }
}
