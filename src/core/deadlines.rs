//! The timer table. A timer is a hint: nothing is cancelled, a wake-up that finds nothing to do arms itself anew.

use std::collections::BTreeSet;

use crate::model::Timestamp;

/// When which machine, by number, wants to be looked at. Bounded by the machines: each keeps at most one armed hint (see [`Armed`]).
#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<Hint>);

/// In the order of time. In words of four bytes, so that it takes twelve: there may be millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Hint {
    at: [u32; 2],
    number: u32,
}

impl Hint {
    fn new(at: Timestamp, number: u32) -> Self {
        Self { at: [(at.0 >> 32) as u32, at.0 as u32], number }
    }

    fn at(self) -> Timestamp {
        let [high, low] = self.at.map(u64::from);
        Timestamp(high << 32 | low)
    }
}

/// A machine's own note of its earliest hint in the table; of the end of time if it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Armed(Timestamp);

impl Default for Armed {
    fn default() -> Self {
        Self(Timestamp(u64::MAX))
    }
}

impl Deadlines {
    /// Sees to it that machine `number` is looked at by `at`. A later hint than the armed one costs nothing.
    pub(super) fn arm(&mut self, armed: &mut Armed, at: Option<Timestamp>, number: u32) {
        let Some(at) = at else { return };
        if armed.0 <= at {
            return;
        }
        if *armed != Armed::default() {
            self.0.remove(&Hint::new(armed.0, number));
        }
        armed.0 = at;
        self.0.insert(Hint::new(at, number));
    }

    /// The earliest hint.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|hint| hint.at())
    }

    /// Takes the earliest machine that is due at `now`; the caller resets its [`Armed`].
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<u32> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|hint| hint.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_hint_replaces_a_later_one() {
        let mut table = Deadlines::default();
        let mut armed = Armed::default();
        for at in [30, 10, 20] {
            table.arm(&mut armed, Some(Timestamp(at)), 7);
        }
        assert_eq!(table.next(), Some(Timestamp(10)));
        assert_eq!(table.pop_due(Timestamp(9)), None);
        assert_eq!(table.pop_due(Timestamp(10)), Some(7));
        assert_eq!(table.next(), None);
    }

    #[test]
    fn hints_are_in_the_order_of_time() {
        let mut table = Deadlines::default();
        let times: [u64; 5] = [1, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, 1_795_400_000_000];
        for (number, at) in (0..5).zip(times).rev() {
            table.arm(&mut Armed::default(), Some(Timestamp(at)), number);
        }
        for (number, at) in (0..5).zip(times) {
            assert_eq!(table.next(), Some(Timestamp(at)));
            assert_eq!(table.pop_due(Timestamp(u64::MAX)), Some(number));
        }
        assert_eq!(size_of::<Hint>(), 12);
    }
}
