//! Presence lists (C5, C6): what an edit asks of the other side, and what the answer changes.

use rollcall::core::Settings;
use rollcall::core::signal::{Inbound, PeerSignal, UserSignal};
use rollcall::model::{Presence, Serial};
use rollcall::wire::envelope::Job;

use super::{ALICE, BOB, HOUR, friends, watched};
use crate::support::pair::{START, Server, defaults, pass, said, server, user};

fn strangers() -> (Server, Server) {
    (Server::with("a.example", defaults()), Server::with("b.example", defaults()))
}

#[test]
fn inviting_a_remote_user_asks_and_leaves_an_unaccepted_entry() {
    let (mut a, mut b) = strangers();
    let mut now = START;
    a.list(now, ALICE, &[BOB], &[]);
    let seen = pass(&mut now, 12, &mut a, &mut b);
    let expected = [
        "a.example: push @alice:a.example offline",
        "a.example: invite @alice:a.example to see @bob:b.example",
        "b.example: unpoll @alice:a.example",
    ];
    assert_eq!(said(&seen), expected, "the list shares; nobody there cares yet");
    assert_eq!(a.list_of(now, ALICE), [(BOB.to_owned(), false, Presence::Unknown)]);
    assert_eq!(b.questions(BOB), [ALICE]);
    assert_eq!(a.sees(now, ALICE, BOB), None, "refused until answered");
}

#[test]
fn an_accept_marks_the_entry_and_starts_polling() {
    let (mut a, mut b) = strangers();
    let mut now = START;
    a.session(now, ALICE, HOUR);
    a.list(now, ALICE, &[BOB], &[]);
    b.set(now, BOB, Presence::Online, None);
    pass(&mut now, 12, &mut a, &mut b);
    b.answer(now, BOB, ALICE, true);
    let seen = pass(&mut now, 20, &mut a, &mut b);
    let expected = [
        "b.example: accept @alice:a.example to see @bob:b.example",
        "a.example: poll @bob:b.example",
        "b.example: push @bob:b.example online",
    ];
    assert_eq!(said(&seen), expected);
    assert_eq!(a.list_of(now, ALICE), [(BOB.to_owned(), true, Presence::Online)]);
    assert!(b.questions(BOB).is_empty());
}

#[test]
fn a_deny_removes_the_entry_and_asking_again_is_denied_again() {
    let (mut a, mut b) = strangers();
    let mut now = START;
    a.session(now, ALICE, HOUR);
    a.list(now, ALICE, &[BOB], &[]);
    pass(&mut now, 12, &mut a, &mut b);
    b.answer(now, BOB, ALICE, false);
    let deny = "b.example: deny @alice:a.example to see @bob:b.example";
    assert_eq!(said(&pass(&mut now, 12, &mut a, &mut b)), [deny]);
    assert!(a.list_of(now, ALICE).is_empty());
    a.list(now, ALICE, &[BOB], &[]);
    let seen = said(&pass(&mut now, 12, &mut a, &mut b));
    assert!(seen.contains(&"a.example: invite @alice:a.example to see @bob:b.example".into()), "{seen:?}");
    assert!(seen.contains(&deny.into()), "{seen:?}");
    assert!(a.list_of(now, ALICE).is_empty());
    assert!(b.questions(BOB).is_empty(), "a no stands until Bob says otherwise");
}

#[test]
fn dropping_a_remote_entry_ends_the_polling_and_tells_the_peer() {
    let (mut now, mut a, mut b) = friends();
    a.session(now, ALICE, HOUR);
    pass(&mut now, 20, &mut a, &mut b);
    a.list(now, ALICE, &[], &[BOB]);
    assert_eq!(said(&pass(&mut now, 20, &mut a, &mut b)), ["a.example: unpoll @bob:b.example"]);
    assert!(a.list_of(now, ALICE).is_empty());
    assert_eq!(a.sees(now, ALICE, BOB), None);
    b.set(now, BOB, Presence::Online, None);
    assert!(pass(&mut now, 30, &mut a, &mut b).is_empty());
}

#[test]
fn the_subscriptions_fill_on_sign_on_and_empty_on_sign_off() {
    let (mut now, mut a, mut b) = friends();
    assert!(pass(&mut now, 60, &mut a, &mut b).is_empty(), "no session, no polls");
    a.session(now, ALICE, HOUR);
    let seen = said(&pass(&mut now, 20, &mut a, &mut b));
    assert_eq!(seen, ["a.example: poll @bob:b.example", "b.example: push @bob:b.example offline"]);
    a.session(now, ALICE, None);
    assert_eq!(said(&pass(&mut now, 60, &mut a, &mut b)), ["a.example: unpoll @bob:b.example"]);
    assert_eq!(a.list_of(now, ALICE), [(BOB.to_owned(), true, Presence::Unknown)], "the list stays");
}

#[test]
fn offline_then_online_of_somebody_never_seen_both_arrive() {
    let (mut now, mut a, mut b) = friends();
    a.session(now, ALICE, HOUR);
    pass(&mut now, 20, &mut a, &mut b);
    assert_eq!(a.list_of(now, ALICE), [(BOB.to_owned(), true, Presence::Offline)]);
    b.set(now, BOB, Presence::Online, None);
    pass(&mut now, 20, &mut a, &mut b);
    assert_eq!(a.list_of(now, ALICE), [(BOB.to_owned(), true, Presence::Online)]);
}

#[test]
fn what_is_known_ages_with_the_clock() {
    let (mut now, mut a, mut b) = friends();
    a.session(now, ALICE, HOUR);
    b.set(now, BOB, Presence::Busy, Some("cupcakes"));
    let active = now;
    pass(&mut now, 20, &mut a, &mut b);
    let seen = a.sees(now, ALICE, BOB).unwrap().status;
    assert_eq!((seen.presence, seen.status_msg.as_deref()), (Presence::Busy, Some("cupcakes")));
    assert_eq!(now.plus(7_000).since(seen.last_active), now.since(active) + 7_000);
}

#[test]
fn a_question_is_asked_again_until_it_is_answered_also_across_restarts() {
    let (mut a, mut b) = strangers();
    let mut now = START;
    let invite = "a.example: invite @alice:a.example to see @bob:b.example";
    a.list(now, ALICE, &[BOB], &[]);
    a.restart(now);
    assert!(said(&pass(&mut now, 12, &mut a, &mut b)).contains(&invite.into()), "not lost before it left");
    b.restart(now);
    assert_eq!(b.questions(BOB), [ALICE], "not lost where it arrived");
    let mut asked = Vec::new();
    for minute in 0..8 * 60_u64 {
        if minute == 30 {
            a.restart(now);
        }
        now = now.plus(55_000);
        let seen = said(&pass(&mut now, 5, &mut a, &mut b));
        asked.extend(seen.iter().filter(|line| *line == invite).map(|_| minute));
    }
    assert!(
        matches!(asked[..], [44..=66, 134..=190, 314..=436]),
        "after 1 h, 2 h, 4 h, less up to a quarter: {asked:?}"
    );
    b.answer(now, BOB, ALICE, true);
    pass(&mut now, 12, &mut a, &mut b);
    for _ in 0..48 {
        now = now.plus(3_600_000);
        assert_eq!(said(&pass(&mut now, 10, &mut a, &mut b)), [""; 0], "answered");
    }
}

#[test]
fn a_question_that_is_taken_back_is_not_asked_again() {
    let (mut a, mut b) = strangers();
    let mut now = START;
    a.list(now, ALICE, &[BOB], &[]);
    pass(&mut now, 12, &mut a, &mut b);
    a.list(now, ALICE, &[], &[BOB]);
    a.restart(now);
    for _ in 0..48 {
        now = now.plus(3_600_000);
        assert_eq!(said(&pass(&mut now, 10, &mut a, &mut b)), [""; 0]);
    }
    b.answer(now, BOB, ALICE, true);
    pass(&mut now, 12, &mut a, &mut b);
    assert!(a.list_of(now, ALICE).is_empty(), "a late yes brings nothing back");
}

#[test]
fn a_question_that_could_not_be_delivered_leaves_with_the_next_transaction() {
    let (mut a, mut b) = strangers();
    let mut now = START;
    a.list(now, ALICE, &[BOB], &[]);
    now = now.plus(6_000);
    a.tick(now);
    let (lost, _) = a.sent().unwrap();
    a.receipt(now, &lost, rollcall::core::signal::Outcome::Failed);
    let seen = said(&pass(&mut now, 12, &mut a, &mut b));
    assert!(seen.contains(&"a.example: invite @alice:a.example to see @bob:b.example".into()), "{seen:?}");
}

#[test]
fn answers_count_by_their_serial_whatever_their_order() {
    let (mut now, mut a, _) = friends();
    let answered = |allow, counter| UserSignal::Answered {
        observed: user(BOB),
        allow,
        serial: Serial { epoch: u64::from(u32::MAX), counter },
    };
    a.tell(now, ALICE, answered(false, 2));
    a.tell(now, ALICE, answered(true, 1));
    assert!(a.list_of(now, ALICE).is_empty(), "the later one was a no");
    now = now.plus(1);
    a.list(now, ALICE, &[BOB], &[]);
    a.tell(now, ALICE, answered(true, 1));
    assert_eq!(a.list_of(now, ALICE), [(BOB.to_owned(), false, Presence::Unknown)], "an old yes is no answer");
    a.tell(now, ALICE, answered(true, 3));
    assert_eq!(a.list_of(now, ALICE), [(BOB.to_owned(), true, Presence::Unknown)]);
}

#[test]
fn edits_count_by_their_stamp_and_tombstones_go_in_time() {
    let (mut now, mut a, mut b) = friends();
    let (older, newer) = (a.stamp(now), a.stamp(now.plus(1)));
    let edit = |add: &[&str], remove: &[&str], stamp| UserSignal::List {
        add: add.iter().map(|id| user(id)).collect(),
        remove: remove.iter().map(|id| user(id)).collect(),
        stamp,
    };
    a.tell(now.plus(2), ALICE, edit(&[], &[BOB], newer));
    a.tell(now.plus(2), ALICE, edit(&[BOB], &[], older));
    assert!(a.list_of(now, ALICE).is_empty(), "what comes late changes nothing");
    b.list(now.plus(2), BOB, &[], &[ALICE]);
    now = now.plus(8 * 24 * 3_600_000);
    for server in [&mut a, &mut b] {
        server.machines.handle_users_job(now, Job::Compact);
        server.machines.handle_peers_job(now, Job::Compact);
        server.tick(now);
    }
    assert_eq!(a.machines.totals().links, 0, "nothing binds the two any longer");
}

/// Permission EDUs count among the EDUs of a transaction, and many of them need not wait for their window one after the other.
#[test]
fn many_questions_leave_in_transactions_that_peers_take() {
    let (mut a, mut b) = strangers();
    let mut now = START;
    let whom: Vec<String> = (0..400).map(|n| format!("@user{n:03}:b.example")).collect();
    a.list(now, ALICE, &whom.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let seen = pass(&mut now, 6, &mut a, &mut b);
    let edus = |body: &serde_json::Value| body["edus"].as_array().unwrap().len();
    assert!(
        seen.iter().all(|(_, body)| edus(body) <= 100),
        "{:?}",
        seen.iter().map(|(_, body)| edus(body)).collect::<Vec<_>>()
    );
    let asked = said(&seen).iter().filter(|line| line.contains("invite")).count();
    assert_eq!(asked, 400, "within one window");
}

#[test]
fn what_a_list_has_no_room_for_is_counted() {
    let (now, mut a, _) = watched();
    let many: Vec<String> = (0..=Settings::MAX_LIST).map(|n| format!("@user{n}:b.example")).collect();
    let listed: Vec<&str> = many.iter().map(String::as_str).collect();
    a.list(now, ALICE, &listed, &[]);
    assert_eq!(a.list_of(now, ALICE).len(), Settings::MAX_LIST);
    assert_eq!(a.machines.totals().passed_over.list, 1);
    a.list(now, ALICE, &[], &listed);
    assert_eq!(a.machines.totals().passed_over.list, 1, "nothing is lost by taking off whom it does not name");
}

#[test]
fn what_a_transaction_polls_too_many_of_is_counted() {
    let (now, mut a, _) = watched();
    let poll = (0..Settings::MAX_POLLS + 3).map(|n| user(&format!("@user{n}:a.example"))).collect();
    let inbound = Inbound { poll, ..Inbound::default() };
    a.peer(now, &server("b.example"), PeerSignal::Transaction(Box::new(inbound)));
    assert_eq!(a.machines.totals().passed_over.polls, 3);
}
