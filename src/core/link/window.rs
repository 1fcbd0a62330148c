//! What is gathered for one destination before it leaves together (E4, W8).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound::{Excluded, Unbounded};

use crate::core::HoldId;
use crate::core::settings::Settings;
use crate::model::{Serial, Status, Timestamp, TraceId, UserId};

/// The newest status of each user that changed. Bounded by users, never by updates.
#[derive(Debug, Default)]
pub(super) struct Window {
    opened: Option<Timestamp>,
    entries: BTreeMap<UserId, Waiting>,
    bytes: usize,
    /// Where the last partial flush ended, so that under overload everybody gets a turn.
    cursor: Option<UserId>,
    trace: Option<TraceId>,
}

/// A status that waits for its window.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) status: Status,
    pub(super) serial: Serial,
    /// The delivery that must stay unacknowledged meanwhile.
    pub(super) hold: HoldId,
    /// When an edge took the cause in.
    pub(super) since: Timestamp,
    /// Bytes that it will take in a transaction, at most.
    pub(super) size: usize,
}

impl Window {
    /// Opens the window, if it is not open yet.
    pub(super) fn open(&mut self, now: Timestamp) {
        self.opened.get_or_insert(now);
    }

    /// Gathers a status; returns the delivery that need not wait for it any longer, because of a newer one: the newest wins.
    pub(super) fn insert(&mut self, now: Timestamp, user: UserId, waiting: Waiting) -> Option<HoldId> {
        self.open(now);
        let mut waits = match self.entries.entry(user) {
            Entry::Occupied(waits) => waits,
            Entry::Vacant(room) => {
                self.bytes += waiting.size;
                room.insert(waiting);
                return None;
            }
        };
        if waits.get().serial >= waiting.serial {
            return Some(waiting.hold);
        }
        self.bytes += waiting.size;
        let older = waits.insert(waiting);
        self.bytes -= older.size;
        Some(older.hold)
    }

    /// Takes out what waits of `user`, if it is older than `serial`.
    pub(super) fn remove_older(&mut self, user: &UserId, serial: Serial) -> Option<HoldId> {
        self.entries.get(user).filter(|waiting| waiting.serial < serial)?;
        self.remove(user)
    }

    /// The change of `user` that waits.
    pub(super) fn serial(&self, user: &UserId) -> Option<Serial> {
        self.entries.get(user).map(|waiting| waiting.serial)
    }

    pub(super) fn remove(&mut self, user: &UserId) -> Option<HoldId> {
        let gone = self.entries.remove(user)?;
        self.bytes -= gone.size;
        Some(gone.hold)
    }

    /// Takes at most `entries` statuses and `bytes` bytes of them (at least one), going on where the last take ended.
    pub(super) fn take(&mut self, entries: usize, bytes: usize) -> Vec<(UserId, Waiting)> {
        if self.entries.len() <= entries && self.bytes <= bytes {
            self.bytes = 0;
            self.cursor = None;
            return std::mem::take(&mut self.entries).into_iter().collect();
        }
        let users = self.next_turn(entries, bytes);
        self.cursor = users.last().cloned();
        users
            .into_iter()
            .filter_map(|user| self.entries.remove_entry(&user))
            .inspect(|(_, waiting)| self.bytes -= waiting.size)
            .collect()
    }

    fn next_turn(&self, entries: usize, bytes: usize) -> Vec<UserId> {
        let after = self.cursor.clone().map_or(Unbounded, Excluded);
        let upto = self.cursor.clone().map_or(Excluded(UserId::least()), std::ops::Bound::Included);
        let mut size = 0;
        self.entries
            .range((after, Unbounded))
            .chain(self.entries.range((Unbounded, upto)))
            .take(entries)
            .take_while(|(_, waiting)| {
                let first = size == 0;
                size += waiting.size;
                first || size <= bytes
            })
            .map(|(user, _)| user.clone())
            .collect()
    }

    /// A clock that was ahead and came back must not keep the window open until it is there again.
    pub(super) fn trust_clock(&mut self, now: Timestamp) {
        self.opened = self.opened.map(|opened| opened.min(now));
    }

    /// Ends the window, if nothing waits any longer.
    pub(super) fn close_if_empty(&mut self) {
        if self.entries.is_empty() {
            self.opened = None;
        }
    }

    pub(super) fn opened(&self) -> Option<Timestamp> {
        self.opened
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn note_trace(&mut self, trace: Option<TraceId>) {
        self.trace = self.trace.or(trace);
    }

    pub(super) fn take_trace(&mut self) -> Option<TraceId> {
        self.trace.take()
    }
}

/// When a window that was opened then ends: in the last fifth of `batch.window`, at the one moment there at which all windows of the
/// deployment end that end then. So what a run, a commit and the way to the sender cost is paid once for all of them, and deployments do
/// not keep step.
pub(super) fn end_of(opened: Timestamp, settings: &Settings) -> Timestamp {
    settings.moment_by(opened.plus(settings.window_ms), settings.window_ms / 5)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Config;

    fn user(name: &str) -> UserId {
        UserId::parse(&format!("@{name}:a.example")).unwrap()
    }

    fn waiting(counter: u64, hold: HoldId) -> Waiting {
        let serial = Serial { epoch: 1, counter };
        Waiting { status: Status::default(), serial, hold, since: Timestamp(0), size: 10 }
    }

    #[test]
    fn the_newest_status_wins_whatever_the_order() {
        let mut window = Window::default();
        assert_eq!(window.insert(Timestamp(1), user("a"), waiting(2, 20)), None);
        assert_eq!(window.insert(Timestamp(2), user("a"), waiting(1, 10)), Some(10));
        assert_eq!(window.insert(Timestamp(3), user("a"), waiting(3, 30)), Some(20));
        assert_eq!(window.opened(), Some(Timestamp(1)));
        assert_eq!(window.bytes(), 10);
        assert_eq!(window.take(9, 99)[0].1.hold, 30);
        assert_eq!((window.len(), window.bytes()), (0, 0));
    }

    #[test]
    fn a_partial_take_gives_everybody_a_turn() {
        let mut window = Window::default();
        for name in ["a", "b", "c"] {
            window.insert(Timestamp(1), user(name), waiting(1, 1));
        }
        assert_eq!(window.take(2, 99).len(), 2);
        window.insert(Timestamp(1), user("a"), waiting(2, 1));
        window.insert(Timestamp(1), user("b"), waiting(2, 1));
        let second: Vec<UserId> = window.take(2, 99).into_iter().map(|(user, _)| user).collect();
        assert_eq!(second, [user("c"), user("a")]);
    }

    #[test]
    fn bytes_bound_a_take_but_never_to_nothing() {
        let mut window = Window::default();
        for name in ["a", "b", "c"] {
            window.insert(Timestamp(1), user(name), waiting(1, 1));
        }
        assert_eq!(window.take(9, 25).len(), 2);
        window.insert(Timestamp(1), user("a"), waiting(2, 1));
        assert_eq!(window.take(9, 1).len(), 1);
    }

    #[test]
    fn windows_end_together_and_neither_early_nor_late() {
        let mut settings = Settings::from(&Config::from_toml("data_dir = \"/nowhere\"").unwrap());
        for (window_ms, phase_ms) in [(5_000, 0), (5_000, 4_711), (1, 9), (7, 3)] {
            (settings.window_ms, settings.phase_ms) = (window_ms, phase_ms);
            let ends: BTreeSet<u64> = (1_000_000..1_010_000)
                .map(|opened| {
                    let end = end_of(Timestamp(opened), &settings).0;
                    assert!(
                        (opened * 5 + window_ms * 4 + 1..=(opened + window_ms) * 5).contains(&(end * 5)),
                        "{opened}: {end}"
                    );
                    end
                })
                .collect();
            assert!(ends.len() as u64 <= 2 + 10_000 / (window_ms / 5).max(1), "{} moments", ends.len());
        }
    }
}
