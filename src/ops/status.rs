//! What a deployment looks like right now: queues, partitions, links. Asked for by scrapes, probes and people; answered from one
//! snapshot a second, so that none of them can load the broker or the store.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::bus::{Queue, QueueDepth, SharedBus};
use crate::clock::SharedClock;
use crate::core::{Hour, Totals};
use crate::model::Timestamp;
use crate::store::{Ownership, RowKind, SharedStore};
use crate::worker::Board;

/// How old a snapshot may be.
const FRESH: Duration = Duration::from_secs(1);
/// How long the broker and the store may each take.
const PATIENCE: Duration = Duration::from_secs(2);
const DAY_MS: u64 = 24 * 3_600_000;

/// The answer of `/status` and of `rollcall status --json`. What cannot be had is missing, and `errors` says why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Every queue of the deployment.
    pub queues: Vec<QueueStatus>,
    /// Every partition.
    pub partitions: Vec<PartitionStatus>,
    /// Links, counted.
    pub links: LinkStatus,
    /// The last day by hour, the oldest first, as far as anything happened: of the partitions that this process owns.
    #[serde(default)]
    pub hours: Vec<Hour>,
    /// What could not be had.
    pub errors: Vec<String>,
}

/// One queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Full name.
    pub name: String,
    /// Waiting.
    pub ready: u64,
    /// Delivered, not acknowledged; null where the broker does not tell.
    pub unacked: Option<u64>,
    /// Consumers.
    pub consumers: u64,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: u16,
    /// Its owner; null: nobody.
    pub owner: Option<String>,
    /// The newest epoch.
    pub epoch: u64,
    /// How far its horizon lies behind the clock, ms; null before the first owner has read anything.
    pub lag_ms: Option<u64>,
}

/// Links, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// All.
    pub total: Option<u64>,
    /// Those whose peer's users are unknown; null where it is not counted.
    pub unknown: Option<u64>,
    /// Those that owe their peer something; null where it is not counted.
    pub owed: Option<u64>,
}

impl Status {
    /// The lag of the slowest partition that has a horizon, ms.
    pub fn lag_ms(&self) -> Option<u64> {
        self.partitions.iter().filter_map(|partition| partition.lag_ms).max()
    }
}

/// Asks bus and store, at most once a second however many ask it.
pub struct Observer {
    bus: SharedBus,
    store: SharedStore,
    clock: SharedClock,
    partitions: u16,
    board: Option<Arc<Board>>,
    latest: Mutex<Option<(Instant, Snapshot)>>,
}

/// One look at everything.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What was seen.
    pub status: Status,
    /// Whether the broker answered, for every queue but that of dead letters.
    pub broker: Result<(), String>,
    /// Whether the store answered.
    pub store: Result<(), String>,
}

impl Observer {
    /// Of a deployment with so many partitions.
    pub fn new(bus: SharedBus, store: SharedStore, clock: SharedClock, partitions: u16) -> Self {
        Self { bus, store, clock, partitions, board: None, latest: Mutex::new(None) }
    }

    /// Beside a worker of this process, who knows more of links than the store's rows tell.
    #[must_use]
    pub fn with_board(mut self, board: Option<Arc<Board>>) -> Self {
        self.board = board;
        self
    }

    /// A snapshot at most a second old. Takes two seconds at most; whoever asks meanwhile waits for the same one.
    pub async fn snapshot(&self) -> Snapshot {
        let mut latest = self.latest.lock().await;
        if let Some((taken, snapshot)) = latest.as_ref()
            && taken.elapsed() < FRESH
        {
            return snapshot.clone();
        }
        let snapshot = self.look().await;
        *latest = Some((Instant::now(), snapshot.clone()));
        snapshot
    }

    async fn look(&self) -> Snapshot {
        let (depths, ownerships, links) =
            tokio::join!(in_time(self.bus.depths()), in_time(self.store.ownerships()), self.links());
        let (depths, reached) = split(depths);
        let refusals = depths.iter().filter_map(|depth| depth.error.as_ref());
        let failures = reached.as_ref().err().into_iter().chain(refusals);
        let mut errors: Vec<_> = failures.map(|error| format!("broker: {error}")).collect();
        let broker = reached.and_then(|()| needed(&depths));
        let (owned, owners) = split(ownerships);
        let (links, counted) = match links {
            Ok(links) => (links, Ok(())),
            Err(error) => (LinkStatus::default(), Err(error)),
        };
        let store = owners.and(counted);
        errors.extend(store.as_ref().err().map(|error| format!("store: {error}")));
        let status = Status {
            queues: depths.into_iter().filter(|depth| depth.error.is_none()).map(queue).collect(),
            partitions: self.partitions(&owned),
            links,
            hours: self.hours(),
            errors,
        };
        export(&status);
        Snapshot { status, broker, store }
    }

    /// A worker that owns everything is asked; else the store's rows are counted.
    async fn links(&self) -> Result<LinkStatus, String> {
        let standings = self.board.as_ref().map(|board| board.standings()).unwrap_or_default();
        if standings.len() == usize::from(self.partitions) {
            let sum =
                |count: fn(&Totals) -> usize| standings.values().map(|standing| count(&standing.totals) as u64).sum();
            let (total, unknown) = (sum(|totals| totals.links), sum(|totals| totals.lapsed));
            return Ok(LinkStatus {
                total: Some(total),
                unknown: Some(unknown),
                owed: Some(sum(|totals| totals.owing)),
            });
        }
        let total = in_time(self.store.count(RowKind::Link)).await?;
        Ok(LinkStatus { total: Some(total), ..LinkStatus::default() })
    }

    /// What the partitions of this process did within the last day.
    fn hours(&self) -> Vec<Hour> {
        let standings = self.board.as_ref().map(|board| board.standings()).unwrap_or_default();
        export_jobs(standings.values().map(|standing| &standing.totals));
        let since = self.clock.now().minus(DAY_MS);
        let mut hours: BTreeMap<Timestamp, Hour> = BTreeMap::new();
        for hour in standings.values().flat_map(|standing| &standing.totals.hours).filter(|hour| hour.start > since) {
            hours.entry(hour.start).or_default().add(hour);
        }
        hours.into_values().collect()
    }

    /// Every partition, also those that nobody has ever owned.
    fn partitions(&self, owned: &[Ownership]) -> Vec<PartitionStatus> {
        let now = self.clock.now();
        let known = |number| owned.iter().find(|ownership| ownership.partition.0 == number);
        (0..self.partitions).map(|number| partition(number, known(number), now)).collect()
    }
}

async fn in_time<T, E: std::fmt::Display>(call: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(PATIENCE, call).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}

fn split<T>(result: Result<Vec<T>, String>) -> (Vec<T>, Result<(), String>) {
    match result {
        Ok(list) => (list, Ok(())),
        Err(error) => (Vec::new(), Err(error)),
    }
}

/// That of dead letters lies on one node of a cluster, and everything goes on without it.
fn needed(depths: &[QueueDepth]) -> Result<(), String> {
    let dead = Queue::Dead.to_string();
    let refusal = depths.iter().filter(|depth| !depth.name.ends_with(&dead)).find_map(|depth| depth.error.clone());
    refusal.map_or(Ok(()), Err)
}

fn queue(depth: QueueDepth) -> QueueStatus {
    QueueStatus { name: depth.name, ready: depth.ready, unacked: depth.unacked, consumers: depth.consumers }
}

fn partition(number: u16, ownership: Option<&Ownership>, now: Timestamp) -> PartitionStatus {
    let horizon = ownership.map(|ownership| ownership.horizon).filter(|horizon| horizon.0 > 0);
    PartitionStatus {
        partition: number,
        owner: ownership.and_then(|ownership| ownership.owner.clone()),
        epoch: ownership.map_or(0, |ownership| ownership.epoch),
        lag_ms: horizon.map(|horizon| now.since(horizon)),
    }
}

/// Gauges show what was last seen: a scrape takes a snapshot first.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 messages are out of reach")]
fn export(status: &Status) {
    for queue in &status.queues {
        gauge!("rollcall_queue_messages", "queue" => queue.name.clone(), "state" => "ready").set(queue.ready as f64);
        gauge!("rollcall_queue_consumers", "queue" => queue.name.clone()).set(queue.consumers as f64);
        if let Some(unacked) = queue.unacked {
            gauge!("rollcall_queue_messages", "queue" => queue.name.clone(), "state" => "unacked").set(unacked as f64);
        }
    }
    for partition in &status.partitions {
        let label = partition.partition.to_string();
        gauge!("rollcall_partition_epoch", "partition" => label.clone()).set(partition.epoch as f64);
        if let Some(lag) = partition.lag_ms {
            gauge!("rollcall_partition_lag_seconds", "partition" => label).set(lag as f64 / 1000.0);
        }
    }
}

/// What jobs found to do, since each partition has had this owner.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 repairs are out of reach")]
fn export_jobs<'a>(totals: impl Iterator<Item = &'a Totals>) {
    let mut sums = [("expire", 0), ("audit", 0), ("probe", 0)];
    for totals in totals {
        let jobs = totals.jobs;
        for (sum, found) in sums.iter_mut().zip([jobs.expired, jobs.repaired, jobs.probed]) {
            sum.1 += found;
        }
    }
    for (job, found) in sums {
        gauge!("rollcall_job_findings", "job" => job).set(found as f64);
    }
}
