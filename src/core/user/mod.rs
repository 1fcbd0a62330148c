//! The machine of one local user: devices and their merge, sessions, presence list, watchers.
//!
//! Time-outs are judged against the partition's horizon, never against `now` (see the crate's docs on time): a backlog expires
//! nobody.

mod sessions;
mod watching;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::deadlines::Armed;
use super::device::{Device, supersedes};
use super::effect::Output;
use super::settings::Settings;
use super::signal::{Addressed, LinkSignal, MessageEdit, Stamp, UserSignal};
use crate::model::{DeviceId, Presence, Serial, ServerName, Status, Timestamp, TraceId, UserId};

/// What a machine needs to know to handle one signal.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The present.
    pub now: Timestamp,
    /// Up to when all was read that was sent to this machine.
    pub horizon: Timestamp,
    /// The constants.
    pub settings: &'a Settings,
    /// The last serial given out.
    pub serial: &'a mut Serial,
    /// Where outputs go.
    pub outputs: &'a mut Vec<Output>,
    /// When an edge took the cause of this in.
    pub at: Timestamp,
    /// The trace of the cause.
    pub trace: Option<TraceId>,
}

impl Turn<'_> {
    /// The next serial: higher than any before.
    pub(super) fn next_serial(&mut self) -> Serial {
        self.serial.counter += 1;
        *self.serial
    }

    fn tell_link(&mut self, to: ServerName, signal: LinkSignal) {
        let (at, trace) = (self.at, self.trace);
        self.outputs.push(Output::Link(Addressed { to, at, reply: None, trace, signal }));
    }
}

/// The machine of one local user.
#[derive(Debug, Default)]
pub struct User {
    pub(super) state: UserState,
    pub(super) relations: Relations,
    pub(super) armed: Armed,
    pub(super) dirty: Dirty,
}

/// Which rows no longer say what the machine knows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Dirty {
    pub(super) state: bool,
    pub(super) relations: bool,
    /// Whether the machine is on the list of those to be written.
    pub(super) noted: bool,
}

/// What changes with every event: one row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserState {
    devices: Vec<(DeviceId, Device)>,
    message: Option<Box<str>>,
    message_at: Stamp,
    sessions: Vec<Session>,
    /// Whether the links were told to watch the list's users.
    watching: bool,
    linger_until: Option<Timestamp>,
    settle_until: Option<Timestamp>,
    /// What watchers were told last, and readers read.
    told: Status,
}

/// A device that cares about the presence list, for as long as its lease runs: one for each edge that it is at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    device: DeviceId,
    /// 0: stopped.
    until: Timestamp,
    edge: Option<Box<str>>,
    stamp: Stamp,
}

/// What changes rarely: one row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Relations {
    /// Whom the user wants to see (C6).
    list: BTreeMap<UserId, Entry>,
    /// The peers that watch the user.
    /// In order: few, and a map's node would be larger than all of them.
    watchers: Vec<(ServerName, Watcher)>,
}

/// An entry of the presence list; `on: false` is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    on: bool,
    stamp: Stamp,
}

/// A peer that watches; `on: false` is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Watcher {
    on: bool,
    serial: Serial,
    since: Timestamp,
}

impl UserState {
    /// What a reader is to see.
    pub fn status(&self) -> &Status {
        &self.told
    }
}

impl Relations {
    fn watcher(&self, peer: &ServerName) -> Option<&Watcher> {
        let at = self.watchers.binary_search_by(|(known, _)| known.cmp(peer)).ok()?;
        Some(&self.watchers[at].1)
    }

    fn put_watcher(&mut self, peer: &ServerName, watcher: Watcher) {
        match self.watchers.binary_search_by(|(known, _)| known.cmp(peer)) {
            Ok(at) => self.watchers[at].1 = watcher,
            Err(at) => self.watchers.insert(at, (peer.clone(), watcher)),
        }
    }

    /// Whom the user wants to see, in order.
    pub fn listed(&self) -> impl Iterator<Item = &UserId> {
        self.list.iter().filter(|(_, entry)| entry.on).map(|(user, _)| user)
    }

    /// Whether the user wants to see `other`.
    pub fn lists(&self, other: &UserId) -> bool {
        self.list.get(other).is_some_and(|entry| entry.on)
    }
}

impl User {
    pub(super) fn restore(state: UserState, relations: Relations) -> Self {
        Self { state, relations, armed: Armed::default(), dirty: Dirty::default() }
    }

    /// Handles one signal for `me`. Whatever changes is marked dirty; whatever must be said goes to the turn's outputs.
    pub fn handle(&mut self, me: &UserId, signal: UserSignal, turn: &mut Turn<'_>) {
        match signal {
            UserSignal::Status { device, presence, status_msg, stamp } => {
                self.edit_message(status_msg, &stamp, turn.now);
                self.device(device).set_presence(presence, stamp, turn.now);
                self.dirty.state = true;
                self.tell_changes(me, turn, Cause::Explicit);
            }
            UserSignal::Activity { device, set_presence, stamp } => {
                self.device(device).heard_from(set_presence, &stamp, turn.now);
                self.device_spoke(me, turn);
            }
            UserSignal::Idle { device, idle_ms, stamp } => {
                self.device(device).set_idle(idle_ms, stamp, turn.now);
                self.device_spoke(me, turn);
            }
            UserSignal::Device { device, device_type, stamp } => {
                self.device(device).set_kind(device_type, stamp, turn.now);
                self.device_spoke(me, turn);
            }
            UserSignal::Session { device, action, stamp } => self.session(me, &device, action, &stamp, turn),
            UserSignal::List { add, remove, stamp } => self.edit_list(me, add, remove, &stamp, turn),
            // Permission has machines of its own to come: an answer is accepted and, so far, decides nothing.
            UserSignal::Answer { .. } => {}
            UserSignal::Watched { peer, on, serial } => self.watched(me, &peer, on, serial, turn),
            UserSignal::Tell { peer } => self.tell_again(me, &peer, turn),
            _ => {}
        }
    }

    /// Looks at the facts again: the horizon has moved.
    pub fn handle_timeout(&mut self, me: &UserId, turn: &mut Turn<'_>) {
        self.tell_changes(me, turn, Cause::Inferred);
        self.update_watching(me, turn);
    }

    /// When time alone may change something, judged against the horizon.
    pub fn poll_timeout(&self, horizon: Timestamp, settings: &Settings) -> Option<Timestamp> {
        let devices = self.state.devices.iter().filter_map(|(_, device)| device.next_change(horizon, settings));
        let sessions = self.state.sessions.iter().map(|session| session.until).filter(|until| *until > horizon);
        let waits = [self.state.settle_until, self.state.linger_until].into_iter().flatten();
        devices.chain(sessions).chain(waits).min()
    }

    /// Forgets tombstones that are old enough.
    pub fn compact(&mut self, now: Timestamp) {
        let keeps = |on: bool, since: Timestamp| on || now.since(since) < Settings::TOMBSTONE_MS;
        let before = self.relations.list.len() + self.relations.watchers.len();
        self.relations.list.retain(|_, entry| keeps(entry.on, entry.stamp.ts));
        self.relations.watchers.retain(|(_, watcher)| keeps(watcher.on, watcher.since));
        self.dirty.relations |= before != self.relations.list.len() + self.relations.watchers.len();
    }

    /// Whether nothing is lost if the machine is forgotten: nobody is there, wants anything or is wanted.
    pub(super) fn is_useless(&self) -> bool {
        let UserState { devices, message, sessions, .. } = &self.state;
        let Relations { list, watchers } = &self.relations;
        devices.is_empty() && message.is_none() && sessions.is_empty() && list.is_empty() && watchers.is_empty()
    }

    fn device_spoke(&mut self, me: &UserId, turn: &mut Turn<'_>) {
        self.dirty.state = true;
        self.tell_changes(me, turn, Cause::Inferred);
    }

    fn device(&mut self, id: DeviceId) -> &mut Device {
        let devices = &mut self.state.devices;
        let at = match devices.iter().position(|(known, _)| *known == id) {
            Some(at) => at,
            None => {
                if devices.len() >= Settings::MAX_DEVICES {
                    evict_oldest(devices);
                }
                devices.push((id, Device::default()));
                devices.len() - 1
            }
        };
        &mut devices[at].1
    }

    fn edit_message(&mut self, edit: MessageEdit, stamp: &Stamp, now: Timestamp) {
        if !supersedes(stamp, &self.state.message_at, now) {
            return;
        }
        match edit {
            MessageEdit::Keep => return,
            MessageEdit::Clear => self.state.message = None,
            MessageEdit::Set(text) => self.state.message = Some(text),
        }
        self.state.message_at = stamp.clone();
    }

    fn merged(&self, horizon: Timestamp, settings: &Settings) -> Status {
        let mut status =
            Status { presence: Presence::Offline, status_msg: self.state.message.clone(), ..Status::default() };
        for (_, device) in &self.state.devices {
            status.last_active = status.last_active.max(device.active());
            status.currently_active |= device.is_active(horizon, settings);
            let Some(presence) = device.presence(horizon, settings) else { continue };
            status.presence = status.presence.max(presence);
            if let (true, Some(kind)) = (presence != Presence::Offline, device.kind()) {
                status.device_types.insert(kind.into());
            }
        }
        status
    }

    /// Tells the watchers what they would notice. Going down by inference waits, so that a reconnect does not flicker.
    fn tell_changes(&mut self, me: &UserId, turn: &mut Turn<'_>, cause: Cause) {
        let new = self.merged(turn.horizon, turn.settings);
        if cause == Cause::Inferred && new.presence < self.state.told.presence {
            let settled = turn.horizon.plus(turn.settings.settle_ms);
            let until = *self.state.settle_until.get_or_insert_with(|| {
                self.dirty.state = true;
                settled
            });
            if turn.horizon < until {
                return;
            }
        }
        self.dirty.state |= self.state.settle_until.take().is_some();
        if !is_noticeable(&self.state.told, &new, turn.settings.granularity_ms) {
            return;
        }
        self.state.told = new;
        self.dirty.state = true;
        let serial = turn.next_serial();
        for (peer, watcher) in &self.relations.watchers {
            if watcher.on {
                turn.tell_link(peer.clone(), self.change(me, serial));
            }
        }
    }

    fn change(&self, me: &UserId, serial: Serial) -> LinkSignal {
        LinkSignal::Change { user: me.clone(), status: self.state.told.clone(), serial, promise: true }
    }

    fn watched(&mut self, me: &UserId, peer: &ServerName, on: bool, serial: Serial, turn: &mut Turn<'_>) {
        if self.relations.watcher(peer).is_some_and(|known| known.serial > serial) {
            return;
        }
        self.relations.put_watcher(peer, Watcher { on, serial, since: turn.now });
        self.dirty.relations = true;
        self.tell_again(me, peer, turn);
    }

    fn tell_again(&mut self, me: &UserId, peer: &ServerName, turn: &mut Turn<'_>) {
        if !self.relations.watcher(peer).is_some_and(|watcher| watcher.on) {
            return;
        }
        if self.state.told.presence == Presence::Unknown {
            self.state.told = self.merged(turn.horizon, turn.settings);
            self.dirty.state = true;
        }
        let serial = turn.next_serial();
        turn.tell_link(peer.clone(), self.change(me, serial));
    }
}

/// Whether a device said so, or time did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Explicit,
    Inferred,
}

fn is_noticeable(told: &Status, new: &Status, granularity_ms: u64) -> bool {
    told.presence != new.presence
        || told.currently_active != new.currently_active
        || told.status_msg != new.status_msg
        || told.device_types != new.device_types
        || new.last_active.since(told.last_active) >= granularity_ms
}

fn evict_oldest(devices: &mut Vec<(DeviceId, Device)>) {
    if let Some(oldest) = (0..devices.len()).min_by_key(|at| devices[*at].1.heard()) {
        devices.swap_remove(oldest);
    }
}
