//! What time it is: by the clock, which may step, and by the beats that came back.

use super::Machines;
use crate::core::deadlines::{Armed, Deadlines};
use crate::model::Timestamp;

/// A clock that goes back by less has only been set right, ms.
const CLOCK_STEP_MS: u64 = 1_000;

impl Machines {
    /// A beat came back on the users' queue: all sent to users before `at` was read. [`Machines::handle_timeout`] judges.
    pub fn handle_users_beat(&mut self, now: Timestamp, at: Timestamp) {
        self.users_horizon = advanced(self.users_horizon, now, at);
    }

    /// A beat came back on the peers' queue: all sent to links from outside before `at` was read.
    pub fn handle_peers_beat(&mut self, now: Timestamp, at: Timestamp) {
        self.peers_horizon = advanced(self.peers_horizon, now, at);
    }

    /// Up to when all was read that was sent to this partition.
    pub fn horizon(&self) -> Timestamp {
        self.users_horizon.min(self.peers_horizon)
    }

    /// A clock that stepped back leaves hints for a future that is far away again: everybody is looked at.
    pub(super) fn trust_clock(&mut self, now: Timestamp) {
        if now.plus(CLOCK_STEP_MS) < self.clock {
            self.users_horizon = self.users_horizon.min(now);
            self.peers_horizon = self.peers_horizon.min(now);
            self.expiries = Deadlines::default();
            self.windows = Deadlines::default();
            self.watchdogs = Deadlines::default();
            self.pushes = Deadlines::default();
            self.allowance.forget_clock();
            self.users.iter_mut().for_each(|(_, member)| member.user.disarm(now, &self.settings));
            for (_, link) in self.links.iter_mut() {
                (link.armed, link.armed_watchdog) = (Armed::default(), Armed::default());
            }
            self.arm_everything();
            for number in self.links.numbers(|_| true) {
                self.with_link(number, now, now, None, |link, turn| link.handle_timeout(turn));
            }
        }
        self.clock = now;
    }
}

/// The horizon after a beat of the time `at`. It falls only with the clock: one that was ahead and came back expires nobody.
fn advanced(horizon: Timestamp, now: Timestamp, at: Timestamp) -> Timestamp {
    horizon.min(now).max(at.min(now))
}
