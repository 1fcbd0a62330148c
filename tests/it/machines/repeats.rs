//! Who changes again and again is told of less often (E4, W8).

use rollcall::core::Settings;
use rollcall::core::signal::Outcome;
use rollcall::model::{Presence, ServerName, Timestamp};
use serde_json::{Value, json};

use super::{ALICE, BOB, HOUR, pushes, watched_by};
use crate::support::pair::{START, Server, defaults, lines, pass, settings};

const MINUTE_MS: u64 = 60_000;

/// One repeat takes what is kept, and what comes in a quarter of an hour.
fn repeated() -> Settings {
    Settings { repeat_ms: MINUTE_MS, repeat_cost_us: 1_000_000_000, ..settings() }
}

/// Bob, of b, watches Alice, of a, who was told of just now and has used up what repeats may cost.
fn twitched() -> (Timestamp, Server, Server) {
    let (mut now, mut a, mut b) = watched_by(Server::with("a.example", repeated()), Server::new("b.example"));
    let messages = messages_of(&mut now, &mut a, &mut b, &["first", "again"]);
    assert_eq!(messages, ["first", "again"]);
    (now, a, b)
}

/// Alice says each, windows apart; what leaves of it.
fn messages_of(now: &mut Timestamp, a: &mut Server, b: &mut Server, says: &[&str]) -> Vec<String> {
    let mut left = Vec::new();
    for text in says {
        a.set(*now, ALICE, Presence::Online, Some(text));
        left.extend(messages(&pass(now, 6, a, b)));
    }
    left
}

fn messages(seen: &[(ServerName, Value)]) -> Vec<String> {
    let entries = seen.iter().flat_map(|(_, body)| pushes(body));
    entries.map(|entry| entry["status_msg"].as_str().unwrap_or_default().to_owned()).collect()
}

fn message_at(b: &Server, now: Timestamp) -> Option<String> {
    b.sees(now, BOB, ALICE).expect("she lets him").status.status_msg.map(String::from)
}

#[test]
fn what_repeats_cost_is_bounded_and_the_newest_leaves_within_a_minute() {
    let (mut now, mut a, mut b) = twitched();
    let last_told = now.minus(6_000);
    assert!(messages_of(&mut now, &mut a, &mut b, &["no", "not now", "newest"]).is_empty());
    assert_eq!(a.machines.totals().withheld, 3);
    let mut left = Vec::new();
    while left.is_empty() {
        left = messages(&pass(&mut now, 1, &mut a, &mut b));
        assert!(now.since(last_told) <= MINUTE_MS + 6_000, "a minute, and a window");
    }
    assert_eq!(left, ["newest"]);
    assert!(now.since(last_told) >= MINUTE_MS * 3 / 4);
    assert!(messages(&pass(&mut now, 30, &mut a, &mut b)).is_empty(), "once");
}

#[test]
fn what_is_withheld_keeps_nobody_waiting_and_local_users_are_told() {
    let (mut now, mut a, mut b) = twitched();
    let carol = "@carol:a.example";
    a.list(now, carol, &[ALICE], &[]);
    a.stream(now, carol, "desk");
    b.list(now, BOB, &["@ann:a.example"], &[]);
    pass(&mut now, 20, &mut a, &mut b);
    a.updated();
    a.set(now, ALICE, Presence::Busy, Some("withheld"));
    a.set(now, "@ann:a.example", Presence::Online, Some("hello"));
    let left = pass(&mut now, 6, &mut a, &mut b);
    assert_eq!(messages(&left), ["hello"]);
    assert_eq!(a.updated(), ["@carol:a.example: @alice:a.example busy"]);
}

#[test]
fn a_restart_loses_nothing_that_is_withheld() {
    let (mut now, mut a, mut b) = twitched();
    a.set(now, ALICE, Presence::Online, Some("withheld"));
    assert_eq!(a.machines.totals().withheld, 1);
    a.restart(now);
    assert_eq!(messages(&pass(&mut now, MINUTE_MS / 1_000 + 6, &mut a, &mut b)), ["withheld"]);
}

#[test]
fn a_clock_that_steps_back_holds_nothing_up() {
    for restarts in [false, true] {
        let (mut now, mut a, mut b) = twitched();
        a.set(now, ALICE, Presence::Online, Some("withheld"));
        now = now.minus(86_400_000);
        if restarts {
            a.restart(now);
        }
        let left = messages(&pass(&mut now, MINUTE_MS / 1_000 + 6, &mut a, &mut b));
        assert_eq!(left, ["withheld"], "restarted: {restarts}");
        let left = messages_of(&mut now, &mut a, &mut b, &["new"]);
        assert_eq!(left, ["new"], "restarted: {restarts}: nothing was spent by the clock that was ahead");
    }
}

#[test]
fn who_asks_gets_the_newest() {
    let (mut now, mut a, mut b) = twitched();
    a.set(now, ALICE, Presence::Busy, Some("withheld"));
    b.session(now, BOB, None);
    pass(&mut now, 35, &mut a, &mut b);
    b.session(now, BOB, HOUR);
    pass(&mut now, 10, &mut a, &mut b);
    assert_eq!(message_at(&b, now).as_deref(), Some("withheld"));
}

/// W1: her status and the question for his travel together.
#[test]
fn on_appearance_what_is_withheld_leaves_with_the_polls() {
    let friendly = Settings { accept: defaults().accept, symmetric: true, ..repeated() };
    let (mut a, mut b) = (Server::with("a.example", friendly), Server::with("b.example", defaults()));
    let mut now = START;
    a.list(now, ALICE, &[BOB], &[]);
    b.list(now, BOB, &[ALICE], &[]);
    b.session(now, BOB, HOUR);
    pass(&mut now, 90, &mut a, &mut b);
    messages_of(&mut now, &mut a, &mut b, &["first", "again"]);
    a.set(now, ALICE, Presence::Online, Some("here"));
    assert_eq!(a.machines.totals().withheld, 1);
    a.session(now, ALICE, HOUR);
    let seen = pass(&mut now, 6, &mut a, &mut b);
    assert_eq!(lines(&seen[0].1), ["push @alice:a.example online", "poll @bob:b.example"]);
    assert_eq!(messages(&seen[..1]), ["here"]);
}

#[test]
fn who_may_not_see_any_longer_is_not_told_what_was_withheld() {
    let (mut now, mut a, mut b) = twitched();
    a.set(now, ALICE, Presence::Online, Some("withheld"));
    a.answer(now, ALICE, BOB, false);
    let seen = pass(&mut now, 2 * MINUTE_MS / 1_000, &mut a, &mut b);
    assert!(messages(&seen).iter().all(|text| text != "withheld"), "{seen:?}");
}

/// What leaves of it is one entry, and the newest, though nothing may be spent on it.
#[test]
fn changes_within_a_window_leave_with_it() {
    let (mut now, mut a, mut b) = twitched();
    pass(&mut now, 2 * MINUTE_MS / 1_000, &mut a, &mut b);
    let mut left = Vec::new();
    for n in 0..4 {
        a.set(now, ALICE, Presence::Online, Some(&format!("message {n}")));
        left.extend(messages(&pass(&mut now, 1, &mut a, &mut b)));
    }
    left.extend(messages(&pass(&mut now, 5, &mut a, &mut b)));
    assert_eq!(left, ["message 3"]);
    assert_eq!(a.machines.totals().withheld, 0);
    assert!(messages_of(&mut now, &mut a, &mut b, &["late"]).is_empty());
}

/// The clock steps back before a beat says so: what was withheld leaves by what was read, and was told then, not in the future.
#[test]
fn a_clock_that_steps_back_before_the_next_beat_holds_nothing_up() {
    let (mut now, mut a, mut b) = twitched();
    a.set(now, ALICE, Presence::Online, Some("withheld"));
    now = now.minus(86_400_000);
    a.machines.handle_timeout(now);
    let left = messages(&pass(&mut now, MINUTE_MS / 1_000 + 6, &mut a, &mut b));
    assert_eq!(left, ["withheld"]);
    messages_of(&mut now, &mut a, &mut b, &["one", "two"]);
    a.set(now, ALICE, Presence::Online, Some("three"));
    let left = messages(&pass(&mut now, MINUTE_MS / 1_000 + 6, &mut a, &mut b));
    assert_eq!(left.last().map(String::as_str), Some("three"));
}

/// Twenty peers, each of which costs an entry: what is first told to all, and then again, is not told a third time.
#[test]
fn a_change_costs_what_all_who_hear_of_it_cost() {
    let peers: Vec<String> = (0..20).map(|n| format!("p{n}.example")).collect();
    let mut a = Server::with("a.example", Settings { repeat_cost_us: 2_000_000, ..repeated() });
    let mut now = START;
    a.tick(now);
    for peer in &peers {
        let poll = json!([{"edu_type": "m.presence", "content": {"push": [], "poll": [ALICE]}}]);
        a.foreign(now, peer, &poll);
    }
    let mut told = Vec::new();
    for n in 0..4 {
        a.set(now, ALICE, Presence::Online, Some(&format!("message {n}")));
        for _ in 0..6 {
            now = now.plus(1_000);
            a.tick(now);
        }
        let mut heard = 0;
        while let Some((transaction, body)) = a.sent() {
            a.receipt(now, &transaction, Outcome::Delivered);
            heard += usize::from(pushes(&body).iter().any(|entry| entry["status_msg"] == format!("message {n}")));
        }
        told.push(heard);
    }
    assert_eq!(told, [20, 20, 0, 0], "forty seconds' worth, of which ten were kept");
    now = now.plus(MINUTE_MS);
    a.tick(now);
    a.tick(now.plus(6_000));
    let last = std::iter::from_fn(|| a.sent()).map(|(_, body)| pushes(&body)[0]["status_msg"].clone());
    assert_eq!(last.collect::<Vec<_>>(), ["message 3"; 20]);
}

/// What a deployment lets go at one moment leaves in commits of a bounded size, one after the other.
#[test]
fn what_leaves_at_one_moment_is_cut_into_runs() {
    let users: Vec<String> = (0..1_500).map(|n| format!("@user{n}:a.example")).collect();
    let peers: Vec<String> = (0..20).map(|n| format!("p{n}.example")).collect();
    let mut a = Server::with("a.example", repeated());
    let mut now = START;
    a.tick(now);
    for peer in &peers {
        a.foreign(now, peer, &json!([{"edu_type": "m.presence", "content": {"push": [], "poll": users}}]));
    }
    // The second finds what is kept of the allowance gone.
    for text in ["first", "withheld"] {
        now = now.plus(6_000);
        for name in &users {
            a.set(now, name, Presence::Online, Some(text));
        }
    }
    let all = users.len() as u64 - 1;
    assert_eq!(a.machines.totals().withheld, all);
    now = now.plus(MINUTE_MS);
    a.machines.handle_users_beat(now, now);
    let mut left = Vec::new();
    while a.machines.poll_timeout().is_some_and(|due| due <= now) {
        a.machines.handle_timeout(now);
        left.push(a.machines.pending_outputs());
        drop(a.machines.take_effects());
    }
    assert!(left.iter().all(|left| *left < Settings::MAX_OUTPUTS + peers.len()), "{left:?}");
    let told: usize = left.iter().sum();
    assert!(left.len() > 1 && told >= all as usize * peers.len(), "{left:?}");
}
