//! What the log says of peers that fail: each thing once when it begins and once when it is over, however often it happens in between.

use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;

use super::failure::Failure;
use crate::model::ServerName;

/// Peers that are remembered: one that is forgotten is said again.
const PEERS: u64 = 10_000;
/// For how long nothing more is said of a peer that is just back: one that comes and goes says little.
const QUIET: Duration = Duration::from_secs(600);

/// What is said of a peer, each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Failing,
    Refusing,
    Expired,
}

/// What was said of one peer.
#[derive(Debug, Clone, Copy, Default)]
struct Note {
    said: [bool; 3],
    /// Since the first of it.
    since: Option<Instant>,
    /// Nothing is said before.
    quiet_until: Option<Instant>,
}

impl Note {
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
        let since = self.since.take()?;
        *self = Self { quiet_until: Some(now + QUIET), ..Self::default() };
        Some(now - since)
    }
}

/// What was said of each peer.
pub(super) struct Troubles(Cache<ServerName, Note>);

impl Troubles {
    /// Nothing was said yet.
    pub(super) fn new() -> Self {
        // Newcomers have to be remembered, however many come.
        Self(Cache::builder().max_capacity(PEERS).eviction_policy(EvictionPolicy::lru()).build())
    }

    /// An attempt failed, and another one follows.
    pub(super) fn failing(&self, peer: &ServerName, reason: Failure, cause: &str) {
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
        let Some(mut note) = self.0.get(peer) else { return };
        if let Some(lasted) = note.end(Instant::now()) {
            self.0.insert(peer.clone(), note);
            tracing::info!(destination = %peer, after_s = lasted.as_secs(), "a peer takes what it is sent again");
        }
    }

    /// One transaction at a time is on its way to each peer: nobody writes in between.
    fn begin(&self, peer: &ServerName, trouble: Trouble) -> bool {
        let mut note = self.0.get(peer).unwrap_or_default();
        let begins = note.begin(trouble, Instant::now());
        if begins {
            self.0.insert(peer.clone(), note);
        }
        begins
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
    fn what_is_remembered_is_bounded() {
        let troubles = Troubles::new();
        for n in 0..3 * PEERS {
            troubles.expired(&ServerName::parse(&format!("{n}.example")).unwrap());
        }
        troubles.0.run_pending_tasks();
        assert!(troubles.0.entry_count() <= PEERS);
    }
}
