//! What is gathered, what leaves, what is owed.

use rollcall::core::Output;
use rollcall::core::signal::{Outcome, PeerSignal};
use rollcall::model::{Presence, Timestamp};
use serde_json::json;

use super::{ALICE, BOB, HOUR, known, presence, pushes, watched};
use crate::support::pair::{START, Server, defaults, deliver, lines, pass, receive, said, server, settings};

#[test]
fn ten_changes_of_one_user_leave_as_one_entry() {
    let (mut now, mut a, mut b) = watched();
    for n in 0..10 {
        let presence = if n % 2 == 0 { Presence::Unavailable } else { Presence::Online };
        a.set(now.plus(n * 10), "@alice:a.example", presence, Some(&format!("message {n}")));
    }
    let changed = now.plus(90);
    let seen = pass(&mut now, 6, &mut a, &mut b);
    assert_eq!(seen.len(), 1);
    let (from, body) = &seen[0];
    assert_eq!(*from, server("a.example"));
    let sent_at = body["origin_server_ts"].as_u64().unwrap();
    let rollcall = &body["edus"][0]["content"]["rollcall"];
    assert_eq!(
        *body,
        json!({
            "origin": "a.example", "origin_server_ts": sent_at, "pdus": [],
            "edus": [{"edu_type": "m.presence", "content": {
                "push": [{
                    "user_id": "@alice:a.example", "presence": "online", "status_msg": "message 9",
                    "last_active_ago": Timestamp(sent_at).since(changed), "currently_active": true,
                }],
                "rollcall": {"v": 1, "seq": rollcall["seq"], "promise_ms": 3_600_000},
            }}],
        })
    );
    assert_eq!(presence(&b, "@alice:a.example"), Presence::Online);
}

#[test]
fn a_thousand_users_leave_as_one_transaction() {
    let (mut a, mut b) = (Server::new("a.example"), Server::new("b.example"));
    let mut now = START;
    let users: Vec<String> = (0..1_000).map(|n| format!("@user{n}:a.example")).collect();
    let listed: Vec<&str> = users.iter().map(String::as_str).collect();
    b.list(now, "@bob:b.example", &listed, &[]);
    b.session(now, "@bob:b.example", HOUR);
    pass(&mut now, 150, &mut a, &mut b);
    for name in &users {
        a.set(now, name, Presence::Online, None);
    }
    let seen = pass(&mut now, 6, &mut a, &mut b);
    assert_eq!(seen.len(), 1);
    assert_eq!(pushes(&seen[0].1).len(), 1_000);
    assert!(users.iter().all(|name| presence(&b, name) == Presence::Online));
}

#[test]
fn a_window_that_is_full_leaves_at_once() {
    let mut small = settings();
    small.max_entries = 3;
    let (mut a, mut b) = (Server::with("a.example", small), Server::new("b.example"));
    let mut now = START;
    let users = ["@u1:a.example", "@u2:a.example", "@u3:a.example", "@u4:a.example"];
    b.list(now, "@bob:b.example", &users, &[]);
    b.session(now, "@bob:b.example", HOUR);
    pass(&mut now, 60, &mut a, &mut b);
    for name in users {
        a.set(now, name, Presence::Online, None);
    }
    assert_eq!(deliver(now, &mut a, &mut b).len(), 1, "three of four, without waiting");
    assert_eq!(pass(&mut now, 6, &mut a, &mut b).len(), 1);
    assert!(users.iter().all(|name| presence(&b, name) == Presence::Online));
}

#[test]
fn many_windows_end_together_and_leave_so_many_at_once() {
    let mut a = Server::new("a.example");
    let asked: Vec<String> = (0..600).map(|n| format!("@bob:b{n}.example")).collect();
    for (n, bob) in (0..).zip(&asked) {
        // Within less than a fifth of the window.
        a.list(START.plus(n), ALICE, &[bob], &[]);
    }
    let end = START.plus(5_000);
    a.tick(end.minus(1));
    assert_eq!(a.out.len(), 0);
    for leave in [256, 256, 88] {
        assert!(a.machines.poll_timeout().is_some_and(|due| due <= end), "{leave}");
        a.machines.handle_timeout(end);
        let outputs = a.machines.take_effects().outputs;
        assert_eq!(outputs.iter().filter(|output| matches!(output, Output::Transmit(_))).count(), leave);
    }
    assert!(a.machines.poll_timeout().is_none_or(|due| due > end));
}

#[test]
fn only_one_transaction_is_live_and_what_waits_goes_with_the_next() {
    let (mut now, mut a, _) = watched();
    a.set(now, "@alice:a.example", Presence::Online, None);
    now = now.plus(5_000);
    a.tick(now);
    let (first, _) = a.sent().expect("the window closed");
    let waits_for_the_receipt = |a: &Server, now| a.machines.is_held_up(now, &server("b.example"));
    a.set(now, "@alice:a.example", Presence::Busy, None);
    assert!(!waits_for_the_receipt(&a, now), "the window is open");
    now = now.plus(9_000);
    a.tick(now);
    assert!(a.sent().is_none(), "one at a time");
    assert!(waits_for_the_receipt(&a, now));
    a.receipt(now, &first, Outcome::Delivered);
    assert!(!waits_for_the_receipt(&a, now));
    let (second, body) = a.sent().expect("the receipt lets the next go");
    assert_eq!(pushes(&body)[0]["presence"], "busy");
    assert_ne!(first.txn_id, second.txn_id);
}

#[test]
fn what_may_not_leave_is_owed_and_its_deliveries_are_let_go() {
    let (mut now, mut a, mut b) = watched();
    a.set(now, "@alice:a.example", Presence::Online, Some("lost"));
    now = now.plus(5_000);
    a.tick(now);
    let (lost, _) = a.sent().unwrap();
    a.released.clear();
    a.set(now, "@alice:a.example", Presence::Unavailable, Some("newest"));
    assert!(a.released.is_empty(), "held while it waits");
    now = now.plus(15_000);
    a.tick(now);
    assert_eq!(a.released.len(), 1, "batch.hold_max");
    assert_eq!(a.machines.totals().owed, 1);
    now = now.plus(61_000);
    a.tick(now);
    assert!(a.sent().is_none(), "the abandoned one is followed by a back-off");
    let seen = pass(&mut now, 10, &mut a, &mut b);
    assert_eq!(seen.len(), 1);
    assert_eq!(pushes(&seen[0].1)[0]["status_msg"], "newest", "the status of then");
    assert_eq!(a.machines.totals().owed, 0);
    receive(now, &server("a.example"), &lost, &mut b);
    assert_eq!(known(&b, "@alice:a.example").status.status_msg.as_deref(), Some("newest"), "late and older");
}

#[test]
fn a_failing_peer_is_backed_off_from_and_what_changes_is_owed_at_once() {
    let (mut now, mut a, mut b) = watched();
    a.set(now, "@alice:a.example", Presence::Online, None);
    now = now.plus(5_000);
    a.tick(now);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let (transaction, _) = a.sent().expect("tried again");
        a.receipt(now, &transaction, Outcome::Failed);
        let failed_at = now;
        a.released.clear();
        a.set(now, "@alice:a.example", Presence::Busy, Some(&format!("{}", now.0)));
        assert_eq!(a.released.len(), 1, "nothing is held for a peer that fails");
        while a.out.is_empty() {
            now = now.plus(100);
            a.tick(now);
        }
        waits.push(now.since(failed_at));
    }
    // Each wait ends with a window; the back-off in front of it is at most 1 s at first, and at least 16 s after five doublings.
    assert!(waits[0] <= 6_000 && waits[5] >= 20_000, "{waits:?}");
    deliver(now, &mut a, &mut b);
    assert_eq!(presence(&b, "@alice:a.example"), Presence::Busy);
}

#[test]
fn a_peer_gets_the_time_that_it_asks_for_up_to_an_hour() {
    const MINUTE: u64 = 60_000;
    for (asked, waited) in [(20 * MINUTE, 20 * MINUTE), (24 * 60 * MINUTE, 60 * MINUTE)] {
        let (mut now, mut a, _) = watched();
        a.set(now, "@alice:a.example", Presence::Online, None);
        now = now.plus(5_000);
        a.tick(now);
        let (transaction, _) = a.sent().unwrap();
        let (txn_id, outcome, retry_after_ms) = (transaction.txn_id.clone(), Outcome::Expired, Some(asked));
        a.peer(now, &server("b.example"), PeerSignal::Receipt { txn_id, outcome, retry_after_ms });
        let asked_at = now;
        while a.out.is_empty() {
            now = now.plus(1_000);
            a.tick(now);
        }
        let took = now.since(asked_at);
        assert!((waited..waited + MINUTE).contains(&took), "{took} ms of {waited}");
    }
}

/// A sender that died between the receipt and its acknowledgement sends the abandoned transaction again, until its `not_after`.
#[test]
fn an_abandoned_transaction_is_not_overtaken_while_it_may_still_arrive() {
    let (mut now, mut a, mut b) = watched();
    a.set(now, "@alice:a.example", Presence::Online, Some("old"));
    now = now.plus(5_000);
    a.tick(now);
    let (abandoned, _) = a.sent().unwrap();
    a.receipt(now, &abandoned, Outcome::Expired);
    a.set(now, "@alice:a.example", Presence::Online, Some("new"));
    a.peer(now, &server("b.example"), PeerSignal::Heard);
    a.restart(now);
    while now.plus(1_000) < abandoned.not_after {
        assert!(pass(&mut now, 1, &mut a, &mut b).is_empty(), "at {now:?}, before {:?}", abandoned.not_after);
    }
    let pushes = said(&pass(&mut now, 10, &mut a, &mut b)).into_iter().filter(|line| line.contains("push"));
    assert_eq!(pushes.count(), 1);
    assert_eq!(known(&b, "@alice:a.example").status.status_msg.as_deref(), Some("new"));
}

#[test]
fn too_large_halves_what_leaves_together() {
    let (mut a, mut b) = (Server::new("a.example"), Server::new("b.example"));
    let mut now = START;
    let users: Vec<String> = (0..8).map(|n| format!("@user{n}:a.example")).collect();
    let listed: Vec<&str> = users.iter().map(String::as_str).collect();
    b.list(now, "@bob:b.example", &listed, &[]);
    b.session(now, "@bob:b.example", HOUR);
    pass(&mut now, 30, &mut a, &mut b);
    for name in &users {
        a.set(now, name, Presence::Online, None);
    }
    now = now.plus(5_000);
    a.tick(now);
    let (large, body) = a.sent().unwrap();
    assert_eq!(pushes(&body).len(), 8);
    a.receipt(now, &large, Outcome::TooLarge);
    let seen = pass(&mut now, 20, &mut a, &mut b);
    let sizes: Vec<usize> = seen.iter().map(|(_, body)| pushes(body).len()).collect();
    assert_eq!(sizes, [4, 4]);
    assert!(users.iter().all(|name| presence(&b, name) == Presence::Online));
}

#[test]
fn too_large_halves_polls_too() {
    let (mut a, mut b) = (Server::new("a.example"), Server::new("b.example"));
    let mut now = START;
    let users: Vec<String> = (0..100).map(|n| format!("@user{n}:a.example")).collect();
    let listed: Vec<&str> = users.iter().map(String::as_str).collect();
    b.list(now, "@bob:b.example", &listed, &[]);
    pass(&mut now, 60, &mut a, &mut b);
    b.session(now, "@bob:b.example", HOUR);
    let mut sizes = Vec::new();
    while sizes.len() < 4 {
        now = now.plus(1_000);
        b.tick(now);
        let Some((transaction, body)) = b.sent() else { continue };
        sizes.push(body["edus"][0]["content"]["poll"].as_array().unwrap().len());
        b.receipt(now, &transaction, Outcome::TooLarge);
    }
    assert_eq!(sizes, [100, 50, 25, 12]);
}

#[test]
fn what_is_owed_is_not_paid_with_an_older_status() {
    let (mut now, mut a, mut b) = watched();
    let alice = "@alice:a.example";
    a.set(now, alice, Presence::Online, None);
    now = now.plus(5_000);
    a.tick(now);
    let (failing, _) = a.sent().unwrap();
    a.set(now, alice, Presence::Busy, None);
    now = now.plus(5_900);
    a.tick(now);
    a.receipt(now, &failing, Outcome::Failed);
    a.set(now.plus(100), alice, Presence::Unavailable, None);
    pass(&mut now, 30, &mut a, &mut b);
    assert_eq!(presence(&b, alice), Presence::Unavailable, "busy waited in the window, unavailable was owed");
    assert_eq!(a.machines.totals().owed, 0);
}

#[test]
fn numbered_transactions_are_ordered_by_number_whatever_our_clocks_say() {
    let (mut now, mut a, mut b) = watched();
    let alice = "@alice:a.example";
    for (presence, ahead) in [(Presence::Online, 10_000), (Presence::Busy, 0)] {
        a.set(now, alice, presence, None);
        now = now.plus(6_000);
        a.tick(now);
        let (transaction, _) = a.sent().unwrap();
        receive(now.plus(ahead), &server("a.example"), &transaction, &mut b);
        a.receipt(now, &transaction, Outcome::Delivered);
    }
    assert_eq!(presence(&b, alice), Presence::Busy);
}

#[test]
fn a_clock_that_was_ahead_and_came_back_freezes_nobody() {
    let (mut now, mut a, mut b) = watched();
    let alice = "@alice:a.example";
    a.set(now.plus(3_600_000), alice, Presence::Online, None);
    a.tick(now.plus(3_600_000));
    now = now.plus(1_000);
    a.set(now, alice, Presence::Busy, None);
    pass(&mut now, 30, &mut a, &mut b);
    assert_eq!(presence(&b, alice), Presence::Busy, "the window opened an hour ahead");
}

/// After many a 413, or with `batch.max_entries` as small: statuses alone would fill every transaction.
#[test]
fn polls_and_questions_have_their_turn_beside_many_statuses() {
    for most in [1, 2, 3, 8] {
        let mut small = defaults();
        small.max_entries = most;
        let (mut a, mut b) = (Server::with("a.example", small), Server::with("b.example", defaults()));
        let mut now = START;
        let users: Vec<String> = (0..20).map(|n| format!("@user{n}:a.example")).collect();
        let listed: Vec<&str> = users.iter().map(String::as_str).collect();
        b.list(now, BOB, &listed, &[]);
        b.session(now, BOB, HOUR);
        for name in &users {
            a.list(now, name, &[BOB], &[]);
        }
        pass(&mut now, 60, &mut a, &mut b);
        b.list(now, "@carol:b.example", &[ALICE], &[]);
        a.list(now, ALICE, &[BOB, "@carol:b.example"], &[]);
        a.session(now, ALICE, HOUR);
        let mut said = Vec::new();
        for n in 0..40u64 {
            now = now.plus(1_000);
            for name in &users {
                a.set(now, name, Presence::Online, Some(&n.to_string()));
            }
            a.tick(now);
            // One transaction a second: more waits than leaves.
            if let Some((transaction, body)) = a.sent() {
                receive(now, &server("a.example"), &transaction, &mut b);
                a.receipt(now, &transaction, Outcome::Delivered);
                let lines = lines(&body);
                assert!(lines.len() <= most, "{lines:?}");
                said.extend(lines);
            }
            b.tick(now);
            deliver(now, &mut b, &mut a);
        }
        for what in ["invite @alice:a.example", "poll @carol:b.example", "push @user"] {
            let count = said.iter().filter(|line| line.starts_with(what)).count();
            assert!(count > 0, "{most}: {what}: {said:?}");
        }
    }
}
