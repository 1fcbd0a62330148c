//! The machines of one partition, and the dispatch of signals to them.

mod day;
mod dispatch;
mod jobs;
mod restore;
mod suspicion;
mod table;
mod time;
mod totals;

use std::collections::HashSet;

use foldhash::fast::FixedState;

use super::deadlines::{Armed, Deadlines};
use super::effect::{Effects, Flush, FlushReason, Lapse, Output};
use super::holds::Holds;
use super::link::{self, Link};
use super::rows::{ObserverRow, delete, observer_key, put, user_key};
use super::settings::Settings;
use super::user::{self, User};
use crate::model::{Serial, ServerName, Timestamp, TraceId, UserId};
use crate::store::{RowChange, RowKey, RowKind};

use self::day::Day;
pub use self::day::Hour;
use self::jobs::Chores;
pub use self::jobs::JobTotals;
pub use self::restore::RestoreError;
use self::suspicion::Suspicion;
use self::table::{Named, Table};
pub use self::totals::{PassedOver, Totals};

/// All machines of one partition.
///
/// Signals go in by the `handle_*` methods, in any order; nothing happens outside until [`Machines::take_effects`] hands out what
/// they led to. After a panic or a failed commit the whole is thrown away and restored from rows: state in memory is never ahead
/// of what is committed by more than one run.
#[derive(Debug)]
pub struct Machines {
    local: ServerName,
    settings: Settings,
    serial: Serial,
    users: Table<Member>,
    links: Table<Link>,
    /// Local users that watch users of peers.
    observers: HashSet<UserId, FixedState>,
    /// When users want to be looked at, judged against `users_horizon`.
    expiries: Deadlines,
    /// When links want to be looked at, by the clock.
    windows: Deadlines,
    /// When links want to be looked at, judged against `peers_horizon`.
    watchdogs: Deadlines,
    suspicion: Suspicion,
    /// When users have something for their clients, by the clock.
    pushes: Deadlines,
    /// The last time that was told.
    clock: Timestamp,
    users_horizon: Timestamp,
    peers_horizon: Timestamp,
    holds: Holds,
    outputs: Vec<Output>,
    /// How many of them were counted, and for how many machines they are.
    pending: (usize, usize),
    flushes: Vec<Flush>,
    lapses: Vec<Lapse>,
    /// What removed links leave to delete.
    removals: Vec<RowChange>,
    /// Machines whose rows are to be written, each once.
    dirty_users: Vec<u32>,
    dirty_links: Vec<u32>,
    chores: Chores,
    passed_over: PassedOver,
    allowance: user::Allowance,
    day: Day,
}

/// A local user and their machine.
#[derive(Debug)]
#[repr(C)]
struct Member {
    id: UserId,
    user: User,
}

impl Member {
    fn new(id: &UserId) -> Self {
        Self { id: id.clone(), user: User::default() }
    }
}

impl Named for Member {
    type Name = UserId;

    fn name(&self) -> &UserId {
        &self.id
    }
}

impl Named for Link {
    type Name = ServerName;

    fn name(&self) -> &ServerName {
        self.server()
    }
}

impl Machines {
    /// Nothing known yet; `epoch` is the ownership's.
    pub fn new(local: ServerName, settings: Settings, epoch: u64) -> Self {
        Self {
            local,
            settings,
            serial: Serial { epoch, counter: 0 },
            users: Table::default(),
            links: Table::default(),
            observers: HashSet::default(),
            expiries: Deadlines::default(),
            windows: Deadlines::default(),
            watchdogs: Deadlines::default(),
            suspicion: Suspicion::default(),
            pushes: Deadlines::default(),
            clock: Timestamp(0),
            users_horizon: Timestamp(0),
            peers_horizon: Timestamp(0),
            holds: Holds::default(),
            outputs: Vec::new(),
            pending: (0, 0),
            flushes: Vec::new(),
            lapses: Vec::new(),
            removals: Vec::new(),
            dirty_users: Vec::new(),
            dirty_links: Vec::new(),
            chores: Chores::new(epoch),
            passed_over: PassedOver::default(),
            allowance: user::Allowance::default(),
            day: Day::default(),
        }
    }

    fn expire_users(&mut self, now: Timestamp) {
        // However much waits already: a run that leaves much must not put expiry off for ever.
        let before = self.pending_outputs();
        for _ in 0..Settings::MAX_EXPIRIES {
            if self.pending_outputs() - before >= Settings::MAX_OUTPUTS {
                return;
            }
            let Some(number) = self.expiries.pop_due(self.users_horizon) else { return };
            self.with_user(number, now, now, None, |me, user, turn| {
                user.armed = Armed::default();
                user.handle_timeout(me, turn);
            });
        }
    }

    fn expire_links(&mut self, now: Timestamp) {
        for _ in 0..Settings::MAX_EXPIRIES {
            let Some(number) = self.watchdogs.pop_due(self.peers_horizon) else { break };
            self.with_link(number, now, now, None, |link, turn| {
                link.armed_watchdog = Armed::default();
                link.handle_watchdog(turn);
            });
        }
        self.judge_ourselves(now);
    }

    /// Looks at links that are due by the clock, and at users and watchdogs that are due by their horizon: so many at once that a run
    /// stays small. Where more are, [`Machines::poll_timeout`] is past.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.trust_clock(now);
        self.expire_users(now);
        self.expire_links(now);
        while let Some(number) = self.pushes.pop_due(now) {
            self.with_user(number, now, now, None, |me, user, turn| user.push_updates(me, turn));
        }
        let before = self.flushes.len();
        for _ in 0..Settings::MAX_EXPIRIES {
            let full = self.flushes.len() - before >= Settings::MAX_FLUSHES;
            if full || self.pending_outputs() >= Settings::MAX_OUTPUTS {
                break;
            }
            let Some(number) = self.windows.pop_due(now) else { break };
            self.with_link(number, now, now, None, |link, turn| {
                link.armed = Armed::default();
                link.handle_timeout(turn);
            });
        }
    }

    /// When [`Machines::handle_timeout`] is wanted next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let expiries = self.expiries.next().filter(|at| *at <= self.users_horizon);
        let watchdogs = self.watchdogs.next().filter(|at| *at <= self.peers_horizon);
        [self.windows.next(), self.pushes.next(), expiries, watchdogs].into_iter().flatten().min()
    }

    /// Whether a window for `peer` that will be due `by` then, or what it is owed, waits for the answer to the transaction that is under way.
    pub fn is_held_up(&self, by: Timestamp, peer: &ServerName) -> bool {
        let link = self.links.number(peer).and_then(|number| self.links.get(number));
        link.is_some_and(|link| link.is_held_up(by, &self.settings))
    }

    /// Closes every window early; what may not leave is owed. Nothing is held afterwards.
    pub fn relieve(&mut self, now: Timestamp, reason: FlushReason) {
        for number in self.links.numbers(|_| true) {
            self.with_link(number, now, now, None, |link, turn| link.relieve(reason, turn));
        }
    }

    /// What the signals since the last call led to. The caller commits, publishes and acknowledges, in this order.
    pub fn take_effects(&mut self) -> Effects {
        let mut rows = Vec::with_capacity(self.dirty_users.len() + self.dirty_links.len());
        for number in std::mem::take(&mut self.dirty_users) {
            let Some(Member { id: key, user }) = self.users.get_mut(number) else { continue };
            let dirty = std::mem::take(&mut user.dirty);
            if dirty.state {
                rows.push(put(user_key(RowKind::User, key), &user.state));
            }
            if dirty.relations {
                rows.push(put(user_key(RowKind::Relations, key), &user.relations));
            }
            rows.extend(user.take_observers().into_iter().map(|(observer, serial)| {
                let row = observer_key(key, &observer);
                serial.map_or_else(|| delete(row.clone()), |serial| put(row.clone(), &ObserverRow { serial }))
            }));
        }
        for number in std::mem::take(&mut self.dirty_links) {
            if let Some(link) = self.links.get_mut(number) {
                link.noted = false;
                link.take_rows(&mut rows);
            }
        }
        let mut removals = std::mem::take(&mut self.removals);
        if !removals.is_empty() {
            // A link may have come back in the same run: then its new row stands.
            let written: HashSet<&RowKey> = rows.iter().map(|row: &RowChange| &row.key).collect();
            removals.retain(|removal| !written.contains(&removal.key));
            rows.append(&mut removals);
        }
        rows.append(&mut self.day.take_rows());
        Effects {
            rows,
            outputs: self.take_outputs(),
            released: self.holds.take_released(),
            flushes: std::mem::take(&mut self.flushes),
            lapses: std::mem::take(&mut self.lapses),
        }
    }

    /// How many outputs wait for [`Machines::take_effects`], to each machine one.
    pub fn pending_outputs(&mut self) -> usize {
        let (counted, sum) = &mut self.pending;
        *sum += self.outputs[*counted..].iter().map(Output::len).sum::<usize>();
        *counted = self.outputs.len();
        *sum
    }

    fn take_outputs(&mut self) -> Vec<Output> {
        self.pending = (0, 0);
        std::mem::take(&mut self.outputs)
    }

    fn with_user(
        &mut self,
        number: u32,
        now: Timestamp,
        at: Timestamp,
        trace: Option<TraceId>,
        handle: impl FnOnce(&UserId, &mut User, &mut user::Turn<'_>),
    ) {
        let Some(Member { id, user }) = self.users.get_mut(number) else { return };
        let mut turn = user::Turn {
            now,
            horizon: self.users_horizon,
            settings: &self.settings,
            serial: &mut self.serial,
            outputs: &mut self.outputs,
            at,
            trace,
            repairs: self.chores.repairs(),
            passed_over: &mut self.passed_over,
            allowance: &mut self.allowance,
        };
        handle(id, user, &mut turn);
        let expiry = user.poll_timeout(self.users_horizon, &self.settings);
        self.expiries.arm(&mut user.armed, expiry, number);
        if let Some(updates) = &mut user.updates {
            let due = updates.poll_timeout();
            self.pushes.arm(&mut updates.armed, due, number);
        }
        note_dirty(number, user, &mut self.dirty_users);
    }

    fn with_link(
        &mut self,
        number: u32,
        now: Timestamp,
        at: Timestamp,
        trace: Option<TraceId>,
        handle: impl FnOnce(&mut Link, &mut link::Turn<'_>),
    ) {
        let Some(link) = self.links.get_mut(number) else { return };
        let (before, was_lapsed, flushed) = (link.standing(), link.is_lapsed(), self.flushes.len());
        let mut turn = link::Turn {
            now,
            horizon: self.peers_horizon,
            suspicious: self.suspicion.is_on(),
            settings: &self.settings,
            local: &self.local,
            serial: &mut self.serial,
            outputs: &mut self.outputs,
            flushes: &mut self.flushes,
            holds: &mut self.holds,
            observers: &mut self.observers,
            at,
            trace,
            repairs: self.chores.repairs(),
            passed_over: &mut self.passed_over,
        };
        handle(link, &mut turn);
        link.guard(now);
        if link.is_lapsed() != was_lapsed {
            self.lapses.push(Lapse { server: link.server().clone(), is_over: was_lapsed });
        }
        self.day.note_flushes(now, &self.flushes[flushed..], link.is_lapsed() && !was_lapsed);
        self.suspicion.note(before, link.standing());
        let at = link.poll_timeout(&self.settings);
        self.windows.arm(&mut link.armed, at, number);
        // What is due already was looked at: the next look is for the next beat.
        let at = link.poll_watchdog(&self.settings).map(|at| at.max(self.peers_horizon.plus(1)));
        self.watchdogs.arm(&mut link.armed_watchdog, at, number);
        if !std::mem::replace(&mut link.noted, true) {
            self.dirty_links.push(number);
        }
    }

    fn arm_everything(&mut self) {
        for (number, Member { user, .. }) in self.users.iter_mut() {
            let at = user.poll_timeout(self.users_horizon, &self.settings);
            self.expiries.arm(&mut user.armed, at, number);
            if let Some(updates) = &mut user.updates {
                let due = updates.poll_timeout();
                self.pushes.arm(&mut updates.armed, due, number);
            }
        }
        for (number, link) in self.links.iter_mut() {
            let at = link.poll_timeout(&self.settings);
            self.windows.arm(&mut link.armed, at, number);
            let at = link.poll_watchdog(&self.settings);
            self.watchdogs.arm(&mut link.armed_watchdog, at, number);
        }
    }
}

fn note_dirty(number: u32, user: &mut User, dirty: &mut Vec<u32>) {
    let dirty_rows = user.dirty.state || user.dirty.relations || user.dirty.observers;
    if dirty_rows && !std::mem::replace(&mut user.dirty.noted, true) {
        dirty.push(number);
    }
}
