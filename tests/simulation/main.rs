//! Many whole servers on one thread, in simulated time: the machines and the real worker loop and ingest, over a store and a bus that
//! fail in every way that the real ones may. A world comes of one number and is the same whenever it is played:
//!
//! `ROLLCALL_SEED=n cargo test --test simulation a_seed_that_is_named_is_replayed -- --nocapture` prints what happens in it.
//! `ROLLCALL_SEEDS=100000` plays more than usual. docs/simulation.md says what is simulated, and what must hold.

#![allow(unreachable_pub, reason = "a test binary is its own world")]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the reason")]

mod bounds;
mod broker;
mod bus;
mod damage;
mod host;
mod ledger;
mod life;
mod net;
mod people;
mod plain;
mod plan;
mod polling;
mod sessions;
mod sim;
mod store;
mod storm;
mod truth;
mod verdict;
mod watch;
mod world;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use self::world::play;

/// As the command has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds that each run of the tests plays.
const SEEDS: u64 = 2_000;
/// Of too many failures the first tell enough.
const FAILURES: usize = 5;

#[test]
fn whatever_befalls_servers_they_agree_in_the_end() {
    let seeds = number("ROLLCALL_SEEDS").unwrap_or(SEEDS);
    let first = number("ROLLCALL_FIRST_SEED").unwrap_or(0);
    let failures = play_all(first..first + seeds);
    assert!(failures.is_empty(), "{} of {seeds} worlds broke:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn a_seed_that_is_named_is_replayed() {
    let Some(seed) = number("ROLLCALL_SEED") else { return };
    let _ = tracing_subscriber::fmt().without_time().with_ansi(false).try_init();
    play(seed, true).unwrap_or_else(|violations| panic!("seed {seed}:\n{violations}"));
}

#[test]
fn a_world_is_the_same_whenever_it_is_played() {
    let first = number("ROLLCALL_FIRST_SEED").unwrap_or(0);
    for seed in first..first + number("ROLLCALL_SAME_SEEDS").unwrap_or(6) {
        assert_eq!(play(seed, false), play(seed, false), "seed {seed}");
    }
}

/// Several at once; what broke, by seed.
fn play_all(seeds: Range<u64>) -> Vec<String> {
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failures.lock().unwrap().len() >= FAILURES {
                        return;
                    }
                    if let Err(violations) = play(seed, false) {
                        failures.lock().unwrap().push(format!("ROLLCALL_SEED={seed}\n{violations}"));
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the tests' own switches: there is no configuration to hold them")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}
