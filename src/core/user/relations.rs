//! Whom a local user wants to see, who may see the user, and which peers are told: what changes rarely, in one row.
//!
//! Nothing here says anything to anybody: these are the facts, and the questions that are put to them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::ListAccept;
use crate::core::device::supersedes;
use crate::core::settings::{Rules, Settings};
use crate::core::signal::Stamp;
use crate::model::{Serial, ServerName, Timestamp, UserId};

/// What changes rarely: one row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Relations {
    /// Whom the user wants to see (C6).
    pub(super) list: BTreeMap<UserId, Entry>,
    /// Who asked to see the user, and what became of it (S1, S2).
    pub(super) grants: BTreeMap<UserId, Grant>,
    /// The peers that watch the user or are told by promise. In order: few, and a map's node would be larger than all of them.
    pub(super) watchers: Vec<(ServerName, Watcher)>,
    /// What `told` of the watchers was judged by.
    pub(super) rules: Option<Rules>,
}

/// An entry of the presence list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) state: EntryState,
    /// Whether it lets the listed user see this one in turn (while `list.symmetric`): not after a refusal that is as new.
    pub(super) shares: bool,
    /// The last edit.
    pub(super) stamp: Stamp,
    /// The last answer that counted.
    pub(super) answered: Serial,
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum EntryState {
    /// The other has not answered yet.
    Asked,
    /// The other lets this user see them.
    Accepted,
    /// The other does not (any longer): a tombstone.
    Denied,
    /// Taken off: a tombstone.
    Removed,
}

/// What somebody may, who wants to see the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) state: GrantState,
    /// The user's own last word; of the beginning of time if policy spoke.
    pub(super) stamp: Stamp,
    /// The last question or withdrawal that counted.
    pub(super) asked: Serial,
    /// Since when it has been in this state.
    pub(super) since: Timestamp,
}

/// Where a question stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum GrantState {
    /// It waits for the user's word.
    Pending,
    /// Yes.
    Allowed,
    /// No. Stands until the user says otherwise.
    Refused,
    /// The other, a local user, took it back: a tombstone.
    Ended,
}

/// What is to be said to somebody who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Yes,
    No,
    /// The user must say.
    Open,
}

/// A peer that polled, unpolled, or is told because of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Watcher {
    pub(super) poll: Poll,
    /// Whether its link has the promise of every change.
    pub(super) told: bool,
    pub(super) serial: Serial,
    pub(super) since: Timestamp,
}

/// What a peer said last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Poll {
    /// Nothing, or nothing since somebody there was listed anew.
    #[default]
    Never,
    On,
    Off,
}

impl Entry {
    pub(super) fn is_on(&self) -> bool {
        matches!(self.state, EntryState::Asked | EntryState::Accepted)
    }
}

impl Relations {
    /// Whom the user wants to see and whether they agreed, in order.
    pub fn listed(&self) -> impl Iterator<Item = (&UserId, bool)> {
        let on = self.list.iter().filter(|(_, entry)| entry.is_on());
        on.map(|(user, entry)| (user, entry.state == EntryState::Accepted))
    }

    /// Whether the user wants to see `other`, and if so, whether `other` agreed.
    pub fn lists(&self, other: &UserId) -> Option<bool> {
        self.list.get(other).filter(|entry| entry.is_on()).map(|entry| entry.state == EntryState::Accepted)
    }

    /// Whether news of `other` is for the user's clients: not while a question that was answered before waits anew.
    pub(super) fn hears_of(&self, other: &UserId) -> bool {
        let entry = self.list.get(other).filter(|entry| entry.is_on());
        entry.is_some_and(|entry| entry.state == EntryState::Accepted || entry.answered == Serial::default())
    }

    /// Who waits for an answer, and since when.
    pub fn questions(&self) -> impl Iterator<Item = (&UserId, Timestamp)> {
        let pending = self.grants.iter().filter(|(_, grant)| grant.state == GrantState::Pending);
        pending.map(|(observer, grant)| (observer, grant.since))
    }

    /// Whether `observer` may see the user: the one place that decides it. (Shared rooms would be another cause, here.)
    pub fn may_see(&self, observer: &UserId, rules: Rules) -> bool {
        match self.grants.get(observer).map(|grant| grant.state) {
            Some(GrantState::Allowed) => true,
            Some(GrantState::Refused) => self.shares_with(observer, rules),
            _ => rules.accept == ListAccept::Everyone || self.shares_with(observer, rules),
        }
    }

    /// E2: listing somebody lets that somebody see oneself.
    fn shares_with(&self, observer: &UserId, rules: Rules) -> bool {
        rules.symmetric && self.trusts(observer)
    }

    /// Whether `other` is listed, and was not refused since.
    fn trusts(&self, other: &UserId) -> bool {
        self.list.get(other).is_some_and(|entry| entry.is_on() && entry.shares)
    }

    /// What `observer`'s question is answered with.
    pub(super) fn verdict(&self, observer: &UserId, rules: Rules) -> Verdict {
        let by_list = self.trusts(observer) && (rules.symmetric || rules.accept != ListAccept::Ask);
        match self.grants.get(observer).map(|grant| grant.state) {
            Some(GrantState::Allowed) => Verdict::Yes,
            _ if by_list => Verdict::Yes,
            Some(GrantState::Refused) => Verdict::No,
            _ if rules.accept == ListAccept::Everyone => Verdict::Yes,
            _ => Verdict::Open,
        }
    }

    /// Whether `peer` must be told every change: somebody there may see the user, and the peer polled or was promised it (W1).
    pub(super) fn must_tell(&self, peer: &ServerName, rules: Rules) -> bool {
        match self.watcher(peer).map_or(Poll::Never, |watcher| watcher.poll) {
            Poll::On => self.is_seen_at(peer, rules),
            Poll::Never => self.promises(peer, rules),
            Poll::Off => false,
        }
    }

    /// Whether somebody at `peer` may see the user.
    pub(super) fn is_seen_at(&self, peer: &ServerName, rules: Rules) -> bool {
        let allowed = |(user, grant): (&UserId, &Grant)| grant.state == GrantState::Allowed && user.belongs_to(peer);
        rules.accept == ListAccept::Everyone || self.promises(peer, rules) || self.grants.iter().any(allowed)
    }

    /// Whether the list promises the user's changes to `peer`.
    pub(super) fn promises(&self, peer: &ServerName, rules: Rules) -> bool {
        let shares = |(user, entry): (&UserId, &Entry)| entry.shares && entry.is_on() && user.belongs_to(peer);
        rules.symmetric && self.list.iter().any(shares)
    }

    /// Whether there is a reason to remember what `peer` polls: a stranger's polls leave nothing behind.
    pub(super) fn knows(&self, peer: &ServerName, rules: Rules) -> bool {
        let at_peer = |user: &UserId| user.belongs_to(peer);
        rules.accept == ListAccept::Everyone || self.list.keys().any(at_peer) || self.grants.keys().any(at_peer)
    }

    /// Whether the link to `peer` is told of every change.
    pub fn tells(&self, peer: &ServerName) -> bool {
        self.watcher(peer).is_some_and(|watcher| watcher.told)
    }

    pub(super) fn watcher(&self, peer: &ServerName) -> Option<&Watcher> {
        let at = self.watchers.binary_search_by(|(known, _)| known.cmp(peer)).ok()?;
        Some(&self.watchers[at].1)
    }

    pub(super) fn watcher_mut(&mut self, peer: &ServerName) -> &mut Watcher {
        let at = self.watchers.binary_search_by(|(known, _)| known.cmp(peer)).unwrap_or_else(|at| {
            self.watchers.insert(at, (peer.clone(), Watcher::default()));
            at
        });
        &mut self.watchers[at].1
    }

    /// An edit of the list by the user. `None`: stale, or no room; otherwise what the entry was and is.
    pub(super) fn edit(
        &mut self,
        target: &UserId,
        on: bool,
        stamp: &Stamp,
        now: Timestamp,
    ) -> Option<(Option<EntryState>, EntryState)> {
        let known = self.list.get(target);
        let stale = known.is_some_and(|entry| !supersedes(stamp, &entry.stamp, now));
        if stale || !self.has_room_for(target) {
            return None;
        }
        let was = known.map(|entry| entry.state);
        let state = match (on, was) {
            (true, Some(was @ (EntryState::Asked | EntryState::Accepted))) => was,
            (true, _) => EntryState::Asked,
            (false, _) => EntryState::Removed,
        };
        let refused = self.grants.get(target).filter(|grant| grant.state == GrantState::Refused);
        let shares = on && refused.is_none_or(|grant| supersedes(stamp, &grant.stamp, now));
        let answered = known.map_or(Serial::default(), |entry| entry.answered);
        self.list.insert(target.clone(), Entry { state, shares, stamp: stamp.clone(), answered });
        Some((was, state))
    }

    pub(super) fn has_room_for(&self, target: &UserId) -> bool {
        self.list.len() < Settings::MAX_LIST || self.list.contains_key(target)
    }

    /// The user's word on `observer`. Newest wins, a refusal wins a tie. Whether it counts.
    pub(super) fn answer(
        &mut self,
        observer: &UserId,
        allow: bool,
        stamp: &Stamp,
        now: Timestamp,
        rules: Rules,
    ) -> bool {
        let outdoes = |stored: &Stamp| supersedes(stamp, stored, now) || !allow && !supersedes(stored, stamp, now);
        let known = self.grants.get(observer);
        if known.is_some_and(|grant| !outdoes(&grant.stamp)) {
            return false;
        }
        let asked = known.map_or(Serial::default(), |grant| grant.asked);
        // As the listing itself did: whom the user lists and lets see them, they show themselves to.
        if let Some(entry) = self.list.get_mut(observer).filter(|entry| outdoes(&entry.stamp)) {
            entry.shares = allow;
        }
        let state = if allow { GrantState::Allowed } else { GrantState::Refused };
        self.put_grant(observer, Grant { state, stamp: stamp.clone(), asked, since: now }, rules)
    }

    /// Policy's yes: weaker than any word of the user, but for an edit of the list that it may rest on.
    pub(super) fn allow(&mut self, observer: &UserId, asked: Serial, now: Timestamp, rules: Rules) {
        // Whom everybody is like needs no note.
        if rules.accept == ListAccept::Everyone && !self.grants.contains_key(observer) {
            return;
        }
        let stamp = match self.list.get(observer).filter(|entry| entry.is_on() && entry.shares) {
            Some(entry) => entry.stamp.clone(),
            None => Stamp::default(),
        };
        self.put_grant(observer, Grant { state: GrantState::Allowed, stamp, asked, since: now }, rules);
    }

    /// Notes a question that policy does not decide. The oldest of too many goes.
    pub(super) fn put_question(&mut self, observer: &UserId, asked: Serial, now: Timestamp, rules: Rules) {
        let known = self.grants.get(observer);
        let since = known.filter(|grant| grant.state == GrantState::Pending).map_or(now, |grant| grant.since);
        let stamp = known.map_or(Stamp::default(), |grant| grant.stamp.clone());
        if self.questions().count() >= Settings::MAX_QUESTIONS && since == now {
            let oldest = self.questions().min_by_key(|(_, since)| *since).map(|(observer, _)| observer.clone());
            if let Some(oldest) = oldest {
                self.forget_grant(&oldest, rules);
            }
        }
        self.put_grant(observer, Grant { state: GrantState::Pending, stamp, asked, since }, rules);
    }

    fn put_grant(&mut self, observer: &UserId, grant: Grant, rules: Rules) -> bool {
        if !self.grants.contains_key(observer) && self.grants.len() >= Settings::MAX_GRANTS {
            let Some(least) = self.least_grant(rules) else { return grant.state == GrantState::Refused };
            self.forget_grant(&least, rules);
        }
        self.grants.insert(observer.clone(), grant);
        true
    }

    /// Forgets it, and what its server polled if there was no other reason to remember that.
    fn forget_grant(&mut self, observer: &UserId, rules: Rules) {
        self.grants.remove(observer);
        let peer = observer.server();
        if !self.knows(&peer, rules) {
            self.watchers.retain(|(known, watcher)| watcher.told || *known != peer);
        }
    }

    /// Whom it costs least to forget: nobody sees less for it, and, but for the oldest of 5,000 refusals, nobody more.
    fn least_grant(&self, rules: Rules) -> Option<UserId> {
        let everyone = rules.accept == ListAccept::Everyone;
        let rank = |grant: &Grant| match grant.state {
            GrantState::Ended => 0,
            GrantState::Pending => 1,
            GrantState::Allowed => 2,
            GrantState::Refused => 3,
        };
        let may_go = self.grants.iter().filter(|(_, grant)| everyone || grant.state != GrantState::Allowed);
        may_go.min_by_key(|(_, grant)| (rank(grant), grant.since)).map(|(user, _)| user.clone())
    }

    /// Forgets tombstones that are old enough; whether there were any.
    pub(super) fn compact(&mut self, now: Timestamp, rules: Rules) -> bool {
        let old = |since: Timestamp| now.since(since) >= Settings::TOMBSTONE_MS;
        let size = |relations: &Self| relations.list.len() + relations.grants.len() + relations.watchers.len();
        let before = size(self);
        self.list.retain(|_, entry| entry.is_on() || !old(entry.stamp.ts));
        self.grants.retain(|_, grant| grant.state != GrantState::Ended || !old(grant.since));
        let mut watchers = std::mem::take(&mut self.watchers);
        // An unpoll holds for as long as the list would promise something.
        watchers.retain(|(peer, watcher)| {
            let polls = watcher.poll == Poll::On && self.knows(peer, rules);
            watcher.told || polls || !old(watcher.since) || self.promises(peer, rules)
        });
        self.watchers = watchers;
        before != size(self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty() && self.grants.is_empty() && self.watchers.is_empty()
    }
}
