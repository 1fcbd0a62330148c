//! To whom connections are kept for the next transaction: to so many destinations at a time, however many there are.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::http::POOL_IDLE;
use crate::model::ServerName;

/// The destinations that may have an idle connection. Never more than its bound.
pub(super) struct Kept {
    max: usize,
    /// For how long after its last request began a destination may have one.
    lasts: Duration,
    used: Mutex<HashMap<ServerName, Instant>>,
}

impl Kept {
    /// At most `max` destinations, whose requests take at most `timeout` each.
    pub(super) fn new(max: usize, timeout: Duration) -> Self {
        // Once in so long the pool looks for connections that were idle for so long.
        Self { max, lasts: timeout + 2 * POOL_IDLE, used: Mutex::default() }
    }

    /// Whether the connection of a request to `destination` that begins `now` may be kept. If so, it has a place.
    pub(super) fn admits(&self, destination: &ServerName, now: Instant) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if !used.contains_key(destination) && used.len() >= self.max {
            used.retain(|_, last| now.saturating_duration_since(*last) < self.lasts);
        }
        if !used.contains_key(destination) && used.len() >= self.max {
            return false;
        }
        used.insert(destination.clone(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> ServerName {
        ServerName::parse(&format!("{number}.example")).unwrap()
    }

    #[test]
    fn so_many_have_a_place_until_they_have_not_used_it_for_long() {
        let (kept, start) = (Kept::new(3, Duration::from_secs(10)), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let admitted = (0..1_000).filter(|number| kept.admits(&name(*number), start)).count();
        assert_eq!((admitted, kept.used.lock().unwrap().len()), (3, 3));
        assert!(kept.admits(&name(0), at(60)), "one that has a place");
        assert!(!kept.admits(&name(3), at(69)));
        assert!(kept.admits(&name(3), at(70)), "two have not used theirs");
        assert!(kept.admits(&name(4), at(70)));
        assert!(!kept.admits(&name(1), at(70)), "0 has, and two are new");
        assert_eq!(kept.used.lock().unwrap().len(), 3);
    }

    #[test]
    fn none_may_be_kept_at_all() {
        assert!(!Kept::new(0, Duration::ZERO).admits(&name(0), Instant::now()));
    }
}
