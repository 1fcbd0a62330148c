//! The loop around the machines of one owned partition.
//!
//! The order of effects, which everything rests on:
//! 1. take a run of deliveries and let the machines handle them;
//! 2. **commit** the changed rows together with the run's outputs, fenced by the epoch;
//! 3. **publish** the outputs, confirmed, together with those of other runs (see `pool.rs`);
//! 4. **acknowledge** the inputs, but for those whose entries wait in a window.
//!
//! The next run is handled while the outputs of those before it are on their way.
//!
//! A crash between 2 and 3 is made good from the outbox, one between 3 and 4 by redelivery: both repeat what was done, byte for
//! byte. A commit that fails in any way, a lost subscription and a panic all end the ownership: what is in memory is thrown away.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use metrics::{counter, histogram};
use tokio::time::{Duration, Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::lease::Keeper;
use super::pool::Pool;
use super::run::{
    Applied, Held, Run, Taken, apply, dead_letter, is_suspect, isolate, panic_text, replies_wanted, signals,
};
use super::settle::Flights;
use super::{Worker, outbox};
use crate::bus::{Delivery, Queue, Subscription};
use crate::core::{Flush, FlushReason, HoldId, Machines, Settings};
use crate::model::Timestamp;
use crate::pace::{self, Pace};
use crate::store::{Lease, StoreError};
use crate::wire::envelope::EnvelopeError;

/// Bytes of one run at most: bounds what a commit and its publishes take.
const RUN_BYTES: usize = 4 << 20;
/// How long a run waits at most that holds a receipt which a window waits for: a link that is behind stands still until then.
const RECEIPT_LINGER: Duration = Duration::from_millis(40);
/// How often a run that waits takes what has come meanwhile.
const GLANCE: Duration = Duration::from_millis(20);
/// Bytes held for open windows at most, per partition.
const HOLD_BYTES: usize = 32 << 20;
/// What will be due before the next end of runs counts as due, ms.
const RUN_MS: u64 = pace::EVERY.as_millis() as u64;
/// How long time is left alone at most. Beats come more often.
const IDLE: Duration = Duration::from_secs(5);
/// How often the board is updated at most, ms: counting costs a look at every link.
const BOARD_MS: u64 = 1_000;

/// Why an ownership ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// Asked to; everything is flushed.
    Stopped,
    /// Start over from the store.
    Lost(String),
    /// Never began: somebody else owns the partition.
    Taken,
    /// A message bears this envelope version, which only a later release reads.
    Outdated(u8),
}

impl Ended {
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    pub(super) fn lost(reason: impl ToString) -> Self {
        Self::Lost(reason.to_string())
    }
}

/// One ownership of one partition.
pub(super) struct Owner<'a> {
    pub(super) worker: &'a Worker,
    pub(super) lease: Lease,
    pub(super) keeper: &'a Keeper,
    pub(super) machines: Machines,
    pub(super) subscription: Option<Box<dyn Subscription>>,
    /// Through which messages leave.
    pub(super) pool: Pool,
    pub(super) flights: Flights,
    /// Taken, and left for a run of its own.
    put_back: VecDeque<Delivery>,
    pub(super) held: BTreeMap<HoldId, Held>,
    pub(super) held_bytes: usize,
    next_hold: HoldId,
    /// The number of the last outbox row.
    pub(super) number: u64,
    /// The last outbox row whose messages are confirmed, and those of all before it: deleted with the next commit.
    pub(super) published: Option<(u64, u64)>,
    /// When the last run was handled.
    ran_at: Timestamp,
    /// When the board was last updated.
    shown_at: Timestamp,
    /// Of this partition alone; all partitions together keep `worker.tempo`.
    pace: Pace,
}

impl<'a> Owner<'a> {
    pub(super) fn new(worker: &'a Worker, lease: Lease, machines: Machines, keeper: &'a Keeper, pool: Pool) -> Self {
        Self {
            worker,
            lease,
            keeper,
            machines,
            subscription: None,
            pool,
            flights: Flights::default(),
            put_back: VecDeque::new(),
            held: BTreeMap::new(),
            held_bytes: 0,
            next_hold: 0,
            number: 0,
            published: None,
            ran_at: Timestamp(0),
            shown_at: Timestamp(0),
            pace: Pace::new(worker.run_linger, pace::EVERY),
        }
    }

    /// Publishes what an earlier ownership committed and perhaps did not publish, then subscribes.
    pub(super) async fn start(mut self, stop: &CancellationToken) -> Result<Result<Self, Ended>, StoreError> {
        for row in self.worker.store.outbox(self.lease.partition).await? {
            let messages =
                outbox::recall(&row.body).map_err(|error| StoreError::Unusable(format!("outbox: {error}")))?;
            if let Err(ended) = self.publish(&messages, Some(stop)).await {
                return Ok(Err(ended));
            }
            self.published = Some((row.epoch, row.number));
        }
        let queues = Queue::of_partition(self.lease.partition).map(|queue| self.worker.with_prefetch(queue));
        let subscribing = self.worker.bus.subscribe(&queues);
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(Err(Ended::Stopped)),
            () = self.keeper.lost().cancelled() => Ok(Err(Ended::lost("lease lost"))),
            subscribed = subscribing => match subscribed {
                Ok(subscription) => {
                    self.subscription = Some(subscription);
                    Ok(Ok(self))
                }
                Err(error) => Ok(Err(Ended::lost(error))),
            }
        }
    }

    pub(super) async fn run(&mut self, stop: &CancellationToken) -> Ended {
        let ended = loop {
            if let Err(ended) = self.step(stop).await {
                break ended;
            }
        };
        // The channel goes before the lease does: what it held returns in order.
        self.subscription = None;
        ended
    }

    async fn step(&mut self, stop: &CancellationToken) -> Result<(), Ended> {
        let wake = self.wake();
        let Some(subscription) = &mut self.subscription else { return Err(Ended::lost("not subscribed")) };
        let put_back = self.put_back.pop_front();
        let first = tokio::select! {
            biased;
            () = self.keeper.lost().cancelled() => return Err(Ended::lost("lease lost")),
            () = stop.cancelled() => return Err(self.drain().await),
            landed = self.flights.land(), if put_back.is_none() => return self.note_landed(landed?).await,
            () = std::future::ready(()), if put_back.is_some() => put_back,
            delivery = subscription.next() => Some(delivery.map_err(Ended::lost)?),
            () = tokio::time::sleep_until(wake) => None,
        };
        let taken = match first {
            Some(first) => self.gather(first).await?,
            None => VecDeque::new(),
        };
        let run = self.handle(taken);
        self.pace.note(run.signals);
        self.worker.tempo.note(run.signals);
        self.settle(run).await
    }

    /// When time itself has something to do: at once, if the last run has left something of it. While much comes, what is due later waits
    /// for the next end of runs.
    fn wake(&self) -> Instant {
        let now = self.worker.clock.now();
        if self.has_left_something() {
            return Instant::now();
        }
        let due = self.machines.poll_timeout().map(|at| Duration::from_millis(at.since(now)));
        let at = Instant::now() + due.map_or(IDLE, |due| due.min(IDLE));
        self.worker.tempo.no_earlier_than(at)
    }

    /// Whether the last run was full before all was done that it had to do.
    fn has_left_something(&self) -> bool {
        !self.put_back.is_empty() || self.machines.poll_timeout().is_some_and(|due| due <= self.ran_at)
    }

    /// The first delivery and what comes within `worker.run_linger` (longer when much does): one run, one commit. A receipt that a window
    /// waits for is kept waiting for less. A delivery that came more than once before is taken alone, so that one that kills the process takes no
    /// neighbour with it.
    async fn gather(&mut self, first: Delivery) -> Result<VecDeque<Taken>, Ended> {
        let mut deadline = if self.has_left_something() { Instant::now() } else { self.worker.tempo.next() };
        let mut bytes = 0;
        let mut run = VecDeque::new();
        let mut next = Some(first);
        loop {
            let before = run.len();
            while let Some(delivery) = next.take().or_else(|| self.waiting()) {
                let alone = is_suspect(&delivery);
                if alone && !run.is_empty() {
                    self.put_back.push_front(delivery);
                    return Ok(run);
                }
                let taken = Taken::from(delivery);
                if taken.is_urgent(&self.machines, self.worker.clock.now().plus(RUN_MS)) {
                    deadline = deadline.min(Instant::now() + RECEIPT_LINGER);
                }
                if taken.is_wish() {
                    deadline = Instant::now();
                }
                bytes += taken.bytes();
                run.push_back(taken);
                if alone || run.len() >= self.worker.run_max || bytes >= RUN_BYTES {
                    return Ok(run);
                }
            }
            if Instant::now() >= deadline {
                return Ok(run);
            }
            next = self.more_by(deadline, run.len() > before).await?;
        }
    }

    /// What is here already.
    fn waiting(&mut self) -> Option<Delivery> {
        self.put_back.pop_front().or_else(|| self.subscription.as_mut()?.try_next())
    }

    /// The next delivery, at most until `deadline`; when much comes, whatever may be here after a glance's time. If the last glance
    /// found nothing, the subscription is asked: the embedded bus reads a backlog only then.
    async fn more_by(&mut self, deadline: Instant, flows: bool) -> Result<Option<Delivery>, Ended> {
        if self.pace.is_busy() && flows {
            tokio::time::sleep_until(deadline.min(Instant::now() + GLANCE)).await;
            return Ok(None);
        }
        let Some(subscription) = &mut self.subscription else { return Ok(None) };
        match timeout_at(deadline, subscription.next()).await {
            Ok(next) => next.map(Some).map_err(Ended::lost),
            Err(_) => Ok(None),
        }
    }

    fn handle(&mut self, mut gathered: VecDeque<Taken>) -> Run {
        let now = self.worker.clock.now();
        self.ran_at = now;
        let mut run = Run::default();
        while let Some(taken) = gathered.pop_front() {
            taken.delivery.count_redelivery();
            self.handle_one(now, taken, &mut run);
            if run.ends.is_some() {
                return run;
            }
            if self.machines.pending_outputs() > Settings::MAX_OUTPUTS {
                break;
            }
        }
        // What is left makes runs of its own.
        let mut left: VecDeque<_> = gathered.into_iter().map(|taken| taken.delivery).collect();
        left.append(&mut self.put_back);
        self.put_back = left;
        self.machines.handle_timeout(now);
        if self.held.len() > usize::from(self.worker.prefetch / 2) || self.held_bytes > HOLD_BYTES {
            self.machines.relieve(now, FlushReason::Pressure);
        }
        run
    }

    fn handle_one(&mut self, now: Timestamp, taken: Taken, run: &mut Run) {
        let Taken { delivery, packet } = taken;
        let packet = match packet {
            Ok(packet) => packet,
            Err(error) => return self.bury(delivery, &error, run),
        };
        run.signals += signals(&packet);
        let bytes = packet.weight();
        if let Some(address) = &delivery.headers.reply_to {
            let ids = replies_wanted(&packet);
            run.replies.entry(address.clone()).or_default().extend(ids);
        }
        let hold = self.next_hold;
        let applied = catch_unwind(AssertUnwindSafe(|| apply(&mut self.machines, &delivery.queue, now, hold, packet)));
        match applied {
            Ok(Applied::Done) => run.tokens.push(delivery.token),
            Ok(Applied::Held) => {
                self.next_hold += 1;
                self.held_bytes += bytes;
                self.held.insert(hold, Held { token: delivery.token, bytes });
            }
            Ok(Applied::Misplaced) => {
                self.bury(delivery, &EnvelopeError::Malformed("a packet for another queue".into()), run);
            }
            Err(panic) => {
                let reason = format!("handling it panicked: {}", panic_text(&*panic));
                run.dead = isolate(&delivery, &reason);
                run.tokens = vec![delivery.token];
                run.ends = Some(Ended::lost(reason));
            }
        }
    }

    /// Damaged messages go to the dead letters. One of a later release stays: somebody else can read it.
    fn bury(&self, delivery: Delivery, error: &EnvelopeError, run: &mut Run) {
        if let EnvelopeError::Newer(version) = error {
            *run = Run { ends: Some(Ended::Outdated(*version)), ..Run::default() };
            return;
        }
        run.dead.push(dead_letter(&delivery, &error.to_string()));
        run.tokens.push(delivery.token);
    }

    /// The graceful end: windows leave or are owed, all is committed, confirmed and acknowledged.
    async fn drain(&mut self) -> Ended {
        self.machines.relieve(self.worker.clock.now(), FlushReason::Drain);
        let settled = self.settle(Run::default()).await;
        let left = match settled {
            Ok(()) => {
                self.pool.hurry();
                self.land_all().await
            }
            Err(ended) => Err(ended),
        };
        match left {
            Ok(()) => Ended::Stopped,
            Err(Ended::Lost(reason)) => {
                tracing::warn!(partition = %self.lease.partition, reason, "could not drain; everything is kept");
                Ended::Stopped
            }
            Err(ended) => ended,
        }
    }

    pub(super) fn observe(&mut self, flushes: &[Flush]) {
        let now = self.worker.clock.now();
        for flush in flushes {
            let reason = flush.reason.as_str();
            counter!("rollcall_windows_total", "reason" => reason).increment(1);
            counter!("rollcall_window_entries_total", "reason" => reason).increment(flush.since.len() as u64);
            counter!("rollcall_window_bytes_total", "reason" => reason).increment(flush.bytes as u64);
            let waited = histogram!("rollcall_edge_to_flush_seconds");
            for since in &flush.since {
                waited.record(now.since(*since) as f64 / 1000.0);
            }
        }
        let horizon = self.machines.horizon();
        self.keeper.note_horizon(horizon);
        if now.since(self.shown_at) >= BOARD_MS {
            self.shown_at = now;
            self.worker.board.update(self.lease, &self.machines);
        }
    }
}
