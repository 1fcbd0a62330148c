//! Time.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Wall-clock time: milliseconds since the Unix epoch. The core gets it as an argument and never asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This moment, `ms` milliseconds later.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// This moment, `ms` milliseconds earlier (not before the epoch).
    #[must_use]
    pub fn minus(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }

    /// Milliseconds from `earlier` to this moment, 0 if it is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A time or none, in the room of a time: machines of which there may be millions have it. Encoded as an `Option`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<Timestamp>", into = "Option<Timestamp>")]
pub struct MaybeTime(Timestamp);

impl MaybeTime {
    /// No time.
    pub const NONE: Self = Self(Timestamp(u64::MAX));

    /// The same as an `Option`.
    pub fn get(self) -> Option<Timestamp> {
        (self != Self::NONE).then_some(self.0)
    }

    /// Whether there is one.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }

    /// Leaves none.
    pub fn take(&mut self) -> Option<Timestamp> {
        std::mem::take(self).get()
    }
}

impl Default for MaybeTime {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Debug for MaybeTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl From<Timestamp> for MaybeTime {
    fn from(time: Timestamp) -> Self {
        Self(time)
    }
}

impl From<Option<Timestamp>> for MaybeTime {
    fn from(time: Option<Timestamp>) -> Self {
        time.map_or(Self::NONE, Self)
    }
}

impl From<MaybeTime> for Option<Timestamp> {
    fn from(time: MaybeTime) -> Self {
        time.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::envelope::{decode, encode};

    #[test]
    fn a_time_or_none_is_encoded_as_an_option_and_takes_no_more_room_than_a_time() {
        for time in [None, Some(Timestamp(0)), Some(Timestamp(1_795_400_000_000))] {
            let maybe = MaybeTime::from(time);
            assert_eq!(encode(&maybe), encode(&time));
            assert_eq!(decode::<MaybeTime>(&encode(&time)).unwrap().get(), time);
        }
        assert_eq!(size_of::<MaybeTime>(), size_of::<Timestamp>());
    }
}
