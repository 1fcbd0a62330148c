//! What is known of one user of a peer, and who here wants to know. Packed: there may be millions.

use serde::{Deserialize, Serialize};

use crate::core::settings::Settings;
use crate::model::{DeviceTypes, Presence, Serial, Status, Timestamp, UserId};

/// One user of a peer.
#[derive(Debug, Default)]
pub(super) struct Remote {
    last_active: Timestamp,
    /// When the peer last told, by its own clock if it does not number its pushes: orders them then. 0: never.
    known_at: Timestamp,
    /// How much later that arrived, in seconds: the peer's clock may be behind.
    late_s: u32,
    extra: Option<Box<Extra>>,
    observers: Observers,
    presence: Presence,
    currently_active: bool,
    pub(super) polled: Polled,
    /// Whether the row is to be written.
    pub(super) dirty: bool,
}

/// Whether the peer knows that we watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) enum Polled {
    /// It was not polled, or unpolled since.
    #[default]
    No,
    /// It was.
    Yes,
    /// A transaction that said so, or the contrary, may have arrived or not: it must hear what holds, whichever that is.
    Perhaps,
}

impl Polled {
    /// Whether the peer has nothing to hear, if the user is `wanted` or not.
    pub(super) fn suits(self, wanted: bool) -> bool {
        match self {
            Self::No => !wanted,
            Self::Yes => wanted,
            Self::Perhaps => false,
        }
    }
}

/// What few users have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Extra {
    status_msg: Option<Box<str>>,
    device_types: DeviceTypes,
}

/// A local user who wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Observer {
    user: UserId,
    cares: Cares,
    serial: Serial,
}

/// Whether somebody wants to know, and may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Cares {
    /// Waits for permission.
    Asked,
    /// Has it.
    Accepted,
    /// No longer, since then: a tombstone.
    Off(Timestamp),
}

impl Observer {
    fn is_on(&self) -> bool {
        !matches!(self.cares, Cares::Off(_))
    }
}

/// Mostly none or one.
#[derive(Debug, Default)]
enum Observers {
    #[default]
    Nobody,
    One(Observer),
    Many(Vec<Observer>),
}

/// The row of one user of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RemoteRow {
    /// What is known; presence `unknown` if nothing is.
    pub status: Status,
    /// When the peer last told, by its own clock if it does not number its pushes; 0: never.
    pub known_at: Timestamp,
    late_s: u32,
    polled: Polled,
    observers: Vec<Observer>,
}

impl RemoteRow {
    /// When the peer last told, by our clock; 0: never.
    pub fn heard_at(&self) -> Timestamp {
        self.known_at.plus(u64::from(self.late_s) * 1000)
    }

    /// The local users for whose sake the peer is polled: they watch, and were accepted.
    pub fn watchers(&self) -> impl Iterator<Item = &UserId> {
        self.observers.iter().filter(|observer| observer.cares == Cares::Accepted).map(|observer| &observer.user)
    }

    /// Those who were not accepted, or not any longer, and those who stopped watching `then` or later.
    pub fn others_since(&self, then: Timestamp) -> impl Iterator<Item = &UserId> {
        let is_other = move |observer: &&Observer| match observer.cares {
            Cares::Accepted => false,
            Cares::Asked => true,
            Cares::Off(at) => at >= then,
        };
        self.observers.iter().filter(is_other).map(|observer| &observer.user)
    }
}

impl Remote {
    pub(super) fn restore(row: RemoteRow) -> Self {
        let mut remote = Self { known_at: row.known_at, late_s: row.late_s, polled: row.polled, ..Self::default() };
        remote.put_status(row.status);
        remote.observers = Observers::from(row.observers);
        remote
    }

    pub(super) fn row(&self) -> RemoteRow {
        RemoteRow {
            status: self.status(),
            known_at: self.known_at,
            late_s: self.late_s,
            polled: self.polled,
            observers: self.observers.as_slice().to_vec(),
        }
    }

    pub(super) fn status(&self) -> Status {
        let extra = self.extra.as_deref();
        Status {
            presence: self.presence,
            status_msg: extra.and_then(|extra| extra.status_msg.clone()),
            last_active: self.last_active,
            currently_active: self.currently_active,
            device_types: extra.map(|extra| extra.device_types.clone()).unwrap_or_default(),
        }
    }

    fn put_status(&mut self, status: Status) {
        self.presence = status.presence;
        self.last_active = status.last_active;
        self.currently_active = status.currently_active;
        let plain = status.status_msg.is_none() && status.device_types.is_empty();
        self.extra =
            (!plain).then(|| Box::new(Extra { status_msg: status.status_msg, device_types: status.device_types }));
    }

    /// A push that arrived at `at`. With `stamp` (when the peer made it, where nothing else orders its pushes) an older one than
    /// what is known changes nothing. Whether it counted.
    pub(super) fn learn(&mut self, status: Status, stamp: Option<Timestamp>, at: Timestamp) -> bool {
        if stamp.is_some_and(|stamp| stamp < self.known_at) {
            return false;
        }
        self.put_status(status);
        self.known_at = stamp.unwrap_or(at);
        self.late_s = u32::try_from(at.since(self.known_at) / 1000).unwrap_or(u32::MAX);
        true
    }

    /// When the peer last told; 0: never.
    pub(super) fn known_at(&self) -> Timestamp {
        self.known_at
    }

    /// When that arrived, by our clock: what its age is counted from.
    pub(super) fn heard_at(&self) -> Timestamp {
        self.known_at.plus(u64::from(self.late_s) * 1000)
    }

    /// Whether anything is known.
    pub(super) fn is_known(&self) -> bool {
        self.presence != Presence::Unknown
    }

    /// We stopped watching: what was known is worth nothing from now on.
    pub(super) fn forget(&mut self) {
        self.put_status(Status::default());
    }

    /// Whether the peer is to be polled: somebody watches and was accepted.
    pub(super) fn is_wanted(&self) -> bool {
        self.observers.as_slice().iter().any(|observer| observer.cares == Cares::Accepted)
    }

    /// Whether somebody watches, or did within the last days.
    pub(super) fn has_observers(&self) -> bool {
        !self.observers.as_slice().is_empty()
    }

    /// Who watches and may be shown what is known: a plain peer knows no permission, so there whoever asks may.
    pub(super) fn shown_to(&self, plain: bool) -> impl Iterator<Item = &UserId> {
        let shown = move |observer: &&Observer| observer.cares == Cares::Accepted || plain && observer.is_on();
        self.observers.as_slice().iter().filter(shown).map(|observer| &observer.user)
    }

    /// Who watches and waits for permission.
    pub(super) fn only_asked(&self) -> impl Iterator<Item = &UserId> {
        let asked = self.observers.as_slice().iter().filter(|observer| observer.cares == Cares::Asked);
        asked.map(|observer| &observer.user)
    }

    /// Everybody who watches, accepted or not.
    pub(super) fn watching(&self) -> impl Iterator<Item = &UserId> {
        self.observers.as_slice().iter().filter(|observer| observer.is_on()).map(|observer| &observer.user)
    }

    /// Whether that `user` watches, as of `serial`, is known already, or what is known is newer.
    pub(super) fn agrees(&self, user: &UserId, accepted: bool, serial: Serial) -> bool {
        let cares = if accepted { Cares::Accepted } else { Cares::Asked };
        let known = self.observers.as_slice().iter().find(|observer| observer.user == *user);
        known.is_some_and(|known| known.cares == cares || known.serial >= serial)
    }

    /// Whether anything is known, or the peer was polled, though nobody has watched for as long as any promise lasts.
    pub(super) fn is_forsaken(&self, now: Timestamp) -> bool {
        let is_long_gone =
            |observer: &Observer| matches!(observer.cares, Cares::Off(at) if now.since(at) >= Settings::FORSAKEN_MS);
        (self.polled != Polled::No || self.is_known()) && self.observers.as_slice().iter().all(is_long_gone)
    }

    /// Notes that `user` watches and whether they were accepted, or (`None`) does not. Returns whether that was news.
    pub(super) fn observe(&mut self, user: UserId, accepted: Option<bool>, serial: Serial, now: Timestamp) -> bool {
        let cares = match accepted {
            Some(true) => Cares::Accepted,
            Some(false) => Cares::Asked,
            None => Cares::Off(now),
        };
        match self.observers.find(&user) {
            Some(known) if known.serial >= serial => return false,
            Some(known) => {
                known.cares = cares;
                known.serial = serial;
            }
            None => self.observers.push(Observer { user, cares, serial }),
        }
        true
    }

    /// Drops old tombstones; returns whether nobody needs this any longer.
    pub(super) fn compact(&mut self, now: Timestamp) -> bool {
        let keeps =
            |observer: &&Observer| !matches!(observer.cares, Cares::Off(at) if now.since(at) >= Settings::TOMBSTONE_MS);
        let kept: Vec<_> = self.observers.as_slice().iter().filter(keeps).cloned().collect();
        if kept.len() != self.observers.as_slice().len() {
            self.dirty = true;
            self.observers = Observers::from(kept);
        }
        self.observers.as_slice().is_empty() && self.polled == Polled::No
    }
}

impl Observers {
    fn as_slice(&self) -> &[Observer] {
        match self {
            Self::Nobody => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    fn find(&mut self, user: &UserId) -> Option<&mut Observer> {
        let slice = match self {
            Self::Nobody => &mut [],
            Self::One(one) => std::slice::from_mut(one),
            Self::Many(many) => many.as_mut_slice(),
        };
        slice.iter_mut().find(|observer| observer.user == *user)
    }

    fn push(&mut self, observer: Observer) {
        *self = match std::mem::take(self) {
            Self::Nobody => Self::One(observer),
            Self::One(one) => Self::Many(vec![one, observer]),
            Self::Many(mut many) => {
                many.push(observer);
                Self::Many(many)
            }
        };
    }
}

impl From<Vec<Observer>> for Observers {
    fn from(mut observers: Vec<Observer>) -> Self {
        match observers.len() {
            0 => Self::Nobody,
            1 => observers.pop().map_or(Self::Nobody, Self::One),
            _ => Self::Many(observers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::envelope::{decode, encode};

    #[test]
    fn rows_from_before_a_poll_could_be_uncertain_are_read() {
        for (was, polled) in [(false, Polled::No), (true, Polled::Yes)] {
            assert_eq!(decode::<Polled>(&encode(&was)).unwrap(), polled);
        }
        assert_eq!(decode::<Polled>(&encode(&Polled::Perhaps)).unwrap(), Polled::Perhaps);
    }
}
