//! Who is polled, and when (E1, E5).

use rollcall::core::signal::{Extension, Inbound, Outcome, PeerSignal, SessionAction, UserSignal};
use rollcall::model::{Presence, Serial};
use rollcall::wire::envelope::Job;
use serde_json::{Value, json};

use super::{ALICE, BOB, HOUR, friends, presence, watched};
use crate::support::pair::{START, Server, device, pass, receive, said, server};

#[test]
fn a_session_polls_and_is_answered_with_the_present_state() {
    let (_, _, b) = watched();
    assert_eq!(presence(&b, "@alice:a.example"), Presence::Offline);
}

#[test]
fn without_a_session_nobody_is_polled() {
    let (mut a, mut b) = (Server::new("a.example"), Server::new("b.example"));
    let mut now = START;
    b.list(now, "@bob:b.example", &["@alice:a.example"], &[]);
    let seen = said(&pass(&mut now, 60, &mut a, &mut b));
    assert!(seen.iter().all(|line| !line.contains("poll")), "E1: {seen:?}");
}

/// C4, inferred: whoever is heard of, as by /sync, cares about the list for a while.
#[test]
fn who_is_heard_of_cares_about_the_list_for_a_while() {
    let (mut now, mut a, mut b) = friends();
    let heard = |b: &mut Server, now| {
        let stamp = b.stamp(now);
        b.tell(now, BOB, UserSignal::Activity { device: device("PHONE"), set_presence: None, stamp });
    };
    heard(&mut b, now);
    let seen = said(&pass(&mut now, 10, &mut a, &mut b));
    assert!(seen.contains(&"b.example: poll @alice:a.example".to_owned()), "{seen:?}");
    now = now.plus(60_000);
    heard(&mut b, now);
    let seen = said(&pass(&mut now, 140, &mut a, &mut b));
    assert!(
        seen.iter().all(|line| !line.contains("poll")),
        "until two minutes and the linger after the last time: {seen:?}"
    );
    let seen = said(&pass(&mut now, 20, &mut a, &mut b));
    assert_eq!(seen, ["b.example: unpoll @alice:a.example"]);
    b.session(now, BOB, None);
    heard(&mut b, now);
    let seen = said(&pass(&mut now, 10, &mut a, &mut b));
    assert!(seen.iter().all(|line| !line.contains("poll")), "who said that they do not care is believed: {seen:?}");
}

/// C3: nobody is left to care, however long the lease was.
#[test]
fn a_device_that_is_gone_cares_no_longer() {
    let (mut now, mut a, mut b) = friends();
    b.session(now, BOB, HOUR);
    pass(&mut now, 10, &mut a, &mut b);
    let (early, late) = (b.stamp(now), b.stamp(now.plus(1_000)));
    now = now.plus(1_000);
    b.tell(now, BOB, UserSignal::Device { device: device("PHONE"), device_type: None, stamp: late });
    // Said before, read after.
    let start = || SessionAction::Start { lease_ms: 3_600_000, edge: Some("edge".into()) };
    b.tell(now, BOB, UserSignal::Session { device: device("PHONE"), action: start(), stamp: early.clone() });
    b.tell(now, BOB, UserSignal::Activity { device: device("PHONE"), set_presence: None, stamp: early });
    let seen = said(&pass(&mut now, 60, &mut a, &mut b));
    assert_eq!(seen, ["b.example: unpoll @alice:a.example"], "after the linger");
    b.session(now, BOB, HOUR);
    let seen = said(&pass(&mut now, 10, &mut a, &mut b));
    assert!(seen.contains(&"b.example: poll @alice:a.example".to_owned()), "it is back: {seen:?}");
}

/// It says when a device was heard, and no more: whoever falls silent is offline as soon as ever.
#[test]
fn an_implied_session_keeps_nobody_online() {
    let mut a = Server::new("a.example");
    let stamp = a.stamp(START);
    a.tell(START, ALICE, UserSignal::Activity { device: device("PHONE"), set_presence: None, stamp });
    assert_eq!(a.sees(START, ALICE, ALICE).unwrap().status.presence, Presence::Online);
    for second in 1..=66 {
        a.tick(START.plus(1_000 * second));
    }
    assert_eq!(a.sees(START, ALICE, ALICE).unwrap().status.presence, Presence::Offline);
}

#[test]
fn the_first_watcher_polls_the_last_unpolls_and_nothing_in_between() {
    let (mut now, mut a, mut b) = watched();
    b.list(now, "@carol:b.example", &["@alice:a.example"], &[]);
    pass(&mut now, 30, &mut a, &mut b);
    b.session(now, "@carol:b.example", HOUR);
    assert!(pass(&mut now, 10, &mut a, &mut b).is_empty(), "a second watcher sends nothing");
    b.session(now, "@carol:b.example", None);
    assert!(pass(&mut now, 60, &mut a, &mut b).is_empty(), "the first leaving sends nothing");
    b.session(now, "@bob:b.example", None);
    let seen = pass(&mut now, 60, &mut a, &mut b);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].1["edus"][0]["content"]["unpoll"], json!(["@alice:a.example"]));
    a.set(now, "@alice:a.example", Presence::Online, None);
    assert!(pass(&mut now, 60, &mut a, &mut b).is_empty(), "an unpoll ends the pushes");
    assert_eq!(presence(&b, "@alice:a.example"), Presence::Unknown);
}

#[test]
fn a_reconnect_within_the_linger_causes_no_traffic() {
    let (mut now, mut a, mut b) = watched();
    b.session(now, "@bob:b.example", None);
    assert!(pass(&mut now, 20, &mut a, &mut b).is_empty());
    b.session(now, "@bob:b.example", HOUR);
    assert!(pass(&mut now, 60, &mut a, &mut b).is_empty());
}

#[test]
fn an_unpoll_whose_answer_is_lost_does_not_blind_us() {
    let (mut now, mut a, mut b) = watched();
    let alice = "@alice:a.example";
    b.list(now, "@bob:b.example", &[], &[alice]);
    now = now.plus(6_000);
    b.tick(now);
    let (unpoll, _) = b.sent().unwrap();
    receive(now, &server("b.example"), &unpoll, &mut a);
    b.list(now.plus(1_000), "@bob:b.example", &[alice], &[]);
    b.receipt(now.plus(1_000), &unpoll, Outcome::Failed);
    a.set(now.plus(2_000), alice, Presence::Busy, None);
    now = now.plus(2_000);
    pass(&mut now, 60, &mut a, &mut b);
    assert_eq!(presence(&b, alice), Presence::Busy);
}

#[test]
fn a_poll_in_flight_is_taken_back_when_nobody_watches_any_longer() {
    let (mut a, mut b) = (Server::new("a.example"), Server::new("b.example"));
    let (mut now, alice) = (START, "@alice:a.example");
    b.list(now, "@bob:b.example", &[alice], &[]);
    pass(&mut now, 30, &mut a, &mut b);
    b.session(now, "@bob:b.example", HOUR);
    now = now.plus(6_000);
    b.tick(now);
    let (poll, _) = b.sent().unwrap();
    receive(now, &server("b.example"), &poll, &mut a);
    b.list(now.plus(1), "@bob:b.example", &[], &[alice]);
    b.machines.handle_peers_job(now.plus(2), Job::Compact);
    b.receipt(now.plus(100), &poll, Outcome::Delivered);
    pass(&mut now, 60, &mut a, &mut b);
    a.set(now, alice, Presence::Busy, None);
    assert!(pass(&mut now, 30, &mut a, &mut b).is_empty(), "E1: nobody watches, nobody pushes");
}

/// Strangers cannot fill the memory, and a peer that keeps account of its promises hears that nobody wants this one.
#[test]
fn what_nobody_watches_is_declined_and_forgotten() {
    let (mut now, mut a, mut b) = watched();
    let before = counted(&b);
    let push = json!([{"user_id": "@mallory:a.example", "presence": "online", "last_active_ago": 0}]);
    b.foreign(now, "a.example", &push_only(&push, Some(900)));
    let seen = pass(&mut now, 6, &mut a, &mut b);
    assert_eq!(said(&seen), ["b.example: unpoll @mallory:a.example"]);
    assert_eq!(counted(&b), before, "nobody watches @mallory");
}

/// Who does not speak rollcall keeps no account of promises.
#[test]
fn what_nobody_watches_of_a_plain_peer_is_passed_over() {
    let (mut a, mut b) = (Server::new("a.example"), Server::new("b.example"));
    let mut now = START;
    b.list(now, "@bob:b.example", &["@alice:a.example"], &[]);
    pass(&mut now, 0, &mut a, &mut b);
    let before = counted(&b);
    let push = json!([{"user_id": "@mallory:a.example", "presence": "online", "last_active_ago": 0}]);
    b.foreign(now, "a.example", &push_only(&push, None));
    let seen = said(&pass(&mut now, 12, &mut a, &mut b));
    assert!(seen.iter().all(|line| !line.contains("poll")), "{seen:?}");
    assert_eq!(counted(&b), before);
}

/// What takes memory for good.
fn counted(server: &Server) -> (usize, usize, usize) {
    let totals = server.machines.totals();
    (totals.users, totals.links, totals.remotes)
}

fn push_only(push: &Value, counter: Option<u64>) -> Value {
    let mut content = json!({ "push": push });
    if let Some(counter) = counter {
        content["rollcall"] = json!({"v": 1, "seq": [u32::MAX, counter], "promise_ms": 3_600_000});
    }
    json!([{"edu_type": "m.presence", "content": content}])
}

#[test]
fn strangers_polls_leave_nothing_behind() {
    let (mut a, mut b) = (Server::new("a.example"), Server::new("b.example"));
    let mut now = START;
    b.list(now, "@bob:b.example", &["@invented:a.example"], &[]);
    b.session(now, "@bob:b.example", HOUR);
    pass(&mut now, 30, &mut a, &mut b);
    assert_eq!(a.machines.totals().users, 1);
    b.session(now, "@bob:b.example", None);
    pass(&mut now, 60, &mut a, &mut b);
    now = now.plus(8 * 24 * 3_600_000);
    a.machines.handle_users_job(now, Job::Compact);
    a.machines.handle_peers_job(now, Job::Compact);
    a.tick(now);
    assert_eq!((a.machines.totals().users, a.machines.totals().links), (0, 0));
    assert!(a.rows.is_empty(), "{:?}", a.rows.keys());
}

/// What is asked for again was asked for before: whoever stops to care meanwhile still has to say so.
#[test]
fn whoever_is_not_watched_any_longer_when_a_second_poll_is_due_is_unpolled() {
    let (mut now, mut a, mut b) = watched();
    b.session(now, BOB, None);
    pass(&mut now, 28, &mut a, &mut b);
    let seq = Serial { epoch: 1, counter: 1_000_000 };
    let extension = Some(Extension { seq, differ: (0..=255).collect(), ..Extension::default() });
    let inbound = Inbound { origin_server_ts: now, extension, ..Inbound::default() };
    b.peer(now, &server("a.example"), PeerSignal::Transaction(Box::new(inbound)));
    let seen = said(&pass(&mut now, 20, &mut a, &mut b));
    assert_eq!(seen, [format!("b.example: unpoll {ALICE}")]);
}
