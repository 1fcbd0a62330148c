//! The life of one process, and its clock. Everything that a process does to the world passes here first: a dead one never gets
//! through, a paused one waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use rollcall::clock::Clock;
use rollcall::model::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::sim::Sim;

/// See the module.
pub struct Life {
    pub sim: Arc<Sim>,
    /// Which server of the world, and which of all processes that ever were.
    pub server: usize,
    pub id: u64,
    dead: AtomicBool,
    /// Ms since the world began.
    paused_until: AtomicI64,
    /// A pause begins, or ends before its time.
    roused: Notify,
    /// Against true time, ms.
    offset_ms: AtomicI64,
    /// Asks the process to leave in peace.
    pub stop: CancellationToken,
    origin: Instant,
}

impl Life {
    pub fn new(sim: Arc<Sim>, server: usize, id: u64, offset_ms: i64) -> Arc<Self> {
        let origin = Instant::now() - Duration::from_millis(sim.elapsed());
        let (dead, paused_until) = (AtomicBool::new(false), AtomicI64::new(0));
        let (roused, stop) = (Notify::new(), CancellationToken::new());
        Arc::new(Self {
            sim,
            server,
            id,
            dead,
            paused_until,
            roused,
            offset_ms: AtomicI64::new(offset_ms),
            stop,
            origin,
        })
    }

    /// Returns when the process lives and runs, which may be never.
    pub async fn pass(&self) {
        if self.sim.strikes(self.sim.plan.faults.sudden_death) {
            self.sim.note(7, || format!("{self:?} dies in the middle of something"));
            self.kill();
        }
        loop {
            if self.is_dead() {
                return std::future::pending().await;
            }
            let until = u64::try_from(self.paused_until.load(Ordering::Relaxed)).unwrap_or(0);
            if until <= self.sim.elapsed() {
                return;
            }
            tokio::select! {
                biased;
                () = self.roused.notified() => {}
                () = sleep_until(self.origin + Duration::from_millis(until)) => {}
            }
        }
    }

    /// Between one instant and the next.
    pub fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
        // What still turns in memory comes to rest, and nothing of it gets through.
        self.stop.cancel();
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub fn pause(&self, ms: u64) {
        let until = i64::try_from(self.sim.elapsed() + ms).unwrap();
        self.paused_until.store(until, Ordering::Relaxed);
        self.roused.notify_waiters();
    }

    pub fn is_paused(&self) -> bool {
        self.paused_until.load(Ordering::Relaxed) > i64::try_from(self.sim.elapsed()).unwrap()
    }

    pub fn runs(&self) -> bool {
        !self.is_dead() && !self.is_paused()
    }

    pub fn step_clock(&self, to_offset_ms: i64) {
        self.offset_ms.store(to_offset_ms, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s{}/p{}", self.server, self.id)
    }
}

impl Clock for Life {
    fn now(&self) -> Timestamp {
        let true_now = i64::try_from(self.sim.now().0).unwrap();
        Timestamp(u64::try_from(true_now + self.offset_ms.load(Ordering::Relaxed)).unwrap())
    }
}
