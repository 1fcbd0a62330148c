//! Whose request is next. A peer that does not answer costs a request its whole time, and there may be hundreds of them: so only whoever
//! answered promptly last time has all requests at their disposal. Those who did not, and those of whom nothing is known yet, have a part each.
//!
//! What waits for a slow peer, whether for its part or in back-off, is held meanwhile, and the queue gives only so much: it is half of that at
//! most. A new peer is waited for once, so whoever begins with thousands of them just begins.

use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::model::ServerName;

/// Deliveries held for each request that may run.
const HELD_PER_REQUEST: usize = 4;
/// What a queue gives one consumer at most (a limit of some quorum queues).
const MAX_HELD: usize = 2_000;
/// Bodies of what waits, in KiB; each is in memory twice, as it came and as it was read. A transaction is at most `batch.max_bytes`, 512 KiB unless that is changed.
const WAITING_KIB: usize = 64 << 10;
/// Peers whose pace is remembered: one that is forgotten is new again.
const PEERS: u64 = 100_000;

/// Deliveries held at once, where so many requests may run.
pub(super) fn held(concurrency: usize) -> usize {
    concurrency.saturating_mul(HELD_PER_REQUEST).clamp(1, MAX_HELD)
}

/// How a peer took its last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Prompt,
    Slow,
}

/// All requests, and who may make them.
pub(super) struct Turns {
    all: Semaphore,
    /// For the sake of new peers: half.
    new: Semaphore,
    /// For the sake of slow ones: a quarter.
    slow: Semaphore,
    places: Semaphore,
    kib: Semaphore,
    prompt: Duration,
    known: Cache<ServerName, Pace>,
}

/// The right to make a request, given back when dropped.
pub(super) struct Turn<'a> {
    _part: Option<SemaphorePermit<'a>>,
    _of_all: SemaphorePermit<'a>,
}

/// The right to wait, given back when dropped.
pub(super) struct Place<'a> {
    _place: SemaphorePermit<'a>,
    _kib: SemaphorePermit<'a>,
}

impl Turns {
    /// For `concurrency` requests that take at most `timeout` each.
    pub(super) fn new(concurrency: usize, timeout: Duration) -> Self {
        let concurrency = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        let part = |of: usize| Semaphore::new((concurrency / of).max(1));
        Self {
            all: part(1),
            new: part(2),
            slow: part(4),
            places: Semaphore::new((held(concurrency) / 2).max(1)),
            kib: Semaphore::new(WAITING_KIB),
            prompt: timeout / 4,
            known: Cache::builder().max_capacity(PEERS).eviction_policy(EvictionPolicy::lru()).build(),
        }
    }

    /// Waits until `peer` may be sent a body of `length` bytes. `None`: it is slow, and so much waits for such that this may not.
    pub(super) async fn enter(&self, peer: &ServerName, length: usize) -> Option<Turn<'_>> {
        let part = match self.known.get(peer) {
            Some(Pace::Prompt) => None,
            Some(Pace::Slow) => Some(self.enter_slow(length).await?),
            None => Some(turn_of(&self.new).await),
        };
        Some(Turn { _part: part, _of_all: turn_of(&self.all).await })
    }

    async fn enter_slow(&self, length: usize) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.slow.try_acquire() {
            return Some(permit);
        }
        let _place = self.place(length)?;
        Some(turn_of(&self.slow).await)
    }

    /// A place to wait in with a body of `length` bytes, if there is one.
    pub(super) fn place(&self, length: usize) -> Option<Place<'_>> {
        let kib = u32::try_from(length.div_ceil(1024)).ok()?;
        Some(Place { _place: self.places.try_acquire().ok()?, _kib: self.kib.try_acquire_many(kib).ok()? })
    }

    /// How `peer` took a request: whether it answered at all, and after which time.
    pub(super) fn took(&self, peer: &ServerName, is_answered: bool, time: Duration) {
        let pace = if is_answered && time <= self.prompt { Pace::Prompt } else { Pace::Slow };
        self.known.insert(peer.clone(), pace);
    }
}

async fn turn_of(requests: &Semaphore) -> SemaphorePermit<'_> {
    requests.acquire().await.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn name(text: &str) -> ServerName {
        ServerName::parse(text).unwrap()
    }

    fn now<'a>(turns: &'a Turns, peer: &str) -> Option<Turn<'a>> {
        turns.enter(&name(peer), 1).now_or_never().flatten()
    }

    #[test]
    fn those_who_are_new_or_slow_have_a_part_and_those_who_answer_all() {
        let turns = Turns::new(8, 4 * SECOND);
        turns.took(&name("prompt.example"), true, SECOND);
        turns.took(&name("late.example"), true, 2 * SECOND);
        turns.took(&name("silent.example"), false, Duration::ZERO);
        let new: Vec<_> = (0..5).map_while(|n| now(&turns, &format!("{n}.example"))).collect();
        assert_eq!(new.len(), 4);
        let (slow, other) = (now(&turns, "late.example"), now(&turns, "silent.example"));
        assert!(slow.is_some() && other.is_some() && now(&turns, "silent.example").is_none());
        let rest = [now(&turns, "prompt.example"), now(&turns, "prompt.example")];
        assert!(rest.iter().all(Option::is_some));
        assert!(now(&turns, "prompt.example").is_none(), "eight are under way");
        drop(new);
        let all: Vec<_> = (0..5).map_while(|_| now(&turns, "prompt.example")).collect();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn one_request_at_a_time_is_for_everybody() {
        let turns = Turns::new(1, SECOND);
        turns.took(&name("slow.example"), false, SECOND);
        for peer in ["new.example", "slow.example"] {
            assert!(now(&turns, peer).is_some(), "{peer}");
        }
    }

    #[test]
    fn half_of_what_is_held_may_wait_and_so_many_bytes() {
        let turns = Turns::new(2, SECOND);
        let names: Vec<_> = (0..=5).map(|n| name(&format!("{n}.example"))).collect();
        names.iter().for_each(|peer| turns.took(peer, false, SECOND));
        let first = now(&turns, "0.example").unwrap();
        let mut waiting: Vec<_> = names[1..=4].iter().map(|peer| Box::pin(turns.enter(peer, 1))).collect();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none(), "it waits");
        }
        assert!(turns.enter(&names[5], 1).now_or_never().expect("an answer").is_none());
        let new: Vec<_> = (6..100).map(|n| now(&turns, &format!("{n}.example"))).collect();
        assert_eq!(new.iter().flatten().count(), 1, "the others wait");
        assert!(turns.place(1).is_none());
        drop((waiting, first));
        let large = turns.place(WAITING_KIB * 1024).unwrap();
        assert!(turns.place(1).is_none());
        drop(large);
        assert!(turns.place(1).is_some());
    }

    #[test]
    fn the_pace_of_peers_is_remembered_up_to_a_bound() {
        let turns = Turns::new(1, SECOND);
        for n in 0..PEERS + 100 {
            turns.took(&name(&format!("{n}.example")), true, SECOND);
        }
        turns.known.run_pending_tasks();
        assert!(turns.known.entry_count() <= PEERS);
    }
}
