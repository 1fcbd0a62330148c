//! One device of a local user, and how several make one presence (C1–C3).

use serde::{Deserialize, Serialize};

use super::settings::Settings;
use super::signal::Stamp;
use crate::model::{Presence, Timestamp};

/// What is known of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Device {
    /// What it set last, explicitly; `None`: never.
    set: Option<Presence>,
    /// Orders changes of `set`.
    set_at: Stamp,
    /// What its last activity implies, as by /sync.
    implied: Option<Presence>,
    implied_at: Timestamp,
    /// Since when it has been idle, as the device said itself.
    idle_since: Option<Timestamp>,
    idle_at: Stamp,
    /// Its kind, such as `mobile`.
    kind: Option<Box<str>>,
    kind_at: Stamp,
    /// When its user last acted on it, beside setting a presence, as far as its activity tells.
    acted: Timestamp,
    /// Until when it counts as heard: its last word, or the end of its lease.
    heard: Timestamp,
}

impl Device {
    /// C1. Explicit: whether it counted (was newer than what was there).
    pub(super) fn set_presence(&mut self, presence: Presence, stamp: Stamp, now: Timestamp) -> bool {
        let counts = supersedes(&stamp, &self.set_at, now);
        self.heard = self.heard.max(stamp.ts);
        if counts {
            self.set = Some(presence);
            self.idle_since = None;
            self.set_at = stamp;
        }
        counts
    }

    /// C4. As by /sync. Kept apart from what was set, which it never overrides; of two of one moment the higher presence counts.
    pub(super) fn heard_from(&mut self, presence: Option<Presence>, at: Timestamp, now: Timestamp) {
        self.heard = self.heard.max(at);
        let presence = presence.unwrap_or(Presence::Online);
        if presence > Presence::Unavailable {
            self.acted = self.acted.max(at);
        }
        let is_ahead = |at: Timestamp| at > now.plus(Settings::SKEW_MS);
        let outdoes_clock = is_ahead(self.implied_at) && !is_ahead(at);
        if outdoes_clock || (at, Some(presence)) > (self.implied_at, self.implied) {
            self.implied = Some(presence);
            self.implied_at = at;
        }
    }

    /// C2. One message sets the start of idleness, a later one cancels it.
    pub(super) fn set_idle(&mut self, idle_ms: Option<u64>, stamp: Stamp, now: Timestamp) {
        if !supersedes(&stamp, &self.idle_at, now) {
            return;
        }
        self.idle_since = idle_ms.map(|ms| stamp.ts.minus(ms));
        self.heard = self.heard.max(stamp.ts);
        if idle_ms.is_none() {
            self.acted = self.acted.max(stamp.ts);
        }
        self.idle_at = stamp;
    }

    /// C3. `None` for the kind: the device is gone.
    pub(super) fn set_kind(&mut self, kind: Option<Box<str>>, stamp: Stamp, now: Timestamp) {
        if !supersedes(&stamp, &self.kind_at, now) {
            return;
        }
        if kind.is_none() {
            self.heard = Timestamp(0);
        }
        self.kind = kind;
        self.kind_at = stamp;
    }

    /// C4. A lease keeps the device from counting as unheard of.
    pub(super) fn lease_until(&mut self, until: Timestamp) {
        self.heard = self.heard.max(until);
    }

    /// C4. A lease ended early; `rest` is when the last of the others ends.
    pub(super) fn cut_lease(&mut self, rest: Timestamp, now: Timestamp) {
        self.heard = self.heard.min(now).max(rest);
    }

    /// What it contributes at `horizon`; `None`: it never said anything.
    pub(super) fn presence(&self, horizon: Timestamp, settings: &Settings) -> Option<Presence> {
        let set = self.chosen()?;
        if horizon >= self.heard.plus(settings.offline_after_ms) {
            return Some(Presence::Offline);
        }
        let idle = self.idle_since.is_some_and(|since| horizon >= since.plus(settings.idle_after_ms));
        Some(if set == Presence::Online && idle { Presence::Unavailable } else { set })
    }

    /// What it set, or implied since. An explicit `busy`, `unavailable` or `offline` stays until it sets anew.
    fn chosen(&self) -> Option<Presence> {
        let is_explicit = matches!(self.set, Some(Presence::Busy | Presence::Unavailable | Presence::Offline));
        let implied = self.implied.filter(|_| !is_explicit && self.implied_at > self.set_at.ts);
        implied.or(self.set)
    }

    /// Whether its user acts on it right now.
    pub(super) fn is_active(&self, horizon: Timestamp, settings: &Settings) -> bool {
        let reachable = matches!(self.presence(horizon, settings), Some(Presence::Online | Presence::Busy));
        reachable && self.idle_since.is_none() && horizon < self.active().plus(settings.granularity_ms)
    }

    /// Its kind, such as `mobile` (C3).
    pub fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }

    /// Since when it has been idle, as it said itself (C2).
    pub fn idle_since(&self) -> Option<Timestamp> {
        self.idle_since
    }

    /// When its user last acted on it. A client that is idle, or goes on behind a user who wants not to be seen, says nothing of that.
    pub(super) fn active(&self) -> Timestamp {
        if matches!(self.set, Some(Presence::Unavailable | Presence::Offline)) {
            return self.set_at.ts;
        }
        let acted = self.idle_since.map_or(self.acted, |since| self.acted.min(since));
        acted.max(self.set_at.ts)
    }

    pub(super) fn heard(&self) -> Timestamp {
        self.heard
    }

    /// The next moment after `horizon` at which time alone changes what it contributes.
    pub(super) fn next_change(&self, horizon: Timestamp, settings: &Settings) -> Option<Timestamp> {
        let idle = self.idle_since.map(|since| since.plus(settings.idle_after_ms));
        let candidates =
            [Some(self.heard.plus(settings.offline_after_ms)), Some(self.active().plus(settings.granularity_ms)), idle];
        self.chosen()?;
        candidates.into_iter().flatten().filter(|at| *at > horizon).min()
    }
}

/// Newest wins. What bears a time further ahead than clocks may differ is of a clock that was ahead and came back: what is said now
/// outdoes it, or a stepped clock would freeze everybody until that time.
pub(super) fn supersedes(new: &Stamp, stored: &Stamp, now: Timestamp) -> bool {
    let is_ahead = |stamp: &Stamp| stamp.ts > now.plus(Settings::SKEW_MS);
    if is_ahead(stored) && !is_ahead(new) {
        return now.since(new.ts) <= Settings::SKEW_MS;
    }
    new > stored
}
