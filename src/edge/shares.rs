//! How much of something one address, or one user, may have at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use super::address;

/// So many are remembered before anybody is looked for who has nothing.
const FEW: usize = 64;

/// Shares of the same size for all. An owner is remembered for as long as it has something, and not much longer.
pub(crate) struct Shares<K = IpAddr> {
    each: usize,
    known: Mutex<Known<K>>,
}

struct Known<K> {
    by_owner: HashMap<K, Weak<Semaphore>>,
    /// So many, and those who have nothing are forgotten.
    full: usize,
}

impl Shares<IpAddr> {
    /// The share of `address` and of its neighbours whom the same owner can choose at will.
    pub(crate) fn of(&self, address: IpAddr) -> Arc<Semaphore> {
        self.of_owner(address::owner(address))
    }
}

impl<K: Hash + Eq> Shares<K> {
    /// `each`: permits of one owner.
    pub(crate) fn new(each: usize) -> Self {
        Self { each, known: Mutex::new(Known { by_owner: HashMap::new(), full: FEW }) }
    }

    /// The share of one owner.
    pub(crate) fn of_owner(&self, owner: K) -> Arc<Semaphore> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = known.by_owner.get(&owner).and_then(Weak::upgrade) {
            return share;
        }
        if known.by_owner.len() >= known.full {
            known.by_owner.retain(|_, share| share.strong_count() > 0);
            known.full = (2 * known.by_owner.len()).max(FEW);
        }
        let share = Arc::new(Semaphore::new(self.each));
        known.by_owner.insert(owner, Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_and_neighbours_share() {
        let shares = Shares::new(2);
        let take = |address: &str| shares.of(address.parse().unwrap()).try_acquire_owned();
        let (one, two) = (take("192.0.2.1").unwrap(), take("192.0.2.1").unwrap());
        assert!(take("192.0.2.1").is_err() && take("192.0.2.2").is_ok());
        drop(one);
        assert!(take("192.0.2.1").is_ok(), "what is given back can be had again");
        drop(two);
        let held = (take("2001:db8::1"), take("2001:db8::2"), take("2001:db8::3"), take("2001:db8:0:1::1"));
        assert!(held.0.is_ok() && held.1.is_ok() && held.2.is_err() && held.3.is_ok());
    }

    #[test]
    fn who_has_nothing_is_forgotten_and_who_has_something_is_not() {
        let shares = Shares::new(1);
        let held = shares.of(IpAddr::from([192, 0, 2, 1])).try_acquire_owned().unwrap();
        for number in 0..10_000_u32 {
            drop(shares.of(IpAddr::from(number.to_be_bytes())));
        }
        assert!(shares.known.lock().unwrap().by_owner.len() <= FEW);
        assert!(shares.of(IpAddr::from([192, 0, 2, 1])).try_acquire().is_err());
        drop(held);
    }
}
