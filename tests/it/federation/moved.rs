//! A clock that tests move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rollcall::clock::Clock;
use rollcall::model::Timestamp;

use super::courier::now;

#[derive(Debug, Clone)]
pub(crate) struct Moved(Arc<AtomicU64>);

impl Moved {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(now().0)))
    }

    pub(crate) fn by_seconds(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1000, Ordering::Relaxed);
    }
}

impl Clock for Moved {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}
