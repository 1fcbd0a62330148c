//! The embedded bus: rows in the store.
//!
//! A publish is confirmed when its rows are committed, an acknowledgement deletes its row, and both share their transactions with
//! the machines' commits ([`crate::store::sqlite`]). A backlog stays in the table: in memory are at most a prefetch of each
//! subscription, and the numbers of rows.
//!
//! What differs from a broker: [`Queue::Updates`] is kept in memory (nothing is promised of it); replies reach this process only; and a process beside the owner of the file sees the owner's subscriptions not at all.

mod chores;
mod headers;
mod line;
mod state;
mod subscription;
#[cfg(test)]
mod tests;
mod updates;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::bus::topology::{Exchange, Queue, Topology};
use crate::bus::{
    Bus, BusError, Outgoing, PublishError, QueueDepth, Reply, SharedBus, Subscription, SubscriptionError,
    count_published,
};
use crate::store::StoreError;
use crate::store::sqlite::bus::{BusRow, BusWatch, SharedWatch};
use crate::store::sqlite::{Mode, Sqlite};
use state::State;
use subscription::Taker;
use updates::Mailboxes;

/// Messages that may be unconfirmed at once, over all callers. A larger publish goes alone.
const UNCONFIRMED_MAX: u32 = 16 << 10;
/// Replies that may wait for their reader: past this the newest are dropped, which costs their readers time only.
const REPLIES_MAX: usize = 4096;

/// See the module.
pub struct Embedded {
    inner: Arc<Inner>,
    confirm_timeout: Duration,
    unconfirmed: Semaphore,
    /// Where replies to this process go; random, so that an old message's reply reaches no later process.
    address: String,
    replies: mpsc::Sender<Reply>,
    replied: Mutex<Option<mpsc::Receiver<Reply>>>,
    background: Mutex<Option<JoinHandle<()>>>,
    updates: Arc<Mailboxes>,
}

/// What subscriptions, the background task and the writer share.
struct Inner {
    store: Arc<Sqlite>,
    topology: Topology,
    state: Mutex<State>,
    /// Something is to be done in the background.
    chores: Notify,
    /// Rows have gone.
    drained: Notify,
}

impl Embedded {
    /// A bus in `store`. `confirm_timeout` bounds each publish. Must be called within a runtime.
    ///
    /// One for each opened store: two would hand the same rows out.
    pub fn new(store: Arc<Sqlite>, topology: Topology, confirm_timeout: Duration) -> Arc<Self> {
        let state = Mutex::new(State::new(&topology));
        let inner = Arc::new(Inner { store, topology, state, chores: Notify::new(), drained: Notify::new() });
        let background = chores::start(&inner);
        let (replies, replied) = mpsc::channel(REPLIES_MAX);
        Arc::new(Self {
            inner,
            confirm_timeout,
            unconfirmed: Semaphore::new(UNCONFIRMED_MAX as usize),
            address: format!("local-{:016x}", fastrand::u64(..)),
            replies,
            replied: Mutex::new(Some(replied)),
            background: Mutex::new(Some(background)),
            updates: Arc::default(),
        })
    }

    /// Bodies that wait in memory, over all subscriptions: what tests of bounds ask for.
    pub fn buffered(&self) -> usize {
        self.inner.state().buffered()
    }

    /// This bus, as any bus.
    pub fn shared(self: Arc<Self>) -> SharedBus {
        self
    }

    /// The messages and where each goes, if there is a queue for every one.
    fn routed<'m>(&self, messages: &'m [Outgoing]) -> Result<Vec<(Queue, &'m Outgoing)>, PublishError> {
        let topology = &self.inner.topology;
        let route = |message: &'m Outgoing| match topology.route(message.exchange, &message.routing_key) {
            Some(queue) => Ok((queue, message)),
            None => Err(PublishError::Unroutable {
                exchange: topology.exchange_name(message.exchange),
                routing_key: message.routing_key.clone(),
            }),
        };
        messages.iter().map(route).collect()
    }

    fn row(&self, queue: &Queue, message: &Outgoing) -> BusRow {
        let topology = &self.inner.topology;
        let exchange = || topology.exchange_name(message.exchange);
        let mut headers = message.headers.clone();
        if *queue == Queue::Dead && message.exchange != Exchange::Dead {
            headers.reason = Some(format!("no queue takes routing key {:?} of {}", message.routing_key, exchange()));
            headers.origin = Some(message.exchange.name().into());
        }
        let key = Some(&*message.routing_key).filter(|key| queue.binding_keys()[0] != *key);
        BusRow {
            queue: topology.queue_name(queue).into(),
            body: message.body.clone(),
            headers: headers::encode(&headers, key, &self.address),
        }
    }

    /// Waits for room, then for the disk.
    async fn store(&self, rows: Vec<BusRow>) -> Result<(), PublishError> {
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX).min(UNCONFIRMED_MAX);
        let _room = self.unconfirmed.acquire_many(count).await.map_err(|_| PublishError::Closed)?;
        let watch: SharedWatch = self.inner.clone();
        let outcome = self.inner.store.bus_write(rows, vec![], watch).await;
        if let Err(StoreError::Unknown(_)) = &outcome {
            // The rows may be there without anybody having been told.
            self.recount().await;
        }
        outcome.map_err(|error| PublishError::Unconfirmed(self.confirm_timeout, error.to_string()))
    }

    async fn recount(&self) {
        let watch: SharedWatch = self.inner.clone();
        if let Err(error) = self.inner.store.bus_recount(true, watch).await {
            tracing::warn!(%error, "the queues could not be counted");
        }
    }
}

#[async_trait]
impl Bus for Embedded {
    async fn declare(&self) -> Result<(), BusError> {
        let watch: SharedWatch = self.inner.clone();
        self.inner.store.bus_recount(true, watch).await.map_err(|error| BusError::Other(error.to_string()))
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Result<(), PublishError> {
        let routed = self.routed(&messages)?;
        let mut rows = Vec::with_capacity(messages.len());
        for (queue, message) in routed {
            match queue {
                Queue::Updates(edge) => self.updates.put(&edge, message),
                queue => rows.push(self.row(&queue, message)),
            }
        }
        if !rows.is_empty() {
            let late = |_| PublishError::Unconfirmed(self.confirm_timeout, "the store is slow".into());
            timeout(self.confirm_timeout, self.store(rows)).await.map_err(late)??;
        }
        count_published(&messages);
        Ok(())
    }

    async fn reply(&self, address: &str, body: Bytes) {
        if address == self.address && self.replies.try_send(Reply { body }).is_err() {
            metrics::counter!("rollcall_replies_dropped_total").increment(1);
        }
    }

    fn replies(&self) -> mpsc::Receiver<Reply> {
        let taken = self.replied.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A second caller gets a channel that has ended.
        taken.unwrap_or_else(|| mpsc::channel(1).1)
    }

    async fn subscribe(&self, queues: &[(Queue, u16)]) -> Result<Box<dyn Subscription>, SubscriptionError> {
        if let [(Queue::Updates(edge), prefetch)] = queues {
            return self.updates.open(edge, *prefetch);
        }
        let names: Vec<Arc<str>> =
            queues.iter().map(|(queue, _)| self.inner.topology.queue_name(queue).into()).collect();
        let mut state = self.inner.state();
        if state.is_closed() {
            return Err(SubscriptionError::Closed);
        }
        // One bound for all of them: bodies are bounded by bytes as well.
        let prefetch = queues.iter().map(|(_, prefetch)| *prefetch).max().unwrap_or(1);
        let (id, wake) = state.subscribe(&names, usize::from(prefetch.max(1)));
        Ok(Box::new(Taker::new(Arc::clone(&self.inner), id, wake)))
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, BusError> {
        if self.inner.store.mode() == Mode::Guest {
            self.declare().await?;
        }
        Ok(self.inner.state().depths())
    }

    async fn close(&self) {
        // All permits: nothing is being published any longer, and nothing will be.
        let published = self.unconfirmed.acquire_many(UNCONFIRMED_MAX);
        let _late = timeout(self.confirm_timeout, published).await;
        self.unconfirmed.close();
        self.updates.close();
        self.inner.close();
        let background = self.background.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(background) = background
            && let Err(error) = background.await
        {
            tracing::error!(%error, "the bus's background task failed");
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.updates.close();
        self.inner.close();
    }
}

impl Inner {
    /// The lock is only held by code that does not panic between two of its changes.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.state().close();
        self.chores.notify_one();
        self.drained.notify_waiters();
    }
}

impl BusWatch for Inner {
    fn changed(&self, inserted: Vec<(i64, &BusRow)>, deleted: &[i64]) {
        let mut state = self.state();
        for (id, row) in inserted {
            state.inserted(id, row);
        }
        for id in deleted {
            state.deleted(*id);
        }
    }

    fn counted(&self, census: &[(String, u64)]) {
        self.state().counted(census);
    }
}
