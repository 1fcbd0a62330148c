//! Permission on its way to and from a peer (S1, S2): questions of ours until they are answered, theirs until the user says
//! something, answers until they are delivered. A row each, so that neither side forgets what it asked.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::core::rows::{delete, put, under_link};
use crate::core::settings::Settings;
use crate::core::signal::{Permission, PermissionKind};
use crate::model::{Serial, ServerName, Timestamp, UserId};
use crate::store::{RowChange, RowKind};
use crate::wire::matrix::MAX_EDUS;

/// Who is to be seen, and who wants to see.
pub(in crate::core) type Pair = (UserId, UserId);

/// One permission between two users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PermitRow {
    /// A local user asks.
    Invite {
        /// The user's.
        serial: Serial,
        /// When it was last delivered; it was `tries` times.
        sent_at: Timestamp,
        /// See `sent_at`.
        tries: u32,
    },
    /// A local user asks no longer: a tombstone.
    Withdrawn {
        /// The user's.
        serial: Serial,
        /// When that was heard.
        since: Timestamp,
    },
    /// A user of the peer asks, and the local user has not answered yet.
    Question {
        /// When it was first heard.
        since: Timestamp,
    },
    /// A local user's answer, not delivered yet.
    Answer {
        /// Yes or no.
        allow: bool,
        /// The user's.
        serial: Serial,
        /// When that was heard.
        since: Timestamp,
    },
}

/// All of one peer's.
#[derive(Debug, Default)]
pub(super) struct Permits {
    all: BTreeMap<Pair, PermitRow>,
    /// What strangers can cause, by age: questions of theirs and yeses to them. Bounded, and dropped without harm: they ask again.
    theirs: BTreeSet<(Timestamp, Pair)>,
    /// When a question of ours is to be asked again.
    due: BTreeSet<(Timestamp, Pair)>,
    /// What leaves with the next transaction.
    ready: BTreeSet<Pair>,
    /// Answers that were delivered lately, and when: an older one that comes late must not follow them.
    answered: BTreeMap<Pair, (Serial, Timestamp)>,
    /// How far the peer's numbered words had come when it was to be asked: what it said before answers an earlier question. In memory.
    heard: BTreeMap<Pair, Serial>,
    /// Whose rows are to be written.
    dirty: BTreeSet<Pair>,
}

impl Permits {
    /// A row says so.
    pub(super) fn restore(&mut self, pair: Pair, row: PermitRow) {
        self.set(pair, row);
        self.dirty.clear();
    }

    fn set(&mut self, pair: Pair, row: PermitRow) {
        if let Some(since) = self.all.get(&pair).and_then(theirs_since) {
            self.theirs.remove(&(since, pair.clone()));
        }
        self.theirs.extend(theirs_since(&row).map(|since| (since, pair.clone())));
        self.heard.remove(&pair);
        self.dirty.insert(pair.clone());
        self.all.insert(pair, row);
    }

    fn remove(&mut self, pair: &Pair) {
        let Some(gone) = self.all.remove(pair) else { return };
        if let Some(since) = theirs_since(&gone) {
            self.theirs.remove(&(since, pair.clone()));
        }
        self.ready.remove(pair);
        self.heard.remove(pair);
        self.dirty.insert(pair.clone());
    }

    /// A local user asks, or no longer. Asked again at once only if it is news. `heard`: the peer's last number.
    pub(super) fn ask(&mut self, pair: Pair, on: bool, serial: Serial, heard: Option<Serial>, now: Timestamp) {
        let known = match self.all.get(&pair) {
            Some(PermitRow::Invite { serial, .. } | PermitRow::Withdrawn { serial, .. }) => *serial,
            _ => Serial::default(),
        };
        if known >= serial {
            return;
        }
        match self.all.get_mut(&pair) {
            Some(PermitRow::Invite { serial: known, .. }) if on => {
                *known = serial;
                self.dirty.insert(pair);
            }
            _ if on => {
                self.ready.insert(pair.clone());
                self.set(pair.clone(), PermitRow::Invite { serial, sent_at: Timestamp(0), tries: 0 });
                self.heard.extend(heard.map(|heard| (pair, heard)));
            }
            _ => {
                self.ready.remove(&pair);
                self.set(pair, PermitRow::Withdrawn { serial, since: now });
            }
        }
    }

    /// A user of the peer asks. `false`: the answer leaves soon. One that has left already may have come before the question, where
    /// it meant nothing.
    pub(super) fn question(&mut self, pair: &Pair, now: Timestamp) -> bool {
        match self.all.get(pair) {
            Some(PermitRow::Answer { .. }) => !self.ready.contains(pair),
            Some(PermitRow::Invite { .. } | PermitRow::Withdrawn { .. }) => true,
            // Whoever repeats it still wants to know.
            Some(PermitRow::Question { .. }) | None => {
                self.set(pair.clone(), PermitRow::Question { since: now });
                true
            }
        }
    }

    /// The oldest, if there are too many of theirs; whether it was a question.
    pub(super) fn drop_oldest(&mut self) -> Option<(Pair, bool)> {
        if self.theirs.len() <= Settings::MAX_PEER_QUESTIONS {
            return None;
        }
        let (_, pair) = self.theirs.first()?.clone();
        let was_question = matches!(self.all.get(&pair), Some(PermitRow::Question { .. }));
        self.remove(&pair);
        Some((pair, was_question))
    }

    /// A local user's answer.
    pub(super) fn decide(&mut self, pair: Pair, allow: bool, serial: Serial, now: Timestamp) {
        let delivered = self.answered.get(&pair).is_some_and(|(known, _)| *known >= serial);
        let waits = matches!(self.all.get(&pair), Some(PermitRow::Answer { serial: known, .. }) if *known >= serial);
        if delivered || waits {
            return;
        }
        self.ready.insert(pair.clone());
        self.set(pair, PermitRow::Answer { allow, serial, since: now });
    }

    /// The peer answered; whether it was asked. A yes of before it was to be asked comes late, and is one to an earlier question.
    pub(super) fn answered(&mut self, pair: &Pair, allow: bool, seq: Option<Serial>) -> bool {
        let is_old = allow && seq.is_some_and(|seq| self.heard.get(pair).is_some_and(|heard| seq <= *heard));
        let asked = matches!(self.all.get(pair), Some(PermitRow::Invite { .. })) && !is_old;
        if asked {
            self.remove(pair);
        }
        asked
    }

    /// How many leave with the next transactions.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether there is no point in waiting for more.
    pub(super) fn fill_a_transaction(&self) -> bool {
        self.ready.len() >= MAX_EDUS
    }

    pub(super) fn is_idle(&self) -> bool {
        self.all.is_empty() && self.dirty.is_empty() && self.answered.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// What is due again becomes ready.
    pub(super) fn wake(&mut self, now: Timestamp) {
        let latest = now.plus(Settings::ASK_AGAIN_MAX_MS);
        if self.due.last().is_some_and(|(at, _)| *at > latest) {
            // Of a clock that was ahead and came back.
            self.due = std::mem::take(&mut self.due).into_iter().map(|(at, pair)| (at.min(latest), pair)).collect();
        }
        while self.next_due().is_some_and(|at| at <= now) {
            let Some((_, pair)) = self.due.pop_first() else { return };
            if matches!(self.all.get(&pair), Some(PermitRow::Invite { .. })) {
                self.ready.insert(pair);
            }
        }
    }

    /// Takes at most so many that are ready. They are on their way until [`Permits::delivered`] or [`Permits::failed`].
    pub(super) fn take(&mut self, most: usize) -> Vec<(Permission, Serial)> {
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(pair) = self.ready.pop_first() else { break };
            let Some((kind, serial)) = self.all.get(&pair).and_then(edu) else { continue };
            let (observed, observer) = pair;
            taken.push((Permission { kind, observed, observer }, serial));
        }
        taken
    }

    pub(super) fn delivered(&mut self, sent: &[(Permission, Serial)], now: Timestamp) {
        for (permission, serial) in sent {
            let pair = pair_of(permission);
            match self.all.get_mut(&pair) {
                Some(PermitRow::Invite { sent_at, tries, .. }) if permission.kind == PermissionKind::Invite => {
                    *sent_at = now;
                    *tries = tries.saturating_add(1);
                    let at = ask_again_at(&pair, now, *tries);
                    self.due.insert((at, pair.clone()));
                    self.dirty.insert(pair);
                }
                Some(PermitRow::Answer { serial: known, .. }) if known == serial => self.remove(&pair),
                _ => {}
            }
            self.note_answered(permission, *serial, now);
        }
    }

    /// A transaction held this, which is remembered for as long as what it held is.
    pub(super) fn note_answered(&mut self, permission: &Permission, serial: Serial, at: Timestamp) {
        if permission.kind != PermissionKind::Invite {
            let known = self.answered.entry(pair_of(permission)).or_default();
            *known = (*known).max((serial, at));
        }
    }

    pub(super) fn failed(&mut self, sent: &[(Permission, Serial)]) {
        let pairs = sent.iter().map(|(permission, _)| pair_of(permission));
        let all = &self.all;
        self.ready.extend(pairs.filter(|pair| all.get(pair).and_then(edu).is_some()));
    }

    /// After the last row. `live`: what is on its way.
    pub(super) fn begin(&mut self, live: &[(Permission, Serial)]) {
        let live: BTreeMap<Pair, Serial> =
            live.iter().map(|(permission, serial)| (pair_of(permission), *serial)).collect();
        let is_on_its_way = |pair: &Pair, row: &PermitRow| match (live.get(pair), row) {
            // An older answer may be.
            (Some(sent), PermitRow::Answer { serial, .. }) => sent == serial,
            (sent, _) => sent.is_some(),
        };
        for (pair, row) in self.all.iter().filter(|(pair, row)| !is_on_its_way(pair, row)) {
            match row {
                PermitRow::Invite { tries: 0, .. } | PermitRow::Answer { .. } => drop(self.ready.insert(pair.clone())),
                PermitRow::Invite { sent_at, tries, .. } => {
                    self.due.insert((ask_again_at(pair, *sent_at, *tries), pair.clone()));
                }
                PermitRow::Withdrawn { .. } | PermitRow::Question { .. } => {}
            }
        }
    }

    pub(super) fn compact(&mut self, now: Timestamp) {
        self.answered.retain(|_, (_, at)| now.since(*at) < Settings::SENT_KEEP_MS);
        self.drop_where(|row| matches!(row, PermitRow::Withdrawn { since, .. } if is_old(*since, now)));
    }

    /// Whether there are questions that nobody has repeated for long.
    pub(super) fn has_old_questions(&self, now: Timestamp) -> bool {
        self.all.values().any(|row| is_old_question(row, now))
    }

    /// Drops them. Who asks goes on asking, more often than that: whoever does not any longer has withdrawn it.
    pub(super) fn drop_old_questions(&mut self, now: Timestamp) -> Vec<Pair> {
        self.drop_where(|row| is_old_question(row, now))
    }

    fn drop_where(&mut self, is_useless: impl Fn(&PermitRow) -> bool) -> Vec<Pair> {
        let useless = self.all.iter().filter(|(_, row)| is_useless(row));
        let gone: Vec<Pair> = useless.map(|(pair, _)| pair.clone()).collect();
        for pair in &gone {
            self.remove(pair);
        }
        gone
    }

    pub(super) fn take_rows(&mut self, server: &ServerName, rows: &mut Vec<RowChange>) {
        for pair in std::mem::take(&mut self.dirty) {
            let key = under_link(RowKind::Permit, server, &format!("{}\0{}", pair.0, pair.1));
            rows.push(self.all.get(&pair).map_or_else(|| delete(key.clone()), |row| put(key.clone(), row)));
        }
    }
}

pub(super) fn pair_of(permission: &Permission) -> Pair {
    (permission.observed.clone(), permission.observer.clone())
}

/// Since when a stranger's doing has been there.
fn theirs_since(row: &PermitRow) -> Option<Timestamp> {
    match row {
        PermitRow::Question { since } | PermitRow::Answer { allow: true, since, .. } => Some(*since),
        _ => None,
    }
}

fn is_old(since: Timestamp, now: Timestamp) -> bool {
    now.since(since) >= Settings::TOMBSTONE_MS
}

fn is_old_question(row: &PermitRow, now: Timestamp) -> bool {
    matches!(row, PermitRow::Question { since } if is_old(*since, now))
}

/// As what it leaves, if at all.
fn edu(row: &PermitRow) -> Option<(PermissionKind, Serial)> {
    match row {
        PermitRow::Invite { serial, .. } => Some((PermissionKind::Invite, *serial)),
        PermitRow::Answer { allow: true, serial, .. } => Some((PermissionKind::Accept, *serial)),
        PermitRow::Answer { serial, .. } => Some((PermissionKind::Deny, *serial)),
        PermitRow::Withdrawn { .. } | PermitRow::Question { .. } => None,
    }
}

/// Doubles with every time, less up to a quarter by a hash: no randomness here.
fn ask_again_at(pair: &Pair, sent_at: Timestamp, tries: u32) -> Timestamp {
    let doublings = tries.saturating_sub(1).min(16);
    let whole = (Settings::ASK_AGAIN_MIN_MS << doublings).min(Settings::ASK_AGAIN_MAX_MS);
    let seed = format!("{}{}{tries}", pair.0, pair.1);
    sent_at.plus(whole - xxh3_64(seed.as_bytes()) % (whole / 4))
}
