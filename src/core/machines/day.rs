//! What a partition did, by hour, for a day: enough to answer "what happened last night?" without anything that scrapes metrics.
//!
//! Rows are written when the periodic job says so, and not with every run: a crash forgets the minutes since.

use serde::{Deserialize, Serialize};

use super::Machines;
use crate::core::effect::Flush;
use crate::core::rows::put;
use crate::core::signal::{Outcome, PeerSignal, UserSignal};
use crate::model::Timestamp;
use crate::store::{RowChange, RowKey, RowKind};

const HOUR_MS: u64 = 3_600_000;
/// Hours that are remembered: each takes the place of the one a day before.
const HOURS: usize = 24;

/// What happened within one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hour {
    /// When it began, by UTC; 0: nothing happened in it.
    pub start: Timestamp,
    /// Events of local users.
    pub events: u64,
    /// Transactions of peers.
    pub heard: u64,
    /// Transactions to peers.
    pub transactions: u64,
    /// Statuses in them.
    pub statuses: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Those that were not delivered.
    pub failed: u64,
    /// Peers that were given up.
    pub given_up: u64,
}

impl Hour {
    /// Adds what another partition did in the same hour.
    pub fn add(&mut self, other: &Self) {
        let Self { start, events, heard, transactions, statuses, bytes, failed, given_up } = self;
        *start = other.start;
        *events += other.events;
        *heard += other.heard;
        *transactions += other.transactions;
        *statuses += other.statuses;
        *bytes += other.bytes;
        *failed += other.failed;
        *given_up += other.given_up;
    }
}

/// The hours of a day, each at its place.
#[derive(Debug, Default)]
pub(super) struct Day {
    hours: [Hour; HOURS],
    /// Which of them no row says yet.
    unwritten: [bool; HOURS],
    /// Rows to be written.
    rows: Vec<RowChange>,
}

impl Day {
    pub(super) fn hours(&self) -> [Hour; HOURS] {
        self.hours
    }

    fn at(&mut self, now: Timestamp) -> &mut Hour {
        let start = Timestamp(now.0 - now.0 % HOUR_MS);
        let place = usize::try_from(now.0 / HOUR_MS).unwrap_or(0) % HOURS;
        self.unwritten[place] = true;
        let hour = &mut self.hours[place];
        if hour.start != start {
            *hour = Hour { start, ..Hour::default() };
        }
        hour
    }

    pub(super) fn note_event(&mut self, now: Timestamp, signal: &UserSignal) {
        use UserSignal::{Activity, Answer, Device, Idle, List, Session, Status};
        let is_event = matches!(
            signal,
            Status { .. }
                | Idle { .. }
                | Device { .. }
                | Activity { .. }
                | Session { .. }
                | List { .. }
                | Answer { .. }
        );
        if is_event {
            self.at(now).events += 1;
        }
    }

    pub(super) fn note_peer(&mut self, now: Timestamp, signal: &PeerSignal) {
        match signal {
            PeerSignal::Transaction(_) => self.at(now).heard += 1,
            PeerSignal::Receipt { outcome, .. } => self.at(now).failed += u64::from(*outcome != Outcome::Delivered),
            PeerSignal::Heard => {}
        }
    }

    /// What a link's turn led to.
    pub(super) fn note_flushes(&mut self, now: Timestamp, flushes: &[Flush], is_given_up: bool) {
        if flushes.is_empty() && !is_given_up {
            return;
        }
        let hour = self.at(now);
        hour.given_up += u64::from(is_given_up);
        for flush in flushes {
            hour.transactions += 1;
            hour.statuses += flush.since.len() as u64;
            hour.bytes += flush.bytes as u64;
        }
    }

    pub(super) fn restore(&mut self, hour: Hour) {
        let place = usize::try_from(hour.start.0 / HOUR_MS).unwrap_or(0) % HOURS;
        self.hours[place] = hour;
    }

    pub(super) fn take_rows(&mut self) -> Vec<RowChange> {
        std::mem::take(&mut self.rows)
    }

    fn roll_up(&mut self) {
        let unwritten = std::mem::take(&mut self.unwritten);
        let changed = (0..HOURS).filter(|place| unwritten[*place]);
        self.rows.extend(
            changed.map(|place| put(RowKey { kind: RowKind::Hour, key: format!("{place:02}") }, &self.hours[place])),
        );
    }
}

impl Machines {
    /// What was counted since the last time becomes rows.
    pub(super) fn roll_up(&mut self) {
        self.day.roll_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_takes_the_place_of_the_one_a_day_before() {
        let mut day = Day::default();
        let noon = Timestamp(1_795_392_000_000);
        for ms in [5, HOUR_MS - 1, HOUR_MS, 24 * HOUR_MS + 7] {
            day.note_peer(noon.plus(ms), &PeerSignal::Transaction(Box::default()));
        }
        let heard: Vec<_> =
            day.hours().into_iter().filter(|hour| hour.heard > 0).map(|hour| (hour.start, hour.heard)).collect();
        assert_eq!(heard.len(), 2);
        assert!(heard.contains(&(noon.plus(24 * HOUR_MS), 1)) && heard.contains(&(noon.plus(HOUR_MS), 1)), "{heard:?}");
        day.roll_up();
        assert_eq!(day.take_rows().len(), 2);
        day.roll_up();
        assert!(day.take_rows().is_empty(), "nothing changed since");
    }
}
