//! A transaction that is played again once edges have forgotten it. Whoever saw it in the clear can do that: its signature stays good.

use rollcall::core::signal::{Inbound, Outcome, PeerSignal};
use rollcall::model::{Presence, Status, Timestamp};

use super::{ALICE, BOB, HOUR, presence, watched};
use crate::support::pair::{START, Server, defaults, receive, server, user};

/// Edges remember for a minute.
const LATER_MS: u64 = 120_000;

#[test]
fn what_is_played_again_later_changes_no_status_of_a_peer_that_numbers_what_it_says() {
    let (mut now, mut a, mut b) = watched();
    let mut played = Vec::new();
    for status in [Presence::Busy, Presence::Unavailable] {
        a.set(now, ALICE, status, None);
        now = now.plus(6_000);
        a.tick(now);
        let (transaction, _) = a.sent().expect("the window closed");
        receive(now, &server("a.example"), &transaction, &mut b);
        a.receipt(now, &transaction, Outcome::Delivered);
        assert_eq!(presence(&b, ALICE), status);
        played.push(transaction);
    }
    for restarted in [false, true] {
        now = now.plus(LATER_MS);
        if restarted {
            b.restart(now);
        }
        receive(now, &server("a.example"), &played[0], &mut b);
        assert_eq!(presence(&b, ALICE), Presence::Unavailable, "restarted: {restarted}");
    }
}

/// What a.example, which numbers nothing, says of Alice by a transaction that it made at `made`.
fn say(b: &mut Server, now: Timestamp, made: Timestamp, presence: Presence) {
    let status = Status { presence, last_active: now, ..Status::default() };
    let inbound = Inbound { origin_server_ts: made, push: vec![(user(ALICE), status)], ..Inbound::default() };
    b.peer(now, &server("a.example"), PeerSignal::Transaction(Box::new(inbound)));
}

#[test]
fn what_is_played_again_later_changes_no_status_of_a_peer_that_numbers_nothing() {
    let mut b = Server::with("b.example", defaults());
    b.list(START, BOB, &[ALICE], &[]);
    b.session(START, BOB, HOUR);
    for (seconds, status) in [(1, Presence::Busy), (2, Presence::Unavailable)] {
        let now = START.plus(seconds * 1_000);
        say(&mut b, now, now, status);
        assert_eq!(presence(&b, ALICE), status);
    }
    for restarted in [false, true] {
        let now = START.plus(LATER_MS);
        if restarted {
            b.restart(now);
        }
        say(&mut b, now, START.plus(1_000), Presence::Busy);
        assert_eq!(presence(&b, ALICE), Presence::Unavailable, "restarted: {restarted}");
    }
}
