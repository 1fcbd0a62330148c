//! What is gathered for one destination before it leaves together (E4, W8).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound::{Excluded, Unbounded};

use xxhash_rust::xxh3::xxh3_64;

use crate::core::HoldId;
use crate::model::{Serial, ServerName, Status, Timestamp, TraceId, UserId};

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

/// `window_ms` times a factor in [0.8, 1] that is the same for a destination every time, so that destinations do not leave in step.
pub(super) fn window_for(server: &ServerName, window_ms: u64) -> u64 {
    let spread = xxh3_64(server.as_str().as_bytes()) % 201;
    window_ms * (800 + spread) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_factor_is_stable_and_bounded() {
        for name in ["a.example", "b.example", "c.example"] {
            let window = window_for(&ServerName::parse(name).unwrap(), 5000);
            assert!((4000..=5000).contains(&window), "{window}");
            assert_eq!(window, window_for(&ServerName::parse(name).unwrap(), 5000));
        }
    }
}
