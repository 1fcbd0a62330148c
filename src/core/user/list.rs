//! Whom the user wants to see (C6, S1): edits of the list, and what the others answer.

use std::collections::BTreeSet;

use super::relations::{EntryState, Poll};
use super::{Turn, User};
use crate::core::signal::{LinkSignal, Stamp, UserSignal};
use crate::model::{Serial, ServerName, UserId};

impl User {
    pub(super) fn edit_list(
        &mut self,
        me: &UserId,
        add: Vec<UserId>,
        remove: Vec<UserId>,
        stamp: &Stamp,
        turn: &mut Turn<'_>,
    ) {
        let edits = add.into_iter().map(|user| (user, true)).chain(remove.into_iter().map(|user| (user, false)));
        let mut peers = BTreeSet::new();
        for (target, on) in edits {
            if target == *me || !self.edit_entry(me, &target, on, stamp, turn) {
                continue;
            }
            if target.server_str() == me.server_str() {
                self.judge_observer(me, &target, turn);
            } else {
                let peer = target.server();
                if on {
                    self.promise_anew(&peer);
                }
                peers.insert(peer);
            }
        }
        for peer in peers {
            self.judge_peer(me, &peer, turn);
        }
    }

    /// Whether the edit counts.
    fn edit_entry(&mut self, me: &UserId, target: &UserId, on: bool, stamp: &Stamp, turn: &mut Turn<'_>) -> bool {
        let Some((was, is)) = self.relations.edit(target, on, stamp, turn.now) else {
            turn.passed_over.list += u64::from(on && !self.relations.has_room_for(target));
            return false;
        };
        self.dirty.relations = true;
        match (was, is) {
            (_, EntryState::Asked) => ask(me, target, true, turn),
            (Some(EntryState::Asked), _) => ask(me, target, false, turn),
            // A peer hears it by the unpoll; it has no word for more.
            (Some(EntryState::Accepted), EntryState::Removed) if is_local(me, target) => ask(me, target, false, turn),
            _ => {}
        }
        let was_on = matches!(was, Some(EntryState::Asked | EntryState::Accepted));
        if self.state.watching && was_on != on {
            watch(me, target, on, false, turn);
        }
        if on {
            self.answer_question(me, target, turn);
        } else if was_on {
            self.forget_news(target, turn);
        }
        true
    }

    /// A peer that unpolled is promised the user's changes again because of somebody new.
    fn promise_anew(&mut self, peer: &ServerName) {
        if self.relations.watcher(peer).is_some_and(|watcher| watcher.poll == Poll::Off) {
            self.relations.watcher_mut(peer).poll = Poll::Never;
        }
    }

    /// S2: `observed` lets this user see them, or does not (any longer). Who was not asked has nothing to say.
    pub(super) fn answered(
        &mut self,
        me: &UserId,
        observed: &UserId,
        allow: bool,
        serial: Serial,
        turn: &mut Turn<'_>,
    ) {
        let Some(entry) = self.relations.list.get_mut(observed) else { return };
        let is_asked = entry.state == EntryState::Asked;
        // A refusal wins a tie; to a question that was asked anew an old yes is an answer, an old no is none.
        if entry.answered > serial || entry.answered == serial && allow != is_asked {
            // It may have ended the question that waits.
            if is_asked {
                ask(me, observed, true, turn);
            }
            return;
        }
        entry.answered = serial;
        self.dirty.relations = true;
        match (entry.state, allow) {
            (EntryState::Asked, true) => {
                entry.state = EntryState::Accepted;
                if self.state.watching {
                    watch(me, observed, true, true, turn);
                }
            }
            (EntryState::Asked | EntryState::Accepted, false) => {
                entry.state = EntryState::Denied;
                if self.state.watching {
                    watch(me, observed, false, false, turn);
                }
                self.forget_news(observed, turn);
                if is_local(me, observed) {
                    self.judge_observer(me, observed, turn);
                } else {
                    self.judge_peer(me, &observed.server(), turn);
                }
            }
            _ => {}
        }
    }

    /// Tells everybody on the list that this user watches, or no longer.
    pub(super) fn watch_list(&mut self, me: &UserId, on: bool, turn: &mut Turn<'_>) {
        for (target, accepted) in self.relations.listed() {
            watch(me, target, on, accepted, turn);
        }
    }
}

fn ask(me: &UserId, target: &UserId, on: bool, turn: &mut Turn<'_>) {
    let (observer, serial) = (me.clone(), turn.next_serial());
    if is_local(me, target) {
        turn.tell_user(target.clone(), UserSignal::Invited { observer, on, serial });
    } else {
        turn.tell_link(target.server(), LinkSignal::Ask { observer, observed: target.clone(), on, serial });
    }
}

/// Asks whoever knows of `target` for news of them: their own machine or their server's link. Both know better than this user whether
/// they may be seen.
pub(super) fn watch(me: &UserId, target: &UserId, on: bool, accepted: bool, turn: &mut Turn<'_>) {
    let (observer, serial) = (me.clone(), turn.next_serial());
    if is_local(me, target) {
        turn.tell_user(target.clone(), UserSignal::Observed { observer, on, serial });
    } else {
        let signal = LinkSignal::Watch { observer, target: target.clone(), on, accepted, serial };
        turn.tell_link(target.server(), signal);
    }
}

pub(super) fn is_local(me: &UserId, other: &UserId) -> bool {
    me.server_str() == other.server_str()
}
