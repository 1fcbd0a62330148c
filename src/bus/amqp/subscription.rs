//! Taking messages: one channel a subscription, one consumer a queue.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{poll_fn, try_join_all};
use futures_util::{FutureExt, Stream};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::acks::Outstanding;
use super::declare::declare_queue;
use super::headers;
use super::line::Live;
use crate::bus::{Delivery, Queue, Subscription, SubscriptionError, Token, Topology};
use crate::lifecycle;

/// How many deliveries of each queue this process has taken and not acknowledged. The broker tells this nobody but its management.
#[derive(Default)]
pub(super) struct Taken(Mutex<HashMap<Queue, Arc<AtomicU64>>>);

impl Taken {
    /// `None`: this process never took from the queue.
    pub(super) fn of(&self, queue: &Queue) -> Option<u64> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(queue).map(|count| count.load(Ordering::Relaxed))
    }

    fn counter(&self, queue: &Queue) -> Arc<AtomicU64> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.entry(queue.clone()).or_default().clone()
    }
}

/// Opens a channel with a consumer for each of `queues`.
pub(super) async fn open(
    live: &Arc<Live>,
    topology: &Topology,
    queues: &[(Queue, u16)],
    taken: &Taken,
    closed: CancellationToken,
) -> Result<AmqpSubscription, SubscriptionError> {
    let channel =
        live.connection().create_channel().await.map_err(|error| SubscriptionError::Lost(error.to_string()))?;
    let mut subscription = AmqpSubscription {
        live: Arc::clone(live),
        channel,
        sources: Vec::with_capacity(queues.len()),
        turn: 0,
        outstanding: Outstanding::default(),
        prefix: topology.prefix.clone(),
        ended: None,
        closed,
    };
    let consuming = subscription.consume(topology, queues, taken).await;
    consuming.map_err(|reason| subscription.end(reason))?;
    Ok(subscription)
}

/// See [`Subscription`].
pub(super) struct AmqpSubscription {
    /// Held so that the connection outlives its replacement on the line until the farewell is said.
    live: Arc<Live>,
    channel: Channel,
    sources: Vec<Source>,
    /// Whose turn it is to be asked first.
    turn: usize,
    outstanding: Outstanding,
    prefix: String,
    /// Why no more will come.
    ended: Option<SubscriptionError>,
    closed: CancellationToken,
}

struct Source {
    queue: Queue,
    consumer: Consumer,
    taken: Arc<AtomicU64>,
}

#[async_trait]
impl Subscription for AmqpSubscription {
    async fn next(&mut self) -> Result<Delivery, SubscriptionError> {
        poll_fn(|context| self.poll(context)).await
    }

    fn try_next(&mut self) -> Option<Delivery> {
        // An error is kept, and comes with the next `next`.
        poll_fn(|context| self.poll(context)).now_or_never()?.ok()
    }

    async fn ack(&mut self, tokens: Vec<Token>) -> Result<(), SubscriptionError> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        for source in tokens.iter().filter_map(|token| self.outstanding.source(token)) {
            self.sources[source].taken.fetch_sub(1, Ordering::Relaxed);
        }
        let frames = self.outstanding.acknowledge(tokens);
        let writes =
            frames.iter().map(|ack| self.channel.basic_ack(ack.tag, BasicAckOptions { multiple: ack.multiple }));
        let written = try_join_all(writes).await;
        written.map(drop).map_err(|error| self.end(error.to_string()))
    }
}

impl AmqpSubscription {
    async fn consume(&mut self, topology: &Topology, queues: &[(Queue, u16)], taken: &Taken) -> Result<(), String> {
        let lost = |error: lapin::Error| error.to_string();
        for (queue, prefetch) in queues {
            if queue.is_passing() {
                declare_queue(&self.channel, topology, queue).await.map_err(|error| error.to_string())?;
            }
            // It counts for the consumers that come after it. Without a limit lapin would buffer the whole queue: 0 means "no
            // limit" to the broker, so it is not let through.
            self.channel.basic_qos((*prefetch).max(1), BasicQosOptions::default()).await.map_err(lost)?;
            let name = topology.queue_name(queue);
            // Within this process, whose connection the queue is exclusive to.
            let options = BasicConsumeOptions { exclusive: queue.is_passing(), ..BasicConsumeOptions::default() };
            let name = name.as_str();
            let consuming = self.channel.basic_consume(name.into(), name.into(), options, FieldTable::default());
            let consumer = consuming.await.map_err(lost)?;
            self.sources.push(Source { queue: queue.clone(), consumer, taken: taken.counter(queue) });
        }
        Ok(())
    }

    /// Takes from the queues in turn, so that a full one does not starve the others.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Delivery, SubscriptionError>> {
        if let Some(ended) = &self.ended {
            return Poll::Ready(Err(ended.clone()));
        }
        for offset in 0..self.sources.len() {
            let index = (self.turn + offset) % self.sources.len();
            match Pin::new(&mut self.sources[index].consumer).poll_next(context) {
                Poll::Pending => {}
                Poll::Ready(Some(Ok(delivery))) => {
                    self.turn = index + 1;
                    return Poll::Ready(Ok(self.hand_out(index, delivery)));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.end(error.to_string()))),
                Poll::Ready(None) => return Poll::Ready(Err(self.end("the broker cancelled the consumer".into()))),
            }
        }
        Poll::Pending
    }

    fn hand_out(&mut self, index: usize, delivery: lapin::message::Delivery) -> Delivery {
        self.outstanding.receive(delivery.delivery_tag, index);
        self.sources[index].taken.fetch_add(1, Ordering::Relaxed);
        let returns = headers::delivery_count(&delivery.properties);
        Delivery {
            queue: self.sources[index].queue.clone(),
            routing_key: delivery.routing_key.as_str().into(),
            headers: headers::headers(&delivery.properties, &self.prefix),
            redelivered: delivery.redelivered || returns > 0,
            returns: u32::try_from(returns).unwrap_or(u32::MAX),
            token: Token(delivery.delivery_tag),
            body: Bytes::from(delivery.data),
        }
    }

    fn end(&mut self, reason: String) -> SubscriptionError {
        let error =
            if self.closed.is_cancelled() { SubscriptionError::Closed } else { SubscriptionError::Lost(reason) };
        self.ended.get_or_insert(error).clone()
    }
}

/// Closes the channel before the consumers go: a consumer that lapin cancels first would make the broker return what was held
/// after what came later.
impl Drop for AmqpSubscription {
    fn drop(&mut self) {
        for source in self.outstanding.sources() {
            self.sources[source].taken.fetch_sub(1, Ordering::Relaxed);
        }
        if Handle::try_current().is_err() {
            return;
        }
        let (channel, sources, live) =
            (self.channel.clone(), std::mem::take(&mut self.sources), Arc::clone(&self.live));
        lifecycle::spawn("end of subscription", async move {
            if let Err(error) = channel.close(200, "done".into()).await {
                tracing::debug!(%error, "the channel was gone before it was closed");
            }
            drop((sources, live));
        });
    }
}
