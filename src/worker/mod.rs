//! The worker: owns partitions by lease, and runs the machines of each in a loop of its own (see `owner.rs`).

mod board;
mod lease;
mod outbox;
mod owner;
mod pool;
mod replies;
mod run;
mod settle;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::board::{Board, Standing};
use self::lease::Keeper;
use self::owner::{Ended, Owner};
use self::pool::Pool;
use crate::bus::{Queue, SharedBus};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::core::{Machines, Settings, Totals};
use crate::lifecycle;
use crate::model::{Partition, ServerName, Timestamp};
use crate::pace::{Moments, Tempo};
use crate::store::{Lease, SharedStore, StoreError};

/// How long a worker waits before it asks again for a partition that somebody else holds, or that failed.
const ACQUIRE_PAUSE: Duration = Duration::from_millis(500);

/// Unacknowledged packets of signals, per queue.
const SIGNALS_PREFETCH: u16 = 128;
/// It doubles with every ownership that ends badly, up to this: each takes an epoch of the deployment's, and epochs that run ahead of the
/// clock would leave those of a restored backup behind what peers have seen.
const FAILING_PAUSE: Duration = Duration::from_secs(5);
/// An ownership that lasted so long was a good one.
const STEADY: Duration = Duration::from_secs(60);
/// How long a worker leaves a partition alone that takes somebody to mend it: what it holds is of a later release, or damaged.
const HELPLESS_PAUSE: Duration = Duration::from_secs(60);

/// Everything that the owners of this process's partitions share.
pub struct Worker {
    store: SharedStore,
    bus: SharedBus,
    clock: SharedClock,
    board: Arc<Board>,
    local: ServerName,
    name: String,
    settings: Settings,
    partitions: u16,
    prefetch: u16,
    lease: Duration,
    run_max: usize,
    run_linger: Duration,
    /// Which runs keep together.
    tempo: Tempo,
}

impl Worker {
    /// A worker named `name` (unique in the deployment) that will own what it can get.
    pub fn new(
        config: &Config,
        name: String,
        store: SharedStore,
        bus: SharedBus,
        clock: SharedClock,
        moments: Moments,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            bus,
            clock,
            board: Arc::new(Board::default()),
            local: config.server_name.clone(),
            name,
            settings: Settings::from(config),
            partitions: config.partitions,
            prefetch: config.bus.prefetch,
            lease: config.worker.lease,
            run_max: config.worker.run_max,
            run_linger: config.worker.run_linger,
            tempo: Tempo::of_runs(config.worker.run_linger, moments),
        })
    }

    /// What this worker owns, for the operations listener.
    pub fn board(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// Tends every partition until `stop`, then drains: windows flushed, confirmed, acknowledged, leases released.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let (pool, gathering) =
            Pool::new(self.bus.clone(), &self.tempo, Duration::from_millis(self.settings.window_ms));
        let gathering = lifecycle::spawn("pool", gathering);
        let tending: Vec<_> = (0..self.partitions)
            .map(|n| {
                let span = tracing::info_span!(parent: None, "task", task = "partition", partition = n);
                lifecycle::spawn_in(span, self.clone().tend(Partition(n), pool.clone(), stop.clone()))
            })
            .collect();
        drop(pool);
        for task in tending.into_iter().chain([gathering]) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a worker's task died");
            }
        }
    }

    async fn tend(self: Arc<Self>, partition: Partition, pool: Pool, stop: CancellationToken) {
        let mut failing = ACQUIRE_PAUSE;
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let held = self.hold_once(partition, &pool, &stop).await;
            if begun.elapsed() >= STEADY {
                failing = ACQUIRE_PAUSE;
            }
            let mut pause = failing;
            match held {
                Ok(Ended::Stopped) => return,
                Ok(Ended::Lost(reason)) => {
                    tracing::warn!(%partition, reason, "ownership ended, starting over");
                    failing = (2 * failing).min(FAILING_PAUSE);
                }
                Ok(Ended::Taken) => pause = ACQUIRE_PAUSE,
                Ok(Ended::Outdated(version)) => {
                    tracing::error!(%partition, version, "a message of a later release: leaving the partition to others");
                    pause = HELPLESS_PAUSE;
                }
                Err(error) => {
                    tracing::error!(%partition, %error, "cannot own the partition");
                    if matches!(error, StoreError::Unusable(_)) {
                        pause = HELPLESS_PAUSE;
                    }
                    failing = (2 * failing).min(FAILING_PAUSE);
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One ownership, from lease to release.
    async fn hold_once(
        &self,
        partition: Partition,
        pool: &Pool,
        stop: &CancellationToken,
    ) -> Result<Ended, StoreError> {
        let lease_ms = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        let Some(lease) = self.store.acquire(partition, &self.name, lease_ms).await? else { return Ok(Ended::Taken) };
        let horizon = self.horizon(partition).await?;
        let keeper = Keeper::start(self.store.clone(), lease, self.lease, horizon);
        let ended = AssertUnwindSafe(self.own(lease, horizon, &keeper, pool, stop)).catch_unwind().await;
        // What panicked is thrown away with everything in memory; the partition starts over from its rows.
        let ended = ended.unwrap_or_else(|_| Ok(Ended::Lost("a machine panicked".into())));
        self.board.remove(partition);
        keeper.stop().await;
        self.store.release(lease).await?;
        ended
    }

    /// Batches are held on purpose; signals are handled at once, and their packets may be large (128 KiB, and more for one
    /// transaction), so that few of them may wait in memory.
    fn with_prefetch(&self, queue: Queue) -> (Queue, u16) {
        let prefetch = if matches!(queue, Queue::Batch(_)) { self.prefetch } else { self.signals_prefetch() };
        (queue, prefetch)
    }

    fn signals_prefetch(&self) -> u16 {
        self.prefetch.min(SIGNALS_PREFETCH)
    }

    /// Up to when the last owner had read everything.
    async fn horizon(&self, partition: Partition) -> Result<Timestamp, StoreError> {
        let ownerships = self.store.ownerships().await?;
        let known = ownerships.iter().find(|ownership| ownership.partition == partition);
        Ok(known.map_or(Timestamp(0), |ownership| ownership.horizon))
    }

    /// Reload, publish what the outbox holds, then subscribe: nothing new leaves before what was promised.
    async fn own(
        &self,
        lease: Lease,
        horizon: Timestamp,
        keeper: &Keeper,
        pool: &Pool,
        stop: &CancellationToken,
    ) -> Result<Ended, StoreError> {
        let rows = self.store.load(lease.partition).await?;
        let (local, settings) = (self.local.clone(), self.settings.clone());
        let machines = Machines::restore(local, settings, lease.epoch, horizon, rows, self.clock.now())
            .map_err(|error| StoreError::Unusable(error.to_string()))?;
        let Totals { users, links, remotes, .. } = machines.totals();
        tracing::info!(epoch = lease.epoch, users, links, remotes, "owning");
        self.board.update(lease, &machines);
        let mut owner = match Owner::new(self, lease, machines, keeper, pool.clone()).start(stop).await? {
            Ok(owner) => owner,
            Err(ended) => return Ok(ended),
        };
        Ok(owner.run(stop).await)
    }
}
