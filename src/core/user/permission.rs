//! Who may see the user (S1, S2): questions, policy's answers, the user's own.

use super::relations::{Grant, GrantState, Verdict};
use super::{Turn, User};
use crate::core::signal::{LinkSignal, Stamp, UserSignal};
use crate::model::{Serial, UserId};

impl User {
    /// S1: `observer` asks to see the user, or takes that back. There need be no such account: rollcall cannot tell.
    pub(super) fn invited(&mut self, me: &UserId, observer: &UserId, on: bool, serial: Serial, turn: &mut Turn<'_>) {
        let known = self.relations.grants.get(observer);
        if observer == me || known.is_some_and(|grant| grant.asked > serial) {
            return;
        }
        if on { self.asked(me, observer, serial, turn) } else { self.asked_no_longer(me, observer, serial, turn) }
    }

    fn asked(&mut self, me: &UserId, observer: &UserId, serial: Serial, turn: &mut Turn<'_>) {
        let rules = turn.settings.rules();
        match self.relations.verdict(observer, rules) {
            Verdict::Yes => self.accept(me, observer, serial, turn),
            Verdict::No => {
                self.note_question(observer, serial);
                answer(me, observer, false, turn);
            }
            Verdict::Open => {
                self.relations.put_question(observer, serial, turn.now, rules);
                self.dirty.relations = true;
            }
        }
    }

    /// Policy's yes.
    fn accept(&mut self, me: &UserId, observer: &UserId, serial: Serial, turn: &mut Turn<'_>) {
        let state = self.relations.grants.get(observer).map(|grant| grant.state);
        if state == Some(GrantState::Allowed) {
            self.note_question(observer, serial);
        } else {
            self.relations.allow(observer, serial, turn.now, turn.settings.rules());
            self.dirty.relations = true;
        }
        answer(me, observer, true, turn);
        self.judge(me, observer, turn);
    }

    fn note_question(&mut self, observer: &UserId, serial: Serial) {
        if let Some(grant) = self.relations.grants.get_mut(observer) {
            grant.asked = serial;
            self.dirty.relations = true;
        }
    }

    /// A question goes unanswered. Of a local user this is their own word, and ends also what they were allowed; a link says it of
    /// questions alone.
    fn asked_no_longer(&mut self, me: &UserId, observer: &UserId, serial: Serial, turn: &mut Turn<'_>) {
        let is_local = observer.server_str() == me.server_str();
        let ends = match self.relations.grants.get(observer).map(|grant| grant.state) {
            Some(GrantState::Pending) => true,
            Some(GrantState::Allowed) => is_local,
            _ => false,
        };
        if !ends {
            return;
        }
        if is_local {
            let ended = |grant: &mut Grant| {
                *grant = Grant { state: GrantState::Ended, asked: serial, since: turn.now, stamp: grant.stamp.clone() };
            };
            self.relations.grants.get_mut(observer).map(ended);
        } else {
            self.relations.grants.remove(observer);
        }
        self.dirty.relations = true;
        self.judge(me, observer, turn);
    }

    /// S2: the user lets `observer` see them, or does not (any longer). Takes effect at once.
    pub(super) fn answer(&mut self, me: &UserId, observer: &UserId, allow: bool, stamp: &Stamp, turn: &mut Turn<'_>) {
        if observer == me || !self.relations.answer(observer, allow, stamp, turn.now, turn.settings.rules()) {
            return;
        }
        self.dirty.relations = true;
        answer(me, observer, allow, turn);
        if !self.judge(me, observer, turn) && !allow {
            self.take_back_answers(me, observer, turn);
        }
    }

    /// The list, or policy, changed: a question that waits may be answered by it.
    pub(super) fn answer_question(&mut self, me: &UserId, observer: &UserId, turn: &mut Turn<'_>) {
        let pending = self.relations.grants.get(observer).filter(|grant| grant.state == GrantState::Pending);
        let Some(serial) = pending.map(|grant| grant.asked) else { return };
        if self.relations.verdict(observer, turn.settings.rules()) == Verdict::Yes {
            self.accept(me, observer, serial, turn);
        }
    }

    /// The configuration changed since these relations were judged: what it allows no longer is not told any longer.
    pub(in crate::core) fn review(&mut self, me: &UserId, turn: &mut Turn<'_>) {
        let rules = turn.settings.rules();
        if self.relations.is_empty() || self.relations.rules.replace(rules) == Some(rules) {
            return;
        }
        self.dirty.relations = true;
        let questions: Vec<UserId> = self.relations.questions().map(|(observer, _)| observer.clone()).collect();
        for observer in questions {
            self.answer_question(me, &observer, turn);
        }
        let peers: Vec<_> = self.relations.watchers.iter().map(|(peer, _)| peer.clone()).collect();
        for peer in peers {
            self.judge_peer(me, &peer, turn);
        }
    }

    /// Whether somebody was told of the consequence.
    fn judge(&mut self, me: &UserId, observer: &UserId, turn: &mut Turn<'_>) -> bool {
        if observer.server_str() == me.server_str() {
            self.judge_observer(me, observer, turn)
        } else {
            self.judge_peer(me, &observer.server(), turn)
        }
    }
}

fn answer(me: &UserId, observer: &UserId, allow: bool, turn: &mut Turn<'_>) {
    let (observed, serial) = (me.clone(), turn.next_serial());
    if observer.server_str() == me.server_str() {
        turn.tell_user(observer.clone(), UserSignal::Answered { observed, allow, serial });
    } else {
        let signal = LinkSignal::Decide { observed, observer: observer.clone(), allow, serial };
        turn.tell_link(observer.server(), signal);
    }
}
