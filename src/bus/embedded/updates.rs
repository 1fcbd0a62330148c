//! [`Queue::Updates`] within the process, in memory: a crash ends the streams that they were for, too.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::bus::topology::{Queue, Topology};
use crate::bus::{Delivery, Headers, Outgoing, Subscription, SubscriptionError, Token};
use crate::model::EdgeName;

/// The edges that are subscribed: of all others nothing is kept.
#[derive(Default)]
pub(super) struct Mailboxes(Mutex<State>);

#[derive(Default)]
struct State {
    boxes: BTreeMap<EdgeName, Mailbox>,
    closed: bool,
}

#[derive(Default)]
struct Mailbox {
    waiting: VecDeque<(Bytes, Headers)>,
    bytes: usize,
    wake: Arc<Notify>,
}

impl Mailboxes {
    /// Puts a message into the box of `edge`, if that is there; the oldest make room.
    pub(super) fn put(&self, edge: &EdgeName, message: &Outgoing) {
        let mut state = self.lock();
        let Some(mailbox) = state.boxes.get_mut(edge) else { return };
        mailbox.bytes += message.body.len();
        mailbox.waiting.push_back((message.body.clone(), message.headers.clone()));
        while mailbox.is_too_full() {
            mailbox.take();
            metrics::counter!("rollcall_updates_dropped_total", "reason" => "overflow").increment(1);
        }
        mailbox.wake.notify_one();
    }

    /// Opens the box of `edge`, which may have one only.
    pub(super) fn open(
        self: &Arc<Self>,
        edge: &EdgeName,
        prefetch: u16,
    ) -> Result<Box<dyn Subscription>, SubscriptionError> {
        let mut state = self.lock();
        if state.closed {
            return Err(SubscriptionError::Closed);
        }
        if state.boxes.contains_key(edge) {
            return Err(SubscriptionError::Lost(format!("somebody else is called {edge} and takes its updates")));
        }
        let wake = state.boxes.entry(edge.clone()).or_default().wake.clone();
        let prefetch = usize::from(prefetch.max(1));
        Ok(Box::new(Reader { boxes: self.clone(), edge: edge.clone(), wake, prefetch, held: 0, tokens: 0 }))
    }

    /// Everybody hears that it is over.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.boxes.values().for_each(|mailbox| mailbox.wake.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds this lock panics between two of its changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    fn is_too_full(&self) -> bool {
        let (length, bytes) = (Topology::UPDATES_MAX.unsigned_abs(), Topology::UPDATES_MAX_BYTES.unsigned_abs());
        self.waiting.len() as u64 > length || self.bytes as u64 > bytes
    }

    fn take(&mut self) -> Option<(Bytes, Headers)> {
        let (body, headers) = self.waiting.pop_front()?;
        self.bytes -= body.len();
        Some((body, headers))
    }
}

/// The one subscription of an edge.
struct Reader {
    boxes: Arc<Mailboxes>,
    edge: EdgeName,
    wake: Arc<Notify>,
    prefetch: usize,
    /// Taken and not acknowledged.
    held: usize,
    tokens: u64,
}

impl Reader {
    fn take(&mut self) -> Result<Option<Delivery>, SubscriptionError> {
        let mut state = self.boxes.lock();
        if state.closed {
            return Err(SubscriptionError::Closed);
        }
        let mailbox = state.boxes.get_mut(&self.edge).filter(|_| self.held < self.prefetch);
        let Some((body, headers)) = mailbox.and_then(Mailbox::take) else { return Ok(None) };
        self.held += 1;
        self.tokens += 1;
        Ok(Some(Delivery {
            queue: Queue::Updates(self.edge.clone()),
            routing_key: self.edge.as_str().into(),
            body,
            headers,
            redelivered: false,
            returns: 0,
            token: Token(self.tokens),
        }))
    }
}

#[async_trait]
impl Subscription for Reader {
    async fn next(&mut self) -> Result<Delivery, SubscriptionError> {
        loop {
            if let Some(delivery) = self.take()? {
                return Ok(delivery);
            }
            self.wake.notified().await;
        }
    }

    fn try_next(&mut self) -> Option<Delivery> {
        self.take().ok().flatten()
    }

    async fn ack(&mut self, tokens: Vec<Token>) -> Result<(), SubscriptionError> {
        self.held = self.held.saturating_sub(tokens.len());
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.boxes.lock().boxes.remove(&self.edge);
    }
}
