//! E7: what one side holds wrong of the other's users, though nothing failed and both talk all the time, is right within one
//! `watchdog.long`: only a comparison can find it.

use rollcall::core::Settings;
use rollcall::core::signal::Outcome;
use rollcall::model::{Presence, Timestamp};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{ALICE, HOUR};
use crate::support::herd::reminder_of;
use crate::support::pair::{START, Server, defaults, receive};

const ZOE: &str = "@zoe:a.example";
const SHORT_S: u64 = 60;
const LONG_S: u64 = 900;
/// Pairs of servers that are looked at: each link has a phase of its own, and of so many some are so close together that both sides
/// compare nearly at once, and then for nearly a whole period not.
const PAIRS: usize = 100;

/// Alice and Zoe at one server, Bob at the other, who list each other and have sessions.
struct Talkers {
    now: Timestamp,
    a: Server,
    b: Server,
    bob: String,
    wire: Wire,
}

/// What passes between them.
#[derive(Default)]
struct Wire {
    /// How many reminders left.
    reminders: usize,
    /// So many transactions that say what their sender holds are given up.
    lost: usize,
}

impl Wire {
    fn hand_over(&mut self, now: Timestamp, from: &mut Server, to: &mut Server, garble: impl Fn(&mut Value)) {
        while let Some((mut transaction, mut body)) = from.sent() {
            self.reminders += usize::from(reminder_of(&body).is_some());
            if self.lost > 0 && edus(&mut body).any(|edu| !edu["content"]["rollcall"]["have"].is_null()) {
                self.lost -= 1;
                from.receipt(now, &transaction, Outcome::Expired);
                continue;
            }
            garble(&mut body);
            transaction.body = RawValue::from_string(body.to_string()).unwrap();
            receive(now, &from.name, &transaction, to);
            from.receipt(now, &transaction, Outcome::Delivered);
        }
    }
}

impl Talkers {
    fn new(name: &str) -> Self {
        let settings = || Settings { short_ms: SHORT_S * 1_000, long_ms: LONG_S * 1_000, ..defaults() };
        let (mut a, mut b) = (Server::with("a.example", settings()), Server::with(name, settings()));
        let (now, bob) = (START, format!("@bob:{name}"));
        a.list(now, ALICE, &[&bob], &[]);
        a.list(now, ZOE, &[&bob], &[]);
        a.set(now, ALICE, Presence::Offline, Some("before"));
        b.list(now, &bob, &[ALICE, ZOE], &[]);
        Self { now, a, b, bob, wire: Wire::default() }
    }

    /// A second passes; `garble` says what becomes of what b is told. Transactions are up to three seconds on their way.
    fn second(&mut self, garble: impl Fn(&mut Value)) {
        self.now = self.now.plus(1_000);
        let Self { now, a, b, bob, wire } = self;
        let seconds = now.since(START) / 1_000;
        if seconds % 1_800 == 1 {
            a.session(*now, ALICE, HOUR);
            a.session(*now, ZOE, HOUR);
            b.session(*now, bob, HOUR);
        }
        if seconds.is_multiple_of(20) {
            a.set(*now, ZOE, Presence::Online, Some(&seconds.to_string()));
            b.set(*now, bob, Presence::Online, Some(&seconds.to_string()));
        }
        a.tick(*now);
        b.tick(*now);
        if seconds.is_multiple_of(4) {
            wire.hand_over(*now, a, b, garble);
            wire.hand_over(*now, b, a, |_| {});
        }
    }

    /// Passes until the `nth` reminder from now on.
    fn pass_reminders(&mut self, nth: usize) {
        self.wire.reminders = 0;
        while self.wire.reminders < nth {
            self.second(|_| {});
        }
    }

    /// What Bob is shown of Alice.
    fn shown(&self) -> Option<String> {
        let known = self.b.sees(self.now, &self.bob, ALICE)?;
        known.status.status_msg.map(Into::into)
    }
}

/// The most that it takes, in s, until Bob is shown what he should be: something is done just after one or the other side reminded, and
/// what b is told of it within ten seconds is garbled.
fn longest(does: fn(&mut Talkers), garble: fn(&mut Value), should_see: Option<&str>) -> u64 {
    let runs = (0..PAIRS).flat_map(|pair| [1, 2].map(|nth| (pair, nth)));
    let seconds = runs.map(|(pair, nth)| {
        let mut talkers = Talkers::new(&format!("b{pair}.example"));
        (0..3 * LONG_S).for_each(|_| talkers.second(|_| {}));
        assert_eq!(talkers.shown().as_deref(), Some("before"));
        talkers.pass_reminders(nth);
        does(&mut talkers);
        let mut seconds = 0..10;
        while talkers.shown().as_deref() == Some("before") && seconds.next().is_some() {
            talkers.second(garble);
        }
        let damaged = talkers.now;
        assert_ne!(talkers.shown().as_deref(), should_see, "b{pair} was not damaged");
        while talkers.shown().as_deref() != should_see {
            talkers.second(|_| {});
            assert!(talkers.now.since(damaged) < 3 * LONG_S * 1_000, "b{pair} never finds it");
        }
        talkers.now.since(damaged) / 1_000
    });
    seconds.max().unwrap()
}

fn edus(body: &mut Value) -> impl Iterator<Item = &mut Value> {
    body["edus"].as_array_mut().unwrap().iter_mut()
}

/// What is pushed of Alice becomes something else.
fn garble_alice(body: &mut Value) {
    let pushes = edus(body).flat_map(|edu| edu["content"]["push"].as_array_mut()).flatten();
    pushes.filter(|push| push["user_id"] == ALICE).for_each(|push| push["status_msg"] = "wrong".into());
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure, with --nocapture")]
fn a_status_that_arrived_as_another_is_mended_within_one_long_period() {
    let does = |talkers: &mut Talkers| talkers.a.set(talkers.now, ALICE, Presence::Offline, Some("right"));
    let longest_s = longest(does, garble_alice, Some("right"));
    println!("{PAIRS} pairs, long watchdogs of {LONG_S} s: mended after {longest_s} s at most");
    // Not because the long watchdog comes much earlier, either.
    assert!((LONG_S - 4 * SHORT_S..=LONG_S).contains(&longest_s), "{longest_s} s");
}

/// Both sides talk, so nobody waits for an answer that never came: the other side compares by itself.
#[test]
fn a_comparison_of_which_a_part_is_lost_is_made_up_for_by_the_other_side_s() {
    let does = |talkers: &mut Talkers| {
        talkers.a.set(talkers.now, ALICE, Presence::Offline, Some("right"));
        talkers.wire.lost = 1;
    };
    let longest_s = longest(does, garble_alice, Some("right"));
    assert!(longest_s <= LONG_S, "{longest_s} s");
}

/// Who refused somebody compares without being asked.
#[test]
fn a_refusal_that_never_arrived_is_found_within_two_short_periods() {
    let does = |talkers: &mut Talkers| {
        let bob = talkers.bob.clone();
        talkers.a.answer(talkers.now, ALICE, &bob, false);
    };
    let garble =
        |body: &mut Value| body["edus"].as_array_mut().unwrap().retain(|edu| edu["edu_type"] != "m.presence_deny");
    let longest_s = longest(does, garble, None);
    assert!(longest_s <= 2 * SHORT_S, "{longest_s} s");
}
