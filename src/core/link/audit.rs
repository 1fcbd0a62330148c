//! What periodic jobs look at: whether the link and the users' machines mean the same, what nobody has wanted to know for long, and
//! whether a peer that was given up is back.

use super::remote::Polled;
use super::{Link, Turn};
use crate::core::settings::Settings;
use crate::core::signal::UserSignal;
use crate::model::{Serial, Timestamp, UserId};

impl Link {
    /// Says to the machines of these users what this link believes of them. They answer only where they know better.
    pub(in crate::core) fn audit(&self, is_due: impl Fn(&UserId) -> bool, turn: &mut Turn<'_>) {
        for user in self.told.users().filter(|user| is_due(user)) {
            turn.tell_user(user.clone(), UserSignal::AuditTold { peer: self.server.clone() });
        }
        for (localpart, remote) in self.remotes.iter() {
            for observer in remote.watching().filter(|observer| is_due(observer)) {
                let target = UserId::from_parts(localpart, &self.server);
                turn.tell_user(observer.clone(), UserSignal::AuditWatch { target });
            }
        }
    }

    /// The machine of `user` takes the peer for told. If it was not, that machine says everything again.
    pub(super) fn audit_told(&mut self, user: &UserId, serial: Serial, turn: &mut Turn<'_>) {
        let hidden = self.busy.others.hidden.get(user).is_some_and(|(hidden, _)| *hidden > serial);
        if !hidden && !self.told.contains(user) && self.told.len() < Settings::MAX_SERVED {
            *turn.repairs += 1;
            turn.tell_user(user.clone(), UserSignal::Tell { peer: self.server.clone() });
        }
    }

    /// A local user watches `target`. If nothing is known of that, it is from now on.
    pub(super) fn audit_watch(
        &mut self,
        (observer, target): (UserId, &UserId),
        accepted: bool,
        serial: Serial,
        turn: &mut Turn<'_>,
    ) {
        let remote = self.remotes.get(target.localpart());
        if !remote.is_some_and(|remote| remote.agrees(&observer, accepted, serial)) {
            *turn.repairs += 1;
            self.watch((observer, target), true, accepted, serial, turn);
        }
    }

    /// Forgets those of the peer's users whom nobody here has watched for so long that the peer's promise ended, though it could not be
    /// told so. How many.
    pub(in crate::core) fn expire(&mut self, now: Timestamp) -> u64 {
        let live = self.busy.live.as_ref();
        let mut forsaken = Vec::new();
        for (localpart, remote) in self.remotes.iter_mut() {
            let is_asked = live.is_some_and(|live| live.names(localpart));
            if !is_asked && remote.is_forsaken(now) {
                remote.forget();
                remote.polled = Polled::No;
                forsaken.push(Box::<str>::from(localpart));
            }
        }
        for localpart in &forsaken {
            if let Some(remote) = self.remotes.get_mut(localpart) {
                super::mark(remote, localpart, &mut self.busy.dirty.remotes);
            }
            self.busy.again.remove(localpart);
            self.busy.unwanted.remove(localpart);
            self.reconsider(localpart, now);
        }
        forsaken.len() as u64
    }

    /// The peer was given up, or could not be reached for as long: it is tried `offset_ms` from now on, whatever back-off says.
    pub(in crate::core) fn probe(&mut self, offset_ms: u64, turn: &Turn<'_>) {
        self.remind_later(turn.horizon, offset_ms);
        let at = turn.now.plus(offset_ms);
        if self.state.transit.retry_at > at {
            self.state.transit.retry_at = at;
            self.busy.dirty.state = true;
        }
    }
}
