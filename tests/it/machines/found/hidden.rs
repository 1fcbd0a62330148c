//! Who was hidden from a peer: nothing of before is told, whatever was promised since.

use rollcall::core::rows::ServedRow;
use rollcall::core::signal::{LinkSignal, Outcome};
use rollcall::model::{Presence, Serial, Status, Timestamp};
use rollcall::store::{RowKey, RowKind};
use rollcall::wire::envelope::decode;
use serde_json::json;

use super::{JOHN, answered, late, numbered, pushes};
use crate::support::pair::{START, Server, user};

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
