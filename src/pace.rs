//! How long to wait for more: packing is the lever of throughput, and waiting is the price of it.
//!
//! At a low rate nobody waits longer than the short linger. When so much comes that a longer wait gathers a few, the wait is worth
//! it: every run costs a commit and a dozen switches between threads, and every message costs the broker the same, however much they
//! hold.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A long wait must be expected to gather at least so many.
const WORTH: f64 = 4.0;
/// So many in a long wait are a flood.
const FLOOD: f64 = 40.0;
/// The weight of the newest observation.
const WEIGHT: f64 = 0.3;

/// Watches a rate and says how long to linger.
#[derive(Debug)]
pub(crate) struct Pace {
    short: Duration,
    long: Duration,
    since: Instant,
    /// Handled since then.
    count: usize,
    per_second: f64,
}

impl Pace {
    /// `short` is the wait when little comes, `long` the longest when much does.
    pub(crate) fn new(short: Duration, long: Duration) -> Self {
        Self { short, long: long.max(short), since: Instant::now(), count: 0, per_second: 0.0 }
    }

    /// So many were handled since the last call. Looks at spans no shorter than a long wait: a few that come within a millisecond
    /// are no flood.
    pub(crate) fn note(&mut self, count: usize) {
        self.count += count;
        let now = Instant::now();
        let elapsed = now.duration_since(self.since);
        if elapsed >= self.long && !elapsed.is_zero() {
            self.since = now;
            let observed = std::mem::take(&mut self.count) as f64 / elapsed.as_secs_f64();
            self.per_second += WEIGHT * (observed - self.per_second);
        }
    }

    /// How long to wait for more after the first.
    pub(crate) fn linger(&self) -> Duration {
        if self.in_a_long_wait() >= WORTH { self.long } else { self.short }
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

/// A pace that several keep together: while much comes to all of them, they all wait for the same moments, so that what each has to
/// do afterwards (commit, publish) falls together with that of the others and is done once for all.
#[derive(Debug, Clone)]
pub(crate) struct Tempo {
    pace: Arc<Mutex<Pace>>,
    long: Duration,
    begun: Instant,
}

impl Tempo {
    /// `short` is the wait when little comes, `long` the time from one moment to the next.
    pub(crate) fn new(short: Duration, long: Duration) -> Self {
        let pace = Pace::new(short, long);
        Self { long: pace.long, begun: pace.since, pace: Arc::new(Mutex::new(pace)) }
    }

    /// One of them handled so many.
    pub(crate) fn note(&self, count: usize) {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).note(count);
    }

    /// Until when to gather: the next of these moments, if much comes.
    pub(crate) fn next(&self) -> Instant {
        self.after(Duration::ZERO)
    }

    /// The same for what is done with what came of it: half-way between two moments.
    pub(crate) fn half_way(&self) -> Instant {
        self.after(self.long / 2)
    }

    fn after(&self, phase: Duration) -> Instant {
        let now = Instant::now();
        let linger = self.pace.lock().unwrap_or_else(PoisonError::into_inner).linger();
        if linger < self.long {
            return now + linger;
        }
        let elapsed = (now - self.begun + self.long - phase).as_nanos();
        let into = u64::try_from(elapsed % self.long.as_nanos().max(1)).unwrap_or(0);
        now + self.long - Duration::from_nanos(into)
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

    #[tokio::test(start_paused = true)]
    async fn all_wait_for_the_same_moment_while_much_comes() {
        let tempo = Tempo::new(Duration::ZERO, LONG);
        let begun = Instant::now();
        assert_eq!(tempo.next(), begun, "little comes");
        for _ in 0..50 {
            tokio::time::advance(LONG / 8).await;
            tempo.clone().note(1);
        }
        let moments = [1, 2].map(|_| tempo.next() - begun);
        tokio::time::advance(Duration::from_millis(9)).await;
        let (late, half) = (tempo.next() - begun, tempo.half_way() - begun);
        assert_eq!((moments, late), ([LONG * 7; 2], LONG * 7), "fifty eighths have passed");
        assert_eq!(half, LONG * 13 / 2);
        tokio::time::advance(LONG / 2).await;
        assert_eq!(tempo.half_way() - begun, LONG * 15 / 2);
    }
}
