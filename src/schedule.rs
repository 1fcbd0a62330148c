//! Periodic jobs: each only publishes an event to `presence.inbound`; the machines hold the logic.
//!
//! Every process with a worker runs them. That is harmless, because a job that comes twice finds nothing left to do, and needed,
//! because a beat is one worker's own clock.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use crate::bus::{Exchange, Outgoing, SharedBus};
use crate::clock::SharedClock;
use crate::config::ScheduleConfig;
use crate::model::ServerName;
use crate::pace::{Moments, Phase};
use crate::wire::contract::{encode_beat, encode_job};
use crate::wire::envelope::Job as Due;

/// Jobs other than beats are moved by less than this.
const JITTER_MAX: Duration = Duration::from_secs(30);

/// Why the schedule could not be started.
#[derive(Debug, thiserror::Error)]
#[error("schedule.{job}: {cause}")]
pub struct ScheduleError {
    job: &'static str,
    cause: JobSchedulerError,
}

/// What jobs publish with.
#[derive(Clone)]
pub struct Schedule {
    /// Where events go.
    pub bus: SharedBus,
    /// What beats carry.
    pub clock: SharedClock,
    /// This worker's name, as partitions' owners are named.
    pub worker: String,
    /// Makes the jitter: the same for every process of a deployment.
    pub local: ServerName,
    /// When beats leave: with what edges hand over, so that they make no runs of their own.
    pub moments: Moments,
}

impl Schedule {
    /// Publishes on schedule until `stop`.
    ///
    /// # Errors
    /// An expression that does not parse (a checked configuration's do), or a scheduler that does not start.
    pub async fn run(self, config: ScheduleConfig, stop: CancellationToken) -> Result<(), ScheduleError> {
        let failed = |job| move |cause| ScheduleError { job, cause };
        let mut scheduler = JobScheduler::new().await.map_err(failed("beat"))?;
        for (kind, expression) in jobs(config) {
            let event = Event { schedule: self.clone(), kind, stop: stop.clone(), running: Arc::default() };
            let scheduled = event.into_job(&expression).map_err(failed(kind.name()))?;
            scheduler.add(scheduled).await.map_err(failed("beat"))?;
        }
        scheduler.start().await.map_err(failed("beat"))?;
        stop.cancelled().await;
        scheduler.shutdown().await.map_err(failed("beat"))
    }
}

/// All of them, and when.
fn jobs(config: ScheduleConfig) -> [(Kind, String); 6] {
    let ScheduleConfig { beat, compact, expire, audit, probe, statistics } = config;
    [
        (Kind::Beat, beat),
        (Kind::Job(Due::Compact, "compact"), compact),
        (Kind::Job(Due::Expire, "expire"), expire),
        (Kind::Job(Due::Audit, "audit"), audit),
        (Kind::Job(Due::Probe, "probe"), probe),
        (Kind::Job(Due::Statistics, "statistics"), statistics),
    ]
}

/// What periodic jobs are called in the configuration and in metrics.
pub const NAMES: [&str; 6] = ["beat", "compact", "expire", "audit", "probe", "statistics"];

/// What an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Beat,
    /// A job and its name in configuration and metrics.
    Job(Due, &'static str),
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Beat => "beat",
            Self::Job(_, name) => name,
        }
    }
}

/// One job's event.
#[derive(Clone)]
struct Event {
    schedule: Schedule,
    kind: Kind,
    stop: CancellationToken,
    running: Arc<AtomicBool>,
}

impl Event {
    fn into_job(self, expression: &str) -> Result<Job, JobSchedulerError> {
        Job::new_async(expression, move |_, _| self.clone().run())
    }

    /// Publishes once, unless the last time is still under way: while the broker is away, runs must not pile up.
    fn run(self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            if self.running.swap(true, Ordering::AcqRel) {
                return;
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.publish() => {}
            }
            self.running.store(false, Ordering::Release);
        })
    }

    async fn publish(&self) {
        match self.kind {
            Kind::Beat => sleep_until(self.schedule.moments.next(Instant::now(), Phase::Arrive)).await,
            Kind::Job(..) => sleep(self.jitter()).await,
        }
        metrics::counter!("rollcall_job_runs_total", "job" => self.kind.name()).increment(1);
        let message = Outgoing::new(Exchange::Inbound, "beat", self.body());
        if let Err(error) = self.schedule.bus.publish(vec![message]).await {
            tracing::warn!(job = self.kind.name(), %error, "a periodic job was not published; the next one will be tried");
        }
    }

    fn body(&self) -> Bytes {
        let now = self.schedule.clock.now();
        match self.kind {
            Kind::Beat => encode_beat(&self.schedule.worker, now),
            Kind::Job(job, _) => encode_job(job, now),
        }
    }

    /// Beats are on time, to the moment; everything else is spread by deployment, so that those who share a broker do not work at once.
    fn jitter(&self) -> Duration {
        let seed = format!("{}/{}", self.schedule.local, self.kind.name());
        let spread = u64::try_from(JITTER_MAX.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(xxh3_64(seed.as_bytes()) % spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, DEFAULTS};

    #[test]
    fn every_key_of_the_schedule_is_a_job_of_its_name() {
        let config = Config::from_toml("data_dir = \"/nowhere\"").unwrap();
        let scheduled = jobs(config.schedule).map(|(kind, expression)| format!("{} = \"{expression}\"", kind.name()));
        let section = DEFAULTS.split("[schedule]").nth(1).and_then(|text| text.split("\n[").next()).unwrap();
        let keys: Vec<&str> = section.lines().filter(|line| line.contains(" = \"")).collect();
        assert_eq!(keys, scheduled);
    }
}
