//! Who changes again and again is told of at once only for as long as that costs little (E4, W8).
//!
//! A change of a user of whom peers were told within `presence.repeat_within` is a repeat, unless it still finds what they are told in its
//! window. A repeat costs one entry for each peer that is to hear of it, and all of them together may cost `presence.repeats` entries a second. What
//! is beyond that is withheld, together with whatever the user changes meanwhile, until that time is over, or up to a quarter less: until a
//! moment at which what is withheld of others leaves too. So what it costs to tell of users who cannot make up their minds is bounded,
//! whatever they do, and first changes wait for nobody. Local users are told of everything.

use serde::{Deserialize, Deserializer};

use super::{Turn, User};
use crate::core::settings::Settings;
use crate::model::{MaybeTime, ServerName, Timestamp, UserId};

/// What may be spent on repeats of the users of one partition. Kept as the time up to which it is spent: what is earned needs no timer.
#[derive(Debug, Default)]
pub(in crate::core) struct Allowance {
    /// Microseconds.
    spent_until: u64,
    withheld: u64,
}

impl Allowance {
    /// Earned in so many ms, and no more is kept.
    const KEPT_MS: u64 = 10_000;

    /// What was spent by a clock that was ahead is not known.
    pub(in crate::core) fn forget_clock(&mut self) {
        self.spent_until = 0;
    }

    /// How many changes were withheld.
    pub(in crate::core) fn withheld(&self) -> u64 {
        self.withheld
    }

    /// Spends so many entries, if that is there. What costs more than is ever kept is had for all of it, and paid off afterwards.
    fn spend(&mut self, entries: usize, now: Timestamp, settings: &Settings) -> bool {
        let us = |at: Timestamp| at.0.saturating_mul(1_000);
        let all_kept = us(now.minus(Self::KEPT_MS));
        let cost = settings.repeat_cost_us.saturating_mul(entries as u64);
        let spent_until = self.spent_until.max(all_kept).saturating_add(cost);
        if spent_until > us(now) && self.spent_until > all_kept {
            return false;
        }
        self.spent_until = spent_until;
        true
    }
}

impl User {
    /// Tells the peers that are to be told of a change, now or later.
    pub(super) fn tell_peers(&mut self, me: &UserId, turn: &mut Turn<'_>) {
        let settings = turn.settings;
        let is_repeat = self.repeat_due(settings).filter(|due| turn.now < *due && self.told_peers().next().is_some());
        let Some(due) = is_repeat else { return self.tell_these_peers(me, turn) };
        if self.told_at.get().is_some_and(|at| turn.now < at.plus(settings.shortest_window_ms())) {
            // The one before still waits in the window that it opened, if it did: the entry is the same, and costs nothing more.
            self.say_to_peers(me, turn);
        } else if turn.allowance.spend(self.told_peers().count(), turn.now, settings) {
            self.tell_these_peers(me, turn);
        } else {
            turn.allowance.withheld += 1;
            self.withhold(due.into());
        }
    }

    /// What was withheld for long enough leaves. By the horizon: what lies in the queue yet may be newer.
    pub(super) fn tell_withheld(&mut self, me: &UserId, turn: &mut Turn<'_>) {
        if self.state.withheld_until.get().is_some_and(|until| until <= turn.horizon) {
            self.tell_withheld_now(me, turn);
        }
    }

    /// What is withheld leaves, with something that leaves anyway.
    pub(super) fn tell_withheld_now(&mut self, me: &UserId, turn: &mut Turn<'_>) {
        if self.state.withheld_until.is_some() {
            self.tell_these_peers(me, turn);
        }
    }

    /// Times in the future are as far ahead as they can have been meant, or are now: a stepped clock freezes nobody.
    pub(in crate::core) fn trust_clock(&mut self, now: Timestamp, settings: &Settings) {
        let latest = now.plus(settings.repeat_ms);
        if self.state.withheld_until.get().is_some_and(|until| until > latest) {
            self.withhold(latest.into());
        }
        self.told_at = self.told_at.get().map(|at| at.min(now)).into();
    }

    fn tell_these_peers(&mut self, me: &UserId, turn: &mut Turn<'_>) {
        if self.say_to_peers(me, turn) {
            self.told_at = turn.now.into();
        }
    }

    /// Whether there are any.
    fn say_to_peers(&mut self, me: &UserId, turn: &mut Turn<'_>) -> bool {
        self.withhold(MaybeTime::NONE);
        let peers: Vec<ServerName> = self.told_peers().cloned().collect();
        let any = !peers.is_empty();
        if any {
            let serial = turn.next_serial();
            turn.tell_links(peers, self.change(me, true, serial));
        }
        any
    }

    fn withhold(&mut self, until: MaybeTime) {
        self.dirty.state |= self.state.withheld_until != until;
        self.state.withheld_until = until;
    }

    /// Up to when a change is a repeat, by the clock.
    fn repeat_due(&self, settings: &Settings) -> Option<Timestamp> {
        let last = self.told_at.get()?.plus(settings.repeat_ms);
        Some(settings.moment_by(last, settings.repeat_ms / 4))
    }

    fn told_peers(&self) -> impl Iterator<Item = &ServerName> {
        self.relations.watchers.iter().filter(|(_, watcher)| watcher.told).map(|(peer, _)| peer)
    }
}

/// A row that was written before anything could be withheld ends where that would stand.
pub(super) fn none_in_older_rows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MaybeTime, D::Error> {
    Ok(MaybeTime::deserialize(deserializer).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::UserState;
    use super::*;
    use crate::config::Config;
    use crate::wire::envelope::{decode, encode};

    const NOW: Timestamp = Timestamp(1_795_400_000_000);

    #[test]
    fn a_row_of_before_withholds_nothing() {
        let mut state = UserState { watching: true, ..UserState::default() };
        let row = encode(&state);
        assert_eq!(decode::<UserState>(&row[..row.len() - 1]).unwrap(), state);
        assert!(decode::<UserState>(&row[..row.len() - 2]).is_err(), "nothing else may be missing");
        state.withheld_until = NOW.into();
        assert_eq!(decode::<UserState>(&encode(&state)).unwrap(), state);
    }

    /// Of two entries a second.
    fn settings() -> Settings {
        let text = "data_dir = \"/nowhere\"\npartitions = 5\npresence.repeats = 10";
        Settings::from(&Config::from_toml(text).unwrap())
    }

    #[test]
    fn ten_seconds_worth_is_kept_and_no_more() {
        let (settings, mut allowance) = (settings(), Allowance::default());
        for at in [NOW, NOW.plus(3_600_000)] {
            let spent = (0..1_000).take_while(|_| allowance.spend(1, at, &settings)).count();
            assert_eq!(spent, 20);
        }
        let later = NOW.plus(3_600_000);
        assert!(!allowance.spend(1, later.plus(499), &settings));
        assert!(allowance.spend(1, later.plus(500), &settings));
    }

    #[test]
    fn what_costs_more_than_is_kept_is_had_for_all_of_it_and_paid_off() {
        let (settings, mut allowance) = (settings(), Allowance::default());
        assert!(allowance.spend(1, NOW, &settings));
        assert!(!allowance.spend(40, NOW, &settings), "something was spent");
        let later = NOW.plus(500);
        assert!(allowance.spend(40, later, &settings), "twenty seconds' worth");
        assert!(!allowance.spend(1, later.plus(10_499), &settings));
        assert!(allowance.spend(1, later.plus(10_500), &settings));
    }
}
