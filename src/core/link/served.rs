//! What the peer is told of our users: whose changes it was promised, what waits, what is owed, and whom it may not be told of any
//! longer. The users' machines decide; the link only carries it out.

use std::collections::{BTreeMap, BTreeSet};

use super::busy::Busy;
use super::window::Waiting;
use super::{Link, Turn};
use crate::core::HoldId;
use crate::core::digest::weight;
use crate::core::rows::ServedRow;
use crate::core::settings::Settings;
use crate::core::signal::UserSignal;
use crate::model::{Serial, Status, Timestamp, UserId};
use crate::wire::matrix::entry_size;

/// Users who are not served.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// Tombstones: when a user's machine said that the peer is to hear no more of them, and when that was heard. A change that is
    /// older must not bring them back, whatever is promised or ended since.
    pub(super) hidden: BTreeMap<UserId, (Serial, Timestamp)>,
    /// What was sent without a promise, or before the promise ended, and when.
    pub(super) once: BTreeMap<UserId, (Serial, Timestamp)>,
}

impl Others {
    pub(super) fn is_empty(&self) -> bool {
        self.hidden.is_empty() && self.once.is_empty()
    }
}

impl Link {
    /// S3: the peer wants to watch one of ours. Whether it may, and what is said, is up to that user's machine.
    pub(super) fn polled(&mut self, user: UserId, order: Option<Serial>, turn: &mut Turn<'_>) {
        if self.told.len() < Settings::MAX_SERVED || self.told.contains(&user) {
            self.tell_watched(user, true, order, turn);
        } else {
            turn.passed_over.served += 1;
        }
    }

    /// The peer does not want to any longer: nothing leaves from now on, unless it may have said otherwise since.
    pub(super) fn unpolled(&mut self, user: UserId, is_news: bool, order: Option<Serial>, turn: &mut Turn<'_>) {
        if is_news {
            self.stop_serving(&user, turn);
        }
        self.tell_watched(user, false, order, turn);
    }

    /// A full exchange: what the peer does not poll it does not watch, and whom it does not push it is to be asked for again.
    pub(super) fn replace(
        &mut self,
        polled: &BTreeSet<UserId>,
        pushed: &[(UserId, Status)],
        order: Option<Serial>,
        turn: &mut Turn<'_>,
    ) {
        let unpolled: Vec<UserId> = self.told.users().filter(|user| !polled.contains(*user)).cloned().collect();
        for user in unpolled {
            self.unpolled(user, true, order, turn);
        }
        let pushed: BTreeSet<&UserId> = pushed.iter().map(|(user, _)| user).collect();
        self.poll_again(|user| !pushed.contains(user));
    }

    /// The peer's own number of the last that was read of it, if it numbers what it says.
    pub(super) fn last_number(&self) -> Option<Serial> {
        Some(self.state.applied).filter(|applied| *applied > Serial::default())
    }

    fn tell_watched(&self, user: UserId, on: bool, order: Option<Serial>, turn: &mut Turn<'_>) {
        let serial = order.unwrap_or_else(|| turn.next_serial());
        turn.tell_user(user, UserSignal::Watched { peer: self.server.clone(), on, serial });
    }

    fn stop_serving(&mut self, user: &UserId, turn: &mut Turn<'_>) {
        if let Some(last) = self.told.serial(user).filter(|last| *last > Serial::default()) {
            // What comes late is not told again as if the peer had never heard it.
            self.busy.others.once.insert(user.clone(), (last, turn.now));
        }
        if self.told.contains(user) && self.told.remove(user) {
            self.busy.dirty.served.insert(user.clone());
        }
        self.busy.owed.remove(user);
        if let Some(hold) = self.busy.window.remove(user) {
            turn.holds.release(hold);
        }
    }

    /// A user's machine tells of a change; with `promise` all later ones follow.
    pub(super) fn change(
        &mut self,
        user: UserId,
        (status, serial): (Status, Serial),
        promise: bool,
        hold: HoldId,
        turn: &mut Turn<'_>,
    ) {
        // What is owed is newer than what comes again late: the older must not pass for it.
        let owed = self.busy.owed.get(&user).copied().unwrap_or_default();
        let told = self.told.serial(&user);
        if serial <= self.settled(&user, told) || serial < owed {
            return;
        }
        if promise && told.is_none() && !self.promise(&user, turn) {
            return;
        }
        if self.is_failing(turn.now) {
            self.owe(user, serial, turn);
            return;
        }
        let size = entry_size(&user, &status);
        turn.holds.retain(hold);
        self.busy.window.note_trace(turn.trace);
        let waiting = Waiting { status, serial, hold, since: turn.at, size };
        if let Some(superseded) = self.busy.window.insert(turn.now, user, waiting) {
            turn.holds.release(superseded);
        }
    }

    /// Up to which change the peer was told, which is `told` by promise, or is not to be told.
    fn settled(&self, user: &UserId, told: Option<Serial>) -> Serial {
        let once = self.busy.others.once.get(user).map(|(serial, _)| *serial);
        let hidden = self.busy.others.hidden.get(user).map(|(serial, _)| *serial);
        [told, once, hidden].into_iter().flatten().max().unwrap_or_default()
    }

    /// Promises a user who was not promised; whether there is room.
    fn promise(&mut self, user: &UserId, turn: &mut Turn<'_>) -> bool {
        if self.told.len() >= Settings::MAX_SERVED {
            turn.passed_over.served += 1;
            return false;
        }
        self.told.promise(user.clone());
        self.busy.dirty.served.insert(user.clone());
        true
    }

    /// The user's machine says that nobody there may see them, or wants to: at once, whatever waits. If it has shown them again since,
    /// which was heard before, that stays.
    pub(super) fn hide(&mut self, user: UserId, serial: Serial, turn: &mut Turn<'_>) {
        let hidden = self.busy.others.hidden.get(&user).map(|(serial, _)| *serial);
        if hidden.is_some_and(|hidden| hidden > serial) {
            return;
        }
        let waiting = self.busy.window.serial(&user);
        let newest = [self.told.serial(&user), self.busy.owed.get(&user).copied(), waiting];
        if newest.into_iter().flatten().all(|known| known <= serial) {
            self.doubt_what_is_left(&user, serial, turn);
            self.stop_serving(&user, turn);
        }
        self.busy.dirty.served.insert(user.clone());
        self.busy.others.hidden.insert(user, (serial, turn.now));
    }

    /// The peer holds what it was told of `user`, who is told of no longer. Mostly it learns why, and drops that. If it does not, since
    /// one of both sides was restored and forgot who may see whom, both are to find out.
    fn doubt_what_is_left(&mut self, user: &UserId, serial: Serial, turn: &Turn<'_>) {
        if self.told.get(user).is_some_and(|last| last.weight != 0) && self.speaks(turn.now) {
            self.compare_soon(serial.counter, turn);
        }
    }

    /// Notes that the peer must yet be told of the change `serial`, whatever older one waits.
    pub(super) fn owe(&mut self, user: UserId, serial: Serial, turn: &mut Turn<'_>) {
        if !self.told.contains(&user) || self.busy.owed.get(&user).is_some_and(|owed| *owed >= serial) {
            return;
        }
        if let Some(hold) = self.busy.window.remove_older(&user, serial) {
            turn.holds.release(hold);
        }
        self.busy.owed.insert(user.clone(), serial);
        self.busy.dirty.served.insert(user);
    }

    /// A transaction holds this.
    pub(super) fn note_sent(&mut self, user: &UserId, status: &Status, serial: Serial, now: Timestamp) {
        let had_tombstone = self.tombstone(user).is_some();
        if self.told.is_resting() || !self.told.tell(user, serial, weight(user, status)) {
            self.busy.others.once.insert(user.clone(), (serial, now));
        } else if self.speaks(now) || had_tombstone {
            // Its row says what the peer should hold, so that a digest can be told after a restart.
            self.busy.dirty.served.insert(user.clone());
        }
        if self.busy.owed.get(user).is_some_and(|owed| *owed <= serial) {
            self.busy.owed.remove(user);
            self.busy.dirty.served.insert(user.clone());
        }
    }

    /// The tombstone of a user, as long as nothing newer was told: what was is remembered with the transaction.
    fn tombstone(&self, user: &UserId) -> Option<(Serial, Timestamp)> {
        let tombstone = self.busy.others.hidden.get(user).copied();
        tombstone.filter(|(hidden, _)| self.told.serial(user).is_none_or(|last| last <= *hidden))
    }

    /// `None`: nothing need be remembered.
    pub(super) fn served_row(&self, user: &UserId) -> Option<ServedRow> {
        let (told, hidden) = (self.told.get(user), self.tombstone(user));
        // Beside a tombstone a promise shows by what is owed: something is, until the peer is told.
        let untold = told.and(hidden).map(|_| Serial::default());
        let owed = self.busy.owed.get(user).copied().or(untold);
        let told = told.map(|last| last.weight);
        (told.is_some() || hidden.is_some()).then(|| ServedRow { owed, hidden, told: told.unwrap_or(0) })
    }

    pub(in crate::core) fn restore_served(&mut self, user: UserId, row: ServedRow) {
        if let Some(hidden) = row.hidden {
            self.busy.others.hidden.insert(user.clone(), hidden);
        }
        if row.is_promised() {
            if let Some(serial) = row.owed {
                self.busy.owed.insert(user.clone(), serial);
            }
            self.told.restore(user, row.told);
        }
    }

    pub(super) fn compact_others(&mut self, now: Timestamp) {
        let Busy { others, dirty, .. } = &mut *self.busy;
        others.once.retain(|_, (_, at)| now.since(*at) < Settings::SENT_KEEP_MS);
        let old = |at: Timestamp| now.since(at) >= Settings::TOMBSTONE_MS;
        let gone = others.hidden.extract_if(.., |_, (_, at)| old(*at));
        dirty.served.extend(gone.map(|(user, _)| user));
    }
}
