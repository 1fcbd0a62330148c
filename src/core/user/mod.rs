//! The machine of one local user: devices and their merge, sessions, presence list, permission, watchers.
//!
//! It is the authority on who is told of the user: nothing of it leaves but to those who may see it.
//!
//! Time-outs are judged against the partition's horizon, never against `now` (see the crate's docs on time): a backlog expires
//! nobody.

mod audit;
mod list;
mod permission;
mod relations;
mod repeats;
mod sessions;
mod updates;
mod watchers;
mod watching;

pub use self::relations::Relations;
pub(super) use self::repeats::Allowance;
use self::updates::Updates;
use self::watchers::Observers;
use serde::{Deserialize, Serialize};

use super::PassedOver;
use super::deadlines::Armed;
use super::device::{Device, supersedes};
use super::effect::Output;
use super::settings::Settings;
use super::signal::{Addressed, LinkSignal, MessageEdit, Multicast, Stamp, UserSignal};
use crate::model::{DeviceId, MaybeTime, Presence, Serial, ServerName, Status, Timestamp, TraceId, UserId};

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
    /// What audits found wrong and put right.
    pub repairs: &'a mut u64,
    /// What a bound left no room for.
    pub passed_over: &'a mut PassedOver,
    /// What peers may be told again.
    pub(super) allowance: &'a mut Allowance,
}

impl Turn<'_> {
    /// The next serial: higher than any before.
    pub(super) fn next_serial(&mut self) -> Serial {
        self.serial.counter += 1;
        *self.serial
    }

    fn tell_link(&mut self, to: ServerName, signal: LinkSignal) {
        self.tell_links(vec![to], signal);
    }

    fn tell_links(&mut self, to: Vec<ServerName>, signal: LinkSignal) {
        let (at, trace) = (self.at, self.trace);
        self.outputs.push(Output::Link(Multicast { to, at, trace, signal }));
    }

    fn tell_user(&mut self, to: UserId, signal: UserSignal) {
        let (at, trace) = (self.at, self.trace);
        self.outputs.push(Output::User(Addressed { to, at, reply: None, trace, signal }));
    }
}

/// The machine of one local user.
#[derive(Debug, Default)]
pub struct User {
    pub(super) state: UserState,
    pub(super) relations: Relations,
    /// Local users who watch; few have any.
    observers: Option<Box<Observers>>,
    /// What clients of this user are to know of others.
    pub(super) updates: Option<Box<Updates>>,
    /// When peers were told of a change last, but for changes that joined it; by the clock.
    told_at: MaybeTime,
    pub(super) armed: Armed,
    pub(super) dirty: Dirty,
}

/// Which rows no longer say what the machine knows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Dirty {
    pub(super) state: bool,
    pub(super) relations: bool,
    pub(super) observers: bool,
    /// Whether the machine is on the list of those to be written.
    pub(super) noted: bool,
}

/// What changes with every event: one row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserState {
    devices: Vec<(DeviceId, Device)>,
    /// The last activity on devices that were forgotten.
    active: Timestamp,
    message: Option<Box<str>>,
    message_at: Stamp,
    sessions: Vec<Session>,
    /// Whether the links were told to watch the list's users.
    watching: bool,
    linger_until: Option<Timestamp>,
    settle_until: Option<Timestamp>,
    /// What local watchers were told last, and readers read; peers, too, unless it is withheld.
    told: Status,
    /// When peers are told what they were not told yet.
    #[serde(deserialize_with = "repeats::none_in_older_rows")]
    withheld_until: MaybeTime,
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

impl UserState {
    /// What a reader is to see.
    pub fn status(&self) -> &Status {
        &self.told
    }

    /// Whether peers are told of it later.
    pub fn is_withheld(&self) -> bool {
        self.withheld_until.is_some()
    }

    /// Whether whom the user lists is watched for the user: for as long as there is a session, and `clients.linger` longer.
    pub fn is_watching(&self) -> bool {
        self.watching
    }

    /// One of the user's devices, unless it was never heard of, or said that it is gone.
    pub fn device(&self, id: &DeviceId) -> Option<&Device> {
        let known = self.devices.iter().find(|(known, _)| known == id);
        known.map(|(_, device)| device).filter(|device| device.heard() > Timestamp(0))
    }
}

impl User {
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
                self.device(device.clone()).heard_from(set_presence, stamp.ts, turn.now);
                self.device_spoke(me, turn);
                self.imply_session(me, device, stamp.ts, turn);
            }
            UserSignal::Idle { device, idle_ms, stamp } => {
                self.device(device).set_idle(idle_ms, stamp, turn.now);
                self.device_spoke(me, turn);
            }
            UserSignal::Device { device, device_type, stamp } => {
                let gone = device_type.is_none().then(|| (device.clone(), stamp.clone()));
                self.device(device).set_kind(device_type, stamp, turn.now);
                if let Some((device, stamp)) = gone {
                    self.depart(me, &device, &stamp, turn);
                }
                self.device_spoke(me, turn);
            }
            UserSignal::Session { device, action, stamp } => self.session(me, &device, action, &stamp, turn),
            UserSignal::List { add, remove, stamp } => self.edit_list(me, add, remove, &stamp, turn),
            UserSignal::Answer { observer, allow, stamp } => self.answer(me, &observer, allow, &stamp, turn),
            UserSignal::Watched { peer, on, serial } => self.watched(me, &peer, on, serial, turn),
            UserSignal::Tell { peer } => self.tell_again(me, &peer, turn),
            UserSignal::Refresh { peer } => self.refresh(me, &peer, turn),
            UserSignal::AuditTold { peer } => self.audit_told(me, &peer, turn),
            UserSignal::AuditWatch { target } => self.audit_watch(me, &target, turn),
            UserSignal::Queried { peer } => self.queried(me, &peer, turn),
            UserSignal::Invited { observer, on, serial } => self.invited(me, &observer, on, serial, turn),
            UserSignal::Answered { observed, allow, serial } => self.answered(me, &observed, allow, serial, turn),
            UserSignal::Observed { observer, on, serial } => self.observed(me, observer, on, serial, turn),
            UserSignal::Update { of, status, known_at, serial } => self.update(of, (status, known_at), serial, turn),
        }
        if self.dirty.relations {
            self.relations.rules = Some(turn.settings.rules());
        }
    }

    /// Looks at the facts again: the horizon has moved.
    pub fn handle_timeout(&mut self, me: &UserId, turn: &mut Turn<'_>) {
        self.tell_changes(me, turn, Cause::Inferred);
        self.tell_withheld(me, turn);
        self.update_watching(me, turn);
    }

    /// When time alone may change something, judged against the horizon.
    pub fn poll_timeout(&self, horizon: Timestamp, settings: &Settings) -> Option<Timestamp> {
        let devices = self.state.devices.iter().filter_map(|(_, device)| device.next_change(horizon, settings));
        let sessions = self.state.sessions.iter().map(|session| session.until).filter(|until| *until > horizon);
        let waits = [self.state.settle_until, self.state.linger_until, self.state.withheld_until.get()];
        let waits = waits.into_iter().flatten();
        devices.chain(sessions).chain(waits).min()
    }

    /// Forgets tombstones that are old enough, and devices of which nothing was heard for as long, up to `horizon`.
    pub fn compact(&mut self, now: Timestamp, horizon: Timestamp, settings: &Settings) {
        self.dirty.relations |= self.relations.compact(now, settings.rules());
        self.dirty.state |= self.forget_devices(now.min(horizon), settings);
        if self.state.devices.is_empty() {
            self.dirty.state |= sessions::forget(&mut self.state.sessions, now.min(horizon));
        }
    }

    /// Whoever watches notices nothing of it: such a device has been offline for long, and when somebody last acted on it is kept.
    fn forget_devices(&mut self, horizon: Timestamp, settings: &Settings) -> bool {
        let is_old = |device: &Device| horizon.since(device.last_word()) >= Settings::TOMBSTONE_MS;
        let is_any_old = self.state.devices.iter().any(|(_, device)| is_old(device));
        // Unless that is yet to be told.
        if !is_any_old || self.merged(horizon, settings).presence < self.state.told.presence {
            return false;
        }
        let UserState { devices, active, .. } = &mut self.state;
        for (_, device) in devices.extract_if(.., |(_, device)| is_old(device)) {
            *active = device.active().max(*active);
        }
        true
    }

    /// Whether a device was ever heard: looks at what handling a signal begins with.
    pub(super) fn was_heard(&self) -> bool {
        self.state.devices.first().is_some_and(|(_, device)| device.heard() > Timestamp(0))
    }

    /// Whether nothing is lost if the machine is forgotten: nobody is there, wants anything or is wanted.
    pub(super) fn is_useless(&self) -> bool {
        let UserState { devices, message, sessions, .. } = &self.state;
        let idle = self.observers.is_none() && self.updates.is_none();
        idle && devices.is_empty() && message.is_none() && sessions.is_empty() && self.relations.is_empty()
    }

    /// The clock stepped back, and the timers that knew of this user are gone.
    pub(super) fn disarm(&mut self, now: Timestamp, settings: &Settings) {
        self.armed = Armed::default();
        self.trust_clock(now, settings);
        if let Some(updates) = &mut self.updates {
            updates.armed = Armed::default();
            updates.trust_clock(now, settings);
        }
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
                let sessions = self.state.sessions.iter().filter(|session| session.device == id);
                let mut device = Device::default();
                device.lease_until(sessions.map(|session| session.until).max().unwrap_or_default());
                devices.push((id, device));
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
        let (status_msg, last_active) = (self.state.message.clone(), self.state.active);
        let mut status = Status { presence: Presence::Offline, status_msg, last_active, ..Status::default() };
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
        self.tell_all(me, turn);
    }
}

/// Whether a device said so, or time did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Explicit,
    Inferred,
}

/// Whether somebody who knows `told` would notice `new`: mere activity counts once in a while, and never of who is offline.
pub(super) fn is_noticeable(told: &Status, new: &Status, granularity_ms: u64) -> bool {
    told.presence != new.presence
        || told.currently_active != new.currently_active
        || told.status_msg != new.status_msg
        || told.device_types != new.device_types
        || new.presence != Presence::Offline && new.last_active.since(told.last_active) >= granularity_ms
}

fn evict_oldest(devices: &mut Vec<(DeviceId, Device)>) {
    if let Some(oldest) = (0..devices.len()).min_by_key(|at| devices[*at].1.heard()) {
        devices.swap_remove(oldest);
    }
}
