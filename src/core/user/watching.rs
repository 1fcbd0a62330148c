//! Whom the user wants to see, and when anybody is asked (E1, C4, C6).

use super::{Cause, Entry, Turn, User, sessions};
use crate::core::device::supersedes;
use crate::core::settings::Settings;
use crate::core::signal::{LinkSignal, SessionAction, Stamp};
use crate::model::{DeviceId, Timestamp, UserId};

impl User {
    pub(super) fn session(
        &mut self,
        me: &UserId,
        device: &DeviceId,
        action: SessionAction,
        stamp: &Stamp,
        turn: &mut Turn<'_>,
    ) {
        let until = match &action {
            SessionAction::Start { lease_ms, .. } => stamp.ts.plus(*lease_ms),
            SessionAction::Stop | SessionAction::Leave { .. } => Timestamp(0),
        };
        if !sessions::apply(&mut self.state.sessions, device, action, until, stamp, turn.now) {
            return;
        }
        if let Some((_, device)) = self.state.devices.iter_mut().find(|(id, _)| id == device) {
            device.lease_until(until);
        }
        self.dirty.state = true;
        self.tell_changes(me, turn, Cause::Inferred);
        self.update_watching(me, turn);
    }

    /// E1: links watch for as long as a session cares, and `clients.linger` longer, so that a reconnect causes no traffic.
    pub(super) fn update_watching(&mut self, me: &UserId, turn: &mut Turn<'_>) {
        let cares = self.state.sessions.iter().any(|session| session.until > turn.horizon);
        if cares {
            self.dirty.state |= self.state.linger_until.take().is_some();
            if !self.state.watching {
                self.watch_list(me, true, turn);
            }
        } else if self.state.watching {
            let until = *self.state.linger_until.get_or_insert(turn.horizon.plus(turn.settings.linger_ms));
            self.dirty.state = true;
            if turn.horizon >= until {
                self.state.linger_until = None;
                self.watch_list(me, false, turn);
            }
        }
    }

    fn watch_list(&mut self, me: &UserId, on: bool, turn: &mut Turn<'_>) {
        self.state.watching = on;
        self.dirty.state = true;
        for target in self.relations.listed() {
            watch(me, target, on, turn);
        }
    }

    pub(super) fn edit_list(
        &mut self,
        me: &UserId,
        add: Vec<UserId>,
        remove: Vec<UserId>,
        stamp: &Stamp,
        turn: &mut Turn<'_>,
    ) {
        let edits = add.into_iter().map(|user| (user, true)).chain(remove.into_iter().map(|user| (user, false)));
        for (target, on) in edits {
            let known = self.relations.list.get(&target);
            let stale = known.is_some_and(|entry| !supersedes(stamp, &entry.stamp, turn.now));
            let full = known.is_none() && self.relations.list.len() >= Settings::MAX_LIST;
            if stale || full || target == *me {
                continue;
            }
            let was = known.is_some_and(|entry| entry.on);
            self.relations.list.insert(target.clone(), Entry { on, stamp: stamp.clone() });
            self.dirty.relations = true;
            if self.state.watching && was != on {
                watch(me, &target, on, turn);
            }
        }
    }
}

/// Asks the link of `target`'s server to watch it for `me`. Users of one's own server need no link.
fn watch(me: &UserId, target: &UserId, on: bool, turn: &mut Turn<'_>) {
    if target.server_str() == me.server_str() {
        return;
    }
    let serial = turn.next_serial();
    turn.tell_link(target.server(), LinkSignal::Watch { observer: me.clone(), target: target.clone(), on, accepted: true, serial });
}
