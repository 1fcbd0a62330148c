//! The timer table. A timer is a hint: nothing is cancelled, a wake-up that finds nothing to do arms itself anew.

use std::collections::BTreeSet;

use crate::model::Timestamp;

/// When which machine wants to be looked at. Bounded by the machines: each keeps at most one armed hint (see [`Armed`]).
#[derive(Debug)]
pub(super) struct Deadlines<K>(BTreeSet<(Timestamp, K)>);

/// A machine's own note of its earliest hint in the table; of the end of time if it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Armed(Timestamp);

impl Default for Armed {
    fn default() -> Self {
        Self(Timestamp(u64::MAX))
    }
}

impl<K: Ord + Clone> Deadlines<K> {
    pub(super) fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// Sees to it that `key` is looked at by `at`. A later hint than the armed one costs nothing.
    pub(super) fn arm(&mut self, armed: &mut Armed, at: Option<Timestamp>, key: &K) {
        let Some(at) = at else { return };
        if armed.0 <= at {
            return;
        }
        if *armed != Armed::default() {
            self.0.remove(&(armed.0, key.clone()));
        }
        armed.0 = at;
        self.0.insert((at, key.clone()));
    }

    /// The earliest hint.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes the earliest machine that is due at `now`; the caller resets its [`Armed`].
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_hint_replaces_a_later_one() {
        let mut table = Deadlines::new();
        let mut armed = Armed::default();
        for at in [30, 10, 20] {
            table.arm(&mut armed, Some(Timestamp(at)), &"a");
        }
        assert_eq!(table.next(), Some(Timestamp(10)));
        assert_eq!(table.pop_due(Timestamp(9)), None);
        assert_eq!(table.pop_due(Timestamp(10)), Some("a"));
        assert_eq!(table.next(), None);
    }
}
