//! The one writer. Group commit: everything that waits shares a transaction, and each caller's part stands or falls alone.
//!
//! While one group is on its way to the disk the next one gathers, so that the cost of reaching the disk is shared by as many as
//! there are callers, without anybody waiting for a timer.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{counter, histogram};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::yield_now;

use super::batch::Batch;
use super::bus::{self, BusRow, SharedWatch};
use super::open;
use super::ownership::{self, View};
use crate::lifecycle;
use crate::model::{Partition, ServerName, Timestamp};
use crate::store::{Commit, Lease, StoreError};

/// Jobs in one transaction, and jobs that may wait for the next one.
const GROUP_JOBS: usize = 4096;
/// KiB of all jobs that wait or are being written. A larger job is let in alone.
const ROOM_KIB: u32 = 128 << 10;
/// KiB in one transaction; more would make the first callers wait for the last ones' bytes.
const GROUP_KIB: u32 = 64 << 10;

/// What the writer is asked to do.
pub(super) enum Work {
    /// A run's effects.
    Commit(Commit),
    /// See [`crate::store::Store::prepare`].
    Prepare { server: ServerName, partitions: u16 },
    /// See [`crate::store::Store::acquire`].
    Acquire { partition: Partition, owner: String, lease_ms: u64 },
    /// See [`crate::store::Store::renew`].
    Renew { lease: Lease, lease_ms: u64, horizon: Timestamp },
    /// See [`crate::store::Store::release`].
    Release(Lease),
    /// Rows come to and go from the bus.
    Bus { inserts: Vec<BusRow>, deletes: Vec<i64>, watch: SharedWatch },
    /// These bus rows were delivered once more without being acknowledged.
    Returned(Vec<i64>),
    /// Looks for what other processes wrote; then, or if `always`, counts the bus's rows.
    Recount { always: bool, watch: SharedWatch },
    /// A clean end, after everything that was asked before.
    Close,
}

/// What the writer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// It is committed.
    Done,
    /// The answer to [`Work::Acquire`].
    Granted(Option<Lease>),
    /// The answer to [`Work::Recount`]: whether others wrote.
    Foreign(bool),
}

type Answer = Result<Reply, StoreError>;

struct Job {
    work: Work,
    done: oneshot::Sender<Answer>,
    room: OwnedSemaphorePermit,
}

/// What the writer has done since it started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) jobs: AtomicU64,
    pub(super) transactions: AtomicU64,
}

/// The way to the writer's task. The task ends when this is dropped, after what was asked before.
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    counts: Arc<Counts>,
}

impl Writer {
    /// Starts the task. `lock` is held until the connection is closed.
    pub(super) fn start(connection: SqliteConnection, lock: Option<File>) -> Self {
        let (jobs, inbox) = mpsc::channel(GROUP_JOBS);
        let counts = Arc::new(Counts::default());
        let task = Task {
            connection,
            inbox,
            counts: Arc::clone(&counts),
            held: ownership::Held::default(),
            view: None,
            foreign: None,
        };
        lifecycle::spawn("store writer", task.run(lock));
        Self { jobs, room: Arc::new(Semaphore::new(ROOM_KIB as usize)), counts }
    }

    /// Waits for room, then for the answer. Once there was room the work is done even if nobody waits for the answer.
    pub(super) async fn submit(&self, work: Work) -> Answer {
        let closed = || StoreError::Unavailable("the store is closed".into());
        let kib = kib(&work).min(ROOM_KIB);
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.map_err(|_| closed())?;
        let (done, answer) = oneshot::channel();
        self.jobs.send(Job { work, done, room }).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Unknown("the writer is gone".into())))
    }

    /// Whether the task has taken a [`Work::Close`] in.
    pub(super) fn is_closed(&self) -> bool {
        self.jobs.is_closed()
    }

    /// What was done so far.
    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// What a job keeps in memory, in KiB, at least 1.
fn kib(work: &Work) -> u32 {
    let row = |key: usize, value: Option<usize>| key + value.unwrap_or(0) + 128;
    let bytes: usize = match work {
        Work::Commit(commit) => {
            let rows =
                commit.rows.iter().map(|change| row(change.key.key.len(), change.value.as_ref().map(|v| v.len())));
            rows.sum::<usize>() + commit.outbox.as_ref().map_or(0, |(_, body)| body.len())
        }
        Work::Bus { inserts, deletes, .. } => {
            inserts.iter().map(|insert| row(0, Some(insert.body.len()))).sum::<usize>() + 8 * deletes.len()
        }
        Work::Returned(ids) => 8 * ids.len(),
        _ => 0,
    };
    u32::try_from(bytes / 1024).unwrap_or(u32::MAX).saturating_add(1)
}

/// Why a group did not get through.
enum Failure {
    /// One of its statements was refused; rolled back. Perhaps a single job's fault.
    Refused(String),
    /// Rolled back, and no smaller group would fare better.
    Unavailable(String),
    /// The commit itself failed.
    Unknown(String),
}

impl Failure {
    fn of(error: &sqlx::Error) -> Self {
        match open::code(error) {
            // CONSTRAINT, TOOBIG, MISMATCH: the data's fault, not the disk's.
            Some(18..=20) => Self::Refused(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }

    fn answer(&self) -> StoreError {
        match self {
            Self::Refused(why) | Self::Unavailable(why) => StoreError::Unavailable(why.clone()),
            Self::Unknown(why) => StoreError::Unknown(why.clone()),
        }
    }
}

/// What a group that got through did.
struct Outcome {
    answers: Vec<Answer>,
    /// The fences as it leaves them.
    view: Option<View>,
    /// The bus rows' IDs, over all jobs, in order.
    ids: Vec<i64>,
    /// Number of rows in each queue, if somebody asked.
    census: Vec<(String, u64)>,
}

struct Task {
    connection: SqliteConnection,
    inbox: mpsc::Receiver<Job>,
    counts: Arc<Counts>,
    held: ownership::Held,
    /// The fences as the last transaction left them; `None` if it may have been rolled back.
    view: Option<View>,
    /// SQLite's word on whether other connections wrote, as last seen.
    foreign: Option<i64>,
}

impl Task {
    async fn run(mut self, lock: Option<File>) {
        let mut closing = None;
        while let Some(first) = self.inbox.recv().await {
            // Whoever was woken by the same message or the same timer gets in.
            yield_now().await;
            let (group, end) = self.gather(first);
            self.settle(group).await;
            if let Some(end) = end {
                self.inbox.close();
                closing = Some(end);
            }
        }
        let answer = self.end(closing.is_some()).await;
        drop(lock);
        if let Some(end) = closing {
            let _gone = end.done.send(answer);
        }
    }

    /// Everything that waits, within bounds, up to an end.
    fn gather(&mut self, first: Job) -> (Vec<Job>, Option<Job>) {
        let mut group = Vec::new();
        let mut kib = 0;
        let mut next = Some(first);
        while let Some(job) = next {
            if matches!(job.work, Work::Close) {
                return (group, Some(job));
            }
            kib += job.room.num_permits();
            group.push(job);
            let full = group.len() >= GROUP_JOBS || kib >= GROUP_KIB as usize;
            next = if full { None } else { self.inbox.try_recv().ok() };
        }
        (group, None)
    }

    /// Gets a group through; one that a statement of it spoils falls into halves, in order, until the guilty job stands alone.
    async fn settle(&mut self, group: Vec<Job>) {
        let mut waiting = vec![group];
        while let Some(mut jobs) = waiting.pop() {
            if jobs.is_empty() {
                continue;
            }
            match self.attempt(&jobs).await {
                Ok(outcome) => self.announce(jobs, outcome),
                Err(Failure::Refused(_)) if jobs.len() > 1 => {
                    waiting.push(jobs.split_off(jobs.len() / 2));
                    waiting.push(jobs);
                }
                Err(failure) => refuse(jobs, &failure),
            }
        }
    }

    async fn attempt(&mut self, jobs: &[Job]) -> Result<Outcome, Failure> {
        let foreign = self.foreign;
        let (mut outcome, batch) = match self.fill(jobs).await {
            Ok(filled) => filled,
            Err(error) => {
                self.foreign = foreign;
                self.roll_back().await;
                return Err(Failure::of(&error));
            }
        };
        if let Err(error) = batch.commit_all(&mut self.connection).await {
            self.foreign = foreign;
            self.roll_back().await;
            return Err(Failure::Unknown(error.to_string()));
        }
        self.view = outcome.view.take();
        self.counts.transactions.fetch_add(1, Ordering::Relaxed);
        self.counts.jobs.fetch_add(jobs.len() as u64, Ordering::Relaxed);
        counter!("rollcall_store_transactions_total").increment(1);
        histogram!("rollcall_store_group_jobs").record(jobs.len() as f64);
        Ok(outcome)
    }

    /// Begins a transaction, judges every job in order, and writes what they write together. What is returned beside the outcome commits it.
    async fn fill<'a>(&mut self, jobs: &'a [Job]) -> Result<(Outcome, Batch<'a>), sqlx::Error> {
        let last = self.view.take();
        let version = ownership::begin(&mut self.connection).await?;
        let mut view = View::read(&mut self.connection, version, last).await?;
        let mut batch = Batch::default();
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            answers.push(self.judge(&mut view, &mut batch, &job.work).await?);
        }
        let ids = batch.write(&mut self.connection, view.now_ms).await?;
        let counting = jobs.iter().zip(&answers).any(|(job, answer)| counts_rows(&job.work, answer));
        let census = if counting { bus::census(&mut self.connection).await? } else { vec![] };
        Ok((Outcome { view: Some(view), answers, ids, census }, batch))
    }

    async fn judge<'a>(
        &mut self,
        view: &mut View,
        batch: &mut Batch<'a>,
        work: &'a Work,
    ) -> Result<Answer, sqlx::Error> {
        let connection = &mut self.connection;
        Ok(match work {
            Work::Commit(commit) if !view.owns(commit.partition, commit.epoch) => {
                Err(StoreError::Fenced(commit.partition))
            }
            Work::Commit(commit) => {
                batch.commit(commit);
                Ok(Reply::Done)
            }
            Work::Prepare { server, partitions } => ownership::prepare(connection, server, *partitions).await?,
            Work::Acquire { partition, owner, lease_ms } => Ok(Reply::Granted(
                ownership::acquire(connection, view, &self.held, *partition, owner, *lease_ms).await?,
            )),
            Work::Renew { lease, lease_ms, horizon } => {
                ownership::renew(view, *lease, *lease_ms, *horizon).map(|renewal| {
                    batch.renew(renewal);
                    Reply::Done
                })
            }
            Work::Release(lease) => ownership::release(connection, view, *lease).await?,
            Work::Bus { inserts, deletes, .. } => {
                batch.bus(inserts, deletes);
                Ok(Reply::Done)
            }
            Work::Returned(ids) => {
                bus::count_delivery(connection, ids).await?;
                Ok(Reply::Done)
            }
            Work::Recount { .. } => Ok(Reply::Foreign(self.others_wrote().await?)),
            Work::Close => Ok(Reply::Done),
        })
    }

    /// Whether other processes wrote since the last time this was asked.
    async fn others_wrote(&mut self) -> Result<bool, sqlx::Error> {
        let version = ownership::data_version(&mut self.connection).await?;
        Ok(self.foreign.replace(version).is_some_and(|seen| seen != version))
    }

    /// Tells watchers, in the order of commits, then callers.
    fn announce(&mut self, jobs: Vec<Job>, outcome: Outcome) {
        tell_changes(&jobs, outcome.ids);
        tell_census(&jobs, &outcome.answers, &outcome.census);
        for (job, answer) in jobs.into_iter().zip(outcome.answers) {
            if let Ok(Reply::Granted(Some(lease))) = &answer {
                self.held.insert(lease.partition);
            }
            // The caller may have gone: the work is done all the same.
            let _gone = job.done.send(answer);
        }
    }

    /// After a failed commit there may be nothing left to roll back.
    async fn roll_back(&mut self) {
        if let Err(error) = sqlx::query("ROLLBACK").execute(&mut self.connection).await {
            tracing::debug!(%error, "nothing to roll back");
        }
    }

    /// Marks the end as clean, folds the log into the database, closes it.
    async fn end(mut self, clean: bool) -> Answer {
        let marked = if clean { open::mark_clean(&mut self.connection).await } else { Ok(()) };
        let closed = self.connection.close().await;
        marked.and(closed).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Reply::Done)
    }
}

/// Gives each job's rows their IDs.
fn tell_changes(jobs: &[Job], ids: Vec<i64>) {
    let mut ids = ids.into_iter();
    for job in jobs {
        if let Work::Bus { inserts, deletes, watch } = &job.work {
            watch.changed(ids.by_ref().take(inserts.len()).zip(inserts).collect(), deletes);
        }
    }
}

/// After all changes: the census was taken when the whole group was written.
fn tell_census(jobs: &[Job], answers: &[Answer], census: &[(String, u64)]) {
    for (job, answer) in jobs.iter().zip(answers) {
        match &job.work {
            Work::Recount { watch, .. } if counts_rows(&job.work, answer) => watch.counted(census),
            _ => {}
        }
    }
}

fn counts_rows(work: &Work, answer: &Answer) -> bool {
    match work {
        Work::Recount { always, .. } => *always || matches!(answer, Ok(Reply::Foreign(true))),
        _ => false,
    }
}

fn refuse(jobs: Vec<Job>, failure: &Failure) {
    let why = failure.answer();
    tracing::warn!(jobs = jobs.len(), error = %why, "a group was not committed");
    for job in jobs {
        let _gone = job.done.send(Err(failure.answer()));
    }
}
