//! What survives a crash, and what must not come back.

use rollcall::core::FlushReason;
use rollcall::core::signal::{LinkSignal, Multicast, Outcome, SessionAction, UserSignal};
use rollcall::model::{Presence, Serial, Status};

use super::{HOUR, known, presence, pushes, watched};
use crate::support::pair::{START, Server, device, pass, receive, server, user};

#[test]
fn a_crash_after_the_commit_repeats_nothing_older() {
    let (mut now, mut a, mut b) = watched();
    a.set(now, "@alice:a.example", Presence::Online, Some("old"));
    let old_rows = a.rows.clone();
    now = now.plus(5_000);
    a.tick(now);
    let (transaction, _) = a.sent().unwrap();
    receive(now, &server("a.example"), &transaction, &mut b);
    assert_ne!(old_rows, a.rows, "the transaction is in the rows");
    a.restart(now);
    now = now.plus(1_000);
    a.receipt(now, &transaction, Outcome::Delivered);
    a.set(now, "@alice:a.example", Presence::Busy, Some("new"));
    let seen = pass(&mut now, 6, &mut a, &mut b);
    assert_eq!(seen.len(), 1);
    assert_eq!(known(&b, "@alice:a.example").status.status_msg.as_deref(), Some("new"));
}

#[test]
fn a_crash_forgets_no_poll_and_no_debt() {
    let (mut a, mut b) = (Server::new("a.example"), Server::new("b.example"));
    let mut now = START;
    b.list(now, "@bob:b.example", &["@alice:a.example"], &[]);
    pass(&mut now, 30, &mut a, &mut b);
    b.session(now, "@bob:b.example", HOUR);
    b.restart(now);
    assert_eq!(pass(&mut now, 30, &mut a, &mut b).len(), 2, "the poll leaves after the restart");
    a.set(now, "@alice:a.example", Presence::Online, None);
    a.relieve(now, FlushReason::Drain);
    let (lost, _) = a.sent().unwrap();
    a.receipt(now, &lost, Outcome::Failed);
    a.restart(now);
    assert_eq!(a.machines.totals().owed, 1);
    pass(&mut now, 30, &mut a, &mut b);
    assert_eq!(presence(&b, "@alice:a.example"), Presence::Online);
}

#[test]
fn a_restart_brings_no_device_back_to_life() {
    let (mut now, mut a, mut b) = watched();
    let alice = "@alice:a.example";
    a.set(now, alice, Presence::Online, None);
    pass(&mut now, 120, &mut a, &mut b);
    assert_eq!(presence(&b, alice), Presence::Offline);
    a.restart(now);
    let stamp = a.stamp(now);
    a.tell(now, alice, UserSignal::Device { device: device("OTHER"), device_type: Some("mobile".into()), stamp });
    let seen = pass(&mut now, 30, &mut a, &mut b);
    assert!(seen.iter().all(|(_, body)| pushes(body).iter().all(|push| push["presence"] == "offline")), "{seen:?}");
}

#[test]
fn a_restart_brings_no_session_back_to_life() {
    let (mut now, mut a, mut b) = watched();
    b.session(now, "@bob:b.example", Some(1_000));
    assert_eq!(pass(&mut now, 200, &mut a, &mut b).len(), 1, "the unpoll");
    b.restart(now);
    let stamp = b.stamp(now);
    b.tell(now, "@bob:b.example", UserSignal::Session { device: device("OTHER"), action: SessionAction::Stop, stamp });
    assert!(pass(&mut now, 60, &mut a, &mut b).is_empty());
}

#[test]
fn a_change_that_comes_again_after_a_restart_is_no_news() {
    let (mut now, mut a, _) = watched();
    let alice = "@alice:a.example";
    a.set(now, alice, Presence::Online, Some("old"));
    a.set(now, alice, Presence::Busy, Some("new"));
    now = now.plus(5_000);
    a.tick(now);
    let (transaction, _) = a.sent().unwrap();
    a.restart(now);
    a.receipt(now, &transaction, Outcome::Delivered);
    // The delivery of the older change was not acknowledged before the crash: serials of the first epoch, below what was sent.
    let status = Status { presence: Presence::Online, ..Status::default() };
    let signal =
        LinkSignal::Change { user: user(alice), status, serial: Serial { epoch: 1, counter: 3 }, promise: true };
    let again = Multicast { to: vec![server("b.example")], at: now, trace: None, signal };
    a.machines.handle_batch(now, 1_000_000, vec![again]);
    now = now.plus(6_000);
    a.tick(now);
    assert!(a.sent().is_none(), "busy was sent, online is older");
    assert!(a.released.contains(&1_000_000), "and nothing keeps its delivery");
}
