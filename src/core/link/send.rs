//! How a link's windows leave: one live transaction at a time, receipts, back-off, and what is owed.

use xxhash_rust::xxh3::xxh3_64;

use super::remote::Polled;
use super::window::{Waiting, end_of};
use super::{Link, Live, Outcome, Permission, SentRow, Serial, Settings, Turn, UserSignal, delete, put, sent_key};
use crate::core::effect::{Flush, FlushReason, Output, Transaction};
use crate::model::{Timestamp, UserId};
use crate::wire::matrix::{MAX_EDU_ENTRIES, MAX_EDUS, TransactionContent, build_transaction};

/// Entries and bytes that leave together beside permission EDUs.
const MAX_BESIDE: usize = 12_800;
/// See [`MAX_BESIDE`].
const MAX_BYTES_BESIDE: usize = 2 << 20;
/// An m.presence EDU that is not full by entries holds at least so many bytes: the bound, less one entry.
const FULL_EDU_BYTES: usize = 50_000;

impl Link {
    /// The next moment at which time alone leads to something.
    pub fn poll_timeout(&self, settings: &Settings) -> Option<Timestamp> {
        let abandoned = self.state.transit.live.as_ref().map(|live| live.not_after.plus(Settings::SKEW_MS));
        let hold_over = self.held_since().map(|since| since.plus(settings.hold_max_ms));
        let leave = if self.state.transit.live.is_some() { None } else { self.leaves_at(settings) };
        let refresh = self.next_refresh(settings);
        [abandoned, hold_over, leave, refresh, self.busy.permits.next_due()].into_iter().flatten().min()
    }

    /// Closes the window early: `pressure` or `drain`. What may not leave is owed.
    pub fn relieve(&mut self, reason: FlushReason, turn: &mut Turn<'_>) {
        while self.may_leave(turn.now) && self.busy.window.len() > 0 {
            self.flush(reason, turn);
        }
        self.shed(turn);
    }

    /// When the window, or what is owed, may leave, were no transaction live.
    fn leaves_at(&self, settings: &Settings) -> Option<Timestamp> {
        let window = self.busy.window.opened().map(|opened| end_of(opened, settings));
        let owed = (!self.busy.owed.is_empty()).then(|| self.busy.asked_at.plus(Settings::TELL_AGAIN_MS));
        let at = [window, owed].into_iter().flatten().min()?;
        Some(at.max(self.state.transit.retry_at).max(self.state.transit.lapses_at))
    }

    /// Since when something held waits.
    fn held_since(&self) -> Option<Timestamp> {
        self.busy.window.opened().filter(|_| self.busy.window.len() > 0)
    }

    fn may_leave(&self, now: Timestamp) -> bool {
        self.state.transit.live.is_none() && self.state.transit.retry_at.max(self.state.transit.lapses_at) <= now
    }

    /// The destination has been failing and still may not be tried: what changes meanwhile is owed at once.
    pub(super) fn is_failing(&self, now: Timestamp) -> bool {
        self.state.transit.attempts > 0 && !self.may_leave(now)
    }

    /// Does what is due, in the order: give up, flush, shed, ask for what is owed.
    pub(super) fn advance(&mut self, turn: &mut Turn<'_>) {
        self.trust_clock(turn);
        self.wake_permits(turn.now);
        self.refresh_plain(turn);
        self.give_up_abandoned(turn);
        while let Some(reason) = self.due(turn) {
            self.flush(reason, turn);
        }
        let held_too_long = self.held_since().is_some_and(|since| turn.now.since(since) >= turn.settings.hold_max_ms);
        if held_too_long && !self.may_leave(turn.now) {
            self.shed(turn);
        }
        self.ask_for_owed(turn);
    }

    /// Times in the future count as now, or as far ahead as they can have been meant: a stepped clock freezes nobody.
    fn trust_clock(&mut self, turn: &Turn<'_>) {
        if self.busy.window.opened().is_some_and(|opened| opened > turn.now) || self.busy.asked_at > turn.now {
            self.busy.window.trust_clock(turn.now);
            self.busy.asked_at = self.busy.asked_at.min(turn.now);
        }
        if self.state.transit.is_resting() {
            return;
        }
        let transit = &mut *self.state.transit;
        let longest = turn.settings.backoff_max_ms.max(Settings::PATIENCE_MAX_MS);
        transit.retry_at = transit.retry_at.min(turn.now.plus(longest));
        transit.lapses_at = transit.lapses_at.min(turn.now.plus(turn.settings.resend_ms));
        transit.refused_until = transit.refused_until.min(turn.now.plus(turn.settings.resend_ms));
        if let Some(live) = &mut transit.live {
            live.not_after = live.not_after.min(turn.now.plus(turn.settings.resend_ms));
        }
    }

    /// The same for the hot path: a window that is full need not wait for the timer.
    pub(super) fn advance_if_full(&mut self, turn: &mut Turn<'_>) {
        let full =
            self.busy.window.len() >= self.cap(turn.settings) || self.busy.window.bytes() >= turn.settings.max_bytes;
        if (full || self.busy.permits.fill_a_transaction()) && self.may_leave(turn.now) {
            self.advance(turn);
        }
    }

    fn due(&self, turn: &Turn<'_>) -> Option<FlushReason> {
        if self.may_leave(turn.now) { self.ripe(turn.now, turn.settings) } else { None }
    }

    /// Whether a window that will be due `by` then, or what is owed, waits for the answer to the transaction that is under way.
    pub fn is_held_up(&self, by: Timestamp, settings: &Settings) -> bool {
        self.state.transit.live.is_some() && (self.ripe(by, settings).is_some() || !self.busy.owed.is_empty())
    }

    /// Why the window is to leave, were no transaction live.
    fn ripe(&self, now: Timestamp, settings: &Settings) -> Option<FlushReason> {
        let opened = self.busy.window.opened()?;
        if self.busy.window.len() >= self.cap(settings) || self.busy.permits.fill_a_transaction() {
            return Some(FlushReason::Entries);
        }
        if self.busy.window.bytes() >= settings.max_bytes {
            return Some(FlushReason::Bytes);
        }
        let end = end_of(opened, settings).min(opened.plus(settings.hold_max_ms));
        (now >= end).then_some(FlushReason::Due)
    }

    fn cap(&self, settings: &Settings) -> usize {
        self.state.transit.cap.map_or(settings.max_entries, |cap| settings.max_entries.min(cap as usize))
    }

    /// Makes one transaction of what waits. The entries' deliveries are released: the transaction is committed before they are
    /// acknowledged.
    fn flush(&mut self, reason: FlushReason, turn: &mut Turn<'_>) {
        let (cap, max_bytes) = self.bounds(turn.settings);
        let [statuses, asks, permits] = self.shares(cap);
        let taken = if statuses > 0 { self.busy.window.take(statuses, max_bytes) } else { Vec::new() };
        let bytes: usize = taken.iter().map(|(_, waiting)| waiting.size).sum();
        let (polls, unpolls) = match asks {
            0 => Default::default(),
            most => self.take_pending(most, max_bytes.saturating_sub(bytes)),
        };
        let entries = taken.len() + polls.len() + unpolls.len();
        let permissions = self.busy.permits.take(permits.min(edus_left(taken.len(), max_bytes)));
        self.busy.window.close_if_empty();
        self.open_for_more(turn.now);
        if entries == 0 && permissions.is_empty() && !self.busy.words.are_ready() {
            return;
        }
        for (_, waiting) in &taken {
            turn.holds.release(waiting.hold);
        }
        let since = taken.iter().map(|(_, waiting)| waiting.since).collect();
        let bytes = self.transmit(taken, polls, unpolls, permissions, turn);
        turn.flushes.push(Flush { reason, bytes, since });
    }

    /// Entries and bytes of one transaction. Permission EDUs need room beside a window that would fill it alone.
    fn bounds(&self, settings: &Settings) -> (usize, usize) {
        let (cap, bytes) = (self.cap(settings), settings.max_bytes);
        if self.busy.permits.has_ready() { (cap.min(MAX_BESIDE), bytes.min(MAX_BYTES_BESIDE)) } else { (cap, bytes) }
    }

    /// How many statuses, polls and unpolls, and permission EDUs leave together: what waits of each, and all of them fairly where that is
    /// more than `cap`. Where there is not room for one of each, they take turns.
    fn shares(&mut self, cap: usize) -> [usize; 3] {
        let waiting = [self.busy.window.len(), self.busy.asks(), self.busy.permits.ready().min(MAX_EDUS)];
        self.busy.turn = (self.busy.turn + 1) % waiting.len();
        share(cap, waiting, self.busy.turn)
    }

    /// Opens the window if something waits for it beside statuses.
    pub(super) fn open_for_more(&mut self, now: Timestamp) {
        if self.busy.asks() > 0 || self.busy.permits.has_ready() || self.busy.words.are_ready() {
            self.busy.window.open(now);
        }
    }

    fn transmit(
        &mut self,
        taken: Vec<(UserId, Waiting)>,
        polls: Vec<UserId>,
        unpolls: Vec<UserId>,
        permissions: Vec<(Permission, Serial)>,
        turn: &mut Turn<'_>,
    ) -> usize {
        let seq = turn.next_serial();
        let entries: Vec<_> = taken.iter().map(|(user, waiting)| (user.clone(), waiting.serial)).collect();
        if !self.told.is_resting() {
            self.told.begin(seq);
        }
        for (user, waiting) in &taken {
            self.note_sent(user, &waiting.status, waiting.serial, turn.now);
        }
        let said = self.take_words(seq);
        let remind = said.reminder.is_some();
        let content = TransactionContent {
            pushes: taken.into_iter().map(|(user, waiting)| (user, waiting.status)).collect(),
            polls: polls.clone(),
            unpolls: unpolls.clone(),
            permissions: permissions.iter().map(|(permission, _)| permission.clone()).collect(),
            seq,
            promise_ms: turn.settings.long_ms,
            plain: !self.speaks(turn.now),
            reminder: said.reminder,
            answers: said.answers,
            have: said.have,
            differ: said.differ,
        };
        let body = build_transaction(turn.local, turn.now, &content);
        let bytes = body.get().len();
        let txn_id: Box<str> = format!("rollcall-{}-{}", seq.epoch, seq.counter).into();
        let not_after = turn.now.plus(turn.settings.resend_ms);
        self.state.transit.live = Some(Live { txn_id: txn_id.clone(), seq, not_after });
        self.remember(SentRow { seq, at: turn.now, entries, polls, unpolls, permissions, remind });
        let trace = self.busy.window.take_trace();
        let destination = self.server.clone();
        turn.outputs.push(Output::Transmit(Transaction { destination, txn_id, not_after, body, trace }));
        bytes
    }

    fn remember(&mut self, row: SentRow) {
        self.busy.dirty.state = true;
        self.busy.dirty.rows.push(put(sent_key(&self.server, row.seq), &row));
        // Mostly one or two, of very many links.
        self.sent.reserve_exact(1);
        self.sent.push((row.seq, row.at));
        self.forget_sent(row.at);
        self.busy.live = Some(row);
    }

    pub(super) fn forget_sent(&mut self, now: Timestamp) {
        let surplus = self.sent.len().saturating_sub(Settings::SENT_KEEP);
        let old = |(_, at): &&(Serial, Timestamp)| now.since(*at) >= Settings::SENT_KEEP_MS;
        let gone = self.sent.iter().take(surplus).take_while(old).count();
        for (seq, _) in self.sent.drain(..gone) {
            self.busy.dirty.rows.push(delete(sent_key(&self.server, seq)));
        }
    }

    /// What became of the live transaction. A receipt for any other is old news.
    pub(super) fn receipt(&mut self, txn_id: &str, outcome: Outcome, retry_after_ms: Option<u64>, turn: &mut Turn<'_>) {
        if self.state.transit.is_resting() {
            return;
        }
        let Some(live) = self.state.transit.live.take_if(|live| &*live.txn_id == txn_id) else { return };
        self.busy.dirty.state = true;
        if outcome == Outcome::Expired {
            // A sender says so once no further attempt fits. Should it die before it has acknowledged, its successor attempts again:
            // what is newer must not have arrived by then.
            self.state.transit.lapses_at = live.not_after;
        }
        let Some(row) = self.busy.live.take() else { return };
        match outcome {
            Outcome::Delivered => self.delivered(&row, turn),
            Outcome::TooLarge if row.len() > 1 => {
                self.state.transit.cap = Some(u32::try_from(row.len() / 2).unwrap_or(u32::MAX));
                self.take_back(row, turn);
            }
            Outcome::TooLarge | Outcome::Failed | Outcome::Expired => {
                self.note_delivery(false, turn.now);
                self.state.transit.attempts = self.state.transit.attempts.saturating_add(1);
                let asked = retry_after_ms.unwrap_or(0).min(Settings::PATIENCE_MAX_MS);
                self.state.transit.retry_at = turn.now.plus(self.backoff_ms(turn.settings).max(asked));
                let refused_until = turn.now.plus(turn.settings.resend_ms);
                self.state.transit.refused_until =
                    if outcome == Outcome::Expired { Timestamp(0) } else { refused_until };
                self.take_back(row, turn);
            }
        }
    }

    fn delivered(&mut self, row: &SentRow, turn: &Turn<'_>) {
        self.permits_delivered(&row.permissions, turn.now);
        self.note_delivery(true, turn.now);
        if row.remind {
            self.watchdog.asking.delivered(row.seq, turn.now, turn.settings.short_ms);
        }
        // It left after all of this.
        self.state.transit.lapses_at = Timestamp(0);
        self.state.transit.forgive(Timestamp(0));
        self.busy.asked_at = Timestamp(0);
        for (user, polled) in
            row.polls.iter().map(|user| (user, Polled::Yes)).chain(row.unpolls.iter().map(|user| (user, Polled::No)))
        {
            let Some(remote) = self.remotes.get_mut(user.localpart()) else { continue };
            remote.polled = polled;
            if polled == Polled::No && !remote.is_wanted() {
                remote.forget();
            }
            super::mark(remote, user.localpart(), &mut self.busy.dirty.remotes);
            self.reconsider(user.localpart(), turn.now);
        }
    }

    /// The transaction is given up: its content leaves in a new one, with the statuses of then.
    fn take_back(&mut self, row: SentRow, turn: &mut Turn<'_>) {
        self.permits_failed(&row.permissions, turn.now);
        for (user, serial) in row.entries {
            if self.told.serial(&user) == Some(serial) {
                self.owe(user, serial, turn);
            }
        }
        self.busy.asked_at = Timestamp(0);
        for user in row.polls.iter().chain(&row.unpolls) {
            // If the peer pushes on whom nobody knows here, it is told so again.
            let Some(remote) = self.remotes.get_mut(user.localpart()) else { continue };
            remote.polled = Polled::Perhaps;
            super::mark(remote, user.localpart(), &mut self.busy.dirty.remotes);
            self.reconsider(user.localpart(), turn.now);
        }
    }

    fn give_up_abandoned(&mut self, turn: &mut Turn<'_>) {
        let Some(live) = &self.state.transit.live else { return };
        if turn.now >= live.not_after.plus(Settings::SKEW_MS) {
            let txn_id = live.txn_id.clone();
            self.receipt(&txn_id, Outcome::Expired, None, turn);
        }
    }

    /// What is held and may not leave is committed as owed, so that its deliveries can be acknowledged.
    fn shed(&mut self, turn: &mut Turn<'_>) {
        for (user, waiting) in self.busy.window.take(usize::MAX, usize::MAX) {
            turn.holds.release(waiting.hold);
            self.owe(user, waiting.serial, turn);
        }
        self.busy.window.close_if_empty();
        self.open_for_more(turn.now);
    }

    /// Asks the users' machines to say again what is owed, once it may leave. Their answers are gathered like any change.
    fn ask_for_owed(&mut self, turn: &mut Turn<'_>) {
        let asked = turn.now.since(self.busy.asked_at) < Settings::TELL_AGAIN_MS;
        if asked || self.busy.owed.is_empty() || !self.may_leave(turn.now) {
            return;
        }
        self.busy.asked_at = turn.now;
        let users: Vec<UserId> = self.busy.owed.keys().take(turn.settings.max_entries).cloned().collect();
        for user in users {
            turn.tell_user(user, UserSignal::Tell { peer: self.server.clone() });
        }
    }

    /// Up to `most`, by a hash of the two servers and the `nth` time: no randomness here.
    pub(in crate::core) fn spread(&self, nth: u64, most: u64) -> u64 {
        xxh3_64(&(self.seed ^ nth).to_le_bytes()) % (most + 1)
    }

    /// Doubles with every failure, between half and whole, by a hash: no randomness here.
    fn backoff_ms(&self, settings: &Settings) -> u64 {
        let doublings = self.state.transit.attempts.saturating_sub(1).min(32);
        let whole = settings.backoff_min_ms.saturating_mul(1 << doublings).min(settings.backoff_max_ms);
        whole / 2 + self.spread(self.state.transit.attempts.into(), whole / 2)
    }
}

/// Whoever wants least is served first, and leaves to the others what it does not need; with room for less than one of each, `first` is.
fn share(cap: usize, waiting: [usize; 3], first: usize) -> [usize; 3] {
    let mut order = [first, (first + 1) % 3, (first + 2) % 3];
    if cap >= waiting.len() {
        order.sort_by_key(|kind| waiting[*kind]);
    }
    let (mut left, mut sharers) = (cap, waiting.iter().filter(|count| **count > 0).count());
    let mut shares = [0; 3];
    for kind in order.into_iter().filter(|kind| waiting[*kind] > 0) {
        shares[kind] = waiting[kind].min(left.div_ceil(sharers));
        left -= shares[kind];
        sharers -= 1;
    }
    shares
}

/// How many permission EDUs fit beside so many pushes and bytes of pushes, polls and unpolls.
fn edus_left(pushes: usize, bytes: usize) -> usize {
    MAX_EDUS.saturating_sub(pushes / MAX_EDU_ENTRIES + bytes / FULL_EDU_BYTES + 2)
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn nobody_gets_nothing_for_ever_and_no_room_is_wasted() {
        assert_eq!(share(5_000, [6_000, 10, 3], 0), [4_987, 10, 3]);
        assert_eq!(share(5_000, [6_000, 6_000, 6_000], 1).iter().sum::<usize>(), 5_000);
        assert_eq!(share(5_000, [6_000, 0, 0], 2), [5_000, 0, 0]);
        assert_eq!(share(3, [9, 9, 9], 0), [1, 1, 1]);
        assert_eq!([0, 1, 2].map(|first| share(1, [9, 9, 9], first)), [[1, 0, 0], [0, 1, 0], [0, 0, 1]]);
        assert_eq!([0, 1, 2].map(|first| share(1, [9, 0, 9], first)), [[1, 0, 0], [0, 0, 1], [0, 0, 1]]);
        assert_eq!(share(0, [9, 9, 9], 0), [0, 0, 0]);
    }
}
