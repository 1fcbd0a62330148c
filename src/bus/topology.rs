//! Exchanges and queues: the names are fixed (a configurable prefix in front), every option is written out with its reason.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::model::{EdgeName, Partition};

/// An exchange of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exchange {
    /// Where edges publish JSON: direct; keys `client`, `federation`, `beat`. Whole words need no patterns, and to look for some costs
    /// the broker (docs/architecture.md).
    Inbound,
    /// To users' machines: direct; key is the partition.
    Users,
    /// To links, from outside: direct; key is the partition.
    Peers,
    /// To links, from users: direct; key is the partition. The per-destination batching exchange.
    Batch,
    /// To senders: direct; key `outbound`.
    Outbound,
    /// To edges with sessions: topic; key is the edge.
    Updates,
    /// What nobody could handle: fanout.
    Dead,
}

impl Exchange {
    /// All of them, in the order in which they are declared (an alternate exchange before its user).
    pub const ALL: [Self; 7] =
        [Self::Dead, Self::Inbound, Self::Users, Self::Peers, Self::Batch, Self::Outbound, Self::Updates];

    /// The name without prefix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Users => "users",
            Self::Peers => "peers",
            Self::Batch => "batch",
            Self::Outbound => "outbound",
            Self::Updates => "updates",
            Self::Dead => "dead",
        }
    }

    /// The AMQP exchange type.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Updates => "topic",
            Self::Inbound | Self::Users | Self::Peers | Self::Batch | Self::Outbound => "direct",
            Self::Dead => "fanout",
        }
    }
}

/// A queue of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    /// Foreign edges' events and beats, for ingest.
    Inbound,
    /// Signals to the users of a partition.
    Users(Partition),
    /// Signals from outside to the links of a partition.
    Peers(Partition),
    /// Changes that wait for a window of a partition's links.
    Batch(Partition),
    /// Transactions, for senders.
    Outbound,
    /// What nobody could handle.
    Dead,
    /// Updates for the sessions of one edge, which declares it by subscribing to it (to it alone). Nothing is promised of it: it
    /// ends with its subscription, is bounded, and drops the oldest. Whoever subscribes anew reads the present from the store.
    Updates(EdgeName),
}

impl Queue {
    /// The three queues that the owner of a partition takes from.
    pub fn of_partition(partition: Partition) -> [Self; 3] {
        [Self::Users(partition), Self::Peers(partition), Self::Batch(partition)]
    }

    /// The exchange that it is bound to.
    pub fn exchange(&self) -> Exchange {
        match self {
            Self::Inbound => Exchange::Inbound,
            Self::Users(_) => Exchange::Users,
            Self::Peers(_) => Exchange::Peers,
            Self::Batch(_) => Exchange::Batch,
            Self::Outbound => Exchange::Outbound,
            Self::Dead => Exchange::Dead,
            Self::Updates(_) => Exchange::Updates,
        }
    }

    /// The keys that it is bound with.
    pub fn binding_keys(&self) -> Vec<String> {
        match self {
            Self::Inbound => vec!["client".into(), "federation".into(), "beat".into()],
            Self::Users(n) | Self::Peers(n) | Self::Batch(n) => vec![n.to_string()],
            Self::Outbound => vec!["outbound".into()],
            Self::Dead => vec![String::new()],
            Self::Updates(edge) => vec![edge.to_string()],
        }
    }

    /// Whether it ends with its one subscription: not durable, exclusive, auto-delete.
    ///
    /// - not durable: updates are worth nothing after a restart, when everybody is told the present anew;
    /// - exclusive: two edges of one name would each get half of the updates, so the second is refused;
    /// - auto-delete: an edge that is gone leaves nothing that fills up, and what is published to it goes nowhere.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Updates(_))
    }

    /// Whether this queue has exactly one owner at a time.
    pub fn is_partitioned(&self) -> bool {
        matches!(self, Self::Users(_) | Self::Peers(_) | Self::Batch(_))
    }
}

/// The name without prefix.
impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.exchange().name())?;
        match self {
            Self::Users(n) | Self::Peers(n) | Self::Batch(n) => write!(f, ".{n}"),
            Self::Updates(edge) => write!(f, ".{edge}"),
            Self::Inbound | Self::Outbound | Self::Dead => Ok(()),
        }
    }
}

/// An optional argument of a declaration, and why it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Argument {
    /// Its AMQP name.
    pub name: &'static str,
    /// Its value.
    pub value: ArgumentValue,
    /// Why.
    #[serde(skip)]
    pub why: &'static str,
}

/// The value of an [`Argument`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ArgumentValue {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
    /// A flag.
    Flag(bool),
}

/// What a deployment has on its broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// In front of every name; `presence.` by default.
    pub prefix: String,
    /// How many slices the key space has, 1 to 1,024.
    pub partitions: u16,
}

impl Topology {
    /// How often a message may come back before it is put aside: a crash loop must not last for ever, a broker restart must not cost anything.
    pub const DELIVERY_LIMIT: i64 = 50;
    /// Dead letters older than this are dropped: 7 days.
    pub const DEAD_TTL_MS: i64 = 7 * 24 * 3600 * 1000;
    /// Dead letters beyond this are dropped, oldest first: 256 MiB.
    pub const DEAD_MAX_BYTES: i64 = 256 << 20;

    /// Updates that may wait for one edge: seconds of its work at the worst, when every session is told something each second.
    pub const UPDATES_MAX: i64 = 50_000;
    /// And their bytes: 32 MiB.
    pub const UPDATES_MAX_BYTES: i64 = 32 << 20;

    /// The full name of an exchange.
    pub fn exchange_name(&self, exchange: Exchange) -> String {
        format!("{}{}", self.prefix, exchange.name())
    }

    /// The full name of a queue.
    pub fn queue_name(&self, queue: &Queue) -> String {
        format!("{}{queue}", self.prefix)
    }

    /// Every queue of the deployment.
    pub fn queues(&self) -> Vec<Queue> {
        let partitioned = (0..self.partitions).map(Partition).flat_map(Queue::of_partition);
        [Queue::Dead, Queue::Inbound, Queue::Outbound].into_iter().chain(partitioned).collect()
    }

    /// The queue that a message for `exchange` with `routing_key` goes to; `None`: nobody takes it.
    pub fn route(&self, exchange: Exchange, routing_key: &str) -> Option<Queue> {
        let partition = || routing_key.parse().ok().filter(|n| *n < self.partitions).map(Partition);
        match exchange {
            Exchange::Inbound => match routing_key {
                "client" | "federation" | "beat" => Some(Queue::Inbound),
                _ => Some(Queue::Dead),
            },
            Exchange::Users => partition().map(Queue::Users),
            Exchange::Peers => partition().map(Queue::Peers),
            Exchange::Batch => partition().map(Queue::Batch),
            Exchange::Outbound => (routing_key == "outbound").then_some(Queue::Outbound),
            Exchange::Updates => EdgeName::parse(routing_key).ok().map(Queue::Updates),
            Exchange::Dead => Some(Queue::Dead),
        }
    }

    /// The optional arguments of an exchange's declaration.
    pub fn exchange_arguments(&self, exchange: Exchange) -> Vec<Argument> {
        match exchange {
            Exchange::Inbound => vec![Argument {
                name: "alternate-exchange",
                value: ArgumentValue::Text(self.exchange_name(Exchange::Dead)),
                why: "an edge that mistypes a routing key gets a dead letter, not silence",
            }],
            _ => vec![],
        }
    }

    /// The optional arguments of a queue's declaration.
    pub fn queue_arguments(&self, queue: &Queue) -> Vec<Argument> {
        let text = |name, value: &str, why| Argument { name, value: ArgumentValue::Text(value.into()), why };
        let number = |name, value, why| Argument { name, value: ArgumentValue::Number(value), why };
        if *queue == Queue::Dead {
            return vec![
                text(
                    "x-queue-type",
                    "classic",
                    "looking at dead letters must not count as failed deliveries of theirs",
                ),
                text("x-overflow", "drop-head", "the newest failures matter most"),
                number("x-message-ttl", Self::DEAD_TTL_MS, "somebody had a week to look"),
                number("x-max-length-bytes", Self::DEAD_MAX_BYTES, "a flood of rubbish must not fill the disk"),
            ];
        }
        if queue.is_passing() {
            return vec![
                text(
                    "x-queue-type",
                    "classic",
                    "stated: no other kind may be exclusive, and a vhost may have another default",
                ),
                text("x-overflow", "drop-head", "of two updates of one user the newer matters"),
                number(
                    "x-max-length",
                    Self::UPDATES_MAX,
                    "an edge that does not keep up costs the broker no more than this",
                ),
                number("x-max-length-bytes", Self::UPDATES_MAX_BYTES, "nor this"),
            ];
        }
        let mut arguments = vec![
            text("x-queue-type", "quorum", "survives a node, and is the faster durable queue"),
            text("x-overflow", "reject-publish", "required by at-least-once dead-lettering; publishers hear of it"),
            text(
                "x-dead-letter-exchange",
                &self.exchange_name(Exchange::Dead),
                "what exceeds the limit is kept for a person",
            ),
            text("x-dead-letter-strategy", "at-least-once", "a dead letter is not lost between two queues"),
            number("x-delivery-limit", Self::DELIVERY_LIMIT, "stated: 3.10 has none by default, 4.x has 20"),
        ];
        if queue.is_partitioned() {
            arguments.push(Argument {
                name: "x-single-active-consumer",
                value: ArgumentValue::Flag(true),
                why: "a second fence behind the lease: two owners never take turns",
            });
        }
        arguments
    }

    /// RabbitMQ definitions (`rabbitmqctl import_definitions`) for `vhost`.
    pub fn definitions(&self, vhost: &str) -> serde_json::Value {
        let arguments = |list: Vec<Argument>| -> BTreeMap<&str, ArgumentValue> {
            list.into_iter().map(|argument| (argument.name, argument.value)).collect()
        };
        let exchanges: Vec<_> = Exchange::ALL
            .into_iter()
            .map(|exchange| {
                serde_json::json!({
                    "name": self.exchange_name(exchange), "vhost": vhost, "type": exchange.kind(), "durable": true,
                    "auto_delete": false, "internal": false, "arguments": arguments(self.exchange_arguments(exchange)),
                })
            })
            .collect();
        let queues: Vec<_> = self
            .queues()
            .iter()
            .map(|queue| {
                serde_json::json!({
                    "name": self.queue_name(queue), "vhost": vhost, "durable": true, "auto_delete": false,
                    "arguments": arguments(self.queue_arguments(queue)),
                })
            })
            .collect();
        let bindings: Vec<_> = self
            .queues()
            .iter()
            .flat_map(|queue| queue.binding_keys().into_iter().map(move |key| (queue.clone(), key)))
            .map(|(queue, key)| {
                serde_json::json!({
                    "source": self.exchange_name(queue.exchange()), "vhost": vhost, "destination": self.queue_name(&queue),
                    "destination_type": "queue", "routing_key": key, "arguments": {},
                })
            })
            .collect();
        serde_json::json!({ "exchanges": exchanges, "queues": queues, "bindings": bindings })
    }
}
