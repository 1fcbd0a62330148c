//! RabbitMQ through lapin.
//!
//! Why this does not use lapin's own recovery: it mends connections but not channels that a channel error closed, it goes to one
//! address only, and while it is at work confirms hang without an event. Instead there is **one path for every failure**: drop what
//! failed, connect to the next address of `bus.url` with a jittered back-off, build the channel anew, send again what is
//! unconfirmed. A broker restart, a channel error, another node of the cluster: all of them take it, so it is well trodden.
//!
//! Two connections, because the broker blocks a connection as a whole when it runs out of memory or disk: acknowledgements must
//! not stop with publishes.
//!
//! - `line`: one connection, replaced when it dies;
//! - `publisher`: resending, replies; `confirms`: what became of each message;
//! - `subscription`: consumers, acknowledgements;
//! - `declare`: the topology, depths;
//! - `headers`: what travels beside a body.

mod acks;
mod confirms;
mod declare;
mod headers;
mod line;
mod publisher;
mod subscription;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::line::{Line, Live};
use self::publisher::Publisher;
use self::subscription::Taken;
use super::{
    Bus, BusError, Outgoing, PublishError, Queue, QueueDepth, Reply, Subscription, SubscriptionError, Topology,
};
use crate::config::{BusConfig, BusUrl};
use crate::lifecycle;
use crate::model::ServerName;

/// Replies that may wait to be taken; more are dropped, which only costs their readers time.
const REPLIES: usize = 1024;
/// The longest name of a connection: lists show it whole.
const NAME_MAX: usize = 128;
/// What the two connections are for.
const PURPOSES: [&str; 2] = ["publish", "consume"];

/// What the broker's lists call a process of `server` that `does` something (its roles, or the name of a tool) and is told by `which` from
/// others that do the same: `rollcall a.example worker,sender 4711-01J…`. A server's name that leaves no room for the rest is cut.
pub fn client_name(server: &ServerName, does: &str, which: &str) -> String {
    let rest = format!(" {does} {which}");
    let purpose = PURPOSES.map(str::len).into_iter().max().unwrap_or(0) + 1;
    let room = NAME_MAX.saturating_sub("rollcall ".len() + rest.len() + purpose);
    let server = server.as_str();
    format!("rollcall {}{rest}", &server[..server.floor_char_boundary(room)])
}

/// A bus on RabbitMQ 3.10 or later.
pub struct Amqp {
    publisher: Arc<Publisher>,
    consuming: Line,
    topology: Topology,
    taken: Taken,
    patience: Duration,
    replies: Mutex<Option<mpsc::Receiver<Reply>>>,
    closed: CancellationToken,
}

impl Amqp {
    /// Connects twice, to publish and to consume, trying every address of `config.url` once. From then on lost connections are
    /// replaced for ever. The broker's lists call them by `client` (see [`client_name`]) and what each is for.
    ///
    /// # Errors
    /// [`BusError::Unreachable`] names every address, without its password, and what it said;
    /// [`BusError::Other`] if an address is no AMQP URI.
    pub async fn connect(config: &BusConfig, topology: Topology, client: &str) -> Result<Arc<Self>, BusError> {
        // A second installation is refused, and the first is as good: whoever was first wins.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let addresses = match &config.url {
            BusUrl::Amqp(urls) => line::parse_addresses(urls)?,
            BusUrl::Embedded => return Err(BusError::Other("bus.url is `embedded:`, not an AMQP address".into())),
        };
        let closed = CancellationToken::new();
        let [publish, consume] = PURPOSES;
        let publishing = Line::connect(client, publish, Arc::clone(&addresses), config.tls.clone()).await?;
        let consuming = Line::connect(client, consume, addresses, config.tls.clone()).await?;
        let (reply_sender, replies) = mpsc::channel(REPLIES);
        let publisher = Publisher::new(publishing, topology.clone(), config, reply_sender, closed.clone());
        publisher.prepare().await;
        Ok(Arc::new(Self {
            publisher: Arc::new(publisher),
            consuming,
            topology,
            taken: Taken::default(),
            patience: config.confirm_timeout,
            replies: Mutex::new(Some(replies)),
            closed,
        }))
    }

    async fn open_subscription(&self, queues: &[(Queue, u16)]) -> Result<Box<dyn Subscription>, SubscriptionError> {
        let live = self.consuming().await.map_err(SubscriptionError::Lost)?;
        let opening = subscription::open(&live, &self.topology, queues, &self.taken, self.closed.clone());
        let opened = timeout(self.patience, opening).await;
        Ok(Box::new(opened.map_err(|_| SubscriptionError::Lost("the broker does not answer".into()))??))
    }

    /// The connection for all but publishing; waits for it as long as a publish would.
    async fn consuming(&self) -> Result<Arc<Live>, String> {
        if self.closed.is_cancelled() {
            return Err("the bus is closed".into());
        }
        self.consuming.live_within(self.patience).await
    }
}

#[async_trait]
impl Bus for Amqp {
    async fn declare(&self) -> Result<(), BusError> {
        let live = self.consuming().await.map_err(BusError::Unreachable)?;
        declare::declare(live.connection(), &self.topology).await
    }

    /// A caller that goes away does not stop what it asked for: whether a message left is the broker's answer, not a matter of
    /// who listens. So it runs as a task of its own.
    async fn publish(&self, messages: Vec<Outgoing>) -> Result<(), PublishError> {
        if messages.is_empty() {
            return Ok(());
        }
        let publisher = Arc::clone(&self.publisher);
        let publish = lifecycle::spawn("publish", async move { publisher.publish(&messages).await });
        match publish.await {
            Ok(outcome) => outcome,
            Err(death) => Err(PublishError::Unconfirmed(self.patience, death.to_string())),
        }
    }

    async fn reply(&self, address: &str, body: Bytes) {
        self.publisher.reply(address, body).await;
    }

    fn replies(&self) -> mpsc::Receiver<Reply> {
        let taken = self.replies.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.unwrap_or_else(|| {
            tracing::warn!("the bus's replies were taken twice: the second reader gets none");
            mpsc::channel(1).1
        })
    }

    async fn subscribe(&self, queues: &[(Queue, u16)]) -> Result<Box<dyn Subscription>, SubscriptionError> {
        if self.closed.is_cancelled() {
            return Err(SubscriptionError::Closed);
        }
        match self.open_subscription(queues).await {
            // A broker that came back empty, or whose queue somebody deleted.
            Err(SubscriptionError::Lost(reason)) if declare::is_missing(&reason) => {
                tracing::warn!(reason, "declaring exchanges and queues anew");
                self.declare().await.map_err(|error| SubscriptionError::Lost(error.to_string()))?;
                self.open_subscription(queues).await
            }
            opened => opened,
        }
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, BusError> {
        let live = self.consuming().await.map_err(BusError::Unreachable)?;
        declare::depths(live.connection(), &self.topology, &self.taken).await
    }

    async fn close(&self) {
        self.publisher.drain(self.patience).await;
        self.closed.cancel();
        tokio::join!(self.publisher.close(), self.consuming.close());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_connections_are_bounded_and_keep_what_tells_them_apart() {
        let name = |server: &str, which: &str| client_name(&ServerName::parse(server).unwrap(), "edge,sender", which);
        assert_eq!(name("a.example:8448", "east-1"), "rollcall a.example:8448 edge,sender east-1");
        let long = name(&format!("{}.example", "a".repeat(200)), &"e".repeat(64));
        assert_eq!(long.len() + " publish".len(), NAME_MAX);
        assert!(long.starts_with("rollcall aaa") && long.ends_with("eee"), "{long}");
    }
}
