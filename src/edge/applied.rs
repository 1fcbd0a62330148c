//! Waiting for the worker's word that an event was applied, so that a read after a write sees it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::bus::Reply;
use crate::wire::envelope;

/// Requests that wait at once, at most: any further one is answered when its event is confirmed.
const MAX_WAITING: usize = 10_000;

/// All who wait.
#[derive(Debug)]
pub(crate) struct Applied {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

/// One who waits; nobody does any longer once it is dropped.
pub(crate) struct Waiter {
    id: u64,
    word: oneshot::Receiver<()>,
    all: Arc<Applied>,
}

impl Applied {
    /// Numbers start at random: a reply that is still on its way to an earlier process at our address means nobody here.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { next: AtomicU64::new(fastrand::u64(..)), waiting: Mutex::default() })
    }

    /// Begins to wait; `None`: too many do.
    pub(crate) fn register(self: &Arc<Self>) -> Option<Waiter> {
        let mut waiting = self.lock();
        if waiting.len() >= MAX_WAITING {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, word) = oneshot::channel();
        waiting.insert(id, sender);
        Some(Waiter { id, word, all: self.clone() })
    }

    /// Hands replies on until the bus ends.
    pub(crate) async fn listen(self: Arc<Self>, mut replies: mpsc::Receiver<Reply>) {
        while let Some(reply) = replies.recv().await {
            match envelope::decode::<Vec<u64>>(&reply.body) {
                Ok(ids) => self.resolve(&ids),
                Err(error) => tracing::debug!(%error, "a reply that is none"),
            }
        }
    }

    fn resolve(&self, ids: &[u64]) {
        let mut waiting = self.lock();
        for sender in ids.iter().filter_map(|id| waiting.remove(id)) {
            // Who stopped waiting meanwhile needs no word.
            let _ = sender.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        // Nothing that holds this lock leaves the map half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// What the worker will name.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the word, `at_most` so long; whether it came.
    pub(crate) async fn wait(mut self, at_most: Duration) -> bool {
        matches!(timeout(at_most, &mut self.word).await, Ok(Ok(())))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_word_reaches_who_waits_for_it() {
        let applied = Applied::new();
        let (sender, replies) = mpsc::channel(4);
        let (one, other) = (applied.register().unwrap(), applied.register().unwrap());
        sender.send(Reply { body: "nonsense".into() }).await.unwrap();
        sender.send(Reply { body: envelope::encode(&vec![one.id(), 7]) }).await.unwrap();
        drop(sender);
        applied.clone().listen(replies).await;
        assert!(one.wait(Duration::ZERO).await);
        assert!(!other.wait(Duration::ZERO).await);
        assert!(applied.lock().is_empty());
    }

    #[test]
    fn no_more_wait_than_allowed() {
        let applied = Applied::new();
        let all: Vec<_> = (0..MAX_WAITING).map(|_| applied.register().unwrap()).collect();
        assert!(applied.register().is_none());
        drop(all);
        assert!(applied.register().is_some());
    }
}
