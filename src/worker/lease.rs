//! Keeps a lease alive beside the loop, so that a slow commit or an absent broker does not cost the ownership.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::lifecycle;
use crate::model::Timestamp;
use crate::store::{Lease, SharedStore, StoreError};

/// Renews one lease until it is stopped, or lost.
pub(super) struct Keeper {
    lost: CancellationToken,
    stop: CancellationToken,
    horizon: Arc<AtomicU64>,
    task: Option<JoinHandle<()>>,
}

/// Whatever ends an ownership ends its renewals.
impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Keeper {
    /// Renews at a third of `length`; a lease that could not be renewed for its whole length is lost.
    pub(super) fn start(store: SharedStore, lease: Lease, length: Duration, horizon: Timestamp) -> Self {
        let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
        let horizon = Arc::new(AtomicU64::new(horizon.0));
        let renewing = renew(store, lease, length, horizon.clone(), lost.clone());
        let stopped = stop.clone();
        let task = lifecycle::spawn("lease", async move {
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = renewing => {}
            }
        });
        Self { lost, stop, horizon, task: Some(task) }
    }

    /// Fires when the lease is lost: stop handling, commit nothing more.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// The horizon to publish with the next renewal.
    pub(super) fn note_horizon(&self, horizon: Timestamp) {
        self.horizon.store(horizon.0, Ordering::Relaxed);
    }

    /// Stops renewing, so that a release is the last word.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        let Some(task) = self.task.take() else { return };
        if let Err(error) = task.await {
            tracing::error!(%error, "the lease's task died");
        }
    }
}

async fn renew(store: SharedStore, lease: Lease, length: Duration, horizon: Arc<AtomicU64>, lost: CancellationToken) {
    let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    // Readers judge lag by the horizon published here: often enough to be of use, whatever the lease's length.
    let every = (length / 3).min(Duration::from_secs(2));
    let mut good_until = Instant::now() + length;
    loop {
        tokio::time::sleep(every).await;
        let asked_at = Instant::now();
        match store.renew(lease, length_ms, Timestamp(horizon.load(Ordering::Relaxed))).await {
            Ok(()) => good_until = asked_at + length,
            Err(StoreError::Fenced(partition)) => {
                tracing::warn!(%partition, epoch = lease.epoch, "lease lost to another owner");
                break;
            }
            Err(error) => tracing::warn!(partition = %lease.partition, %error, "cannot renew the lease"),
        }
        if Instant::now() >= good_until {
            break;
        }
    }
    lost.cancel();
}
