//! The machine of one peer: which of ours it was promised, whom of theirs we watch, permission on its way both ways, the window
//! being gathered, what is owed, at most one live transaction, back-off.
//!
//! A link exists from the first promise, list entry or question, never because a stranger spoke. What is gathered lives in memory,
//! with its deliveries unacknowledged; everything else is in rows.

mod audit;
mod belief;
mod busy;
mod permission;
mod permits;
mod plain;
mod remind;
mod remote;
mod remotes;
mod restore;
mod send;
mod served;
mod state;
mod told;
mod watchdog;
mod watches;
mod window;

use std::collections::{BTreeSet, HashSet};

use foldhash::fast::FixedState;
use xxhash_rust::xxh3::xxh3_64;

use self::busy::Busy;
pub use self::permits::PermitRow;
use self::remote::Remote;
pub use self::remote::RemoteRow;
use self::remotes::Remotes;
pub use self::state::LinkState;
use self::state::Live;
use self::told::Told;
pub(super) use self::watchdog::Standing;
use self::watchdog::Watchdog;
use super::deadlines::Armed;
use super::effect::{Flush, Output};
use super::holds::Holds;
use super::rarely::Rarely;
use super::rows::{SentRow, delete, put, sent_key};
use super::settings::Settings;
use super::signal::{Addressed, Extension, Inbound, LinkSignal, Outcome, PeerSignal, Permission, UserSignal};
use super::{HoldId, PassedOver};
use crate::model::{MaybeTime, Serial, ServerName, Timestamp, TraceId, UserId};

/// What a link needs to know to handle one signal.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The present.
    pub now: Timestamp,
    /// Up to when all was read that the peer sent.
    pub horizon: Timestamp,
    /// So many peers fell silent at once that the fault may be ours: nobody is given up.
    pub suspicious: bool,
    /// The constants.
    pub settings: &'a Settings,
    /// The local server.
    pub local: &'a ServerName,
    /// The last serial given out.
    pub serial: &'a mut Serial,
    /// Where outputs go.
    pub outputs: &'a mut Vec<Output>,
    /// Where closed windows are noted.
    pub flushes: &'a mut Vec<Flush>,
    pub(super) holds: &'a mut Holds,
    /// Local users that watch, shared: each watches many.
    pub(super) observers: &'a mut HashSet<UserId, FixedState>,
    /// When an edge took the cause of this in.
    pub at: Timestamp,
    /// The trace of the cause.
    pub trace: Option<TraceId>,
    /// What audits found wrong and put right.
    pub repairs: &'a mut u64,
    /// What a bound left no room for.
    pub passed_over: &'a mut PassedOver,
}

impl Turn<'_> {
    fn next_serial(&mut self) -> Serial {
        self.serial.counter += 1;
        *self.serial
    }

    /// The same user, in the memory that others who know them have.
    fn shared(&mut self, observer: UserId) -> UserId {
        if let Some(known) = self.observers.get(&observer) {
            return known.clone();
        }
        self.observers.insert(observer.clone());
        observer
    }

    fn tell_user(&mut self, to: UserId, signal: UserSignal) {
        let (at, trace) = (self.at, self.trace);
        self.outputs.push(Output::User(Addressed { to, at, reply: None, trace, signal }));
    }
}

/// The machine of one peer. There may be a million, nearly all of them idle: see `rarely.rs`.
#[derive(Debug)]
#[repr(C)]
pub struct Link {
    /// First, with the watchdog's pulse: one of very many is looked up and these are touched, and nothing else is.
    server: ServerName,
    watchdog: Watchdog,
    /// A hash of both servers' names: spreads in time what many links do.
    seed: u64,
    state: LinkState,
    /// Our users whose changes the peer was promised.
    told: Rarely<Told>,
    /// The peer's users, by localpart.
    remotes: Remotes,
    /// When the two sides were last compared.
    compared: Timestamp,
    /// When a reminder was last answered by another.
    countered: Timestamp,
    /// When what a plain peer pushed is looked at, by the horizon.
    plain_due: MaybeTime,
    /// The last part of `federation.plain_refresh` that was seen to.
    refreshed: u64,
    /// Transactions whose content is remembered in the store, oldest first.
    sent: Vec<(Serial, Timestamp)>,
    /// Everything else.
    busy: Rarely<Busy>,
    /// By the clock.
    pub(super) armed: Armed,
    /// By the horizon.
    pub(super) armed_watchdog: Armed,
    /// How many of the peer's users somebody here wants to see and may.
    wanted: u32,
    /// Whether the link is on the list of those whose rows are to be written.
    pub(super) noted: bool,
}

impl Link {
    /// A link from `local` to `server`, about which nothing is known.
    pub fn new(local: &ServerName, server: ServerName) -> Self {
        Self {
            seed: xxh3_64(format!("{local}\0{server}").as_bytes()),
            server,
            state: LinkState::default(),
            told: Rarely::default(),
            remotes: Remotes::default(),
            wanted: 0,
            watchdog: Watchdog::default(),
            compared: Timestamp(0),
            countered: Timestamp(0),
            plain_due: MaybeTime::default(),
            refreshed: 0,
            sent: Vec::new(),
            busy: Rarely::default(),
            armed: Armed::default(),
            armed_watchdog: Armed::default(),
            noted: false,
        }
    }

    /// Whether a signal from outside is a reason for a link to exist.
    pub fn is_worth_a_link(signal: &PeerSignal) -> bool {
        let PeerSignal::Transaction(inbound) = signal else { return false };
        // Who reminds us of what we have forgotten is to hear so.
        let asks = |extension: &Extension| !extension.query.is_empty() || extension.reminder.is_some();
        inbound.extension.as_ref().is_some_and(asks) || !inbound.poll.is_empty() || !inbound.permissions.is_empty()
    }

    /// The peer.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// Handles a signal from outside.
    pub fn handle_peer(&mut self, signal: PeerSignal, turn: &mut Turn<'_>) {
        match signal {
            PeerSignal::Transaction(inbound) => {
                self.heard(turn);
                self.transaction(*inbound, turn);
            }
            PeerSignal::Heard => self.heard(turn),
            PeerSignal::Receipt { txn_id, outcome, retry_after_ms } => {
                self.receipt(&txn_id, outcome, retry_after_ms, turn);
            }
        }
        self.advance(turn);
    }

    /// Handles a signal from a local user's machine, out of the delivery `hold`.
    pub fn handle_change(&mut self, signal: LinkSignal, hold: HoldId, turn: &mut Turn<'_>) {
        match signal {
            LinkSignal::Change { user, status, serial, promise } => {
                self.change(user, (status, serial), promise, hold, turn);
            }
            LinkSignal::Hide { user, serial } => self.hide(user, serial, turn),
            LinkSignal::Watch { observer, target, on, accepted, serial } => {
                self.watch((observer, &target), on, accepted, serial, turn);
            }
            LinkSignal::Ask { observer, observed, on, serial } => self.ask((observed, observer), on, serial, turn),
            LinkSignal::Decide { observed, observer, allow, serial } => {
                self.decide((observed, observer), allow, serial, turn);
            }
            LinkSignal::AuditTold { user, serial } => self.audit_told(&user, serial, turn),
            LinkSignal::AuditWatch { observer, target, accepted, serial } => {
                self.audit_watch((observer, &target), accepted, serial, turn);
            }
        }
        self.advance_if_full(turn);
    }

    /// Looks at the facts again: time has passed.
    pub fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        self.advance(turn);
    }

    /// How many statuses of ours the peer is owed.
    pub fn owed(&self) -> usize {
        self.busy.owed.len()
    }

    /// How many users of the peer are known.
    pub fn remotes(&self) -> usize {
        self.remotes.len()
    }

    fn heard(&mut self, turn: &mut Turn<'_>) {
        self.note_heard(turn);
        if self.state.transit.attempts > 0 {
            self.state.transit.encourage(turn.now);
            self.busy.dirty.state = true;
        }
    }

    fn transaction(&mut self, inbound: Inbound, turn: &mut Turn<'_>) {
        let knew_permission = self.state.knows_permission();
        let is_news = self.is_news(inbound.extension.as_ref(), turn);
        self.note_subscription(&inbound, knew_permission, turn);
        // What it asks and answers is told once, so it counts even if a later transaction was read first: the users' machines put
        // it in the order of the peer's own numbers.
        let seq = inbound.extension.as_ref().map(|extension| extension.seq);
        let order = seq.or(self.last_number());
        for permission in inbound.permissions {
            self.permission(&permission, seq, turn);
        }
        let extra = |users: &[UserId]| users.len().saturating_sub(Settings::MAX_POLLS) as u64;
        turn.passed_over.polls += extra(&inbound.poll) + extra(&inbound.unpoll);
        let polled: BTreeSet<UserId> = inbound.poll.into_iter().take(Settings::MAX_POLLS).collect();
        if is_news && inbound.extension.as_ref().is_some_and(|extension| extension.full) {
            self.replace(&polled, &inbound.push, order, turn);
        }
        let asks = !polled.is_empty();
        if asks {
            self.note_asked(turn);
        }
        for user in polled {
            self.polled(user, order, turn);
        }
        for user in inbound.unpoll.into_iter().take(Settings::MAX_POLLS) {
            self.unpolled(user, is_news, order, turn);
        }
        for user in inbound.extension.iter().flat_map(|extension| &extension.query).take(Settings::MAX_POLLS) {
            turn.tell_user(user.clone(), UserSignal::Queried { peer: self.server.clone() });
        }
        if !is_news {
            // A later one overtook it. What only this one told is missing here.
            if !inbound.push.is_empty() {
                self.compare_soon(order.unwrap_or_default().counter, turn);
            }
            return;
        }
        let says_something = !inbound.push.is_empty() || asks;
        // A peer that numbers its transactions is ordered by that, whatever the clocks say.
        let stamp = inbound.extension.is_none().then_some(inbound.origin_server_ts);
        for (user, status) in inbound.push {
            self.learn(&user, status, stamp, turn);
        }
        let Some(extension) = inbound.extension else {
            if says_something {
                self.confirmed_by_word(turn);
            }
            return;
        };
        self.handle_extension(&extension, turn);
    }

    /// Who polls, unpolls or speaks of permission knows what that is.
    fn note_subscription(&mut self, inbound: &Inbound, knew_permission: bool, turn: &mut Turn<'_>) {
        let subscribes = !inbound.poll.is_empty() || !inbound.unpoll.is_empty() || !inbound.permissions.is_empty();
        if subscribes && turn.now.since(self.state.subscribed) > Settings::SPEAKS_MS / 24 {
            self.state.subscribed = turn.now;
            self.busy.dirty.state = true;
        }
        if !knew_permission && self.state.knows_permission() {
            self.conceal(turn);
        }
    }

    /// Notes what the extension says; `false`: a later transaction was applied already.
    fn is_news(&mut self, extension: Option<&Extension>, turn: &Turn<'_>) -> bool {
        let Some(extension) = extension else { return true };
        let now = turn.now;
        if now.since(self.state.spoke) > Settings::SPEAKS_MS / 24 {
            self.state.spoke = now;
            self.busy.dirty.state = true;
        }
        if extension.seq < self.state.applied {
            return false;
        }
        self.busy.dirty.state |= extension.seq > self.state.applied;
        if self.state.applied > Serial::default() && extension.seq.epoch > self.state.applied.epoch {
            // Somebody else is at work there, who may have been restored from a backup and remember less than we do.
            self.compare_soon(extension.seq.epoch, turn);
        }
        self.state.applied = extension.seq;
        true
    }

    /// Drops what nobody needs any longer; `true`: the link itself.
    pub fn compact(&mut self, now: Timestamp) -> bool {
        self.forget_sent(now);
        let live = self.busy.live.as_ref();
        let mut written = Vec::new();
        let gone: Vec<Box<str>> = self
            .remotes
            .iter_mut()
            .filter_map(|(localpart, remote)| {
                // What the live transaction asks for is known of when its receipt comes.
                let asked = live.is_some_and(|live| live.names(localpart));
                let useless = remote.compact(now) && !asked;
                if std::mem::take(&mut remote.dirty) || useless {
                    written.push(localpart.into());
                }
                useless.then(|| localpart.into())
            })
            .collect();
        if self.state.transit.cap.is_some() {
            self.state.transit.cap = None;
            self.state.transit.rest();
        }
        if !written.is_empty() {
            self.busy.dirty.remotes.append(&mut written);
        }
        for localpart in gone {
            self.remotes.remove(&localpart);
            self.busy.pending.remove(&localpart);
            self.busy.again.remove(&localpart);
        }
        if !self.busy.is_resting() {
            self.compact_others(now);
            self.busy.permits.compact(now);
        }
        self.is_useless()
    }

    fn is_useless(&self) -> bool {
        let tells = self.told.len() > 0 || !self.busy.others.hidden.is_empty() || self.busy.window.len() > 0;
        let learns = !self.remotes.is_empty() || !self.busy.unwanted.is_empty();
        !tells && !learns && self.busy.permits.is_empty() && self.state.transit.live.is_none()
    }
}

/// Notes, once, that a remote's row is to be written.
fn mark(remote: &mut Remote, localpart: &str, dirty: &mut Vec<Box<str>>) {
    if !std::mem::replace(&mut remote.dirty, true) {
        dirty.push(localpart.into());
    }
}
