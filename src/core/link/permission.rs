//! What users and the peer say of permission (S1, S2), passed on. The users' machines decide what it means: here it is known neither
//! who exists nor who may what.

use super::busy::Busy;
use super::permits::{Pair, PermitRow, pair_of};
use super::{Link, Turn};
use crate::core::signal::{Permission, PermissionKind, UserSignal};
use crate::model::{Serial, Timestamp};

impl Link {
    /// S1: a local user asks to see one of the peer's, or asks no longer.
    pub(super) fn ask(&mut self, pair: Pair, on: bool, serial: Serial, turn: &Turn<'_>) {
        let heard = self.last_number();
        self.busy.permits.ask(pair, on, serial, heard, turn.now);
        self.open_for_more(turn.now);
    }

    /// S2: a local user's answer.
    pub(super) fn decide(&mut self, pair: Pair, allow: bool, serial: Serial, turn: &mut Turn<'_>) {
        self.busy.permits.decide(pair, allow, serial, turn.now);
        self.bound_questions(turn);
        self.open_for_more(turn.now);
    }

    /// What the peer says, in the order of its own numbers if it has any. `seq`: of the transaction that says it.
    pub(super) fn permission(&mut self, permission: &Permission, seq: Option<Serial>, turn: &mut Turn<'_>) {
        let order = seq.or(self.last_number());
        let pair = pair_of(permission);
        match permission.kind {
            PermissionKind::Invite => {
                if self.busy.permits.question(&pair, turn.now) {
                    tell_invited(pair, true, turn);
                }
                self.bound_questions(turn);
            }
            PermissionKind::Accept => {
                // A yes that nobody asked for changes nothing.
                if self.busy.permits.answered(&pair, true, seq) {
                    tell_answered(pair, true, order, turn);
                }
            }
            PermissionKind::Deny => {
                // A no always counts: it may end what was allowed long ago.
                self.busy.permits.answered(&pair, false, seq);
                tell_answered(pair, false, order, turn);
            }
        }
    }

    fn bound_questions(&mut self, turn: &mut Turn<'_>) {
        while let Some((pair, was_question)) = self.busy.permits.drop_oldest() {
            if was_question {
                tell_invited(pair, false, turn);
            }
        }
    }

    pub(in crate::core) fn has_old_questions(&self, now: Timestamp) -> bool {
        self.busy.permits.has_old_questions(now)
    }

    /// Those who were asked need not answer any longer what nobody asks any longer.
    pub(in crate::core) fn withdraw_old_questions(&mut self, turn: &mut Turn<'_>) {
        for pair in self.busy.permits.drop_old_questions(turn.now) {
            tell_invited(pair, false, turn);
        }
    }

    pub(super) fn wake_permits(&mut self, now: Timestamp) {
        if self.busy.permits.next_due().is_some() {
            self.busy.permits.wake(now);
            self.open_for_more(now);
        }
    }

    pub(super) fn permits_delivered(&mut self, sent: &[(Permission, Serial)], now: Timestamp) {
        self.busy.permits.delivered(sent, now);
    }

    pub(super) fn permits_failed(&mut self, sent: &[(Permission, Serial)], now: Timestamp) {
        self.busy.permits.failed(sent);
        self.open_for_more(now);
    }

    pub(in crate::core) fn restore_permit(&mut self, pair: Pair, row: PermitRow) {
        self.busy.permits.restore(pair, row);
    }

    pub(super) fn begin_permits(&mut self, now: Timestamp) {
        if !self.busy.permits.is_empty() {
            let Busy { live, permits, .. } = &mut *self.busy;
            permits.begin(live.as_ref().map_or(&[][..], |row| &row.permissions));
        }
        self.open_for_more(now);
    }
}

fn tell_invited((observed, observer): Pair, on: bool, turn: &mut Turn<'_>) {
    let serial = turn.next_serial();
    turn.tell_user(observed, UserSignal::Invited { observer, on, serial });
}

fn tell_answered((observed, observer): Pair, allow: bool, order: Option<Serial>, turn: &mut Turn<'_>) {
    let serial = order.unwrap_or_else(|| turn.next_serial());
    turn.tell_user(observer, UserSignal::Answered { observed, allow, serial });
}
