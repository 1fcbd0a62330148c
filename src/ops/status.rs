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

use super::readiness::{Check, Readiness};
use super::series;
use crate::bus::{Queue, QueueDepth, SharedBus};
use crate::clock::SharedClock;
use crate::config::{BusUrl, Config, Roles};
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
    /// The process that answers.
    #[serde(flatten)]
    pub about: About,
    /// Whether `/readyz` says so.
    #[serde(default)]
    pub ready: bool,
    /// What it says of each check.
    #[serde(default)]
    pub checks: Vec<Check>,
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

/// A process, and what it is configured for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// `server_name`.
    pub server: String,
    /// Rollcall's.
    pub version: String,
    /// Its stages, separated by commas.
    pub roles: String,
    /// `embedded` or `amqp`.
    pub bus: String,
    /// Past this lag it is not ready, ms: `edge.lag_max`.
    pub lag_max_ms: u64,
}

impl About {
    /// This process, with so many roles.
    pub fn new(config: &Config, roles: Roles) -> Self {
        let bus = match config.bus.url {
            BusUrl::Embedded => "embedded",
            BusUrl::Amqp(_) => "amqp",
        };
        Self {
            server: config.server_name.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            roles: roles.to_string(),
            bus: bus.into(),
            lag_max_ms: u64::try_from(config.edge.lag_max.as_millis()).unwrap_or(u64::MAX),
        }
    }
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
    /// Dead letters that wait for somebody; `None`: it is not known.
    pub fn dead(&self) -> Option<u64> {
        self.queues.iter().find(|queue| is_dead(&queue.name)).map(|queue| queue.ready)
    }

    /// Messages in all other queues; `None`: it is not known.
    pub fn depth(&self) -> Option<u64> {
        let work = || self.queues.iter().filter(|queue| !is_dead(&queue.name));
        work().next().map(|_| work().map(|queue| queue.ready + queue.unacked.unwrap_or_default()).sum())
    }

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
    about: About,
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
        series::begin_queues(partitions);
        let (about, board, latest) = (About::default(), None, Mutex::new(None));
        Self { bus, store, clock, partitions, about, board, latest }
    }

    /// Within a process that is configured so.
    #[must_use]
    pub fn within(mut self, about: About) -> Self {
        self.about = about;
        self
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
        let mut status = Status {
            about: self.about.clone(),
            queues: depths.into_iter().filter(|depth| depth.error.is_none()).map(queue).collect(),
            partitions: self.partitions(&owned),
            links,
            hours: self.hours(),
            errors,
            ..Status::default()
        };
        let readiness = Readiness::of(&status, &broker, &store);
        (status.ready, status.checks) = (readiness.ready, readiness.checks);
        export(&status, store.is_ok());
        measure(&broker, &store);
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
    let refusal = depths.iter().filter(|depth| !is_dead(&depth.name)).find_map(|depth| depth.error.clone());
    refusal.map_or(Ok(()), Err)
}

/// The prefix may be empty or end in anything, but no other queue's name ends in this one's.
fn is_dead(name: &str) -> bool {
    name.ends_with(&Queue::Dead.to_string())
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

/// Gauges show what was last seen: a scrape takes a snapshot first. What is not known stays as it was.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 messages are out of reach")]
fn export(status: &Status, are_partitions_known: bool) {
    for queue in &status.queues {
        gauge!("rollcall_queue_messages", "queue" => queue.name.clone(), "state" => "ready").set(queue.ready as f64);
        gauge!("rollcall_queue_consumers", "queue" => queue.name.clone()).set(queue.consumers as f64);
        if let Some(unacked) = queue.unacked {
            gauge!("rollcall_queue_messages", "queue" => queue.name.clone(), "state" => "unacked").set(unacked as f64);
        }
    }
    for partition in status.partitions.iter().filter(|_| are_partitions_known) {
        let label = partition.partition.to_string();
        gauge!("rollcall_partition_epoch", "partition" => label.clone()).set(partition.epoch as f64);
        if let Some(lag) = partition.lag_ms {
            gauge!("rollcall_partition_lag_seconds", "partition" => label).set(lag as f64 / 1000.0);
        }
    }
}

/// Says what runs, and whether the other gauges are fresh.
fn measure(broker: &Result<(), String>, store: &Result<(), String>) {
    gauge!("rollcall_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for (part, answer) in [("broker", broker), ("store", store)] {
        gauge!("rollcall_up", "part" => part).set(f64::from(u8::from(answer.is_ok())));
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn what_is_not_known_leaves_the_gauges_alone_and_says_so() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let seen = |epoch| {
            let partition = PartitionStatus { partition: 3, owner: None, epoch, lag_ms: Some(1_500) };
            Status { partitions: vec![partition], ..Status::default() }
        };
        metrics::with_local_recorder(&recorder, || {
            export(&seen(7), true);
            export(&seen(0), false);
            measure(&Ok(()), &Err("gone".into()));
        });
        let scrape = recorder.handle().render();
        for line in [
            r#"rollcall_partition_epoch{partition="3"} 7"#,
            r#"rollcall_partition_lag_seconds{partition="3"} 1.5"#,
            r#"rollcall_up{part="broker"} 1"#,
            r#"rollcall_up{part="store"} 0"#,
        ] {
            assert!(scrape.contains(line), "{line} is missing:\n{scrape}");
        }
    }

    #[test]
    fn without_a_broker_nobody_knows_how_much_waits() {
        let queue = |name: &str, ready| QueueStatus { name: name.into(), ready, unacked: Some(1), consumers: 0 };
        let queues = vec![queue("p.dead", 4), queue("p.inbound", 2), queue("p.outbound", 3)];
        let status = Status { queues, ..Status::default() };
        assert_eq!((status.depth(), status.dead()), (Some(7), Some(4)));
        assert_eq!((Status::default().depth(), Status::default().dead()), (None, None));
    }
}
