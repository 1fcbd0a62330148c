//! How long to wait for more: packing is the lever of throughput, and waiting is the price of it.
//!
//! At a low rate nobody waits longer than the short linger. When so much comes that a longer wait gathers a few, the wait is worth
//! it: every run costs a commit and a dozen switches between threads, and every message costs the broker the same, however much they
//! hold. Unless much came only because nobody waited: a caller who says the next thing when the last one is answered says little while
//! each answer is kept waiting. So long waits that gather far less than came before are left alone for a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A long wait must be expected to gather at least so many.
const WORTH: f64 = 4.0;
/// So many in a long wait are a flood.
const FLOOD: f64 = 40.0;
/// The weight of the newest observation.
const WEIGHT: f64 = 0.3;
/// Less than this part of what came before, and long waits are in vain.
const IN_VAIN: f64 = 0.5;
/// How long they are left alone then.
const PAUSE: Duration = Duration::from_secs(5);
/// So many observations in a row, while nobody waited long, tell what comes.
const STEADY: u32 = 5;
/// How long it is believed: somebody may have come since who says more while nobody waits.
const BELIEVED: Duration = Duration::from_secs(60);

/// Watches a rate and says how long to linger.
#[derive(Debug)]
pub(crate) struct Pace {
    short: Duration,
    long: Duration,
    since: Instant,
    /// Handled since then.
    count: usize,
    per_second: f64,
    /// Whether those who say so much wait for what is gathered.
    has_callers: bool,
    /// The rate while nobody waited long.
    before: f64,
    /// So many observations in a row were worth a long wait while nobody waited long.
    steady: u32,
    /// Since when everybody waits long.
    began: Option<Instant>,
    /// Long waits were in vain and begin no earlier.
    not_before: Instant,
}

impl Pace {
    /// `short` is the wait when little comes, `long` the longest when much does.
    pub(crate) fn new(short: Duration, long: Duration) -> Self {
        let now = Instant::now();
        Self {
            short,
            long: long.max(short),
            since: now,
            count: 0,
            per_second: 0.0,
            has_callers: false,
            before: 0.0,
            steady: 0,
            began: None,
            not_before: now,
        }
    }

    /// The same where much may come only because nobody waits: whoever says it has to wait, too.
    pub(crate) fn with_callers(short: Duration, long: Duration) -> Self {
        Self { has_callers: true, ..Self::new(short, long) }
    }

    /// So many were handled since the last call. Looks at spans no shorter than a long wait: a few that come within a millisecond
    /// are no flood.
    pub(crate) fn note(&mut self, count: usize) {
        self.count += count;
        let now = Instant::now();
        let elapsed = now.duration_since(self.since);
        if elapsed >= self.long && !elapsed.is_zero() {
            self.since = now;
            let waited_long = self.waits_long();
            let observed = std::mem::take(&mut self.count) as f64 / elapsed.as_secs_f64();
            self.per_second += WEIGHT * (observed - self.per_second);
            if self.has_callers {
                self.judge(now, waited_long);
            }
        }
    }

    /// Looks whether long waits gather what was to be expected, and enough; from time to time, by leaving them, what is to be expected.
    fn judge(&mut self, now: Instant, waited_long: bool) {
        if !waited_long {
            self.before = self.per_second;
            self.steady = if self.is_worth_it() { self.steady.saturating_add(1) } else { 0 };
            self.began = None;
            return;
        }
        let is_in_vain = self.per_second < IN_VAIN * self.before || !self.is_worth_it();
        if is_in_vain {
            self.not_before = now + PAUSE;
        }
        if is_in_vain || now - *self.began.get_or_insert(now) >= BELIEVED {
            self.steady = 0;
        }
    }

    /// How long to wait for more after the first.
    pub(crate) fn linger(&self) -> Duration {
        if self.waits_long() { self.long } else { self.short }
    }

    /// Whether that is the longer wait.
    fn waits_long(&self) -> bool {
        let is_sure = !self.has_callers || self.steady >= STEADY && Instant::now() >= self.not_before;
        is_sure && self.is_worth_it()
    }

    fn is_worth_it(&self) -> bool {
        self.in_a_long_wait() >= WORTH
    }

    /// Whether so much comes that it is better to sleep through the wait, and to take everything at its end: being woken for
    /// each message costs more than the message.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_a_long_wait() >= FLOOD
    }

    fn in_a_long_wait(&self) -> f64 {
        self.per_second * self.long.as_secs_f64()
    }
}

/// From one moment to the next.
pub(crate) const EVERY: Duration = Duration::from_millis(200);

/// Moments that the stages of a process share. While much comes, each does its work at its own part of the time between two of them, one
/// after the other along the way of the data: so what each hands on is there when the next one looks, and being woken, committing and
/// confirming is done once for all that came meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Moments {
    begun: Instant,
    every: Duration,
}

impl Default for Moments {
    fn default() -> Self {
        Self { begun: Instant::now(), every: EVERY }
    }
}

impl Moments {
    /// When it is this stage's turn next, no earlier than `from`.
    pub(crate) fn next(&self, from: Instant, phase: Phase) -> Instant {
        let phase = self.every * phase as u32 / 4;
        let elapsed = (from.saturating_duration_since(self.begun) + self.every - phase.min(self.every)).as_nanos();
        let into = u64::try_from(elapsed % self.every.as_nanos().max(1)).unwrap_or(0);
        if into == 0 { from } else { from + self.every - Duration::from_nanos(into) }
    }
}

/// A stage's part of the time between two moments, in quarters of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Edges hand over what came in.
    Arrive = 0,
    /// Runs end.
    Run = 1,
    /// What runs say to other machines leaves.
    Leave = 2,
}

/// A pace that several keep together: while much comes to all of them, they all wait for the same moments, so that what each has to
/// do afterwards (commit, publish) falls together with that of the others and is done once for all.
#[derive(Debug, Clone)]
pub(crate) struct Tempo {
    pace: Arc<Mutex<Pace>>,
    moments: Moments,
    phase: Phase,
}

impl Tempo {
    /// Of runs. `short` is the wait when little comes.
    pub(crate) fn of_runs(short: Duration, moments: Moments) -> Self {
        Self::new(Pace::new(short, moments.every), moments, Phase::Run)
    }

    /// Of an edge.
    pub(crate) fn of_callers(short: Duration, moments: Moments) -> Self {
        Self::new(Pace::with_callers(short, moments.every), moments, Phase::Arrive)
    }

    fn new(pace: Pace, moments: Moments, phase: Phase) -> Self {
        Self { pace: Arc::new(Mutex::new(pace)), moments, phase }
    }

    /// The same pace, with another part of the time.
    pub(crate) fn at(&self, phase: Phase) -> Self {
        Self { phase, ..self.clone() }
    }

    /// One of them handled so many.
    pub(crate) fn note(&self, count: usize) {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).note(count);
    }

    /// Until when to gather: the next of its moments, if much comes. A `short` that is longer is kept, to the moment.
    pub(crate) fn next(&self) -> Instant {
        self.next_after(Duration::ZERO)
    }

    /// The same for what is in no hurry: if much comes, it is gathered for `patience` and until the next moment then.
    pub(crate) fn next_after(&self, patience: Duration) -> Instant {
        let (now, short) = (Instant::now(), self.short());
        let least = patience.max(short.saturating_sub(self.moments.every));
        if self.waits_long() { self.moment_after(now + least) } else { now + short }
    }

    /// When to do what is due at `due`: then, or at the next of its moments, if much comes.
    pub(crate) fn no_earlier_than(&self, due: Instant) -> Instant {
        if self.waits_long() { self.moment_after(due) } else { due }
    }

    fn short(&self) -> Duration {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).short
    }

    fn waits_long(&self) -> bool {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).waits_long()
    }

    fn moment_after(&self, from: Instant) -> Instant {
        self.moments.next(from, self.phase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(80);

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_not_kept_waiting() {
        let mut pace = Pace::new(Duration::from_millis(2), LONG);
        for _ in 0..50 {
            tokio::time::advance(Duration::from_millis(25)).await;
            pace.note(1);
        }
        assert_eq!(pace.linger(), Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_flow_is_gathered_but_nobody_sleeps_through_it() {
        let mut pace = Pace::new(Duration::from_millis(2), LONG);
        for _ in 0..50 {
            tokio::time::advance(Duration::from_millis(10)).await;
            pace.note(1);
        }
        assert_eq!((pace.linger(), pace.is_busy()), (LONG, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handful_at_once_is_no_flood() {
        let mut pace = Pace::new(Duration::ZERO, LONG);
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(1)).await;
            for _ in 0..8 {
                pace.note(4);
            }
            assert_eq!(pace.linger(), Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_packed_and_its_end_is_noticed() {
        let mut pace = Pace::new(Duration::from_millis(2), LONG);
        for _ in 0..20 {
            tokio::time::advance(Duration::from_millis(10)).await;
            pace.note(20);
        }
        assert_eq!((pace.linger(), pace.is_busy()), (LONG, true));
        for _ in 0..20 {
            tokio::time::advance(Duration::from_millis(100)).await;
            pace.note(1);
        }
        assert_eq!(pace.linger(), Duration::from_millis(2));
    }

    /// How many answers so many callers get in two minutes, each with one request under way, whose answer takes so long and the wait;
    /// beside `others` a second who come whether they are answered or not, and were there before. As a part of what they got if nobody waited.
    async fn answered(callers: usize, answer: Duration, others: f64) -> f64 {
        let mut pace = Pace::with_callers(Duration::ZERO, LONG);
        let (mut open, mut answers, mut begun) = (0.0, 0, Instant::now());
        for with_callers in [false, true] {
            begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(120) {
                let took = answer + pace.linger();
                tokio::time::advance(took).await;
                open += others * took.as_secs_f64();
                let come = open as usize;
                open -= come as f64;
                pace.note(come + if with_callers { callers } else { 0 });
                answers += if with_callers { callers } else { 0 };
            }
        }
        answers as f64 * answer.as_secs_f64() / (callers as f64 * begun.elapsed().as_secs_f64())
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_each_answer_is_not_held_up_for_long() {
        let ms = Duration::from_millis;
        for (callers, answer) in [(1, ms(10)), (10, ms(10)), (2, ms(30)), (10, ms(40))] {
            let part = answered(callers, answer, 0.0).await;
            assert!(part > 0.75, "{callers} whose answers take {answer:?}: {part}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_to_others_that_wait_is_not_held_up_for_long() {
        let part = answered(1, Duration::from_millis(10), 60.0).await;
        assert!(part > 0.45, "at worst a minute of waiting goes before: {part}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_whether_answered_or_not_is_gathered_nearly_always() {
        let (mut pace, mut waited) = (Pace::with_callers(Duration::ZERO, LONG), 0);
        for _ in 0..12_000 {
            tokio::time::advance(Duration::from_millis(10)).await;
            pace.note(1);
            waited += usize::from(pace.linger() == LONG);
        }
        assert!(waited > 11_500, "{waited} of 12000");
    }

    #[tokio::test(start_paused = true)]
    async fn all_wait_for_the_same_moment_while_much_comes() {
        let moments = Moments::default();
        let runs = Tempo::of_runs(Duration::ZERO, moments);
        let begun = Instant::now();
        assert_eq!((runs.next(), runs.no_earlier_than(begun)), (begun, begun), "little comes");
        for _ in 0..50 {
            tokio::time::advance(EVERY / 8).await;
            runs.clone().note(1);
        }
        let after = |moment: Instant| moment - begun;
        let quarters = |quarters| EVERY * quarters / 4;
        assert_eq!([1, 2].map(|_| after(runs.next())), [quarters(25); 2], "that is now");
        tokio::time::advance(Duration::from_millis(9)).await;
        assert_eq!(after(runs.next()), quarters(29));
        assert_eq!([Phase::Arrive, Phase::Leave].map(|phase| after(runs.at(phase).next())), [28, 26].map(quarters));
        assert_eq!(after(runs.no_earlier_than(begun + quarters(33))), quarters(33));
        assert_eq!(after(runs.no_earlier_than(begun + quarters(34))), quarters(37));
    }
}
