//! What is still believed of a peer that was given up, and of one that is back.

use super::{Link, Turn};
use crate::model::{Status, Timestamp};

impl Link {
    /// Whether what is known of the peer's users is no longer believed.
    pub fn is_lapsed(&self) -> bool {
        self.state.lapsed.is_some()
    }

    /// The peer is given up: what it said is believed no longer. Of one that speaks rollcall it is kept, since a digest can confirm it.
    pub(super) fn lapse(&mut self, turn: &mut Turn<'_>) {
        let speaks = self.speaks(turn.now);
        self.state.lapsed = turn.horizon.into();
        self.busy.dirty.state = true;
        let known: Vec<Box<str>> = self.known_users().map(Into::into).collect();
        for localpart in known {
            if !speaks && let Some(remote) = self.remotes.get_mut(&localpart) {
                remote.forget();
                super::mark(remote, &localpart, &mut self.busy.dirty.remotes);
            }
            self.tell_observers(&localpart, turn);
        }
    }

    /// What the peer said is believed again, as far as it is still known.
    pub(super) fn believe(&mut self, turn: &mut Turn<'_>) {
        let Some(lapsed) = self.state.lapsed.take() else { return };
        self.busy.dirty.state = true;
        let restored: Vec<Box<str>> = self.known_users().map(Into::into).collect();
        for localpart in restored {
            if self.remotes.get(&localpart).is_some_and(|remote| remote.known_at() <= lapsed) {
                self.tell_observers(&localpart, turn);
            }
        }
    }

    /// What may be shown of what is known, and was said at `known_at`.
    pub(super) fn believed(&self, status: Status, known_at: Timestamp) -> Status {
        if self.state.believes(known_at) { status } else { Status::default() }
    }
}
