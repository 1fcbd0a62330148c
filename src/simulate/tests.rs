use std::sync::LazyLock;

use super::targets::{SIMPLE_MESSAGES, WINDOW_MS, targets};
use super::*;

fn day(users: usize, contacts: usize, peers: usize, seed: u64) -> (Scenario, Outcome) {
    let scenario =
        Scenario { name: "small".into(), users, contacts, changes_per_hour: 3, peers, window_ms: WINDOW_MS, seed };
    let outcome = run(&scenario);
    (scenario, outcome)
}

#[test]
fn the_same_seed_gives_the_same_day() {
    let days = [1, 1, 2].map(|seed| day(20, 3, 2, seed).1);
    assert_eq!(days[0], days[1]);
    assert_ne!(days[0], days[2]);
}

/// Wide with few of its users: what it takes to be held to bounds that rest on size, in a few seconds.
static SMALL: LazyLock<(Scenario, Outcome)> = LazyLock::new(|| day(120, 20, 1, 1));

/// Every change is an entry, at the one peer; many changes are one transaction.
#[test]
fn changes_leave_together_and_reminders_are_few() {
    let (scenario, outcome) = &*SMALL;
    let Outcome { presence, watchdogs, changes, reminders, .. } = *outcome;
    let users = 2 * scenario.users as u64;
    assert_eq!(changes, users * 24);
    // Each change once, and the answer to each poll besides.
    assert!((changes * 9 / 10..=changes + 2 * users).contains(&presence.entries), "{outcome:?}");
    // The long ones of both sides, each hour, and the short ones before everybody has come and after all have gone.
    assert!((14..=60).contains(&reminders), "{outcome:?}");
    assert!(watchdogs.transactions < reminders, "{outcome:?}");
    assert!(watchdogs.bytes() > 0 && watchdogs.bytes() * 50 < presence.bytes(), "{outcome:?}");
}

/// Messages are bounded by the window and not by the users: with as many of those as Basic has there would be no more.
#[test]
fn a_small_day_is_held_to_the_targets_of_the_published_ones() {
    let (scenario, outcome) = &*SMALL;
    let [basic, ..] = Scenario::published(WINDOW_MS, 1);
    let pairs = |scenario: &Scenario| (scenario.users * scenario.contacts) as f64;
    for mut target in targets(scenario, outcome) {
        if target.name == SIMPLE_MESSAGES {
            target.measured *= pairs(&basic) / pairs(scenario);
        }
        assert!(target.is_met(), "{target:?}: {outcome:#?}");
    }
}
