//! Taking messages: from the inbox, or from the table when that is empty.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::Inner;
use super::line::{Read, SubId};
use super::state::Step;
use crate::bus::{Delivery, Subscription, SubscriptionError, Token};

/// Acknowledged rows that may still stand in the table: past this, acknowledging waits for the disk.
const LEAVING_MAX: usize = 64 << 10;

/// See [`Subscription`]. Several on a partition's queue wait for each other, the first has it; on other queues they compete.
pub(super) struct Taker {
    inner: Arc<Inner>,
    id: SubId,
    wake: Arc<Notify>,
}

impl Taker {
    pub(super) fn new(inner: Arc<Inner>, id: SubId, wake: Arc<Notify>) -> Self {
        Self { inner, id, wake }
    }

    async fn fill(&self, read: &Read) -> Result<(), SubscriptionError> {
        let rows = self.inner.store.bus_read(&read.queue, read.after, read.limit).await;
        let rows = rows.map_err(|error| SubscriptionError::Lost(error.to_string()))?;
        let mut state = self.inner.state();
        state.accept(self.id, read, rows);
        self.inner.chores.notify_one();
        Ok(())
    }
}

#[async_trait]
impl Subscription for Taker {
    async fn next(&mut self) -> Result<Delivery, SubscriptionError> {
        loop {
            let step = self.inner.state().step(self.id);
            match step {
                Step::Deliver(delivery) => return Ok(delivery),
                Step::Read(read) => self.fill(&read).await?,
                Step::Wait => self.wake.notified().await,
                Step::Closed => return Err(SubscriptionError::Closed),
            }
        }
    }

    fn try_next(&mut self) -> Option<Delivery> {
        let mut state = self.inner.state();
        if state.is_closed() { None } else { state.take(self.id) }
    }

    /// Returns when the writer has been told. A crash before the rows are gone delivers them again, as a broker would.
    async fn ack(&mut self, tokens: Vec<Token>) -> Result<(), SubscriptionError> {
        loop {
            let drained = self.inner.drained.notified();
            {
                let mut state = self.inner.state();
                if state.is_closed() {
                    return Err(SubscriptionError::Closed);
                }
                if state.leaving() < LEAVING_MAX {
                    state.acknowledge(self.id, &tokens);
                    self.inner.chores.notify_one();
                    return Ok(());
                }
            }
            drained.await;
        }
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.inner.state().unsubscribe(self.id);
    }
}
