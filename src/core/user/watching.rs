//! When the user cares about the list, and anybody is asked (E1, C4).

use super::{Cause, Turn, User, sessions};
use crate::core::signal::{SessionAction, Stamp};
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
            SessionAction::Start { .. } if self.is_gone_since(device, stamp.ts) => return,
            SessionAction::Start { lease_ms, .. } => stamp.ts.plus(*lease_ms),
            SessionAction::Stop | SessionAction::Leave { .. } => Timestamp(0),
        };
        let (was_watching, had_edge) = (self.state.watching, self.has_edge(turn.horizon));
        if !sessions::apply(&mut self.state.sessions, device, action, until, stamp, turn.now) {
            return;
        }
        let rest = self.last_lease(device);
        if let Some((_, device)) = self.state.devices.iter_mut().find(|(id, _)| id == device) {
            if until > Timestamp(0) { device.lease_until(until) } else { device.cut_lease(rest, stamp.ts) }
        }
        self.dirty.state = true;
        self.tell_changes(me, turn, Cause::Inferred);
        self.update_watching(me, turn);
        if was_watching && !had_edge && self.has_edge(turn.horizon) {
            self.resume_updates(me, turn);
        }
    }

    /// C3: the device is gone, and cares no longer. Sessions that are newer stay.
    pub(super) fn depart(&mut self, me: &UserId, id: &DeviceId, stamp: &Stamp, turn: &mut Turn<'_>) {
        sessions::depart(&mut self.state.sessions, id, stamp, turn.now);
        let rest = self.last_lease(id);
        if let Some((_, device)) = self.state.devices.iter_mut().find(|(known, _)| known == id) {
            device.cut_lease(rest, Timestamp(0));
        }
        self.update_watching(me, turn);
    }

    fn last_lease(&self, device: &DeviceId) -> Timestamp {
        let leases = self.state.sessions.iter().filter(|session| session.device == *device);
        leases.map(|session| session.until).max().unwrap_or_default()
    }

    fn is_gone_since(&self, id: &DeviceId, at: Timestamp) -> bool {
        self.state.devices.iter().any(|(known, device)| known == id && device.is_gone_since(at))
    }

    /// Whoever is heard of cares about the list for a while, unless they said that they do not. It is no lease: whether the device is
    /// there is judged by when it was heard.
    pub(super) fn imply_session(&mut self, me: &UserId, device: DeviceId, at: Timestamp, turn: &mut Turn<'_>) {
        if self.is_gone_since(&device, at) {
            return;
        }
        if sessions::imply(&mut self.state.sessions, device, at, turn.now) {
            self.dirty.state = true;
            self.update_watching(me, turn);
        }
    }

    /// E1: links watch for as long as a session cares, and `clients.linger` longer, so that a reconnect causes no traffic.
    pub(super) fn update_watching(&mut self, me: &UserId, turn: &mut Turn<'_>) {
        let cares = self.state.sessions.iter().any(|session| session.until > turn.horizon);
        if cares {
            self.dirty.state |= self.state.linger_until.take().is_some();
            if !self.state.watching {
                self.set_watching(me, true, turn);
            }
        } else if self.state.watching {
            let until = *self.state.linger_until.get_or_insert(turn.horizon.plus(turn.settings.linger_ms));
            self.dirty.state = true;
            if turn.horizon >= until {
                self.state.linger_until = None;
                self.set_watching(me, false, turn);
            }
        }
    }

    fn set_watching(&mut self, me: &UserId, watching: bool, turn: &mut Turn<'_>) {
        self.state.watching = watching;
        self.updates.take_if(|_| !watching);
        self.dirty.state = true;
        if watching {
            // W1: the peers' users are asked for in one message with the present status.
            self.tell_withheld_now(me, turn);
        }
        self.watch_list(me, watching, turn);
    }
}
