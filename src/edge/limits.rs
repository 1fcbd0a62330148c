//! How much one user and one address may ask: buckets that fill at a steady rate.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;

use super::address;
use super::error::MatrixError;
use crate::config::{LimitsConfig, Rate};
use crate::model::UserId;

/// The buckets of all.
pub(crate) struct Limits {
    users: Buckets<UserId>,
    addresses: Buckets<IpAddr>,
}

impl Limits {
    pub(crate) fn new(config: &LimitsConfig) -> Self {
        Self { users: Buckets::new(config.user, config.max), addresses: Buckets::new(config.address, config.max) }
    }

    /// 429 for a user who asks too much.
    pub(crate) fn user(&self, user: &UserId) -> Result<(), MatrixError> {
        self.users.take(user.clone()).map_err(|wait| refuse("user", "you ask too much", wait))
    }

    /// 429 for an address that asks too much.
    pub(crate) fn address(&self, address: IpAddr) -> Result<(), MatrixError> {
        self.addresses
            .take(address::owner(address))
            .map_err(|wait| refuse("address", "your address asks too much", wait))
    }
}

fn refuse(by: &'static str, text: &str, wait: Duration) -> MatrixError {
    metrics::counter!("rollcall_limited_total", "by" => by).increment(1);
    MatrixError::too_many(text, wait)
}

/// Buckets by key. One that nobody took from for long enough is full, and as good as none.
struct Buckets<K> {
    /// When a bucket will be full again, ns since `begin`.
    full_at: Cache<K, Arc<AtomicU64>>,
    begin: Instant,
    /// What one request takes, ns.
    cost: u64,
    /// What a full bucket holds, ns.
    capacity: u64,
}

impl<K: Hash + Eq + Send + Sync + 'static> Buckets<K> {
    fn new(rate: Rate, max: u64) -> Self {
        let cost = 1_000_000_000 / u64::from(rate.per_second.max(1));
        let capacity = cost * u64::from(rate.burst.max(1));
        let full_at = Cache::builder()
            .max_capacity(max)
            // Newcomers have to be remembered, however many come.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(Duration::from_nanos(capacity) + Duration::from_secs(1))
            .build();
        Self { full_at, begin: Instant::now(), cost, capacity }
    }

    /// Takes one request out of the bucket of `key`, or tells when that will be possible.
    fn take(&self, key: K) -> Result<(), Duration> {
        let now = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.full_at.get_with(key, Arc::default);
        let after = |full_at: u64| full_at.max(now).saturating_add(self.cost);
        let fits = |full_at| Some(after(full_at)).filter(|after| after - now <= self.capacity);
        let taken = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(drop).map_err(|full_at| Duration::from_nanos(after(full_at) - now - self.capacity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second, burst }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_empties_and_fills() {
        let buckets = Buckets::new(rate(10, 3), 100);
        assert!((0..3).all(|_| buckets.take("a").is_ok()));
        assert_eq!(buckets.take("a"), Err(Duration::from_millis(100)));
        assert_eq!(buckets.take("b"), Ok(()), "each has its own");
        tokio::time::advance(Duration::from_millis(99)).await;
        assert_eq!(buckets.take("a"), Err(Duration::from_millis(1)));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!((buckets.take("a"), buckets.take("a").is_err()), (Ok(()), true));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!((0..3).all(|_| buckets.take("a").is_ok()) && buckets.take("a").is_err(), "it never holds more");
    }

    #[tokio::test(start_paused = true)]
    async fn neighbours_of_one_network_share_a_bucket() {
        let limits = Limits::new(&LimitsConfig { user: rate(1, 1), address: rate(1, 1), max: 100 });
        let take = |address: &str| limits.address(address.parse().unwrap()).is_ok();
        assert!(take("192.0.2.1") && take("192.0.2.2") && !take("192.0.2.1"));
        assert!(take("2001:db8::1") && take("2001:db8:0:1::1") && !take("2001:db8::2"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_keys_costs_no_memory() {
        let buckets = Buckets::new(rate(1, 1), 100);
        assert!((0..10_000).all(|key| buckets.take(key).is_ok()), "each has its own");
        assert!(buckets.take(9_999).is_err(), "the newest is remembered");
        buckets.full_at.run_pending_tasks();
        assert!(buckets.full_at.entry_count() <= 100);
    }
}
