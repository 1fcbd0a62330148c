//! The machine of one peer: who there watches which of ours, whom of theirs we watch, the window being gathered, what is owed,
//! at most one live transaction, back-off.
//!
//! A link exists from the first promise or list entry, never because a stranger spoke. What is gathered lives in memory, with its
//! deliveries unacknowledged; everything else is in rows. Permission and watchdogs will join as machines beside the window.

mod remote;
mod restore;
mod send;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use self::remote::Remote;
pub use self::remote::RemoteRow;
use self::window::{Waiting, Window};
use super::HoldId;
use super::deadlines::Armed;
use super::effect::{Flush, Output};
use super::holds::Holds;
use super::rows::{SentRow, delete, put, sent_key};
use super::settings::Settings;
use super::signal::{Addressed, Extension, Inbound, LinkSignal, Outcome, PeerSignal, UserSignal};
use crate::model::{Serial, ServerName, Status, Timestamp, TraceId, UserId};
use crate::store::RowChange;
use crate::wire::matrix::entry_size;

/// What a link needs to know to handle one signal.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The present.
    pub now: Timestamp,
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
    /// When an edge took the cause of this in.
    pub at: Timestamp,
    /// The trace of the cause.
    pub trace: Option<TraceId>,
}

impl Turn<'_> {
    fn next_serial(&mut self) -> Serial {
        self.serial.counter += 1;
        *self.serial
    }

    fn tell_user(&mut self, to: UserId, signal: UserSignal) {
        let (at, trace) = (self.at, self.trace);
        self.outputs.push(Output::User(Addressed { to, at, reply: None, trace, signal }));
    }
}

/// The machine of one peer.
#[derive(Debug)]
pub struct Link {
    server: ServerName,
    state: LinkState,
    /// Our users that the peer watches, and the newest status of each that a transaction held.
    served: BTreeMap<UserId, Serial>,
    /// Those of them whose status the peer should have been told and was not yet, and up to which change.
    owed: BTreeMap<UserId, Serial>,
    /// When the owed were last asked for.
    asked_at: Timestamp,
    /// The peer's users, by localpart.
    remotes: BTreeMap<Box<str>, Remote>,
    /// Those of them whom the peer must be asked to push, or to push no longer.
    pending: BTreeSet<Box<str>>,
    /// Our users that watch: shared, since each watches many.
    observers: BTreeSet<UserId>,
    window: Window,
    /// What the live transaction holds.
    live: Option<SentRow>,
    /// Transactions whose content is remembered in the store, oldest first.
    sent: VecDeque<(Serial, Timestamp)>,
    pub(super) armed: Armed,
    /// Whether the link is on the list of those whose rows are to be written.
    pub(super) noted: bool,
    dirty: Dirty,
}

/// Which rows no longer say what the machine knows.
#[derive(Debug, Default)]
struct Dirty {
    state: bool,
    served: BTreeSet<UserId>,
    remotes: Vec<Box<str>>,
    rows: Vec<RowChange>,
}

/// What changes with every transaction: one row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinkState {
    live: Option<Live>,
    /// Failures in a row.
    attempts: u32,
    retry_at: Timestamp,
    /// Until then an abandoned transaction may still arrive: a sender that starts over sends it again.
    lapses_at: Timestamp,
    /// Entries of a transaction at most, after a 413.
    cap: Option<u32>,
    /// The newest `seq` applied of the peer's.
    applied: Serial,
    /// When the peer last showed that it speaks rollcall.
    spoke: Timestamp,
}

/// The one transaction that is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Live {
    txn_id: Box<str>,
    seq: Serial,
    not_after: Timestamp,
}

impl Link {
    /// A link about which nothing is known.
    pub fn new(server: ServerName) -> Self {
        Self {
            server,
            state: LinkState::default(),
            served: BTreeMap::new(),
            owed: BTreeMap::new(),
            asked_at: Timestamp(0),
            remotes: BTreeMap::new(),
            pending: BTreeSet::new(),
            observers: BTreeSet::new(),
            window: Window::default(),
            live: None,
            sent: VecDeque::new(),
            armed: Armed::default(),
            noted: false,
            dirty: Dirty::default(),
        }
    }

    /// Whether a signal from outside is a reason for a link to exist.
    pub fn is_worth_a_link(signal: &PeerSignal) -> bool {
        matches!(signal, PeerSignal::Transaction(inbound) if !inbound.poll.is_empty())
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
            LinkSignal::Change { user, status, serial, .. } => self.change(user, status, serial, hold, turn),
            LinkSignal::Watch { observer, target, on, serial, .. } => self.watch(observer, &target, on, serial, turn),
            _ => {}
        }
        self.advance_if_full(turn);
    }

    /// Looks at the facts again: time has passed.
    pub fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        self.advance(turn);
    }

    /// How many statuses of ours the peer is owed.
    pub fn owed(&self) -> usize {
        self.owed.len()
    }

    /// How many users of the peer are known.
    pub fn remotes(&self) -> usize {
        self.remotes.len()
    }

    fn heard(&mut self, turn: &mut Turn<'_>) {
        if self.state.attempts > 0 {
            self.state.attempts = 0;
            self.state.retry_at = turn.now;
            self.dirty.state = true;
        }
    }

    fn transaction(&mut self, inbound: Inbound, turn: &mut Turn<'_>) {
        if !self.is_news(inbound.extension.as_ref(), turn.now) {
            return;
        }
        let polled: BTreeSet<UserId> = inbound.poll.into_iter().take(Settings::MAX_POLLS).collect();
        for user in polled {
            self.serve(user, turn);
        }
        for user in inbound.unpoll {
            self.stop_serving(user, turn);
        }
        // A peer that numbers its transactions is ordered by that, whatever the clocks say.
        let stamp = inbound.extension.is_none().then_some(inbound.origin_server_ts);
        for (user, status) in inbound.push {
            self.learn(&user, status, stamp, turn.at);
        }
    }

    /// Notes what the extension says; `false`: a later transaction was applied already.
    fn is_news(&mut self, extension: Option<&Extension>, now: Timestamp) -> bool {
        let Some(extension) = extension else { return true };
        if now.since(self.state.spoke) > Settings::SPEAKS_MS / 24 {
            self.state.spoke = now;
            self.dirty.state = true;
        }
        if extension.seq < self.state.applied {
            return false;
        }
        self.dirty.state |= extension.seq > self.state.applied;
        self.state.applied = extension.seq;
        true
    }

    /// S3: the peer watches one of ours. The answer, and every change after it, comes from the user's machine.
    fn serve(&mut self, user: UserId, turn: &mut Turn<'_>) {
        if !self.served.contains_key(&user) {
            if self.served.len() >= Settings::MAX_SERVED {
                return;
            }
            self.served.insert(user.clone(), Serial::default());
            self.dirty.served.insert(user.clone());
        }
        self.tell_watched(user, true, turn);
    }

    fn stop_serving(&mut self, user: UserId, turn: &mut Turn<'_>) {
        if self.served.remove(&user).is_none() {
            return;
        }
        self.dirty.served.insert(user.clone());
        self.owed.remove(&user);
        if let Some(hold) = self.window.remove(&user) {
            turn.holds.release(hold);
        }
        self.tell_watched(user, false, turn);
    }

    fn tell_watched(&self, user: UserId, on: bool, turn: &mut Turn<'_>) {
        let serial = turn.next_serial();
        turn.tell_user(user, UserSignal::Watched { peer: self.server.clone(), on, serial });
    }

    /// Only of users whom somebody here watches: strangers cannot fill our memory.
    fn learn(&mut self, user: &UserId, status: Status, stamp: Option<Timestamp>, at: Timestamp) {
        let Some(remote) = self.remotes.get_mut(user.localpart()).filter(|remote| remote.is_watched()) else { return };
        remote.learn(status, stamp, at);
        mark(remote, user.localpart(), &mut self.dirty.remotes);
    }

    fn change(&mut self, user: UserId, status: Status, serial: Serial, hold: HoldId, turn: &mut Turn<'_>) {
        let Some(sent) = self.served.get(&user) else { return };
        // What is owed is newer than what comes again late: the older must not pass for it.
        let owed = self.owed.get(&user).copied().unwrap_or_default();
        if serial <= *sent || serial < owed {
            return;
        }
        if self.is_failing(turn.now) {
            self.owe(user, serial, turn);
            return;
        }
        let size = entry_size(&user, &status);
        turn.holds.retain(hold);
        self.window.note_trace(turn.trace);
        let waiting = Waiting { status, serial, hold, since: turn.at, size };
        if let Some(superseded) = self.window.insert(turn.now, user, waiting) {
            turn.holds.release(superseded);
        }
    }

    /// Notes that the peer must yet be told of the change `serial`, whatever older one waits.
    fn owe(&mut self, user: UserId, serial: Serial, turn: &mut Turn<'_>) {
        if !self.served.contains_key(&user) || self.owed.get(&user).is_some_and(|owed| *owed >= serial) {
            return;
        }
        if let Some(hold) = self.window.remove_older(&user, serial) {
            turn.holds.release(hold);
        }
        self.owed.insert(user.clone(), serial);
        self.dirty.served.insert(user);
    }

    fn watch(&mut self, observer: UserId, target: &UserId, on: bool, serial: Serial, turn: &mut Turn<'_>) {
        if !target.belongs_to(&self.server) {
            return;
        }
        let observer = self.shared(observer);
        let remote = self.remotes.entry(target.localpart().into()).or_default();
        if !remote.observe(observer, on, serial, turn.now) {
            return;
        }
        mark(remote, target.localpart(), &mut self.dirty.remotes);
        self.window.note_trace(turn.trace);
        self.reconsider(target.localpart(), turn.now);
    }

    /// Whether the peer must hear that we watch this user, or that we do no longer. Only 0→1 and 1→0 travel.
    fn reconsider(&mut self, localpart: &str, now: Timestamp) {
        let Some(remote) = self.remotes.get(localpart) else { return };
        if remote.is_watched() == remote.polled {
            self.pending.remove(localpart);
        } else {
            self.pending.insert(localpart.into());
            self.window.open(now);
        }
    }

    fn shared(&mut self, observer: UserId) -> UserId {
        if let Some(known) = self.observers.get(&observer) {
            return known.clone();
        }
        self.observers.insert(observer.clone());
        observer
    }

    /// Drops what nobody needs any longer; `true`: the link itself.
    pub fn compact(&mut self, now: Timestamp) -> bool {
        self.forget_sent(now);
        let live = self.live.as_ref();
        let gone: Vec<Box<str>> = self
            .remotes
            .iter_mut()
            .filter_map(|(localpart, remote)| {
                // What the live transaction asks for is known of when its receipt comes.
                let asked = live.is_some_and(|live| live.names(localpart));
                let useless = remote.compact(now) && !asked;
                if std::mem::take(&mut remote.dirty) || useless {
                    self.dirty.remotes.push(localpart.clone());
                }
                useless.then(|| localpart.clone())
            })
            .collect();
        for localpart in gone {
            self.remotes.remove(&localpart);
            self.pending.remove(&localpart);
        }
        self.state.cap = None;
        self.observers.retain(|observer| observer.is_shared());
        self.remotes.is_empty() && self.served.is_empty() && self.state.live.is_none() && self.window.len() == 0
    }
}

/// Notes, once, that a remote's row is to be written.
fn mark(remote: &mut Remote, localpart: &str, dirty: &mut Vec<Box<str>>) {
    if !std::mem::replace(&mut remote.dirty, true) {
        dirty.push(localpart.into());
    }
}
