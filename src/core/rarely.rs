//! What few machines have, out of very many.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is worth no room of its own in a machine that does without.
pub(super) trait Rare: Default + 'static {
    /// What whoever does without has.
    fn none() -> &'static Self;

    /// Whether this says no more than that.
    fn is_none(&self) -> bool;
}

/// A `T` that exists while it says anything. Read, it is always there; written, it comes to be. Encoded as a `T`.
#[derive(Debug, Clone)]
pub(super) struct Rarely<T>(Option<Box<T>>);

impl<T> Default for Rarely<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Rare + PartialEq> PartialEq for Rarely<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Rare + Eq> Eq for Rarely<T> {}

impl<T: Rare> Rarely<T> {
    /// Whether there is nothing, and no room for it.
    pub(super) fn is_resting(&self) -> bool {
        self.0.is_none()
    }

    /// Gives back what is not needed any longer.
    pub(super) fn rest(&mut self) {
        self.0.take_if(|some| some.is_none());
    }
}

impl<T: Rare> Deref for Rarely<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(some) => some,
            None => T::none(),
        }
    }
}

impl<T: Rare> DerefMut for Rarely<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T: Rare + Serialize> Serialize for Rarely<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de, T: Rare + Deserialize<'de>> Deserialize<'de> for Rarely<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let some = T::deserialize(deserializer)?;
        Ok(Self((!some.is_none()).then(|| Box::new(some))))
    }
}
