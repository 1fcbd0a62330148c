//! One transaction at a time to each destination, within a process: a peer answers a second one with 429 (Synapse does), and what
//! is newer must not overtake what is older.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::model::ServerName;

/// Below so many destinations nobody looks for those that are done with.
const FEW: usize = 64;

/// The lanes to all destinations. Remembers those that are in use, and at most as many that were.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Mutex<Map>,
}

#[derive(Debug, Default)]
struct Map {
    by_destination: HashMap<ServerName, Weak<AsyncMutex<()>>>,
    /// In use when those that were not went.
    in_use: usize,
}

/// The right to send, given back when dropped.
#[derive(Debug)]
pub(super) struct Lane {
    _guard: OwnedMutexGuard<()>,
}

impl Lanes {
    /// Waits for the turn; whoever came first is first.
    pub(super) async fn enter(&self, destination: &ServerName) -> Lane {
        let lane = self.lane(destination);
        Lane { _guard: lane.lock_owned().await }
    }

    fn lane(&self, destination: &ServerName) -> Arc<AsyncMutex<()>> {
        let mut map = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = map.by_destination.get(destination).and_then(Weak::upgrade) {
            return lane;
        }
        map.forget_unused();
        let lane = Arc::new(AsyncMutex::new(()));
        map.by_destination.insert(destination.clone(), Arc::downgrade(&lane));
        lane
    }
}

impl Map {
    fn forget_unused(&mut self) {
        if self.by_destination.len() >= FEW.max(2 * self.in_use) {
            self.by_destination.retain(|_, lane| lane.strong_count() > 0);
            self.in_use = self.by_destination.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn name(text: &str) -> ServerName {
        ServerName::parse(text).unwrap()
    }

    #[tokio::test]
    async fn a_destination_is_entered_by_one_at_a_time_and_others_by_others() {
        let lanes = Lanes::default();
        let first = lanes.enter(&name("b.example")).await;
        assert!(lanes.enter(&name("b.example")).now_or_never().is_none());
        assert!(lanes.enter(&name("c.example")).now_or_never().is_some());
        drop(first);
        assert!(lanes.enter(&name("b.example")).now_or_never().is_some());
    }

    #[tokio::test]
    async fn destinations_that_are_done_with_are_forgotten() {
        let lanes = Lanes::default();
        let kept = lanes.enter(&name("kept.example")).await;
        for n in 0..10_000 {
            drop(lanes.enter(&name(&format!("{n}.example"))).await);
        }
        assert!(lanes.lanes.lock().unwrap().by_destination.len() <= FEW);
        assert!(lanes.enter(&name("kept.example")).now_or_never().is_none());
        drop(kept);
    }
}
