//! What a user's clients are told of others (P1, W2b): gathered, newest, and only while somebody listens.

use rollcall::core::signal::{SessionAction, UserSignal};
use rollcall::model::{Presence, Serial, Status, Timestamp};

use super::{ALICE, BOB, HOUR, friends};
use crate::support::pair::{Server, device, pass, said, user};

/// Bob listens at an edge; Alice is online.
fn listening() -> (Timestamp, Server, Server) {
    let (mut now, mut a, mut b) = friends();
    b.stream(now, BOB, "edge");
    a.set(now, ALICE, Presence::Online, None);
    pass(&mut now, 20, &mut a, &mut b);
    assert_eq!(b.updated().last().map(String::as_str), Some("@bob:b.example: @alice:a.example online"));
    (now, a, b)
}

/// Ends the session of [`listening`].
fn left(now: Timestamp, b: &mut Server) {
    let (action, stamp) = (SessionAction::Leave { edge: "edge".into() }, b.stamp(now));
    b.tell(now, BOB, UserSignal::Session { device: device("edge"), action, stamp });
}

fn update(presence: Presence, counter: u64) -> UserSignal {
    let status = Status { presence, ..Status::default() };
    let serial = Serial { epoch: u64::from(u32::MAX), counter };
    UserSignal::Update { of: user(ALICE), status, known_at: Timestamp(1), serial }
}

#[test]
fn what_a_peer_pushes_reaches_the_edges_of_who_watches() {
    let (mut now, mut a, mut b) = listening();
    a.set(now, ALICE, Presence::Busy, None);
    pass(&mut now, 12, &mut a, &mut b);
    let updates: Vec<_> = b.updates.drain(..).collect();
    assert_eq!(updates.len(), 1);
    let (of, status, known_at) = &updates[0].events[0];
    assert_eq!((&*updates[0].edge, updates[0].observer.as_str(), of.as_str()), ("edge", BOB, ALICE));
    assert_eq!((status.presence, *known_at <= now), (Presence::Busy, true));
}

#[test]
fn a_window_gathers_and_the_newest_of_each_counts() {
    let (now, _, mut b) = listening();
    b.tell(now, BOB, update(Presence::Busy, 2));
    b.tell(now, BOB, update(Presence::Online, 1));
    b.tick(now.plus(999));
    assert_eq!(b.updated(), [""; 0], "clients.window");
    b.tick(now.plus(1_000));
    assert_eq!(b.updated(), ["@bob:b.example: @alice:a.example busy"]);
    b.tell(now.plus(2_000), BOB, update(Presence::Online, 1));
    b.tick(now.plus(4_000));
    assert_eq!(b.updated(), [""; 0], "never an older one");
}

#[test]
fn every_edge_with_a_session_is_told_and_none_without() {
    let (now, _, mut b) = listening();
    b.stream(now, BOB, "other");
    b.session(now, BOB, HOUR);
    b.tell(now, BOB, update(Presence::Busy, 1));
    b.tick(now.plus(1_000));
    let edges: Vec<_> = b.updates.drain(..).map(|update| update.edge).collect();
    assert_eq!(edges, ["edge".into(), "other".into()]);
    let now = now.plus(3_600_000);
    b.tick(now);
    b.tell(now, BOB, update(Presence::Online, 2));
    b.tick(now.plus(1_000));
    assert_eq!(b.updated(), [""; 0], "both leases are over");
}

/// Seed 2838: the lease ran out, somebody changed, and the client came back before its links had stopped watching.
#[test]
fn what_changed_between_two_sessions_is_told_once_the_second_begins() {
    let (now, _, mut b) = listening();
    left(now, &mut b);
    b.tell(now.plus(1_000), BOB, update(Presence::Busy, 1));
    b.tick(now.plus(10_000));
    assert_eq!(b.updated(), [""; 0], "nobody listens");
    b.stream(now.plus(20_000), BOB, "edge");
    b.tick(now.plus(21_000));
    assert_eq!(b.updated(), ["@bob:b.example: @alice:a.example busy"]);
    left(now.plus(22_000), &mut b);
    b.stream(now.plus(23_000), BOB, "edge");
    b.tick(now.plus(40_000));
    assert_eq!(b.updated(), [""; 0], "nothing is told twice");
}

#[test]
fn a_restart_between_two_sessions_loses_nothing() {
    let (mut now, mut a, mut b) = listening();
    left(now, &mut b);
    a.set(now, ALICE, Presence::Busy, None);
    pass(&mut now, 12, &mut a, &mut b);
    b.restart(now);
    b.stream(now, BOB, "edge");
    pass(&mut now, 2, &mut a, &mut b);
    assert_eq!(b.updated(), ["@bob:b.example: @alice:a.example busy"]);
}

#[test]
fn nobody_is_told_of_somebody_who_is_not_listed() {
    let (now, _, mut b) = listening();
    let status = Status { presence: Presence::Online, ..Status::default() };
    let stray = UserSignal::Update { of: user("@mallory:a.example"), status, known_at: now, serial: Serial::default() };
    b.tell(now, BOB, stray);
    b.tick(now.plus(1_000));
    assert_eq!(b.updated(), [""; 0]);
}

#[test]
fn a_user_with_many_contacts_is_told_in_parts() {
    let (now, _, mut b) = listening();
    let contacts: Vec<String> = (0..1_001).map(|n| format!("@contact{n}:b.example")).collect();
    b.list(now, BOB, &contacts.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    for (n, contact) in contacts.iter().enumerate() {
        let serial = Serial { epoch: u64::from(u32::MAX), counter: n as u64 };
        let status = Status { presence: Presence::Online, ..Status::default() };
        b.tell(now, BOB, UserSignal::Update { of: user(contact), status, known_at: now, serial });
    }
    b.tick(now.plus(1_000));
    assert_eq!(b.updates.iter().map(|update| update.events.len()).collect::<Vec<_>>(), [500, 500, 1]);
}

/// What was gathered was in memory alone: after a restart it is asked for again, though nothing changed.
#[test]
fn a_restart_asks_for_the_present_again() {
    let (mut now, mut a, mut b) = listening();
    a.set(now, ALICE, Presence::Busy, None);
    pass(&mut now, 5, &mut a, &mut b);
    b.updates.clear();
    b.restart(now);
    let seen = said(&pass(&mut now, 14, &mut a, &mut b));
    assert!(seen.is_empty(), "without polling the peer: {seen:?}");
    assert_eq!(b.updated(), ["@bob:b.example: @alice:a.example busy"]);
}

#[test]
fn what_was_revoked_is_unknown_to_clients() {
    let (mut now, mut a, mut b) = listening();
    a.answer(now, ALICE, BOB, false);
    pass(&mut now, 12, &mut a, &mut b);
    assert_eq!(b.updated(), ["@bob:b.example: @alice:a.example unknown"]);
}

#[test]
fn a_clock_that_came_back_holds_nothing_up() {
    let (now, _, mut b) = listening();
    b.tick(now.plus(600_000));
    b.tell(now.plus(600_000), BOB, update(Presence::Busy, 1));
    b.tick(now);
    b.tick(now.plus(1_000));
    assert_eq!(b.updated(), ["@bob:b.example: @alice:a.example busy"]);
}

#[test]
fn what_is_under_way_when_a_question_is_asked_anew_is_not_shown() {
    let (mut now, mut a, mut b) = listening();
    a.answer(now, ALICE, BOB, false);
    pass(&mut now, 12, &mut a, &mut b);
    b.updates.clear();
    b.list(now, BOB, &[ALICE], &[]);
    b.tell(now, BOB, update(Presence::Busy, 1));
    b.tick(now.plus(1_000));
    assert_eq!(b.updated(), [""; 0]);
}
