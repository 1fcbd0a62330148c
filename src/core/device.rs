//! One device of a local user, and how several make one presence (C1–C3).

use serde::{Deserialize, Serialize};

use super::settings::Settings;
use super::signal::Stamp;
use crate::model::{Presence, Timestamp};

/// What is known of one device.
///
/// Each thing that it says is kept with the time that orders it, and what follows of them is worked out by whoever asks: so words that
/// come in another order than they were said lead to the same.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Device {
    /// What it set last, explicitly; `None`: never.
    set: Option<Presence>,
    /// Orders changes of `set`.
    set_at: Stamp,
    /// What its last activity implies, as by /sync.
    implied: Option<Presence>,
    implied_at: Timestamp,
    /// Since when it has been idle, as the device said itself, and set nothing since.
    idle_since: Option<Timestamp>,
    idle_at: Stamp,
    /// Its kind, such as `mobile`.
    kind: Option<Box<str>>,
    kind_at: Stamp,
    /// When its user last acted on it, beside setting a presence, as far as its activity tells.
    acted: Timestamp,
    /// Its last word.
    heard: Timestamp,
    /// The end of its lease.
    leased: Timestamp,
    /// When it last said that it is gone: it counts as heard by what it said later.
    gone_at: Timestamp,
}

impl Device {
    /// C1. Explicit. Who sets something is not idle any longer.
    pub(super) fn set_presence(&mut self, presence: Presence, stamp: Stamp, now: Timestamp) {
        self.hear(stamp.ts, now);
        if supersedes(&stamp, &self.idle_at, now) {
            self.idle_since = None;
        }
        if supersedes(&stamp, &self.set_at, now) {
            self.set = Some(presence);
            self.set_at = stamp;
        }
    }

    /// C4. As by /sync. Kept apart from what was set, which it never overrides; of two of one moment the higher presence counts.
    pub(super) fn heard_from(&mut self, presence: Option<Presence>, at: Timestamp, now: Timestamp) {
        self.hear(at, now);
        let (at, presence) = (not_ahead(at, now), presence.unwrap_or(Presence::Online));
        if presence > Presence::Unavailable {
            self.acted = self.acted.max(at);
        }
        if (at, Some(presence)) > (self.implied_at, self.implied) {
            self.implied = Some(presence);
            self.implied_at = at;
        }
    }

    /// C2. One message sets the start of idleness, a later one cancels it.
    pub(super) fn set_idle(&mut self, idle_ms: Option<u64>, stamp: Stamp, now: Timestamp) {
        self.hear(stamp.ts, now);
        if idle_ms.is_none() {
            self.acted = self.acted.max(stamp.ts);
        }
        if supersedes(&stamp, &self.idle_at, now) && supersedes(&stamp, &self.set_at, now) {
            self.idle_since = idle_ms.map(|ms| stamp.ts.minus(ms));
            self.idle_at = stamp;
        }
    }

    /// C3. `None` for the kind: the device is gone.
    pub(super) fn set_kind(&mut self, kind: Option<Box<str>>, stamp: Stamp, now: Timestamp) {
        if kind.is_none() {
            self.gone_at = self.gone_at.max(not_ahead(stamp.ts, now));
        }
        if supersedes(&stamp, &self.kind_at, now) {
            self.kind = kind;
            self.kind_at = stamp;
        }
    }

    /// Whether what it said `at` some time is outdone by its word that it is gone.
    pub(super) fn is_gone_since(&self, at: Timestamp) -> bool {
        self.gone_at >= at
    }

    /// C4. A lease keeps the device from counting as unheard of.
    pub(super) fn lease_until(&mut self, until: Timestamp) {
        self.leased = self.leased.max(until);
    }

    /// C4. A lease ended early, `at` some time; `rest` is when the last of the others ends.
    pub(super) fn cut_lease(&mut self, rest: Timestamp, at: Timestamp) {
        self.leased = self.leased.min(at).max(rest);
    }

    /// What it contributes at `horizon`; `None`: it never said anything.
    pub(super) fn presence(&self, horizon: Timestamp, settings: &Settings) -> Option<Presence> {
        let set = self.chosen()?;
        if horizon >= self.heard().plus(settings.offline_after_ms) {
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

    /// Until when it counts as heard; 0: it is gone, or never was there.
    pub(super) fn heard(&self) -> Timestamp {
        let word = if self.is_gone_since(self.heard) { Timestamp(0) } else { self.heard };
        word.max(self.leased)
    }

    /// The last time that it said anything, or had a lease.
    pub(super) fn last_word(&self) -> Timestamp {
        let words = [self.set_at.ts, self.idle_at.ts, self.kind_at.ts, self.heard, self.leased, self.gone_at];
        words.into_iter().max().unwrap_or_default()
    }

    /// The next moment after `horizon` at which time alone changes what it contributes.
    pub(super) fn next_change(&self, horizon: Timestamp, settings: &Settings) -> Option<Timestamp> {
        let idle = self.idle_since.map(|since| since.plus(settings.idle_after_ms));
        let candidates = [
            Some(self.heard().plus(settings.offline_after_ms)),
            Some(self.active().plus(settings.granularity_ms)),
            idle,
        ];
        self.chosen()?;
        candidates.into_iter().flatten().filter(|at| *at > horizon).min()
    }

    fn hear(&mut self, at: Timestamp, now: Timestamp) {
        self.heard = self.heard.max(not_ahead(at, now));
    }
}

/// A clock that is ahead, and will come back, leaves nothing behind that outdoes what is said then for long.
fn not_ahead(at: Timestamp, now: Timestamp) -> Timestamp {
    at.min(now.plus(Settings::SKEW_MS))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    const NOW: Timestamp = Timestamp(100_000_000);

    fn settings() -> Settings {
        Settings::from(&Config::from_toml("data_dir = \"/nowhere\"").unwrap())
    }

    #[derive(Debug, Clone)]
    enum Word {
        Status(Presence),
        Activity(Option<Presence>),
        Idle(Option<u64>),
        Kind(Option<&'static str>),
    }

    fn word() -> impl Strategy<Value = Word> {
        let all = [Presence::Offline, Presence::Unavailable, Presence::Online, Presence::Busy];
        let presence = prop::sample::select(all.to_vec());
        prop_oneof![
            presence.clone().prop_map(Word::Status),
            prop::option::of(presence).prop_map(Word::Activity),
            prop::option::of(0u64..600_000).prop_map(Word::Idle),
            prop::option::of(prop::sample::select(vec!["web", "mobile"])).prop_map(Word::Kind),
        ]
    }

    /// What can be known of a device that said this, word by word, at times as given.
    fn shown(words: &[(u64, Word)]) -> impl PartialEq + std::fmt::Debug {
        let settings = settings();
        let mut device = Device::default();
        for (at, word) in words {
            let stamp = Stamp { ts: NOW.minus(*at), id: at.to_string().into() };
            match word.clone() {
                Word::Status(presence) => device.set_presence(presence, stamp, NOW),
                Word::Activity(presence) => device.heard_from(presence, stamp.ts, NOW),
                Word::Idle(idle_ms) => device.set_idle(idle_ms, stamp, NOW),
                Word::Kind(kind) => device.set_kind(kind.map(Into::into), stamp, NOW),
            }
        }
        let presence: Vec<_> = (0..20).map(|n| device.presence(NOW.plus(n * 20_000), &settings)).collect();
        (presence, device.heard(), device.active(), device.idle_since(), device.kind().map(str::to_owned))
    }

    proptest! {
        #[test]
        fn the_order_in_which_words_come_changes_nothing(
            words in prop::collection::btree_map(0u64..400_000, word(), 1..6),
            swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
        ) {
            let said: Vec<_> = words.into_iter().rev().collect();
            let mut heard = said.clone();
            for (one, other) in swaps {
                heard.swap(one.index(said.len()), other.index(said.len()));
            }
            prop_assert_eq!(shown(&said), shown(&heard), "{:?}, then {:?}", said, heard);
        }
    }

    #[test]
    fn what_is_older_undoes_nothing() {
        let settings = settings();
        let stamp = |ts| Stamp { ts: NOW.minus(ts), id: "x".into() };
        let mut device = Device::default();
        device.set_idle(Some(400_000), stamp(10), NOW);
        device.set_presence(Presence::Online, stamp(20), NOW);
        assert_eq!(device.presence(NOW, &settings), Some(Presence::Unavailable), "set before it was idle");
        device.set_presence(Presence::Online, stamp(5), NOW);
        device.set_idle(Some(400_000), stamp(8), NOW);
        assert_eq!(device.presence(NOW, &settings), Some(Presence::Online), "idle before it was set");
        device.set_kind(None, stamp(3), NOW);
        device.heard_from(None, stamp(4).ts, NOW);
        assert_eq!(device.presence(NOW, &settings), Some(Presence::Offline), "heard before it was gone");
        device.heard_from(None, stamp(2).ts, NOW);
        assert_eq!(device.presence(NOW, &settings), Some(Presence::Online));
    }

    #[test]
    fn a_clock_that_was_ahead_is_soon_forgotten() {
        let settings = settings();
        let hour = NOW.plus(3_600_000);
        let mut device = Device::default();
        device.set_kind(None, Stamp { ts: hour, id: "x".into() }, NOW);
        device.heard_from(Some(Presence::Offline), hour, NOW);
        let later = NOW.plus(Settings::SKEW_MS + 1);
        assert!(!device.is_gone_since(later));
        device.heard_from(None, later, later);
        assert_eq!(device.presence(later, &settings), Some(Presence::Online));
    }
}
