//! What a link's own row says.

use serde::{Deserialize, Deserializer, Serialize};

use crate::core::rarely::{Rare, Rarely};
use crate::model::{MaybeTime, Serial, Timestamp};

/// What changes with every transaction: one row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinkState {
    pub(super) transit: Rarely<Transit>,
    /// The newest `seq` applied of the peer's.
    pub(super) applied: Serial,
    /// When the peer last showed that it speaks rollcall.
    pub(super) spoke: Timestamp,
    /// When it last polled, unpolled or said something of permission.
    pub(super) subscribed: Timestamp,
    /// For how long the peer's pushes are a promise, ms, as it says, or as far as we can count.
    #[serde(deserialize_with = "saturating")]
    pub(super) promise_ms: Option<u32>,
    /// Since when nothing that it said before is believed: it was given up, and has not confirmed anything yet.
    pub(super) lapsed: MaybeTime,
}

impl LinkState {
    /// Whether the peer ever spoke rollcall, polled, unpolled or said something of permission: then it answers questions, and what
    /// it pushes is for those alone whom it accepted, however long it has been silent.
    pub fn knows_permission(&self) -> bool {
        self.spoke.max(self.subscribed) > Timestamp(0)
    }

    /// Whether what the peer said at `known_at` may be shown.
    pub fn believes(&self, known_at: Timestamp) -> bool {
        self.lapsed.get().is_none_or(|lapsed| known_at > lapsed)
    }
}

/// A transaction on its way, and what failures leave.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Transit {
    pub(super) live: Option<Live>,
    /// Failures in a row.
    pub(super) attempts: u32,
    pub(super) retry_at: Timestamp,
    /// Until then an abandoned transaction may still arrive: a sender that starts over sends it again.
    pub(super) lapses_at: Timestamp,
    /// Entries of a transaction at most, after a 413.
    pub(super) cap: Option<u32>,
    /// The last failure was a refusal: the peer is there, and that it talks is no reason to try it sooner than this.
    pub(super) refused_until: Timestamp,
}

impl Transit {
    const NONE: Self = Self {
        live: None,
        attempts: 0,
        retry_at: Timestamp(0),
        lapses_at: Timestamp(0),
        cap: None,
        refused_until: Timestamp(0),
    };

    /// The peer said something: it is back. But who refuses what it is sent was never away, and goes on being left alone for a while.
    pub(super) fn encourage(&mut self, now: Timestamp) {
        if self.refused_until > Timestamp(0) {
            self.retry_at = self.retry_at.min(self.refused_until);
        } else {
            self.forgive(now);
        }
    }

    /// The peer may be tried again from `at` on, as if it had never failed.
    pub(super) fn forgive(&mut self, at: Timestamp) {
        (self.attempts, self.retry_at, self.refused_until) = (0, at, Timestamp(0));
    }
}

impl Rare for Transit {
    fn none() -> &'static Self {
        static NONE: Transit = Transit::NONE;
        &NONE
    }

    fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

/// The one transaction that is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Live {
    pub(super) txn_id: Box<str>,
    pub(super) seq: Serial,
    pub(super) not_after: Timestamp,
}

/// Rows may hold more than fits.
fn saturating<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let ms = Option::<u64>::deserialize(deserializer)?;
    Ok(ms.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::envelope::{decode, encode};

    /// As rows were written when everything had room of its own.
    type Flat = (
        (Option<Live>, u32, Timestamp, Timestamp, Option<u32>, Timestamp),
        (Serial, Timestamp, Timestamp, Option<u64>, MaybeTime),
    );

    #[test]
    fn what_few_links_have_takes_room_in_rows_as_ever() {
        let seq = Serial { epoch: 7, counter: 9 };
        let live = Live { txn_id: "rollcall-7-9".into(), seq, not_after: Timestamp(5) };
        let time = MaybeTime::from(Timestamp(8));
        let rows: [Flat; 2] = [
            Flat::default(),
            (
                (Some(live), 3, Timestamp(1), Timestamp(2), Some(4), Timestamp(9)),
                (seq, Timestamp(6), Timestamp(7), Some(60_000), time),
            ),
        ];
        for flat in rows {
            let state: LinkState = decode(&encode(&flat)).unwrap();
            assert_eq!(state.transit.is_resting(), flat.0.0.is_none());
            assert_eq!(encode(&state), encode(&flat));
        }
        let mut forever = Flat::default();
        forever.1.3 = Some(u64::MAX);
        assert_eq!(decode::<LinkState>(&encode(&forever)).unwrap().promise_ms, Some(u32::MAX));
    }
}
