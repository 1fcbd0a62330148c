//! What the log says of a homeserver that cannot be asked: once when it begins and once when it is over, however many requests there are.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For how long nothing more is said of a homeserver that is just back: one that comes and goes says little.
const QUIET: Duration = Duration::from_secs(600);

/// What was said.
#[derive(Debug, Default)]
pub(crate) struct Absence(Mutex<Note>);

#[derive(Debug, Default)]
struct Note {
    /// Since when it is away, if that was said.
    since: Option<Instant>,
    /// Nothing is said before.
    quiet_until: Option<Instant>,
}

impl Note {
    /// Whether it is to be said; if so, it has been.
    fn begin(&mut self, now: Instant) -> bool {
        if self.since.is_some() || self.quiet_until.is_some_and(|until| now < until) {
            return false;
        }
        self.since = Some(now);
        true
    }

    /// For how long it lasted, if it was said and is over now.
    fn end(&mut self, now: Instant) -> Option<Duration> {
        let since = self.since.take()?;
        self.quiet_until = Some(now + QUIET);
        Some(now - since)
    }
}

impl Absence {
    /// A question had no answer.
    pub(crate) fn begin(&self, reason: &str) {
        let begins = self.0.lock().unwrap_or_else(PoisonError::into_inner).begin(Instant::now());
        if begins {
            tracing::warn!(reason, "the homeserver does not say whose an access token is");
        } else {
            tracing::debug!(reason, "the homeserver still does not say whose an access token is");
        }
    }

    /// A question was answered.
    pub(crate) fn end(&self) {
        let lasted = self.0.lock().unwrap_or_else(PoisonError::into_inner).end(Instant::now());
        if let Some(lasted) = lasted {
            tracing::info!(after_s = lasted.as_secs(), "the homeserver says again whose an access token is");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_homeserver_that_comes_and_goes_says_little() {
        let (mut note, start) = (Note::default(), Instant::now());
        let mut said = 0;
        for second in 0..3_600 {
            let now = start + Duration::from_secs(second);
            said += usize::from(note.begin(now));
            said += usize::from(note.end(now).is_some());
        }
        assert_eq!(said, 12, "two lines each ten minutes");
    }
}
