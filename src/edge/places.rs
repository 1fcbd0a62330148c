//! How many connections may be open, in all and from one address.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::address;
use super::shares::Shares;
use crate::config::ConnectionsConfig;

/// The places of an edge.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    shares: Shares,
    /// They ask on behalf of many, so no bound of theirs would be fair.
    exempt: Vec<IpNet>,
}

/// A place that is taken until this is dropped.
pub(crate) struct Place {
    _place: OwnedSemaphorePermit,
    _of_share: Option<OwnedSemaphorePermit>,
}

impl Places {
    pub(crate) fn new(config: &ConnectionsConfig, exempt: Vec<IpNet>) -> Self {
        Self { all: Arc::new(Semaphore::new(config.max)), shares: Shares::new(config.per_address), exempt }
    }

    /// A place for a connection from `address`, if there is one left.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Place> {
        match self.try_take(address) {
            Ok(place) => {
                metrics::gauge!("rollcall_connections").increment(1);
                Some(place)
            }
            Err(by) => {
                metrics::counter!("rollcall_connections_refused_total", "by" => by).increment(1);
                tracing::debug!(%address, by, "no place for a connection");
                None
            }
        }
    }

    /// An error says which bound is reached; then nothing was taken.
    fn try_take(&self, address: IpAddr) -> Result<Place, &'static str> {
        let place = self.all.clone().try_acquire_owned().map_err(|_| "all")?;
        let share = (!address::is_within(address, &self.exempt)).then(|| self.shares.of(address));
        let of_share = share.map(Semaphore::try_acquire_owned).transpose().map_err(|_| "address")?;
        Ok(Place { _place: place, _of_share: of_share })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("rollcall_connections").decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn places(max: usize, per_address: usize) -> Places {
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
        assert_eq!(places.all.available_permits(), 3);
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
