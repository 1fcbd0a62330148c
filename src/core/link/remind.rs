//! Reminders, and how two servers find out in few bytes whether they hold the same (W5, W6, E7).
//!
//! A reminder says by digest what its sender promised and what it holds of the other's users. If both match, the answer is a few
//! bytes. If not, whoever holds something else says what it has by bucket ([`Have`]), is told which buckets differ, and asks for the
//! users of those again, while the other side says them again; so afterwards both know all of them, and no others.

use std::collections::BTreeSet;

use super::remote::Polled;
use super::{Link, Remote, Turn};
use crate::core::digest::{Buckets, Sum, bucket_of, weight};
use crate::core::settings::Settings;
use crate::core::signal::{Extension, Have, Reminder, Summary};
use crate::model::{Serial, Timestamp, UserId};

/// What the next transaction says beside statuses, requests and permissions. In memory: whoever misses it asks again.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// W5: a reminder.
    pub(super) remind: bool,
    /// Reminders of the peer's that it answers. Bounded.
    answers: Vec<Box<str>>,
    /// What we hold, by bucket.
    have: bool,
    /// Buckets in which the peer holds something else than we told it.
    differ: Vec<u8>,
}

impl Words {
    /// Whether there is anything to be said.
    pub(super) fn are_ready(&self) -> bool {
        self.remind || self.have || !self.answers.is_empty() || !self.differ.is_empty()
    }
}

impl Link {
    /// What the extension of a transaction says of reminders, once everything else of it has counted.
    pub(super) fn handle_extension(&mut self, extension: &Extension, turn: &mut Turn<'_>) {
        self.note_promise(extension.promise_ms);
        let answered = self.is_answer(extension);
        if answered || extension.reminder.is_some() {
            self.reset_watchdogs(turn);
            self.note_asked(turn);
        }
        let mine = extension.reminder.as_ref().and_then(|reminder| reminder.mine);
        let holds = mine.and_then(|mine| self.compare(&mine, turn));
        if holds.is_some() {
            self.poll_the_unknown();
        }
        if holds == Some(true) {
            self.note_agreement();
        }
        // Who answers by a reminder doubts what we hold. If we cannot judge that now, they can, by what we hold.
        let doubts = !extension.answers.is_empty() && extension.reminder.is_some();
        self.busy.words.have |= doubts && holds.is_none();
        if let Some(reminder) = &extension.reminder {
            let is_right = self.answer(reminder, turn);
            // Both directions were compared: a reminder of ours that has not left yet would only do so again.
            self.busy.words.remind &= !(is_right && holds == Some(true));
        }
        if let Some(have) = &extension.have {
            self.find_differences(have);
        }
        if !extension.differ.is_empty() {
            self.ask_again(&extension.differ, turn);
        }
        // An answer without a reminder of its own says that what we hold is right.
        if holds == Some(true) || answered && extension.reminder.is_none() {
            if !self.busy.doubtful.is_empty() {
                self.busy.doubtful.clear();
            }
            self.believe(turn);
        }
        self.open_for_more(turn.now);
    }

    fn note_promise(&mut self, promise_ms: Option<u64>) {
        let promise_ms = promise_ms.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX));
        if promise_ms.is_some() && promise_ms != self.state.promise_ms {
            self.state.promise_ms = promise_ms;
            self.busy.dirty.state = true;
        }
    }

    fn is_answer(&self, extension: &Extension) -> bool {
        let asking = &self.watchdog.asking;
        let mut asked = [asking.reminder, asking.counted].into_iter().flatten();
        asked.any(|seq| extension.answers.contains(&reminder_id(seq)))
    }

    /// Whether we hold what the peer says that it told us; `None`: that cannot be said while polls are on their way.
    fn compare(&mut self, theirs: &Summary, turn: &Turn<'_>) -> Option<bool> {
        let patient = turn.now.since(self.compared) < self.period_ms(turn.settings) / 2;
        if theirs.as_of != self.state.applied || patient && !self.is_settled() {
            return None;
        }
        self.compared = turn.now;
        let same = self.held_sum().is(theirs);
        self.busy.words.have |= !same;
        Some(same)
    }

    /// Whether both sides mean the same users.
    fn is_settled(&self) -> bool {
        let asking = self.busy.live.as_ref().is_some_and(|live| !live.polls.is_empty() || !live.unpolls.is_empty());
        self.busy.pending.is_empty() && self.busy.again.is_empty() && self.busy.unwanted.is_empty() && !asking
    }

    /// A reminder by which the peer holds something else than it was told, or something older than we remember, is answered by one
    /// of ours, which it can judge exactly. Not again and again: such a one has to wait for its answer then. Whether it holds what we told it.
    fn answer(&mut self, reminder: &Reminder, turn: &Turn<'_>) -> bool {
        let is_right = |yours: Summary| self.told.sum_at(yours.as_of).is_some_and(|sum| sum.is(&yours));
        let holds = reminder.yours.map(is_right);
        if holds != Some(false) {
            self.forget_told_before(reminder.yours.map_or(Serial::default(), |yours| yours.as_of));
        } else {
            if turn.now.since(self.countered) < turn.settings.short_ms {
                self.remind_by(self.countered.plus(turn.settings.short_ms));
                return false;
            }
            self.countered = turn.now;
            self.busy.words.remind = true;
        }
        let answers = &mut self.busy.words.answers;
        if !answers.contains(&reminder.id) {
            // The peer waits for the answers to its last ones.
            if answers.len() >= Settings::MAX_ANSWERS {
                answers.remove(0);
            }
            answers.push(reminder.id.clone());
        }
        holds == Some(true)
    }

    fn forget_told_before(&mut self, as_of: Serial) {
        if !self.told.is_resting() {
            self.told.forget_before(as_of);
        }
    }

    /// The peer holds this: says again what differs. What it held is too old to tell: it is asked to compare again.
    fn find_differences(&mut self, have: &Have) {
        let Some(buckets) = self.told.buckets_at(have.as_of) else {
            self.busy.words.remind = true;
            return;
        };
        self.busy.words.differ = buckets.differing(have);
        let differ = self.busy.words.differ.clone();
        self.owe_again(|user| differ.binary_search(&bucket_of(user)).is_ok());
    }

    /// In these buckets the peer told something else than we hold: asks for all of them, and believes none of them meanwhile, if the
    /// peer was given up. Of whom it says nothing until they differ once more it does not tell us any longer.
    fn ask_again(&mut self, differ: &[u8], turn: &mut Turn<'_>) {
        let is_doubtful = |user: &UserId| differ.contains(&bucket_of(user));
        if let Some(lapsed) = self.state.lapsed.get() {
            for (localpart, remote) in self.remotes.iter_mut() {
                let doubtful = remote.known_at() <= lapsed && is_doubtful(&UserId::from_parts(localpart, &self.server));
                if doubtful && remote.known_at() > Timestamp(0) {
                    remote.forget();
                    super::mark(remote, localpart, &mut self.busy.dirty.remotes);
                }
            }
        }
        let doubtful: BTreeSet<Box<str>> =
            self.held().filter(|(user, _)| is_doubtful(user)).map(|(user, _)| user.localpart().into()).collect();
        let before = std::mem::take(&mut self.busy.doubtful);
        let is_first = before.is_empty() && !doubtful.is_empty();
        for localpart in doubtful.intersection(&before) {
            let Some(remote) = self.remotes.get_mut(localpart) else { continue };
            remote.forget();
            super::mark(remote, localpart, &mut self.busy.dirty.remotes);
            self.tell_observers(localpart, turn);
        }
        self.busy.doubtful = doubtful;
        self.poll_again(is_doubtful);
        self.believe(turn);
        if is_first {
            // What differs once more by then is not told any longer.
            self.compare_soon(differ.len() as u64, turn);
        }
    }

    /// Takes what is to be said. `seq` is the transaction that says it, and what that holds counts as told.
    pub(super) fn take_words(&mut self, seq: Serial) -> Said {
        let words = std::mem::take(&mut self.busy.words);
        let reminder = words.remind.then(|| {
            self.watchdog.asking.reminder = Some(seq);
            let applied = self.state.applied;
            Reminder {
                id: reminder_id(seq),
                // While something is owed it is not known what the peer was told.
                mine: self.busy.owed.is_empty().then(|| self.told.sum().as_of(seq)),
                yours: (applied > Serial::default()).then(|| self.held_sum().as_of(applied)),
            }
        });
        let have = words.have.then(|| self.held_buckets().into_have(self.state.applied));
        Said { reminder, answers: words.answers, have, differ: words.differ }
    }

    /// The peer's users of whom it promised to tell us, and did.
    fn held(&self) -> impl Iterator<Item = (UserId, &Remote)> {
        let held = |remote: &&Remote| remote.polled == Polled::Yes && remote.is_wanted() && remote.is_known();
        let remotes = self.remotes.iter().filter(move |(_, remote)| held(remote));
        remotes.map(|(localpart, remote)| (UserId::from_parts(localpart, &self.server), remote))
    }

    fn held_sum(&self) -> Sum {
        let mut sum = Sum::default();
        self.held().for_each(|(user, remote)| sum.add(weight(&user, &remote.status())));
        sum
    }

    fn held_buckets(&self) -> Buckets {
        let mut buckets = Buckets::default();
        self.held().for_each(|(user, remote)| buckets.add(&user, weight(&user, &remote.status())));
        buckets
    }

    /// Localparts of those of whom anything is known.
    pub(super) fn known_users(&self) -> impl Iterator<Item = &str> {
        self.remotes.iter().filter(|(_, remote)| remote.is_known()).map(|(localpart, _)| localpart)
    }

    /// Polls these users anew, as far as they are wanted. That the peer was polled before stays known: whoever is not wanted any
    /// longer by then has to be unpolled.
    pub(super) fn poll_again(&mut self, which: impl Fn(&UserId) -> bool) {
        let polled = self.remotes.iter().filter(|(_, remote)| remote.polled == Polled::Yes && remote.is_wanted());
        let again = polled.filter(|(localpart, _)| which(&UserId::from_parts(localpart, &self.server)));
        self.busy.again.extend(again.map(|(localpart, _)| localpart.into()));
    }

    /// Polls anew whom the peer should have told of by now and did not: no sum counts them, so that no comparison finds them, whoever
    /// reminded whom.
    pub(super) fn poll_the_unknown(&mut self) {
        let polled = self.remotes.iter().filter(|(_, remote)| remote.polled == Polled::Yes && remote.is_wanted());
        let unknown = polled.filter(|(_, remote)| !remote.is_known());
        self.busy.again.extend(unknown.map(|(localpart, _)| localpart.into()));
    }

    /// Has these users told anew.
    pub(super) fn owe_again(&mut self, which: impl Fn(&UserId) -> bool) {
        let again = self.told.iter().filter(|(user, _)| which(user) && !self.busy.owed.contains_key(*user));
        let again: Vec<(UserId, Serial)> = again.map(|(user, last)| (user.clone(), last.serial)).collect();
        for (user, serial) in again {
            self.busy.owed.insert(user.clone(), serial);
            self.busy.dirty.served.insert(user);
        }
        self.busy.asked_at = Timestamp(0);
    }
}

/// What a transaction says beside statuses, requests and permissions.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) reminder: Option<Reminder>,
    pub(super) answers: Vec<Box<str>>,
    pub(super) have: Option<Have>,
    pub(super) differ: Vec<u8>,
}

/// A reminder is named by the transaction that carries it.
fn reminder_id(seq: Serial) -> Box<str> {
    format!("{}-{}", seq.epoch, seq.counter).into()
}
