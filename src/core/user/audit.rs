//! Whether this machine and the links mean the same: who is told of the user, and whom the user watches. Each side says what it
//! believes; the other corrects it, and is silent where it agrees. Nobody else is told anything.

use super::list::{is_local, watch};
use super::{Turn, User};
use crate::core::signal::LinkSignal;
use crate::model::{ServerName, UserId};

impl User {
    /// Says to the links what they should know.
    pub(in crate::core) fn audit(&self, me: &UserId, turn: &mut Turn<'_>) {
        for (peer, _) in self.relations.watchers.iter().filter(|(_, watcher)| watcher.told) {
            let serial = turn.next_serial();
            turn.tell_link(peer.clone(), LinkSignal::AuditTold { user: me.clone(), serial });
        }
        if !self.state.watching {
            return;
        }
        for (target, accepted) in self.relations.listed().filter(|(target, _)| !is_local(me, target)) {
            let (observer, serial) = (me.clone(), turn.next_serial());
            let signal = LinkSignal::AuditWatch { observer, target: target.clone(), accepted, serial };
            turn.tell_link(target.server(), signal);
        }
    }

    /// A link tells `peer` of the user, as it says.
    pub(super) fn audit_told(&self, me: &UserId, peer: &ServerName, turn: &mut Turn<'_>) {
        if !self.is_told(peer) {
            *turn.repairs += 1;
            let serial = turn.next_serial();
            turn.tell_link(peer.clone(), LinkSignal::Hide { user: me.clone(), serial });
        }
    }

    /// A link asks its peer for `target` on behalf of the user, as it says.
    pub(super) fn audit_watch(&self, me: &UserId, target: &UserId, turn: &mut Turn<'_>) {
        if !self.state.watching || self.relations.lists(target).is_none() {
            *turn.repairs += 1;
            watch(me, target, false, false, turn);
        }
    }
}
