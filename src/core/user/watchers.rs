//! Who is told of the user: peers on behalf of their users, and local users. Permission is asked for here, at the source.

use super::relations::Poll;
use super::{Turn, User};
use crate::core::signal::{LinkSignal, UserSignal};
use crate::model::{Presence, Serial, ServerName, Status, Timestamp, UserId};

/// Local users who watch.
#[derive(Debug, Default)]
pub(in crate::core) struct Observers {
    /// In order, each with the serial of its word. A row each.
    on: Vec<(UserId, Serial)>,
    /// Whose rows are to be written.
    dirty: Vec<UserId>,
}

impl Observers {
    fn put(&mut self, observer: UserId, on: bool, serial: Serial) {
        match (self.on.binary_search_by(|(known, _)| known.cmp(&observer)), on) {
            (Ok(at), _) if self.on[at].1 > serial => return,
            (Ok(at), true) => self.on[at].1 = serial,
            (Ok(at), false) => drop(self.on.remove(at)),
            (Err(at), true) => self.on.insert(at, (observer.clone(), serial)),
            (Err(_), false) => return,
        }
        self.dirty.push(observer);
    }

    /// Whether there was such a one.
    fn remove(&mut self, observer: &UserId) -> bool {
        let Ok(at) = self.on.binary_search_by(|(known, _)| known.cmp(observer)) else { return false };
        self.dirty.push(self.on.remove(at).0);
        true
    }
}

impl User {
    /// S3: a peer polls, or unpolls. Of a user whom nobody there may see nothing is said, not even that.
    pub(super) fn watched(&mut self, me: &UserId, peer: &ServerName, on: bool, serial: Serial, turn: &mut Turn<'_>) {
        let known = self.relations.watcher(peer);
        let stale = known.is_some_and(|known| known.serial > serial);
        if stale || known.is_none() && !self.relations.knows(peer, turn.settings.rules()) {
            return;
        }
        let watcher = self.relations.watcher_mut(peer);
        watcher.poll = if on { Poll::On } else { Poll::Off };
        watcher.serial = serial;
        watcher.since = turn.now;
        self.dirty.relations = true;
        if !self.judge_peer(me, peer, turn) && on {
            self.tell_peer(me, peer, turn);
        }
    }

    /// A link asks again. If it should not have the promise any more, it is told so.
    pub(super) fn tell_again(&mut self, me: &UserId, peer: &ServerName, turn: &mut Turn<'_>) {
        if self.is_told(peer) {
            self.tell_peer(me, peer, turn);
        } else {
            let serial = turn.next_serial();
            turn.tell_link(peer.clone(), LinkSignal::Hide { user: me.clone(), serial });
        }
    }

    /// A peer of today forgets who is not said again. To be offline needs no saying: it is what such a peer falls back to.
    pub(super) fn refresh(&mut self, me: &UserId, peer: &ServerName, turn: &mut Turn<'_>) {
        if self.state.told.presence > Presence::Offline {
            self.tell_again(me, peer, turn);
        }
    }

    /// S3: a peer asks once.
    pub(super) fn queried(&mut self, me: &UserId, peer: &ServerName, turn: &mut Turn<'_>) {
        if self.relations.is_seen_at(peer, turn.settings.rules()) {
            self.say(me, peer, false, turn);
        }
    }

    /// A local user with a session watches, or does no longer.
    pub(super) fn observed(&mut self, me: &UserId, observer: UserId, on: bool, serial: Serial, turn: &mut Turn<'_>) {
        let sees = on && self.relations.may_see(&observer, turn.settings.rules());
        if !sees && self.observers.is_none() {
            return;
        }
        self.observers.get_or_insert_default().put(observer.clone(), sees, serial);
        self.dirty.observers = true;
        if sees {
            let status = self.present(turn);
            tell_observer(me, observer, status, turn.now, turn);
        }
    }

    /// Something changed by which `peer` may be told from now on, or may not any longer; `true`: it was, and was told so.
    pub(super) fn judge_peer(&mut self, me: &UserId, peer: &ServerName, turn: &mut Turn<'_>) -> bool {
        let must = self.relations.must_tell(peer, turn.settings.rules());
        if must == self.is_told(peer) {
            return false;
        }
        self.relations.watcher_mut(peer).told = must;
        self.dirty.relations = true;
        if must {
            self.tell_peer(me, peer, turn);
        } else {
            let serial = turn.next_serial();
            turn.tell_link(peer.clone(), LinkSignal::Hide { user: me.clone(), serial });
        }
        true
    }

    /// The same for a local user: who may not see the user any longer is not told any longer, beginning with this.
    pub(super) fn judge_observer(&mut self, me: &UserId, observer: &UserId, turn: &mut Turn<'_>) -> bool {
        let sees = self.relations.may_see(observer, turn.settings.rules());
        if !sees && self.observers.as_mut().is_some_and(|observers| observers.remove(observer)) {
            self.dirty.observers = true;
            tell_observer(me, observer.clone(), Status::default(), turn.now, turn);
            return true;
        }
        false
    }

    /// Nobody at `observer`'s server may see the user any longer: takes back what was answered without a promise and has not left.
    pub(super) fn take_back_answers(&mut self, me: &UserId, observer: &UserId, turn: &mut Turn<'_>) {
        let peer = observer.server();
        let is_remote = peer.as_str() != me.server_str();
        if is_remote && !self.is_told(&peer) && !self.relations.is_seen_at(&peer, turn.settings.rules()) {
            let serial = turn.next_serial();
            turn.tell_link(peer, LinkSignal::Hide { user: me.clone(), serial });
        }
    }

    /// Tells everybody who is to be told. The one way in which changes leave.
    pub(super) fn tell_all(&mut self, me: &UserId, turn: &mut Turn<'_>) {
        self.tell_peers(me, turn);
        for (observer, _) in self.observers.iter().flat_map(|observers| &observers.on) {
            if self.relations.may_see(observer, turn.settings.rules()) {
                tell_observer(me, observer.clone(), self.state.told.clone(), turn.now, turn);
            }
        }
    }

    pub(super) fn is_told(&self, peer: &ServerName) -> bool {
        self.relations.tells(peer)
    }

    fn tell_peer(&mut self, me: &UserId, peer: &ServerName, turn: &mut Turn<'_>) {
        if self.is_told(peer) {
            self.say(me, peer, true, turn);
        }
    }

    fn say(&mut self, me: &UserId, peer: &ServerName, promise: bool, turn: &mut Turn<'_>) {
        self.present(turn);
        let serial = turn.next_serial();
        turn.tell_link(peer.clone(), self.change(me, promise, serial));
    }

    pub(super) fn change(&self, me: &UserId, promise: bool, serial: Serial) -> LinkSignal {
        LinkSignal::Change { user: me.clone(), status: self.state.told.clone(), serial, promise }
    }

    /// What is told at present. Of a user who never was there that is `offline`, which rollcall knows as well as anybody.
    fn present(&mut self, turn: &Turn<'_>) -> Status {
        if self.state.told.presence == Presence::Unknown {
            self.state.told = self.merged(turn.horizon, turn.settings);
            self.dirty.state = true;
        }
        self.state.told.clone()
    }

    /// A row says that `observer` watches.
    pub(in crate::core) fn restore_observer(&mut self, observer: UserId, serial: Serial) {
        let observers = self.observers.get_or_insert_default();
        observers.put(observer, true, serial);
        observers.dirty.clear();
    }

    /// Whose rows are to be written, and with what: `None`: deleted.
    pub(in crate::core) fn take_observers(&mut self) -> Vec<(UserId, Option<Serial>)> {
        let Some(observers) = &mut self.observers else { return Vec::new() };
        let mut dirty = std::mem::take(&mut observers.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        let serial = |observer: &UserId| {
            let at = observers.on.binary_search_by(|(known, _)| known.cmp(observer)).ok()?;
            Some(observers.on[at].1)
        };
        let rows = dirty.into_iter().map(|observer| (serial(&observer), observer)).map(|(serial, id)| (id, serial));
        let rows = rows.collect();
        if observers.on.is_empty() {
            self.observers = None;
        }
        rows
    }
}

fn tell_observer(me: &UserId, observer: UserId, status: Status, known_at: Timestamp, turn: &mut Turn<'_>) {
    let serial = turn.next_serial();
    turn.tell_user(observer, UserSignal::Update { of: me.clone(), status, known_at, serial });
}
