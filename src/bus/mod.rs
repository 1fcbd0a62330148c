//! The bus: durable queues with confirms and acknowledgements. One trait; [`amqp`] is RabbitMQ, [`embedded`] is rows in the store.
//!
//! The contract, which one suite of tests holds both implementations to:
//! - a publish that returned `Ok` survives the death of any single process;
//! - a delivery that was not acknowledged comes again, flagged [`Delivery::redelivered`], after its subscription ended;
//! - within a queue, order holds as long as nothing fails; nobody may rely on more;
//! - what cannot be routed is an error, never silence.
//!
//! Updates to edges ([`Queue::Updates`]) are the exception to all of these: they pass, or they do not.

pub mod amqp;
pub mod embedded;
#[cfg(test)]
pub(crate) mod through;
pub mod topology;
pub mod transfer;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::model::TraceId;
pub use topology::{Exchange, Queue, Topology};

/// A message on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub exchange: Exchange,
    /// Decimal partition, or as [`topology`] says.
    pub routing_key: String,
    /// The payload. Cheap to clone.
    pub body: Bytes,
    /// What travels beside it.
    pub headers: Headers,
}

/// What travels beside a body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    /// W3C trace context (`traceparent`).
    pub trace: Option<TraceId>,
    /// Dead letters: why (`rollcall-reason`), a sentence that names the field.
    pub reason: Option<String>,
    /// Dead letters: the queue it came from (`rollcall-origin`).
    pub origin: Option<String>,
    /// Deliveries: where an "applied" goes. On publish: set by [`Outgoing::wants_reply`].
    pub reply_to: Option<String>,
}

impl Headers {
    /// The marker that asks the bus to put this process's own reply address in.
    pub const REPLY_HERE: &'static str = "amq.rabbitmq.reply-to";
}

impl Outgoing {
    /// A plain message.
    pub fn new(exchange: Exchange, routing_key: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { exchange, routing_key: routing_key.into(), body: body.into(), headers: Headers::default() }
    }

    /// Asks for replies to this process (see [`Bus::replies`]).
    #[must_use]
    pub fn wants_reply(mut self) -> Self {
        self.headers.reply_to = Some(Headers::REPLY_HERE.into());
        self
    }
}

/// Counts messages that were confirmed: for whoever implements [`Bus::publish`].
fn count_published(messages: &[Outgoing]) {
    for exchange in Exchange::ALL {
        let bodies =
            || messages.iter().filter(|message| message.exchange == exchange).map(|message| message.body.len());
        if bodies().next().is_some() {
            metrics::counter!("rollcall_published_total", "exchange" => exchange.name())
                .increment(bodies().count() as u64);
            let bytes = bodies().sum::<usize>() as u64;
            metrics::counter!("rollcall_published_bytes_total", "exchange" => exchange.name()).increment(bytes);
        }
    }
}

/// A message that came in. Owed to the broker until its [`Token`] is given to [`Subscription::ack`].
#[derive(Debug)]
pub struct Delivery {
    /// The queue that it was taken from.
    pub queue: Queue,
    /// The routing key that it was published with.
    pub routing_key: Box<str>,
    /// The payload.
    pub body: Bytes,
    /// What travelled beside it.
    pub headers: Headers,
    /// Whether it was delivered before, to anybody.
    pub redelivered: bool,
    /// How often it came back, as far as the bus counts.
    pub returns: u32,
    /// The right to acknowledge it, once.
    pub token: Token,
}

impl Delivery {
    /// Counts it, if it was delivered before: for whoever takes it off a subscription.
    pub(crate) fn count_redelivery(&self) {
        if self.redelivered {
            metrics::counter!("rollcall_redeliveries_total", "queue" => self.queue.to_string()).increment(1);
        }
    }

    /// Whether it came back more often than one unclean end explains: it may be what kills its readers, so it is handled alone
    /// and takes no neighbour with it.
    pub fn is_suspect(&self) -> bool {
        self.returns >= 2
    }
}

/// The right to acknowledge one delivery, once: not `Clone`, and consumed by [`Subscription::ack`]. Dropping it leaves the delivery unacknowledged.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub(crate) u64);

impl Token {
    /// For implementations of [`Bus`]: the right to acknowledge the delivery that bears `number` there.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// For implementations of [`Bus`]: which delivery this is the right to acknowledge.
    pub fn number(&self) -> u64 {
        self.0
    }
}

/// Why a publish did not succeed. Nothing is known of the messages that the error does not name.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No queue is bound for it: retrying does not help until the topology is mended.
    #[error("no queue takes messages for exchange {exchange} with routing key {routing_key:?}")]
    Unroutable {
        /// The exchange, with its prefix.
        exchange: String,
        /// The key.
        routing_key: String,
    },
    /// Not confirmed within the time allowed: some may have been taken. Send all of it again, the same bytes in the same order.
    #[error("not confirmed within {0:?}: {1}")]
    Unconfirmed(Duration, String),
    /// This bus was shut down.
    #[error("the bus is closed")]
    Closed,
}

/// Why a subscription ended. What it held unacknowledged comes again to whoever subscribes next.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubscriptionError {
    /// The connection or channel is gone, or the broker cancelled the consumer: subscribe again.
    #[error("subscription lost: {0}")]
    Lost(String),
    /// This bus was shut down.
    #[error("the bus is closed")]
    Closed,
}

/// Why a connection or declaration failed.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Nobody answers, or it refuses: try again later.
    #[error("cannot reach the broker: {0}")]
    Unreachable(String),
    /// A queue or exchange exists with other options than ours: somebody has to mend it.
    #[error("{name} exists with other options than rollcall's: {detail}")]
    Mismatch {
        /// The queue or exchange.
        name: String,
        /// The broker's words.
        detail: String,
    },
    /// A queue is there, and the node of the cluster that keeps it is not: it comes back with the node.
    #[error("{name} is out of reach: {detail}")]
    OutOfReach {
        /// The queue.
        name: String,
        /// The broker's words.
        detail: String,
    },
    /// Anything else, in the broker's or the store's words.
    #[error("{0}")]
    Other(String),
}

/// A word from a worker that an event was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The payload: what [`crate::wire::envelope`] encodes.
    pub body: Bytes,
}

/// Depth of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDepth {
    /// Full name.
    pub name: String,
    /// Waiting.
    pub ready: u64,
    /// Taken by this process and not acknowledged: of a partition's queue, whose consumer is one, that is all; `None`: this
    /// process never took from the queue.
    pub unacked: Option<u64>,
    /// Consumers.
    pub consumers: u64,
    /// Why the broker tells nothing of this queue: the numbers mean nothing then.
    pub error: Option<String>,
}

/// A bus. Cheap to share.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Declares every exchange, queue and binding. Does without [`Queue::Dead`] while it is out of reach: nothing but dead letters
    /// misses it.
    async fn declare(&self) -> Result<(), BusError>;

    /// Publishes all, in order, and returns when every one is confirmed. Bounded in time by `bus.confirm_timeout`.
    /// Callers may run many at once; the number of unconfirmed messages is bounded, so this also waits for room.
    async fn publish(&self, messages: Vec<Outgoing>) -> Result<(), PublishError>;

    /// Sends a reply to an address from [`Headers::reply_to`]. Best effort: a lost reply only costs its reader time.
    async fn reply(&self, address: &str, body: Bytes);

    /// The replies that reach this process. May be called once; the channel is bounded and drops what nobody takes.
    fn replies(&self) -> mpsc::Receiver<Reply>;

    /// Takes messages from all of `queues` on one channel, of each at most so many unacknowledged:
    /// those wait in this process's memory. [`Queue::Updates`] is taken alone, by one at a time, and is declared by this.
    async fn subscribe(&self, queues: &[(Queue, u16)]) -> Result<Box<dyn Subscription>, SubscriptionError>;

    /// How deep every queue of the deployment is. What is wrong with one of them stands beside it, and hides no other.
    async fn depths(&self) -> Result<Vec<QueueDepth>, BusError>;

    /// Ends the bus: waits for what is being published, closes connections.
    async fn close(&self);
}

/// Messages being taken. Dropping it ends it without acknowledging: what it held comes again, in order.
#[async_trait]
pub trait Subscription: Send {
    /// The next delivery. Cancel-safe.
    async fn next(&mut self) -> Result<Delivery, SubscriptionError>;

    /// A delivery that is already here, without waiting.
    fn try_next(&mut self) -> Option<Delivery>;

    /// Acknowledges all of these, in as few frames as possible.
    async fn ack(&mut self, tokens: Vec<Token>) -> Result<(), SubscriptionError>;
}

/// A shared bus.
pub type SharedBus = Arc<dyn Bus>;
