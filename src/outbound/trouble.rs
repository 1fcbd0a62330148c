//! What is known of peers that fail: until when they want to be left alone, since when nothing arrives, and what the log says of them:
//! each thing once when it begins and once when it is over, however often it happens in between.

use std::time::Duration;

use moka::Entry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;

use super::failure::Failure;
use crate::core::Settings;
use crate::model::ServerName;

/// Peers that are remembered: one that is forgotten is said again, and asked as if nothing had been.
const PEERS: u64 = 10_000;
/// For how long nothing more is said of a peer that is just back: one that comes and goes says little.
const QUIET: Duration = Duration::from_secs(600);
/// However long a peer wants to be left alone.
const PATIENCE_MAX: Duration = Duration::from_millis(Settings::PATIENCE_MAX_MS);

/// What is said of a peer, each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Failing,
    Refusing,
    Expired,
}

/// What is known of one peer.
#[derive(Debug, Clone, Copy, Default)]
struct Note {
    said: [bool; 3],
    /// Since the first of it.
    since: Option<Instant>,
    /// Nothing is said before.
    quiet_until: Option<Instant>,
    /// Nothing arrives, whether or not that was said.
    failing_since: Option<Instant>,
    /// It is sent nothing before.
    rests_until: Option<Instant>,
}

impl Note {
    /// The peer is sent nothing for as long as it asks, within bounds.
    fn rest(&mut self, asked: Duration, now: Instant) {
        self.rests_until = Some(now + asked.min(PATIENCE_MAX));
    }

    /// What is left of that.
    fn rests_for(&self, now: Instant) -> Option<Duration> {
        self.rests_until?.checked_duration_since(now).filter(|rest| !rest.is_zero())
    }

    /// Nothing arrives.
    fn fail(&mut self, now: Instant) {
        self.failing_since.get_or_insert(now);
    }

    /// Whether nothing has arrived for at least `time`.
    fn has_failed_for(&self, time: Duration, now: Instant) -> bool {
        self.failing_since.is_some_and(|since| now.saturating_duration_since(since) >= time)
    }

    /// Whether it is to be said; if so, it has been.
    fn begin(&mut self, trouble: Trouble, now: Instant) -> bool {
        if self.quiet_until.is_some_and(|until| now < until) {
            return false;
        }
        self.since.get_or_insert(now);
        !std::mem::replace(&mut self.said[trouble as usize], true)
    }

    /// For how long it lasted, if anything was said that is over now.
    fn end(&mut self, now: Instant) -> Option<Duration> {
        (self.failing_since, self.rests_until) = (None, None);
        let since = self.since.take()?;
        *self = Self { quiet_until: Some(now + QUIET), ..Self::default() };
        Some(now - since)
    }
}

/// What is known of each peer.
pub(super) struct Troubles(Cache<ServerName, Note>);

impl Troubles {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        // Newcomers have to be remembered, however many come.
        Self(Cache::builder().max_capacity(PEERS).eviction_policy(EvictionPolicy::lru()).build())
    }

    /// For how long the peer still wants to be left alone.
    pub(super) fn rests_for(&self, peer: &ServerName) -> Option<Duration> {
        self.0.get(peer)?.rests_for(Instant::now())
    }

    /// The peer wants to be left alone for so long; an hour at most is granted.
    pub(super) fn rest(&self, peer: &ServerName, asked: Duration) {
        self.change(peer, |note| note.rest(asked, Instant::now()));
    }

    /// Whether nothing that the peer was sent has arrived for at least `time`.
    pub(super) fn has_failed_for(&self, peer: &ServerName, time: Duration) -> bool {
        self.0.get(peer).is_some_and(|note| note.has_failed_for(time, Instant::now()))
    }

    /// The peer is well: it only has too much to do.
    pub(super) fn is_well(&self, peer: &ServerName) {
        self.change(peer, |note| note.failing_since = None);
    }

    /// An attempt failed, and another one follows.
    pub(super) fn failing(&self, peer: &ServerName, reason: Failure, cause: &str) {
        self.change(peer, |note| note.fail(Instant::now()));
        let reason = reason.as_str();
        if self.begin(peer, Trouble::Failing) {
            tracing::warn!(destination = %peer, reason, cause, "sending to a peer fails, and is tried again");
        } else {
            tracing::debug!(reason, cause, "failed again");
        }
    }

    /// The peer will not take it, or it can never be sent.
    pub(super) fn refusing(&self, peer: &ServerName, reason: Failure, cause: &str) {
        let reason = reason.as_str();
        if self.begin(peer, Trouble::Refusing) {
            tracing::warn!(destination = %peer, reason, cause, "a peer does not take what it is sent");
        } else {
            tracing::debug!(reason, cause, "refused again");
        }
    }

    /// A transaction became too old.
    pub(super) fn expired(&self, peer: &ServerName) {
        if self.begin(peer, Trouble::Expired) {
            tracing::warn!(destination = %peer, "a transaction expired before its peer took it");
        } else {
            tracing::debug!("expired");
        }
    }

    /// The peer took something.
    pub(super) fn over(&self, peer: &ServerName) {
        if !self.0.contains_key(peer) {
            return;
        }
        let mut lasted = None;
        self.change(peer, |note| lasted = note.end(Instant::now()));
        if let Some(lasted) = lasted {
            tracing::info!(destination = %peer, after_s = lasted.as_secs(), "a peer takes what it is sent again");
        }
    }

    fn begin(&self, peer: &ServerName, trouble: Trouble) -> bool {
        let mut begins = false;
        self.change(peer, |note| begins = note.begin(trouble, Instant::now()));
        begins
    }

    /// Nobody writes in between.
    fn change(&self, peer: &ServerName, change: impl FnOnce(&mut Note)) {
        self.0.entry_by_ref(peer).and_upsert_with(|entry| {
            let mut note = entry.map(Entry::into_value).unwrap_or_default();
            change(&mut note);
            note
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_goes_on_failing_is_said_once_until_it_is_back() {
        let (mut note, start) = (Note::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(note.begin(Trouble::Failing, at(0)));
        for second in 1..100_000 {
            assert!(!note.begin(Trouble::Failing, at(second)));
        }
        assert!(note.begin(Trouble::Expired, at(100_000)), "another thing");
        assert!(!note.begin(Trouble::Expired, at(100_001)));
        assert_eq!(note.end(at(100_002)), Some(Duration::from_secs(100_002)));
        assert_eq!(note.end(at(100_003)), None, "said once, too");
    }

    #[test]
    fn a_peer_that_comes_and_goes_says_little() {
        let (mut note, start) = (Note::default(), Instant::now());
        let mut said = 0;
        for second in 0..3_600 {
            let now = start + Duration::from_secs(second);
            said += usize::from(note.begin(Trouble::Failing, now));
            said += usize::from(note.end(now).is_some());
        }
        assert_eq!(said, 12, "two lines each ten minutes");
    }

    #[test]
    fn a_peer_rests_for_as_long_as_it_asks_up_to_an_hour() {
        let (mut note, start) = (Note::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(note.rests_for(start), None);
        for (asked, granted) in [(60, 60), (3_600, 3_600), (7_200, 3_600), (u64::MAX, 3_600)] {
            note.rest(Duration::from_secs(asked), start);
            assert_eq!(note.rests_for(start), Some(Duration::from_secs(granted)), "{asked}");
            assert_eq!(note.rests_for(at(granted - 1)), Some(Duration::from_secs(1)), "{asked}");
            assert_eq!(note.rests_for(at(granted)), None, "{asked}");
        }
    }

    #[test]
    fn a_peer_fails_from_its_first_failure_to_its_next_success_whatever_was_said_of_it() {
        let (mut note, start) = (Note::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let minute = Duration::from_secs(60);
        // Back a moment ago: nothing is said now.
        note.begin(Trouble::Failing, start);
        note.end(start);
        assert!(!note.has_failed_for(minute, at(1_000)));
        for second in 1..=60 {
            note.fail(at(second));
            assert!(!note.begin(Trouble::Failing, at(second)));
            assert!(!note.has_failed_for(minute, at(second)), "{second}");
        }
        assert!(note.has_failed_for(minute, at(61)));
        assert_eq!(note.end(at(62)), None);
        note.fail(at(63));
        assert!(!note.has_failed_for(minute, at(64)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let troubles = Troubles::new();
        for n in 0..3 * PEERS {
            troubles.expired(&ServerName::parse(&format!("{n}.example")).unwrap());
        }
        troubles.0.run_pending_tasks();
        assert!(troubles.0.entry_count() <= PEERS);
    }
}
