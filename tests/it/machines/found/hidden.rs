//! Who was hidden from a peer: nothing of before is told, whatever was promised since.

use rollcall::core::rows::ServedRow;
use rollcall::core::signal::{LinkSignal, Outcome};
use rollcall::model::{Presence, Serial, Status, Timestamp};
use rollcall::store::{RowKey, RowKind};
use rollcall::wire::envelope::decode;
use serde_json::{Value, json};

use super::super::{ALICE, BOB, friends};
use super::{JOHN, answered, extension, late, numbered, pushes};
use crate::support::pair::{START, Server, pass, settings, user};

fn serial(counter: u64) -> Serial {
    Serial { epoch: 1, counter }
}

/// `presence` with a promise.
fn change(counter: u64, presence: Presence) -> LinkSignal {
    let status = Status { presence, last_active: START, ..Status::default() };
    LinkSignal::Change { user: user(JOHN), status, serial: serial(counter), promise: true }
}

fn hide() -> LinkSignal {
    LinkSignal::Hide { user: user(JOHN), serial: serial(5) }
}

fn hidden(now: Timestamp) -> Server {
    let mut a = Server::new("a.example");
    late(&mut a, now, hide());
    a
}

fn row(server: &Server) -> ServedRow {
    let key = RowKey { kind: RowKind::Served, key: format!("b.example\0{JOHN}") };
    decode(&server.rows[&key]).unwrap()
}

/// Seed 54978: hidden, shown again, and polled no longer before the peer was told of it; then came what was older than all that.
#[test]
fn a_change_of_before_a_hiding_is_not_told_after_a_promise_that_ended_untold() {
    let mut a = hidden(START);
    late(&mut a, START, change(6, Presence::Busy));
    a.foreign(START, "b.example", &json!([numbered(1, &json!({"unpoll": [JOHN]}))]));
    for restarted in [false, true] {
        if restarted {
            a.restart(START.plus(7_000));
        }
        late(&mut a, START.plus(8_000), change(4, Presence::Online));
        assert_eq!(pushes(&mut a, START.plus(20_000)), [""; 0]);
    }
}

#[test]
fn a_promise_that_a_crash_forgot_brings_back_nothing_of_before_a_hiding() {
    let mut a = hidden(START);
    late(&mut a, START, change(6, Presence::Busy));
    // Something else is committed, and what waits in the window is not.
    a.foreign(START, "b.example", &json!([numbered(1, &json!({}))]));
    a.restart(START.plus(1_000));
    late(&mut a, START.plus(1_000), change(4, Presence::Online));
    assert_eq!(pushes(&mut a, START.plus(10_000)), [""; 0]);
}

/// Peers that speak rollcall, and others.
#[test]
fn a_promise_that_was_kept_once_outlives_a_crash() {
    for speaks in [false, true] {
        let mut a = hidden(START);
        if speaks {
            a.foreign(START, "b.example", &json!([numbered(1, &json!({}))]));
        }
        late(&mut a, START, change(6, Presence::Busy));
        a.tick(START.plus(1_000));
        assert_eq!(answered(&mut a, START.plus(6_000), Outcome::Delivered).len(), 1);
        a.restart(START.plus(7_000));
        assert_eq!(row(&a).hidden, None, "speaks: {speaks}");
        late(&mut a, START.plus(8_000), change(4, Presence::Online));
        assert_eq!(pushes(&mut a, START.plus(20_000)), [""; 0]);
    }
}

#[test]
fn a_hiding_that_a_promise_overtook_counts_once_the_promise_is_gone() {
    for restarted in [false, true] {
        let mut a = Server::new("a.example");
        late(&mut a, START, change(6, Presence::Busy));
        late(&mut a, START, hide());
        a.foreign(START, "b.example", &json!([numbered(1, &json!({"unpoll": [JOHN]}))]));
        if restarted {
            a.restart(START.plus(1_000));
        }
        late(&mut a, START.plus(2_000), change(4, Presence::Online));
        assert_eq!(pushes(&mut a, START.plus(20_000)), [""; 0], "restarted: {restarted}");
    }
}

#[test]
fn two_crashes_and_an_unpoll_between_them_bring_back_nothing_of_before_a_hiding() {
    let mut a = hidden(START);
    late(&mut a, START, change(6, Presence::Busy));
    a.tick(START.plus(100));
    a.restart(START.plus(1_000));
    a.foreign(START.plus(1_000), "b.example", &json!([numbered(1, &json!({"unpoll": [JOHN]}))]));
    a.restart(START.plus(2_000));
    late(&mut a, START.plus(2_000), change(4, Presence::Online));
    assert_eq!(pushes(&mut a, START.plus(20_000)), [""; 0]);
}

/// What promises nothing took the place, in the window, of what did, whose delivery does not come again.
#[test]
fn a_promise_beside_a_tombstone_outlives_a_crash_before_anything_is_told() {
    let mut a = hidden(START);
    late(&mut a, START, change(6, Presence::Busy));
    let LinkSignal::Change { user, status, serial, .. } = change(7, Presence::Online) else { unreachable!() };
    late(&mut a, START, LinkSignal::Change { user, status, serial, promise: false });
    a.tick(START.plus(100));
    a.restart(START.plus(1_000));
    assert!(row(&a).is_promised());
    assert_eq!(a.machines.totals().owed, 1, "and its machine is asked for what it missed");
}

/// Bob watches Alice, whom he may see by her own word.
fn watching_friend() -> (Timestamp, Server, Server) {
    let (mut now, mut a, mut b) = friends();
    b.session(now, BOB, Some(24 * 3_600_000));
    pass(&mut now, 30, &mut a, &mut b);
    assert_eq!(b.list_of(now, BOB), [(ALICE.to_owned(), true, Presence::Offline)]);
    (now, a, b)
}

/// Seed 98955: one server came back from a backup, knew nothing of who had been let see whom, and hid a user; the other relied on what
/// it had been told, and learned that it is told no longer from its own reminder only, a short period later.
#[test]
fn a_peer_that_does_not_know_why_it_is_told_no_longer_finds_out() {
    let (mut now, mut a, mut b) = watching_friend();
    a.answer(now, ALICE, BOB, false);
    assert_eq!(answered(&mut a, now.plus(6_000), Outcome::Delivered).len(), 1, "the denial, which b forgot");
    let half_an_hour = settings().short_ms / 1_000;
    pass(&mut now, half_an_hour / 4 - 1, &mut a, &mut b);
    assert_eq!(b.list_of(now, BOB), [(ALICE.to_owned(), true, Presence::Offline)]);
    pass(&mut now, half_an_hour, &mut a, &mut b);
    assert_eq!(b.list_of(now, BOB), [(ALICE.to_owned(), true, Presence::Unknown)]);
}

#[test]
fn a_peer_that_knows_why_is_asked_in_few_bytes_whether_it_does() {
    let (mut now, mut a, mut b) = watching_friend();
    a.answer(now, ALICE, BOB, false);
    let seen = pass(&mut now, settings().short_ms / 2_000 + 12, &mut a, &mut b);
    let bodies: Vec<Value> = seen.into_iter().map(|(_, body)| body).collect();
    assert_eq!(extension(&bodies, "reminder")["mine"]["count"], 0);
    assert!(extension(&bodies, "have").is_null());
}
