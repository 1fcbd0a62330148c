//! One message on first appearance (W1, W2, E2, S3).

use rollcall::core::Settings;
use rollcall::core::signal::{Extension, Inbound, Outcome, PeerSignal, Permission, PermissionKind, Reminder};
use rollcall::model::{Presence, Serial};
use serde_json::json;

use super::{ALICE, BOB, HOUR, friends, pushes, watched};
use crate::support::pair::{START, Server, defaults, lines, pass, said, server, user};

#[test]
fn the_new_status_and_the_poll_leave_in_one_edu() {
    let (mut now, mut a, mut b) = friends();
    b.session(now, BOB, HOUR);
    pass(&mut now, 20, &mut a, &mut b);
    a.set(now, ALICE, Presence::Online, None);
    a.session(now, ALICE, HOUR);
    let seen = pass(&mut now, 20, &mut a, &mut b);
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[0].1["edus"].as_array().unwrap().len(), 1);
    assert_eq!(lines(&seen[0].1), ["push @alice:a.example online", "poll @bob:b.example"]);
    assert_eq!(lines(&seen[1].1), ["push @bob:b.example offline"]);
}

/// Nobody there has polled yet: the list itself is the promise.
#[test]
fn listing_somebody_sends_status_and_question_together_and_promises_more() {
    let (mut a, mut b) = (Server::with("a.example", defaults()), Server::with("b.example", defaults()));
    let mut now = START;
    b.session(now, BOB, HOUR);
    b.list(now, BOB, &[ALICE], &[]);
    pass(&mut now, 12, &mut a, &mut b);
    a.set(now, ALICE, Presence::Online, None);
    a.session(now, ALICE, HOUR);
    a.list(now, ALICE, &[BOB], &[]);
    let seen = pass(&mut now, 30, &mut a, &mut b);
    let first = ["push @alice:a.example online", "accept @bob:b.example to see @alice:a.example"];
    assert_eq!(lines(&seen[0].1)[..2], first, "{seen:?}");
    assert_eq!(lines(&seen[0].1)[2], "invite @alice:a.example to see @bob:b.example");
    assert_eq!(a.list_of(now, ALICE), [(BOB.to_owned(), true, Presence::Offline)], "reciprocal");
    assert_eq!(b.list_of(now, BOB), [(ALICE.to_owned(), true, Presence::Online)]);
    a.set(now, ALICE, Presence::Busy, None);
    assert_eq!(said(&pass(&mut now, 12, &mut a, &mut b)), ["a.example: push @alice:a.example busy"]);
}

/// The peer waits for the answers to its last ones.
#[test]
fn of_more_reminders_than_are_answered_at_once_the_newest_are() {
    let mut a = Server::new("a.example");
    for n in 1..=9 {
        let reminder = Some(Reminder { id: format!("{n}").into(), ..Reminder::default() });
        let extension = Some(Extension { seq: Serial { epoch: 1, counter: n }, reminder, ..Extension::default() });
        let inbound = Inbound { txn_id: format!("{n}").into(), extension, ..Inbound::default() };
        a.peer(START.plus(n), &server("b.example"), PeerSignal::Transaction(Box::new(inbound)));
    }
    a.tick(START.plus(5_000));
    let (_, body) = a.sent().unwrap();
    let answers = &body["edus"][0]["content"]["rollcall"]["answers"];
    assert_eq!(*answers, json!(["2", "3", "4", "5", "6", "7", "8", "9"]));
}

#[test]
fn all_that_appear_within_a_window_share_one_message_and_so_do_the_answers() {
    let (mut a, mut b) = (Server::with("a.example", defaults()), Server::with("b.example", defaults()));
    let mut now = START;
    let ours: Vec<String> = (0..20).map(|n| format!("@our{n:02}:a.example")).collect();
    let theirs: Vec<String> = (0..20).map(|n| format!("@their{n:02}:b.example")).collect();
    let all = |names: &[String]| -> Vec<String> { names.to_vec() };
    for (server, here, there) in [(&mut a, all(&ours), all(&theirs)), (&mut b, all(&theirs), all(&ours))] {
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        for name in here {
            server.list(now, &name, &there, &[]);
        }
    }
    pass(&mut now, 400, &mut a, &mut b);
    for name in &theirs {
        b.set(now, name, Presence::Online, None);
        b.session(now, name, HOUR);
    }
    pass(&mut now, 20, &mut a, &mut b);
    for name in &ours {
        a.set(now, name, Presence::Busy, None);
        a.session(now, name, HOUR);
    }
    let seen = pass(&mut now, 20, &mut a, &mut b);
    assert_eq!(seen.len(), 2, "{:?}", said(&seen));
    let first = &seen[0].1["edus"];
    assert_eq!(first.as_array().unwrap().len(), 1, "one EDU");
    assert_eq!(first[0]["content"]["push"].as_array().unwrap().len(), 20);
    assert_eq!(first[0]["content"]["poll"].as_array().unwrap().len(), 20);
    assert_eq!(pushes(&seen[1].1).len(), 20);
    assert!(a.list_of(now, &ours[0]).iter().all(|(_, accepted, presence)| *accepted && *presence == Presence::Online));
}

#[test]
fn a_query_is_answered_once_and_promises_nothing() {
    let (mut now, mut a, mut b) = watched();
    a.set(now, "@amy:a.example", Presence::Online, None);
    let extension = Extension {
        seq: Serial { epoch: 1, counter: 1_000 },
        query: vec![user("@amy:a.example")],
        ..Extension::default()
    };
    let inbound = Inbound { extension: Some(extension), ..Inbound::default() };
    a.peer(now, &server("b.example"), PeerSignal::Transaction(Box::new(inbound)));
    now = now.plus(6_000);
    a.tick(now);
    let (transaction, body) = a.sent().unwrap();
    assert_eq!(lines(&body), ["push @amy:a.example online"]);
    a.receipt(now, &transaction, Outcome::Delivered);
    a.set(now, "@amy:a.example", Presence::Busy, None);
    assert!(pass(&mut now, 30, &mut a, &mut b).is_empty());
}

/// As a poll is: what a transaction asks counts though a later one was read first.
#[test]
fn a_query_that_was_overtaken_is_answered() {
    let mut a = Server::new("a.example");
    a.set(START, "@amy:a.example", Presence::Online, None);
    for (counter, asked) in [(2, "@john:a.example"), (1, "@amy:a.example")] {
        let query = vec![user(asked)];
        let extension = Extension { seq: Serial { epoch: 1, counter }, query, ..Extension::default() };
        let inbound = Inbound { extension: Some(extension), ..Inbound::default() };
        a.peer(START, &server("b.example"), PeerSignal::Transaction(Box::new(inbound)));
    }
    a.tick(START.plus(6_000));
    let mut told = lines(&a.sent().unwrap().1);
    told.sort_unstable();
    assert_eq!(told, ["push @amy:a.example online", "push @john:a.example offline"]);
}

/// A peer serves no more polls of one transaction: what goes beyond is asked in the next.
#[test]
fn no_transaction_asks_for_more_than_a_peer_serves() {
    let settings = Settings { max_entries: 25_600, max_bytes: 8 << 20, ..defaults() };
    let mut a = Server::with("a.example", settings);
    let many = Settings::MAX_POLLS + 1_000;
    let users: Vec<String> = (0..many).map(|n| format!("@u{n}:b.example")).collect();
    for (n, users) in users.chunks(Settings::MAX_LIST).enumerate() {
        let watcher = format!("@w{n}:a.example");
        a.list(START, &watcher, &users.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        let accepts = users.iter().map(|observed| Permission {
            kind: PermissionKind::Accept,
            observed: user(observed),
            observer: user(&watcher),
        });
        let inbound = Inbound { permissions: accepts.collect(), ..Inbound::default() };
        a.peer(START, &server("b.example"), PeerSignal::Transaction(Box::new(inbound)));
        a.session(START, &watcher, HOUR);
    }
    let (mut now, mut polled) = (START, 0);
    while polled < many {
        now = now.plus(6_000);
        a.tick(now);
        let (transaction, body) = a.sent().expect("all are asked for");
        let edus = body["edus"].as_array().unwrap();
        let polls: usize = edus.iter().filter_map(|edu| Some(edu["content"]["poll"].as_array()?.len())).sum();
        assert!(polls <= Settings::MAX_POLLS, "{polls}");
        polled += polls;
        a.receipt(now, &transaction, Outcome::Delivered);
    }
}
