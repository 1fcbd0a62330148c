//! The two watchdogs of a link (W3–W7), and what becomes of the promises that they guard.
//!
//! Only peers that know what a promise is have them: those that speak rollcall, polled, or said something of permission. A timer is
//! a hint and the facts are looked at anew, so that a reset is one store of a number. Silence is judged against the horizon, never
//! against the clock: what lies unread in a queue is no silence.

use super::{Link, Turn};
use crate::core::rarely::{Rare, Rarely};
use crate::core::settings::Settings;
use crate::model::{MaybeTime, Serial, Timestamp, UserId};

/// A peer's promise counts for no longer than this, ms.
const PROMISE_MAX_MS: u64 = 24 * 3600 * 1000;

/// See the module. All times are of the local clock.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Watchdog {
    pulse: Pulse,
    /// When a reminder, or the answer to ours, was last heard: resets both (W6).
    pub(super) reset: Timestamp,
    /// When the peer last polled, reminded or answered a reminder: our own promises end without.
    asked: Timestamp,
    pub(super) asking: Rarely<Asking>,
    /// How often the peer answered a reminder.
    answers: u32,
    /// Whether there is anything to guard.
    on: bool,
    /// The short one expired, and nothing was heard since.
    silent: bool,
}

/// What a reminder leaves until it is answered, and what calls for one.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// A reminder is due by then, whatever was heard: after a restart, or because the peer came back.
    due: MaybeTime,
    /// The number of the transaction that carries our last reminder, until it is answered.
    pub(super) reminder: Option<Serial>,
    /// The same of the last that was a try: its answer counts though another reminder followed early.
    pub(super) counted: Option<Serial>,
    /// When one was last delivered; forgotten once it is answered.
    reminded: Timestamp,
    /// How many were delivered since the last answer.
    tries: u32,
    /// Since when nothing could be delivered.
    failing: MaybeTime,
}

impl Asking {
    /// A reminder reached the peer. From now on its answer is waited for. One that came early, to compare, is no further try: a peer
    /// gets the same time to answer however often that is needed.
    pub(super) fn delivered(&mut self, seq: Serial, now: Timestamp, short_ms: u64) {
        let is_early = self.tries > 0 && now < self.reminded.plus(short_ms);
        if self.reminder == Some(seq) && !is_early {
            (self.reminded, self.counted) = (now, Some(seq));
            self.tries = self.tries.saturating_add(1);
        }
    }
}

impl Rare for Asking {
    fn none() -> &'static Self {
        static NONE: Asking = Asking {
            due: MaybeTime::NONE,
            reminder: None,
            counted: None,
            reminded: Timestamp(0),
            tries: 0,
            failing: MaybeTime::NONE,
        };
        &NONE
    }

    fn is_none(&self) -> bool {
        !self.due.is_some() && self.reminder.is_none() && self.tries == 0 && !self.failing.is_some()
    }
}

/// All that nearly every sign of life touches, of very many links.
#[derive(Debug, Clone, Copy, Default)]
struct Pulse {
    /// When anything was last heard of the peer: resets the short one (W4).
    heard: Timestamp,
    /// Hearing it again changes nothing else.
    is_steady: bool,
}

/// What the machines of a partition know of a link's watchdogs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::core) struct Standing {
    /// It has something to guard.
    pub(in crate::core) guards: bool,
    /// The peer is silent.
    pub(in crate::core) silent: bool,
    /// How often it answered.
    pub(in crate::core) answers: u32,
}

impl Link {
    pub(in crate::core) fn standing(&self) -> Standing {
        let dog = &self.watchdog;
        Standing { guards: dog.on, silent: dog.silent, answers: dog.answers }
    }

    pub(super) fn is_guarded(&self) -> bool {
        self.watchdog.on
    }

    /// A peer without the `rollcall` object cannot answer but by saying or asking something.
    pub(super) fn confirmed_by_word(&mut self, turn: &mut Turn<'_>) {
        if !self.speaks(turn.now) {
            if self.watchdog.asking.reminder.is_some() {
                self.note_asked(turn);
            }
            self.reset_watchdogs(turn);
            self.believe(turn);
        }
    }

    /// Starts the watchdogs with the first promise, and stops them with the last. Looks at the facts after whatever happened.
    pub(in crate::core) fn guard(&mut self, now: Timestamp) {
        // One that has been silent for a day is asked for as long as somebody here wants to know.
        let speaks = self.speaks(now);
        let listens = speaks || self.subscribes(now) || self.state.knows_permission() && self.wanted > 0;
        let on = listens && (self.told.len() > 0 || self.wanted > 0);
        let is_reached = self.state.transit.attempts == 0 && !self.is_lapsed();
        let dog = &mut self.watchdog;
        if on != dog.on {
            // That something is to be compared outlives what there was to guard: the peer may still rely on it.
            let due = dog.asking.due;
            *dog = Watchdog::default();
            if on {
                let pulse = Pulse { heard: now, is_steady: false };
                *dog = Watchdog { on, pulse, reset: now, asked: now, ..Watchdog::default() };
                self.compared = now;
            }
            if speaks && due.is_some() {
                dog.asking.due = due;
            }
        }
        dog.pulse.is_steady = on && !dog.silent && dog.asking.tries == 0 && is_reached;
        self.rest();
    }

    /// Gives back what is not needed any longer.
    fn rest(&mut self) {
        self.told.rest();
        self.state.transit.rest();
        // When a peer that was given up was last reminded counts until it is back.
        if !self.is_lapsed() {
            self.watchdog.asking.rest();
        }
    }

    /// This peer's turn to be reminded comes `offset_ms` after `from`, as after a restart.
    pub(in crate::core) fn remind_later(&mut self, from: Timestamp, offset_ms: u64) {
        if self.watchdog.on {
            self.watchdog.asking.due = from.plus(offset_ms).into();
        }
    }

    /// The peer is to be reminded by then, whatever was heard.
    pub(super) fn remind_by(&mut self, at: Timestamp) {
        let due = self.watchdog.asking.due.get().unwrap_or(at);
        self.watchdog.asking.due = due.min(at).into();
    }

    /// Both sides were compared and hold the same: the reminder that was due is not needed any longer.
    pub(super) fn note_agreement(&mut self) {
        if self.watchdog.asking.due.is_some() {
            self.watchdog.asking.due.take();
        }
    }

    /// One side may hold something else than the other told it: both are to be compared soon, unless the peer asks for it first. Not
    /// at once: what explains it may be on its way, and comparisons do not overlap. One that was given up is reminded anyway.
    pub(super) fn compare_soon(&mut self, nth: u64, turn: &Turn<'_>) {
        if self.watchdog.on && !self.is_lapsed() {
            let patience = turn.settings.short_ms / 4;
            self.remind_by(turn.horizon.plus(patience + self.spread(nth, patience)));
        }
    }

    /// Whether the peer was given up, or could not be reached for as long as that takes, and there is something to say to it.
    pub(in crate::core) fn is_dead(&self, now: Timestamp, settings: &Settings) -> bool {
        let failing = self.watchdog.asking.failing.get().is_some_and(|since| since.plus(settings.give_up_ms) <= now);
        let has_something = self.watchdog.on || self.owed() > 0 || !self.busy.pending.is_empty();
        has_something && (failing || self.is_lapsed())
    }

    /// The silence since about `since` was our own fault: the peer gets all its chances again. Whoever could not be reached for long
    /// before then gets no more.
    pub(in crate::core) fn forgive(&mut self, now: Timestamp, since: Timestamp, settings: &Settings) {
        let dog = &mut self.watchdog;
        (dog.pulse.heard, dog.silent, dog.asking.tries) = (now, false, 0);
        let failing = dog.asking.failing.get().filter(|failing| failing.plus(2 * settings.short_ms) < since);
        dog.asking.failing = failing.into();
        let at = self.state.transit.retry_at.min(now);
        self.state.transit.forgive(at);
        self.busy.dirty.state = true;
    }

    /// W4, where it changes nothing but the time, as nearly always; `false`: it has to be looked at.
    pub(in crate::core) fn heard_as_ever(&mut self, at: Timestamp, now: Timestamp) -> bool {
        let pulse = &mut self.watchdog.pulse;
        if pulse.is_steady {
            pulse.heard = pulse.heard.max(at.min(now));
        }
        pulse.is_steady
    }

    /// W4: any authenticated request of the peer.
    pub(super) fn note_heard(&mut self, turn: &Turn<'_>) {
        let long = self.long_due(turn.settings);
        let dog = &mut self.watchdog;
        dog.pulse.heard = dog.pulse.heard.max(turn.at.min(turn.now));
        dog.silent = false;
        if turn.horizon < long && dog.asking.tries > 0 {
            dog.asking.tries = 0;
        }
        if self.state.lapsed.is_some() && dog.on {
            // It is back: what it promised may have changed meanwhile.
            dog.asking.due = turn.horizon.max(dog.asking.reminded.plus(turn.settings.short_ms)).into();
            self.remind_if_due(turn);
        }
    }

    /// W6: a reminder, or the answer to ours.
    pub(super) fn reset_watchdogs(&mut self, turn: &Turn<'_>) {
        let dog = &mut self.watchdog;
        dog.reset = dog.reset.max(turn.at.min(turn.now));
        dog.answers = dog.answers.wrapping_add(u32::from(dog.asking.reminder.is_some()));
        if !dog.asking.is_resting() {
            (dog.asking.tries, dog.asking.reminder, dog.asking.counted) = (0, None, None);
        }
    }

    /// The peer wants to know something of us, or confirmed what it knows: our promises to it go on.
    pub(super) fn note_asked(&mut self, turn: &Turn<'_>) {
        self.watchdog.asked = self.watchdog.asked.max(turn.at.min(turn.now));
    }

    /// Something reached the peer, or could not.
    pub(super) fn note_delivery(&mut self, is_delivered: bool, now: Timestamp) {
        let failing = self.watchdog.asking.failing;
        if is_delivered == failing.is_some() {
            self.watchdog.asking.failing = (!is_delivered).then_some(now).into();
        }
    }

    /// The next moment of the horizon at which silence alone leads to something.
    pub(in crate::core) fn poll_watchdog(&self, settings: &Settings) -> Option<Timestamp> {
        let guarded = self.watchdog.on.then(|| {
            let lost = self.lost_at(settings).filter(|_| !self.is_lapsed());
            let ends = (self.told.len() > 0).then(|| self.promises_end(settings));
            [self.silent_at(settings), lost, ends].into_iter().flatten().min()
        });
        [guarded.flatten(), self.next_reminder(settings), self.plain_due.get()].into_iter().flatten().min()
    }

    /// Looks at the facts again: the horizon has moved.
    pub(in crate::core) fn handle_watchdog(&mut self, turn: &mut Turn<'_>) {
        self.trust_watchdog(turn.now);
        self.expire_plain(turn);
        if self.watchdog.on {
            self.watchdog.silent |= self.silent_at(turn.settings).is_some_and(|at| at <= turn.horizon);
            self.end_promises(turn);
            if !self.is_lapsed() && !turn.suspicious && self.is_lost(turn) {
                self.lapse(turn);
            }
        }
        self.remind_if_due(turn);
        self.advance(turn);
    }

    /// W5: one reminder at a time, and the next one only once this one had its time.
    fn remind_if_due(&mut self, turn: &Turn<'_>) {
        if self.next_reminder(turn.settings).is_none_or(|at| at > turn.horizon) {
            return;
        }
        if self.watchdog.asking.due.is_some() {
            self.watchdog.asking.due.take();
        }
        self.busy.words.remind = true;
        self.poll_the_unknown();
        if !self.speaks(turn.now) && self.subscribes(turn.now) {
            self.repeat_everything();
        }
        self.open_for_more(turn.now);
    }

    /// The reminder of peers that cannot tell a digest: everything again, and everything asked for again.
    fn repeat_everything(&mut self) {
        self.owe_again(|_| true);
        self.poll_again(|_| true);
    }

    fn next_reminder(&self, settings: &Settings) -> Option<Timestamp> {
        let dog = &self.watchdog;
        if self.busy.words.remind || self.busy.live.as_ref().is_some_and(|live| live.remind) {
            return None;
        }
        let regular = dog.on.then(|| {
            let overdue = dog.pulse.heard.plus(settings.short_ms).min(self.long_due(settings));
            let asked = (dog.asking.tries > 0).then_some(dog.asking.reminded);
            overdue.max(asked.map_or(Timestamp(0), |reminded| reminded.plus(self.patience_ms(settings))))
        });
        [dog.asking.due.get(), regular].into_iter().flatten().min()
    }

    /// How long an answer is waited for: the short watchdog's time, and ever longer after the peer is given up, up to the long one's.
    /// Less up to a half then, by a hash: no randomness here.
    fn patience_ms(&self, settings: &Settings) -> u64 {
        let probes = self.watchdog.asking.tries.saturating_sub(settings.tries);
        if probes == 0 {
            return settings.short_ms;
        }
        let whole = settings.short_ms.saturating_mul(1 << probes.min(32)).min(settings.long_ms);
        whole / 2 + self.spread(probes.into(), whole / 2)
    }

    /// When the short one expires, if it has not yet.
    fn silent_at(&self, settings: &Settings) -> Option<Timestamp> {
        (!self.watchdog.silent).then(|| self.watchdog.pulse.heard.plus(settings.short_ms))
    }

    /// W7: when the long one expires: at this link's own phase of the period, so that those of many peers stay spread whatever resets
    /// them, and never later than one period after the reset.
    fn long_due(&self, settings: &Settings) -> Timestamp {
        let period = self.period_ms(settings).max(1);
        let phase = self.seed % period;
        let latest = self.watchdog.reset.plus(period).0;
        Timestamp(latest - (latest % period + period - phase) % period)
    }

    pub(super) fn period_ms(&self, settings: &Settings) -> u64 {
        let promised = self.state.promise_ms.map_or(settings.long_ms, u64::from).min(settings.long_ms);
        settings.remind_every_ms(promised.clamp(2 * settings.short_ms, PROMISE_MAX_MS.max(2 * settings.short_ms)))
    }

    /// When the peer is given up, if it says nothing: reminders went unanswered, or none could be delivered.
    fn lost_at(&self, settings: &Settings) -> Option<Timestamp> {
        let dog = &self.watchdog;
        let overdue = dog.pulse.heard.plus(settings.short_ms).min(self.long_due(settings));
        let unanswered = (dog.asking.tries >= settings.tries).then(|| dog.asking.reminded.plus(settings.short_ms));
        let failing = dog.asking.failing.get().map(|since| since.plus(settings.give_up_ms));
        Some([unanswered, failing].into_iter().flatten().min()?.max(overdue))
    }

    fn is_lost(&self, turn: &Turn<'_>) -> bool {
        self.lost_at(turn.settings).is_some_and(|at| at <= turn.horizon)
    }

    /// When our own promises end, if the peer asks for nothing.
    fn promises_end(&self, settings: &Settings) -> Timestamp {
        self.watchdog.asked.plus(2 * settings.long_ms)
    }

    /// E6: a promise holds for twice its time; who has not asked by then does not rely on it.
    fn end_promises(&mut self, turn: &mut Turn<'_>) {
        if self.told.len() == 0 || self.promises_end(turn.settings) > turn.horizon {
            return;
        }
        let users: Vec<UserId> = self.told.users().cloned().collect();
        for user in users {
            self.unpolled(user, true, self.last_number(), turn);
        }
    }

    /// Times in the future count as now: a stepped clock freezes nobody.
    fn trust_watchdog(&mut self, now: Timestamp) {
        let dog = &mut self.watchdog;
        for time in [&mut dog.pulse.heard, &mut dog.reset, &mut dog.asked] {
            *time = (*time).min(now);
        }
        if !dog.asking.is_resting() {
            dog.asking.reminded = dog.asking.reminded.min(now);
            dog.asking.failing = dog.asking.failing.get().map(|since| since.min(now)).into();
        }
        self.state.lapsed = self.state.lapsed.get().map(|at| at.min(now)).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_early_reminder_is_no_try_and_the_answer_to_the_one_before_it_counts() {
        let [first, early] = [1, 2].map(|counter| Serial { epoch: 1, counter });
        let mut asking = Asking { reminder: Some(first), ..Asking::default() };
        asking.delivered(first, Timestamp(1), 60_000);
        asking.reminder = Some(early);
        asking.delivered(early, Timestamp(30_000), 60_000);
        assert_eq!((asking.tries, asking.reminded, asking.counted), (1, Timestamp(1), Some(first)));
        asking.delivered(early, Timestamp(60_001), 60_000);
        assert_eq!((asking.tries, asking.counted), (2, Some(early)));
    }
}
