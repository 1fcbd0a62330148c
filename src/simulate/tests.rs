use super::models::{Case, floor};
use super::*;

fn day(users: usize, contacts: usize, peers: usize, seed: u64) -> (Scenario, Outcome) {
    let scenario =
        Scenario { name: "small".into(), users, contacts, changes_per_hour: 3, peers, window_ms: 10_000, seed };
    let outcome = run(&scenario);
    (scenario, outcome)
}

#[test]
fn the_same_seed_gives_the_same_day() {
    let days = [1, 1, 2].map(|seed| day(20, 3, 2, seed).1);
    assert_eq!(days[0], days[1]);
    assert_ne!(days[0], days[2]);
}

/// Every change is an entry, at the one peer; many changes are one transaction.
#[test]
fn changes_leave_together() {
    let (scenario, outcome) = day(100, 4, 1, 7);
    assert_eq!(outcome.changes, 2 * 100 * 24);
    let presence = outcome.presence;
    let case = Case { users: 100.0, contacts: 4.0, changes_per_hour: 3.0 };
    let extension = outcome.extension_bytes as f64 / presence.transactions as f64;
    let floor = floor(case, scenario.window_ms as f64 / 1000.0, extension);
    let bytes = presence.bytes() as f64 / models::SESSION_S;
    assert!(bytes < 1.1 * floor.bytes.unwrap(), "{bytes} B/s, the floor is {floor:?}: {outcome:?}");
    // Each change once, and the answer to each poll besides.
    assert!(presence.entries > outcome.changes * 9 / 10, "{outcome:?}");
    assert!(presence.entries < outcome.changes + 2 * 100 * 2, "{outcome:?}");
}
