//! The machines of one partition, and the dispatch of signals to them.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::deadlines::{Armed, Deadlines};
use super::effect::{Effects, Flush, FlushReason, Output};
use super::holds::{HoldId, Holds};
use super::link::{self, Link};
use super::rows::{Relations, UserState, put, user_key};
use super::settings::Settings;
use super::signal::{Addressed, LinkSignal, PeerSignal, UserSignal};
use super::user::{self, User};
use crate::model::{Serial, ServerName, Timestamp, UserId};
use crate::store::{RowChange, RowKey, RowKind};
use crate::wire::envelope::{EnvelopeError, Job, decode};

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
    users: HashMap<UserId, User, Xxh3DefaultBuilder>,
    links: BTreeMap<ServerName, Link>,
    /// When users want to be looked at, judged against `users_horizon`.
    expiries: Deadlines<UserId>,
    /// When links want to be looked at, by the clock.
    windows: Deadlines<ServerName>,
    users_horizon: Timestamp,
    peers_horizon: Timestamp,
    holds: Holds,
    outputs: Vec<Output>,
    flushes: Vec<Flush>,
    /// What removed links leave to delete.
    removals: Vec<RowChange>,
    /// Machines whose rows are to be written, each once.
    dirty_users: Vec<UserId>,
    dirty_links: Vec<ServerName>,
}

/// Why rows could not be read: they are damaged, or of a later release.
#[derive(Debug, thiserror::Error)]
#[error("row {:?} {:?}: {error}", key.kind, key.key)]
pub struct RestoreError {
    /// Which row.
    pub key: RowKey,
    /// What is wrong with it.
    pub error: EnvelopeError,
}

/// What `rollcall status` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Local users known.
    pub users: usize,
    /// Links.
    pub links: usize,
    /// Links that owe their peer something.
    pub owing: usize,
    /// Statuses that peers are owed.
    pub owed: usize,
    /// Users of peers known.
    pub remotes: usize,
}

impl Machines {
    /// Nothing known yet; `epoch` is the ownership's.
    pub fn new(local: ServerName, settings: Settings, epoch: u64) -> Self {
        Self {
            local,
            settings,
            serial: Serial { epoch, counter: 0 },
            users: HashMap::default(),
            links: BTreeMap::new(),
            expiries: Deadlines::new(),
            windows: Deadlines::new(),
            users_horizon: Timestamp(0),
            peers_horizon: Timestamp(0),
            holds: Holds::default(),
            outputs: Vec::new(),
            flushes: Vec::new(),
            removals: Vec::new(),
            dirty_users: Vec::new(),
            dirty_links: Vec::new(),
        }
    }

    /// What the rows of a partition say, ordered as [`crate::store::Store::load`] gives them.
    pub fn restore(
        local: ServerName,
        settings: Settings,
        epoch: u64,
        rows: impl IntoIterator<Item = (RowKey, Bytes)>,
        now: Timestamp,
    ) -> Result<Self, RestoreError> {
        let mut machines = Self::new(local, settings, epoch);
        let mut relations = BTreeMap::new();
        for (key, value) in rows {
            machines.restore_row(&key, &value, &mut relations, now).map_err(|error| RestoreError { key, error })?;
        }
        for (user, relations) in relations {
            machines.users.entry(user).or_default().relations = relations;
        }
        machines.arm_everything();
        Ok(machines)
    }

    /// To a local user's machine.
    pub fn handle_user(&mut self, now: Timestamp, signal: Addressed<UserId, UserSignal>) {
        let Addressed { to, at, trace, signal, .. } = signal;
        let mut turn = user::Turn {
            now,
            horizon: self.users_horizon,
            settings: &self.settings,
            serial: &mut self.serial,
            outputs: &mut self.outputs,
            at,
            trace,
        };
        if let Some(user) = self.users.get_mut(&to) {
            user.handle(&to, signal, &mut turn);
            after_user(&to, user, &mut self.expiries, &mut self.dirty_users, self.users_horizon, &self.settings);
        } else {
            let mut user = User::default();
            user.handle(&to, signal, &mut turn);
            after_user(&to, &mut user, &mut self.expiries, &mut self.dirty_users, self.users_horizon, &self.settings);
            self.users.insert(to, user);
        }
    }

    /// To a link, from outside.
    pub fn handle_peer(&mut self, now: Timestamp, signal: Addressed<ServerName, PeerSignal>) {
        if !self.links.contains_key(&signal.to) && !Link::is_worth_a_link(&signal.signal) {
            return;
        }
        let Addressed { to, at, trace, signal, .. } = signal;
        self.with_link(to, now, at, trace, |link, turn| link.handle_peer(signal, turn));
    }

    /// To links, from local users: one delivery of the batching exchange. It stays unacknowledged until `hold` is released.
    pub fn handle_batch(&mut self, now: Timestamp, hold: HoldId, signals: Vec<Addressed<ServerName, LinkSignal>>) {
        self.holds.open(hold);
        for Addressed { to, at, trace, signal, .. } in signals {
            let starts_link = matches!(signal, LinkSignal::Watch { on: true, .. });
            if starts_link || self.links.contains_key(&to) {
                self.with_link(to, now, at, trace, |link, turn| link.handle_change(signal, hold, turn));
            }
        }
        self.holds.close(hold);
    }

    /// A beat came back on the users' queue: all sent to users before `at` was read. Time-outs are judged.
    pub fn handle_users_beat(&mut self, now: Timestamp, at: Timestamp) {
        self.users_horizon = self.users_horizon.max(at.min(now));
        while let Some(key) = self.expiries.pop_due(self.users_horizon) {
            let Some(user) = self.users.get_mut(&key) else { continue };
            user.armed = Armed::default();
            let mut turn = user::Turn {
                now,
                horizon: self.users_horizon,
                settings: &self.settings,
                serial: &mut self.serial,
                outputs: &mut self.outputs,
                at: now,
                trace: None,
            };
            user.handle_timeout(&key, &mut turn);
            after_user(&key, user, &mut self.expiries, &mut self.dirty_users, self.users_horizon, &self.settings);
        }
    }

    /// A beat came back on the peers' queue: all sent to links from outside before `at` was read.
    pub fn handle_peers_beat(&mut self, now: Timestamp, at: Timestamp) {
        self.peers_horizon = self.peers_horizon.max(at.min(now));
    }

    /// A periodic job is due for users (`Compact`, so far).
    pub fn handle_users_job(&mut self, now: Timestamp, job: Job) {
        if job != Job::Compact {
            return;
        }
        for (key, user) in &mut self.users {
            user.compact(now);
            note_dirty(key, user, &mut self.dirty_users);
        }
    }

    /// A periodic job is due for links (`Compact`, so far).
    pub fn handle_peers_job(&mut self, job: Job) {
        if job != Job::Compact {
            return;
        }
        let mut gone = Vec::new();
        for (server, link) in &mut self.links {
            if link.compact() {
                gone.push(server.clone());
            }
            if !std::mem::replace(&mut link.noted, true) {
                self.dirty_links.push(server.clone());
            }
        }
        for server in gone {
            let Some(mut link) = self.links.remove(&server) else { continue };
            let mut rows = Vec::new();
            link.take_rows(&mut rows);
            rows.retain(|row| row.value.is_none());
            link.delete_rows(&mut rows);
            self.removals.append(&mut rows);
        }
    }

    /// Looks at every link that is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(server) = self.windows.pop_due(now) {
            if let Some(link) = self.links.get_mut(&server) {
                link.armed = Armed::default();
                self.with_link(server, now, now, None, |link, turn| link.handle_timeout(turn));
            }
        }
    }

    /// When [`Machines::handle_timeout`] is wanted next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.windows.next()
    }

    /// Closes every window early; what may not leave is owed. Nothing is held afterwards.
    pub fn relieve(&mut self, now: Timestamp, reason: FlushReason) {
        let servers: Vec<ServerName> = self.links.keys().cloned().collect();
        for server in servers {
            self.with_link(server, now, now, None, |link, turn| link.relieve(reason, turn));
        }
    }

    /// What the signals since the last call led to. The caller commits, publishes and acknowledges, in this order.
    pub fn take_effects(&mut self) -> Effects {
        let mut rows = Vec::new();
        for key in std::mem::take(&mut self.dirty_users) {
            let Some(user) = self.users.get_mut(&key) else { continue };
            let dirty = std::mem::take(&mut user.dirty);
            if dirty.state {
                rows.push(put(user_key(RowKind::User, &key), &user.state));
            }
            if dirty.relations {
                rows.push(put(user_key(RowKind::Relations, &key), &user.relations));
            }
        }
        for server in std::mem::take(&mut self.dirty_links) {
            if let Some(link) = self.links.get_mut(&server) {
                link.noted = false;
                link.take_rows(&mut rows);
            }
        }
        for removal in std::mem::take(&mut self.removals) {
            // A link may have come back in the same run: then its new row stands.
            if !rows.iter().any(|row: &RowChange| row.key == removal.key) {
                rows.push(removal);
            }
        }
        Effects {
            rows,
            outputs: std::mem::take(&mut self.outputs),
            released: self.holds.take_released(),
            flushes: std::mem::take(&mut self.flushes),
        }
    }

    /// Up to when all was read that was sent to this partition.
    pub fn horizon(&self) -> Timestamp {
        self.users_horizon.min(self.peers_horizon)
    }

    /// How much there is.
    pub fn totals(&self) -> Totals {
        Totals {
            users: self.users.len(),
            links: self.links.len(),
            owing: self.links.values().filter(|link| link.owed() > 0).count(),
            owed: self.links.values().map(Link::owed).sum(),
            remotes: self.links.values().map(Link::remotes).sum(),
        }
    }

    fn with_link(
        &mut self,
        server: ServerName,
        now: Timestamp,
        at: Timestamp,
        trace: Option<crate::model::TraceId>,
        handle: impl FnOnce(&mut Link, &mut link::Turn<'_>),
    ) {
        if !self.links.contains_key(&server) {
            self.links.insert(server.clone(), Link::new(server.clone()));
        }
        let Some(link) = self.links.get_mut(&server) else { return };
        let mut turn = link::Turn {
            now,
            settings: &self.settings,
            local: &self.local,
            serial: &mut self.serial,
            outputs: &mut self.outputs,
            flushes: &mut self.flushes,
            holds: &mut self.holds,
            at,
            trace,
        };
        handle(link, &mut turn);
        let at = link.poll_timeout(&self.settings);
        self.windows.arm(&mut link.armed, at, &server);
        if !std::mem::replace(&mut link.noted, true) {
            self.dirty_links.push(server);
        }
    }

    fn restore_row(
        &mut self,
        key: &RowKey,
        value: &[u8],
        relations: &mut BTreeMap<UserId, Relations>,
        now: Timestamp,
    ) -> Result<(), EnvelopeError> {
        match key.kind {
            RowKind::User => {
                let state: UserState = decode(value)?;
                self.users.insert(user_of(&key.key)?, User::restore(state, Relations::default()));
            }
            RowKind::Relations => {
                relations.insert(user_of(&key.key)?, decode(value)?);
            }
            RowKind::Link => {
                let state = decode(value)?;
                self.link(&key.key)?.restore_state(state);
            }
            RowKind::Remote => {
                let user = user_of(&key.key)?;
                let row = decode(value)?;
                self.link(user.server_str())?.restore_remote(&user, row, now);
            }
            RowKind::Served => {
                let (server, user) = split(&key.key)?;
                let (row, user) = (decode(value)?, user_of(user)?);
                self.link(server)?.restore_served(user, row);
            }
            RowKind::Sent => {
                let (server, _) = split(&key.key)?;
                let row = decode(value)?;
                self.link(server)?.restore_sent(row);
            }
        }
        Ok(())
    }

    fn link(&mut self, server: &str) -> Result<&mut Link, EnvelopeError> {
        let server = ServerName::parse(server).map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
        Ok(self.links.entry(server.clone()).or_insert_with(|| Link::new(server)))
    }

    fn arm_everything(&mut self) {
        for (key, user) in &mut self.users {
            let at = user.poll_timeout(self.users_horizon, &self.settings);
            self.expiries.arm(&mut user.armed, at, key);
        }
        for (server, link) in &mut self.links {
            let at = link.poll_timeout(&self.settings);
            self.windows.arm(&mut link.armed, at, server);
        }
    }
}

fn after_user(
    key: &UserId,
    user: &mut User,
    expiries: &mut Deadlines<UserId>,
    dirty: &mut Vec<UserId>,
    horizon: Timestamp,
    settings: &Settings,
) {
    let at = user.poll_timeout(horizon, settings);
    expiries.arm(&mut user.armed, at, key);
    note_dirty(key, user, dirty);
}

fn note_dirty(key: &UserId, user: &mut User, dirty: &mut Vec<UserId>) {
    if (user.dirty.state || user.dirty.relations) && !std::mem::replace(&mut user.dirty.noted, true) {
        dirty.push(key.clone());
    }
}

fn user_of(text: &str) -> Result<UserId, EnvelopeError> {
    UserId::parse(text).map_err(|error| EnvelopeError::Malformed(error.to_string()))
}

fn split(key: &str) -> Result<(&str, &str), EnvelopeError> {
    key.split_once('\0').ok_or_else(|| EnvelopeError::Malformed("a key of one part".into()))
}
