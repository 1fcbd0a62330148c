//! How many connections may be open, in all and from one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::address;
use crate::config::ConnectionsConfig;

/// The places of an edge.
pub(crate) struct Places {
    max: usize,
    per_address: usize,
    /// They ask on behalf of many, so no bound of theirs would be fair.
    exempt: Vec<IpNet>,
    taken: Mutex<Taken>,
}

/// Who has them. At most as many addresses as places.
#[derive(Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place that is taken until this is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    /// Whose share it counts against.
    owner: Option<IpAddr>,
}

impl Places {
    pub(crate) fn new(config: &ConnectionsConfig, exempt: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self { max: config.max, per_address: config.per_address, exempt, taken: Mutex::default() })
    }

    /// A place for a connection from `address`, if there is one left.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let owner = (!address::is_within(address, &self.exempt)).then(|| address::owner(address));
        if let Err(by) = self.lock().take(owner, self.max, self.per_address) {
            metrics::counter!("rollcall_connections_refused_total", "by" => by).increment(1);
            tracing::debug!(%address, by, "no place for a connection");
            return None;
        }
        metrics::gauge!("rollcall_connections").increment(1);
        Some(Place { places: self.clone(), owner })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// An error says which bound is reached; then nothing was taken.
    fn take(&mut self, owner: Option<IpAddr>, max: usize, per_address: usize) -> Result<(), &'static str> {
        if self.all >= max {
            return Err("all");
        }
        if let Some(owner) = owner {
            let share = self.by_address.entry(owner).or_default();
            if *share >= per_address {
                return Err("address");
            }
            *share += 1;
        }
        self.all += 1;
        Ok(())
    }

    fn give_back(&mut self, owner: Option<IpAddr>) {
        self.all -= 1;
        if let Some(Entry::Occupied(mut share)) = owner.map(|owner| self.by_address.entry(owner)) {
            *share.get_mut() -= 1;
            if *share.get() == 0 {
                share.remove();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().give_back(self.owner);
        metrics::gauge!("rollcall_connections").decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn places(max: usize, per_address: usize) -> Arc<Places> {
        let time = Duration::from_secs(1);
        let config = ConnectionsConfig { max, per_address, head_timeout: time, body_timeout: time };
        Places::new(&config, vec!["10.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let places = places(3, 2);
        let take = |address: &str| places.take(address.parse().unwrap());
        let (one, two) = (take("192.0.2.1"), take("192.0.2.1"));
        assert!(one.is_some() && two.is_some() && take("192.0.2.1").is_none(), "its share is taken");
        let three = take("192.0.2.2");
        assert!(three.is_some() && take("192.0.2.3").is_none() && take("10.0.0.1").is_none(), "all are taken");
        drop(two);
        assert!(take("192.0.2.3").is_some() && take("192.0.2.1").is_some());
        drop((one, three));
        let taken = places.lock();
        assert_eq!((taken.all, taken.by_address.len()), (0, 0), "nobody is remembered");
    }

    #[test]
    fn neighbours_share_and_proxies_have_no_share() {
        let places = places(100, 1);
        let take = |address: &str| places.take(address.parse().unwrap());
        let held = (take("2001:db8::1"), take("2001:db8::2"), take("2001:db8:0:1::1"));
        assert!(held.0.is_some() && held.1.is_none() && held.2.is_some());
        let proxies: Vec<_> = (0..10).map_while(|_| take("10.0.0.1")).collect();
        assert_eq!(proxies.len(), 10);
    }
}
