//! The machines of two servers, against each other: what is gathered, what leaves, what is owed. No bus, no store, no real time.

use rollcall::core::FlushReason;
use rollcall::core::rows::{RemoteRow, user_key};
use rollcall::core::signal::{Addressed, LinkSignal, Outcome, PeerSignal, SessionAction, UserSignal};
use rollcall::model::{Presence, Serial, Status, Timestamp};
use rollcall::store::RowKind;
use rollcall::wire::envelope::{Job, decode};
use serde_json::{Value, json};

use crate::support::pair::{START, Server, deliver, device, pass, receive, server, settings, user};

/// `@bob:b` lists `@alice:a` and has a session: b polls a, a answers.
fn watched() -> (Timestamp, Server, Server) {
    let (mut a, mut b) = (Server::new("a.example"), Server::new("b.example"));
    let mut now = START;
    b.list(now, "@bob:b.example", &["@alice:a.example"], &[]);
    b.session(now, "@bob:b.example", Some(3_600_000));
    let seen = pass(&mut now, 12, &mut a, &mut b);
    assert_eq!(seen.len(), 2, "one poll, one answer: {seen:?}");
    (now, a, b)
}

fn known(server: &Server, who: &str) -> RemoteRow {
    decode(&server.rows[&user_key(RowKind::Remote, &user(who))]).unwrap()
}

fn presence(server: &Server, who: &str) -> Presence {
    known(server, who).status.presence
}

fn pushes(body: &Value) -> Vec<&Value> {
    body["edus"].as_array().unwrap().iter().flat_map(|edu| edu["content"]["push"].as_array().unwrap()).collect()
}

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
    assert!(pass(&mut now, 60, &mut a, &mut b).is_empty(), "E1");
}

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
    b.session(now, "@bob:b.example", Some(3_600_000));
    pass(&mut now, 12, &mut a, &mut b);
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
    b.session(now, "@bob:b.example", Some(3_600_000));
    pass(&mut now, 20, &mut a, &mut b);
    for name in users {
        a.set(now, name, Presence::Online, None);
    }
    assert_eq!(deliver(now, &mut a, &mut b).len(), 1, "three of four, without waiting");
    assert_eq!(pass(&mut now, 6, &mut a, &mut b).len(), 1);
    assert!(users.iter().all(|name| presence(&b, name) == Presence::Online));
}

#[test]
fn the_first_watcher_polls_the_last_unpolls_and_nothing_in_between() {
    let (mut now, mut a, mut b) = watched();
    b.list(now, "@carol:b.example", &["@alice:a.example"], &[]);
    b.session(now, "@carol:b.example", Some(3_600_000));
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
    b.session(now, "@bob:b.example", Some(3_600_000));
    assert!(pass(&mut now, 60, &mut a, &mut b).is_empty());
}

#[test]
fn only_one_transaction_is_live_and_what_waits_goes_with_the_next() {
    let (mut now, mut a, _) = watched();
    a.set(now, "@alice:a.example", Presence::Online, None);
    now = now.plus(5_000);
    a.tick(now);
    let (first, _) = a.sent().expect("the window closed");
    a.set(now, "@alice:a.example", Presence::Busy, None);
    now = now.plus(9_000);
    a.tick(now);
    assert!(a.sent().is_none(), "one at a time");
    a.receipt(now, &first, Outcome::Delivered);
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
fn anything_heard_from_the_peer_ends_the_back_off() {
    let (mut now, mut a, mut b) = watched();
    a.set(now, "@alice:a.example", Presence::Online, None);
    now = now.plus(5_000);
    a.tick(now);
    for _ in 0..8 {
        let Some((transaction, _)) = a.sent() else { break };
        a.receipt(now, &transaction, Outcome::Failed);
        now = now.plus(700_000);
        a.tick(now);
        now = now.plus(5_000);
        a.tick(now);
    }
    let (transaction, _) = a.sent().unwrap();
    a.receipt(now, &transaction, Outcome::Failed);
    a.peer(now, &server("b.example"), PeerSignal::Heard);
    assert!(!pass(&mut now, 6, &mut a, &mut b).is_empty(), "tried within a window");
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
    assert_eq!(pass(&mut now, 10, &mut a, &mut b).len(), 1);
    assert_eq!(known(&b, "@alice:a.example").status.status_msg.as_deref(), Some("new"));
}

#[test]
fn too_large_halves_what_leaves_together() {
    let (mut a, mut b) = (Server::new("a.example"), Server::new("b.example"));
    let mut now = START;
    let users: Vec<String> = (0..8).map(|n| format!("@user{n}:a.example")).collect();
    let listed: Vec<&str> = users.iter().map(String::as_str).collect();
    b.list(now, "@bob:b.example", &listed, &[]);
    b.session(now, "@bob:b.example", Some(3_600_000));
    pass(&mut now, 12, &mut a, &mut b);
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
    b.session(now, "@bob:b.example", Some(3_600_000));
    b.restart(now);
    assert_eq!(pass(&mut now, 12, &mut a, &mut b).len(), 2, "the poll leaves after the restart");
    a.set(now, "@alice:a.example", Presence::Online, None);
    a.relieve(now, FlushReason::Drain);
    let (lost, _) = a.sent().unwrap();
    a.receipt(now, &lost, Outcome::Failed);
    a.restart(now);
    assert_eq!(a.machines.totals().owed, 1);
    pass(&mut now, 12, &mut a, &mut b);
    assert_eq!(presence(&b, "@alice:a.example"), Presence::Online);
}

#[test]
fn two_devices_make_one_presence_and_a_reconnect_does_not_flicker() {
    let (mut now, mut a, mut b) = watched();
    a.set(now, "@alice:a.example", Presence::Online, None);
    let seen = pass(&mut now, 50, &mut a, &mut b);
    assert_eq!(seen.len(), 1, "{seen:?}");
    a.set(now, "@alice:a.example", Presence::Online, None);
    let seen = pass(&mut now, 56, &mut a, &mut b);
    assert!(seen.iter().all(|(_, body)| pushes(body)[0]["presence"] == "online"), "{seen:?}");
    let seen = pass(&mut now, 30, &mut a, &mut b);
    let last = seen.last().expect("unheard of for a minute");
    assert_eq!(pushes(&last.1)[0]["presence"], "offline");
}

#[test]
fn a_backlog_expires_nobody() {
    let (mut now, mut a, mut b) = watched();
    a.set(now, "@alice:a.example", Presence::Online, None);
    pass(&mut now, 6, &mut a, &mut b);
    for _ in 0..600 {
        now = now.plus(1_000);
        a.machines.handle_users_beat(now, START);
        a.machines.handle_timeout(now);
    }
    assert!(pass(&mut now, 0, &mut a, &mut b).is_empty());
    assert_eq!(presence(&b, "@alice:a.example"), Presence::Online, "the horizon stood still");
}

#[test]
fn strangers_cannot_fill_the_memory() {
    let (mut a, mut b) = (Server::new("a.example"), Server::new("b.example"));
    let now = START;
    b.list(now, "@bob:b.example", &["@alice:a.example"], &[]);
    b.session(now, "@bob:b.example", Some(3_600_000));
    b.tick(now.plus(5_000));
    let (poll, _) = b.sent().unwrap();
    receive(now, &server("b.example"), &poll, &mut a);
    let before = b.machines.totals();
    a.set(now, "@mallory:a.example", Presence::Online, None);
    a.tick(now.plus(6_000));
    deliver(now.plus(6_000), &mut a, &mut b);
    assert_eq!(b.machines.totals(), before, "nobody watches @mallory");
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
    pass(&mut now, 12, &mut a, &mut b);
    assert_eq!(presence(&b, alice), Presence::Unavailable, "busy waited in the window, unavailable was owed");
    assert_eq!(a.machines.totals().owed, 0);
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
    pass(&mut now, 30, &mut a, &mut b);
    assert_eq!(presence(&b, alice), Presence::Busy);
}

#[test]
fn a_poll_in_flight_is_taken_back_when_nobody_watches_any_longer() {
    let (mut a, mut b) = (Server::new("a.example"), Server::new("b.example"));
    let (mut now, alice) = (START, "@alice:a.example");
    b.list(now, "@bob:b.example", &[alice], &[]);
    b.session(now, "@bob:b.example", Some(3_600_000));
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
    let seen = pass(&mut now, 12, &mut a, &mut b);
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
fn too_large_halves_polls_too() {
    let mut b = Server::new("b.example");
    let mut now = START;
    let users: Vec<String> = (0..100).map(|n| format!("@user{n}:a.example")).collect();
    let listed: Vec<&str> = users.iter().map(String::as_str).collect();
    b.list(now, "@bob:b.example", &listed, &[]);
    b.session(now, "@bob:b.example", Some(3_600_000));
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
    pass(&mut now, 12, &mut a, &mut b);
    assert_eq!(presence(&b, alice), Presence::Busy, "the window opened an hour ahead");
}

#[test]
fn strangers_polls_leave_nothing_behind() {
    let (mut a, mut b) = (Server::new("a.example"), Server::new("b.example"));
    let mut now = START;
    b.list(now, "@bob:b.example", &["@invented:a.example"], &[]);
    b.session(now, "@bob:b.example", Some(3_600_000));
    pass(&mut now, 12, &mut a, &mut b);
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
    let again = Addressed { to: server("b.example"), at: now, reply: None, trace: None, signal };
    a.machines.handle_batch(now, 1_000_000, vec![again]);
    now = now.plus(6_000);
    a.tick(now);
    assert!(a.sent().is_none(), "busy was sent, online is older");
    assert!(a.released.contains(&1_000_000), "and nothing keeps its delivery");
}
