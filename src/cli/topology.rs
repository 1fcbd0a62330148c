//! `rollcall topology`: what the broker holds for this deployment.

use anyhow::{Context, Result};
use clap::Subcommand;
use rollcall::bus::topology::{Argument, ArgumentValue};
use rollcall::bus::{Exchange, Queue, Topology};
use rollcall::config::Config;
use rollcall::model::{EdgeName, Partition};
use rollcall::ops::tools::GuestBus;

use super::out;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print every exchange and queue, its options and why they are there
    Show,
    /// Declare them on the broker
    Declare,
    /// Print RabbitMQ definitions, for `rabbitmqctl import_definitions`
    Export {
        /// The virtual host that they are for
        #[arg(long, default_value = "/")]
        vhost: String,
    },
}

pub(super) fn show(config: &Config) -> Result<()> {
    let topology = config.topology();
    for exchange in Exchange::ALL {
        out::line(&format!("exchange {} ({}, durable)", topology.exchange_name(exchange), exchange.kind()))?;
        arguments(&topology.exchange_arguments(exchange))?;
    }
    for queue in topology.queues().iter().filter(|queue| is_first(queue)) {
        out::line(&format!("queue {} (durable)", names(&topology, queue)))?;
        let keys = queue.binding_keys().into_iter().filter(|key| !key.is_empty()).collect::<Vec<_>>().join(", ");
        let keys = if queue.is_partitioned() { "its partition".into() } else { keys };
        let with = if keys.is_empty() { String::new() } else { format!(" with {keys}") };
        out::line(&format!("    bound to {}{with}", topology.exchange_name(queue.exchange())))?;
        arguments(&topology.queue_arguments(queue))?;
    }
    let updates = Queue::Updates(EdgeName::parse("edge").expect("it is one"));
    out::line(&format!(
        "queue {} (exclusive, auto-delete): each edge declares its own, <edge>",
        topology.queue_name(&updates)
    ))?;
    out::line(&format!("    bound to {} with <edge>", topology.exchange_name(Exchange::Updates)))?;
    arguments(&topology.queue_arguments(&updates))
}

pub(super) fn export(config: &Config, vhost: &str) -> Result<()> {
    out::line(&serde_json::to_string_pretty(&config.topology().definitions(vhost))?)
}

pub(super) async fn declare(config: &Config) -> Result<()> {
    let guest = GuestBus::open(config, "topology").await?;
    let declared = guest.bus().declare().await.context("cannot declare");
    guest.close().await;
    declared?;
    let topology = config.topology();
    out::line(&format!("{} exchanges and {} queues are there", Exchange::ALL.len(), topology.queues().len()))
}

/// Partitions differ in nothing but their number, so the first stands for all.
fn is_first(queue: &Queue) -> bool {
    match queue {
        Queue::Users(partition) | Queue::Peers(partition) | Queue::Batch(partition) => *partition == Partition(0),
        Queue::Inbound | Queue::Outbound | Queue::Dead | Queue::Updates(_) => true,
    }
}

fn names(topology: &Topology, queue: &Queue) -> String {
    let first = topology.queue_name(queue);
    if !queue.is_partitioned() || topology.partitions == 1 {
        return first;
    }
    format!("{first} to {}", topology.partitions - 1)
}

fn arguments(list: &[Argument]) -> Result<()> {
    for Argument { name, value, why } in list {
        let value = match value {
            ArgumentValue::Text(text) => text.clone(),
            ArgumentValue::Number(number) => number.to_string(),
            ArgumentValue::Flag(flag) => flag.to_string(),
        };
        out::line(&format!("    {name} = {value}: {why}"))?;
    }
    Ok(())
}
