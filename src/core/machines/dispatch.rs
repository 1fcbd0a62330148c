//! Signals, to the machines that they are for.

use super::{Machines, Member};
use crate::core::holds::HoldId;
use crate::core::link::Link;
use crate::core::signal::{Addressed, Multicast, PeerSignal, UserSignal};
use crate::core::user::User;
use crate::model::{ServerName, Timestamp, UserId};

impl Machines {
    /// To local users' machines, in this order: one delivery. All are found before the first is handled, so that waiting for memory
    /// happens for many at once.
    pub fn handle_users(&mut self, now: Timestamp, signals: Vec<Addressed<UserId, UserSignal>>) {
        let found = self.users.numbers_of(signals.iter().map(|signal| &signal.to));
        let machines = found.iter().filter_map(|number| self.users.get((*number)?));
        // Nobody wants this number: what counts is that so much of each is in the processor's caches then.
        std::hint::black_box(machines.filter(|member| member.user.was_heard()).count());
        let mut removed = false;
        for (found, signal) in found.into_iter().zip(signals) {
            // A number may be another's once a machine is gone.
            let found = found.filter(|_| !removed);
            removed |= self.handle_found_user(now, found, signal);
        }
    }

    /// To a local user's machine.
    pub fn handle_user(&mut self, now: Timestamp, signal: Addressed<UserId, UserSignal>) {
        self.handle_found_user(now, None, signal);
    }

    /// Whether the machine is gone again.
    fn handle_found_user(&mut self, now: Timestamp, found: Option<u32>, signal: Addressed<UserId, UserSignal>) -> bool {
        let Addressed { to, at, trace, signal, .. } = signal;
        self.day.note_event(now, &signal);
        let known = found.map(|number| (number, false));
        let (number, is_new) = known.unwrap_or_else(|| self.users.number_or_insert(&to, || Member::new(&to)));
        self.with_user(number, now, at, trace, |me, user, turn| user.handle(me, signal, turn));
        // What strangers say of users who may not even exist leaves nothing behind.
        let useless = |user: &User| user.is_useless() && !user.dirty.noted;
        let removed = is_new && self.users.get(number).is_some_and(|member| useless(&member.user));
        if removed {
            self.users.remove(number);
        }
        removed
    }

    /// To links, from outside, in this order: one delivery. All are found before the first is handled, as with users;
    /// no link goes meanwhile.
    pub fn handle_peers(&mut self, now: Timestamp, signals: Vec<Addressed<ServerName, PeerSignal>>) {
        let found = self.links.numbers_of(signals.iter().map(|signal| &signal.to));
        for (found, signal) in found.into_iter().zip(signals) {
            self.handle_found_peer(now, found, signal);
        }
    }

    /// To a link, from outside.
    pub fn handle_peer(&mut self, now: Timestamp, signal: Addressed<ServerName, PeerSignal>) {
        self.handle_found_peer(now, None, signal);
    }

    fn handle_found_peer(&mut self, now: Timestamp, found: Option<u32>, signal: Addressed<ServerName, PeerSignal>) {
        let Addressed { to, at, trace, signal, .. } = signal;
        let number = match found.or_else(|| self.links.number(&to)) {
            Some(number) => number,
            None if Link::is_worth_a_link(&signal) => self.link_or_new(&to),
            None => return,
        };
        if matches!(signal, PeerSignal::Heard) && self.heard_as_ever(now, number, at) {
            return;
        }
        self.day.note_peer(now, &signal);
        self.with_link(number, now, at, trace, |link, turn| link.handle_peer(signal, turn));
    }

    /// By which a link is found without its name, for as long as it exists.
    pub fn link_number(&self, server: &ServerName) -> Option<u32> {
        self.links.number(server)
    }

    /// A link's peer was heard at `at`, which nearly always changes nothing but that time; `false`: [`Machines::handle_peer`] has to
    /// look at it.
    pub fn heard_as_ever(&mut self, now: Timestamp, number: u32, at: Timestamp) -> bool {
        self.links.get_mut(number).is_some_and(|link| link.heard_as_ever(at, now))
    }

    /// To links, from local users: one delivery of the batching exchange. It stays unacknowledged until `hold` is released.
    pub fn handle_batch(&mut self, now: Timestamp, hold: HoldId, signals: Vec<Multicast>) {
        self.holds.open(hold);
        for Multicast { to, at, trace, signal } in signals {
            for server in to {
                let number = self.link_or_new(&server);
                self.with_link(number, now, at, trace, |link, turn| link.handle_change(signal.clone(), hold, turn));
            }
        }
        self.holds.close(hold);
    }

    /// The number of the link to `server`, which comes to be if there is none.
    pub(super) fn link_or_new(&mut self, server: &ServerName) -> u32 {
        self.links.number_or_insert(server, || Link::new(&self.local, server.clone())).0
    }
}
