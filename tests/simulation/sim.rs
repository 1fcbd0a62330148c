//! What everything in one simulated world shares: time, chance, the schedule as it happens, and what was found wrong.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rollcall::model::Timestamp;
use tokio::time::{Duration, Instant, sleep};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ledger::Ledger;
use super::plan::Plan;

/// True time at which every world begins.
pub const START: Timestamp = Timestamp(1_795_400_000_000);

/// After a storm: the slowest commit is done, what broke off is tried again, and what had gathered meanwhile is read, ms.
const SETTLED_MS: u64 = 15_000;

/// See the module.
pub struct Sim {
    pub plan: Plan,
    origin: Instant,
    rng: Mutex<fastrand::Rng>,
    calm: AtomicBool,
    /// When calm began, ms.
    calm_since: AtomicU64,
    talks: bool,
    /// Of all that happened: two runs of one seed agree on it.
    trace: AtomicU64,
    violations: Mutex<Vec<String>>,
    ledger: Mutex<Ledger>,
}

impl Sim {
    /// Within a runtime whose time is paused. `talks`: prints what happens.
    pub fn new(seed: u64, talks: bool) -> Arc<Self> {
        let mut rng = fastrand::Rng::with_seed(seed);
        // What draws for itself, as back-off does, draws the same in every run of this seed.
        fastrand::seed(rng.u64(..));
        let plan = Plan::draw(&mut rng);
        let ledger = Mutex::new(Ledger::new(&plan));
        Arc::new(Self {
            plan,
            origin: Instant::now(),
            rng: Mutex::new(rng),
            calm: AtomicBool::new(true),
            calm_since: AtomicU64::new(0),
            talks,
            trace: AtomicU64::new(seed),
            violations: Mutex::default(),
            ledger,
        })
    }

    /// Ms since the world began.
    pub fn elapsed(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap()
    }

    /// True time, which nobody in the world knows.
    pub fn now(&self) -> Timestamp {
        START.plus(self.elapsed())
    }

    pub fn rng(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.rng.lock().unwrap()
    }

    pub fn between(&self, low: u64, high: u64) -> u64 {
        self.rng().u64(low..=high)
    }

    /// Whether a fault strikes that does so `per_mille` times of a thousand. Never in calm.
    pub fn strikes(&self, per_mille: u32) -> bool {
        per_mille > 0 && !self.calm.load(Ordering::Relaxed) && self.rng().u32(..1000) < per_mille
    }

    pub fn set_calm(&self, calm: bool) {
        self.calm.store(calm, Ordering::Relaxed);
        self.calm_since.store(self.elapsed(), Ordering::Relaxed);
    }

    /// Whether nothing has failed for so long that nothing is late any longer.
    pub fn is_settled(&self) -> bool {
        self.calm.load(Ordering::Relaxed) && self.elapsed() >= self.calm_since.load(Ordering::Relaxed) + SETTLED_MS
    }

    pub async fn pause(&self, low_ms: u64, high_ms: u64) {
        let ms = self.between(low_ms, high_ms);
        if ms > 0 {
            sleep(Duration::from_millis(ms)).await;
        }
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// Notes that something happened: a number for the trace, words for who watches.
    pub fn note(&self, what: u64, words: impl FnOnce() -> String) {
        let now = self.elapsed();
        let trace = self.trace.load(Ordering::Relaxed);
        let bytes = [trace.to_le_bytes(), now.to_le_bytes(), what.to_le_bytes()].concat();
        self.trace.store(xxh3_64_with_seed(&bytes, 0), Ordering::Relaxed);
        if self.talks {
            say(now, &words());
        }
    }

    pub fn trace(&self) -> u64 {
        self.trace.load(Ordering::Relaxed)
    }

    /// An invariant is broken.
    #[expect(clippy::needless_pass_by_value, reason = "all that is said here is made for it")]
    pub fn blame(&self, what: String) {
        let now = self.elapsed();
        if self.talks {
            say(now, &format!("BROKEN: {what}"));
        }
        self.violations.lock().unwrap().push(format!("{:>9.3}s {what}", now as f64 / 1000.0));
    }

    pub fn is_broken(&self) -> bool {
        !self.violations.lock().unwrap().is_empty()
    }

    /// The first things that were found wrong.
    pub fn verdict(&self) -> Result<u64, String> {
        let violations = self.violations.lock().unwrap();
        if violations.is_empty() {
            return Ok(self.trace());
        }
        let mut text = String::new();
        for violation in violations.iter().take(8) {
            let _ = writeln!(text, "{violation}");
        }
        Err(text)
    }
}

#[expect(clippy::print_stdout, reason = "whoever replays a seed wants to read it")]
fn say(now: u64, words: &str) {
    println!("{:>9.3}s {words}", now as f64 / 1000.0);
}
