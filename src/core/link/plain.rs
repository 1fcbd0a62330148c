//! Peers that know nothing of promises: today's homeservers. They neither poll nor answer, say again what they know of their own
//! accord, and forget what they were told (E6).

use xxhash_rust::xxh3::xxh3_64;

use super::{Link, Turn};
use crate::core::settings::Settings;
use crate::core::signal::UserSignal;
use crate::model::{Timestamp, UserId};

/// In so many parts a period of the refresh is cut: users of one part are told again together.
const SLOTS: u64 = 60;
/// What such a peer's users' time may be exceeded by: this part of it.
const TOLERANCE: u64 = 60;

impl Link {
    /// Whether the peer speaks the `rollcall` object.
    pub(super) fn speaks(&self, now: Timestamp) -> bool {
        self.state.spoke > Timestamp(0) && now.since(self.state.spoke) <= Settings::SPEAKS_MS
    }

    /// Whether the peer polls, unpolls or says something of permission.
    pub(super) fn subscribes(&self, now: Timestamp) -> bool {
        self.state.subscribed > Timestamp(0) && now.since(self.state.subscribed) <= Settings::SPEAKS_MS
    }

    fn is_plain(&self, now: Timestamp) -> bool {
        !self.speaks(now) && !self.subscribes(now)
    }

    /// What a plain peer pushed of a user is good for `federation.plain_promise`, whatever else it sends.
    pub(super) fn expire_plain(&mut self, turn: &mut Turn<'_>) {
        if self.plain_due.get().is_none_or(|at| at > turn.horizon) {
            return;
        }
        self.plain_due.take();
        if !self.is_plain(turn.now) {
            // Its watchdogs judge.
            return;
        }
        let good_for = turn.settings.plain_promise_ms;
        let mut gone = Vec::new();
        for (localpart, remote) in self.remotes.iter_mut().filter(|(_, remote)| remote.is_known()) {
            let until = remote.heard_at().plus(good_for);
            if until <= turn.horizon {
                remote.forget();
                super::mark(remote, localpart, &mut self.busy.dirty.remotes);
                gone.push(Box::<str>::from(localpart));
            } else {
                let earliest = turn.horizon.plus(good_for / TOLERANCE);
                let due = self.plain_due.get().unwrap_or(until).min(until);
                self.plain_due = due.max(earliest).into();
            }
        }
        for localpart in gone {
            self.tell_observers(&localpart, turn);
        }
    }

    /// Users who are not offline are told again before a plain peer forgets them, each at a phase of their own; and, after a time in
    /// which that was not possible, all who missed theirs.
    pub(super) fn refresh_plain(&mut self, turn: &mut Turn<'_>) {
        let slot = turn.now.0 / slot_ms(turn.settings);
        if !self.is_plain(turn.now) || self.told.len() == 0 {
            self.refreshed = slot;
        } else if self.refreshed < slot && !self.is_failing(turn.now) {
            let missed = (slot - self.refreshed).min(SLOTS);
            self.refreshed = slot;
            let is_due = |user: &&UserId| (slot + phase_of(user)) % SLOTS < missed;
            let users: Vec<UserId> = self.told.users().filter(is_due).cloned().collect();
            for user in users {
                turn.tell_user(user, UserSignal::Refresh { peer: self.server.clone() });
            }
        } else {
            self.refreshed = self.refreshed.min(slot);
        }
    }

    /// When [`Link::refresh_plain`] is wanted next, by the clock.
    pub(super) fn next_refresh(&self, settings: &Settings) -> Option<Timestamp> {
        let forgets = !self.is_guarded() || self.is_lapsed();
        // After a failure the end of back-off, or the next receipt, is looked at: what failed may be owed no longer, and nothing else
        // would come then.
        let awaits = self.state.transit.attempts > 0 && self.state.transit.live.is_some();
        let is_due = forgets && self.told.len() > 0 && !awaits;
        let slot = Timestamp((self.refreshed + 1).saturating_mul(slot_ms(settings)));
        is_due.then(|| slot.max(self.state.transit.retry_at).max(self.state.transit.lapses_at))
    }

    /// Up to when the last owner saw to it.
    pub(super) fn restore_refresh(&mut self, horizon: Timestamp, settings: &Settings) {
        self.refreshed = horizon.0 / slot_ms(settings);
    }
}

fn slot_ms(settings: &Settings) -> u64 {
    (settings.plain_refresh_ms / SLOTS).max(1)
}

fn phase_of(user: &UserId) -> u64 {
    xxh3_64(user.as_str().as_bytes()) % SLOTS
}
