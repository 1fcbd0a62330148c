//! Watchdogs and reminders (W3–W7, E6, E7): when they expire, what they cost, and whose fault silence is.

use std::collections::{BTreeMap, BTreeSet};

use rollcall::core::rows::{RemoteRow, user_key};
use rollcall::core::signal::{Inbound, PeerSignal};
use rollcall::core::{Lapse, Settings};
use rollcall::model::{Presence, Status, Timestamp};
use rollcall::store::RowKind;
use rollcall::wire::envelope::{decode, encode};
use serde_json::Value;

use super::{ALICE, HOUR, known};
use crate::support::herd::{Herd, Peers, peer, reminder_of};
use crate::support::pair::{START, Server, pass, server, settings, user};

const SHORT_S: u64 = 60;

fn watchful() -> Settings {
    Settings { short_ms: SHORT_S * 1_000, ..settings() }
}

/// W5: after a restart everybody is reminded, one after the other, however long nobody was there.
#[test]
fn a_restart_reminds_everybody_evenly_spread() {
    for away_s in [0, 10, 600] {
        let mut herd = Herd::new(watchful(), 3_000);
        herd.pass(10, |_| Peers::Answer);
        let from = restart_after(&mut herd, away_s);
        let reminded: BTreeSet<_> = herd.reminders.iter().map(|(_, peer)| peer).collect();
        assert_eq!(reminded.len(), 3_000);
        let (peak, mean) = herd.peak_and_mean(from, 1);
        assert!(peak as f64 <= 2.0 * mean, "{peak} in one second after {away_s} s, {mean} in the mean");
    }
}

/// Sixteen partitions begin at the same moment, each with few peers.
#[test]
fn partitions_that_restart_together_do_not_remind_together() {
    let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
    for partition in 0..16 {
        let mut herd = Herd::of(watchful(), (partition * 20..(partition + 1) * 20).map(peer));
        herd.pass(10, |_| Peers::Answer);
        let from = restart_after(&mut herd, 600);
        let mut reminded = BTreeSet::new();
        for (at, _) in herd.reminders.iter().filter(|(_, peer)| reminded.insert(peer)) {
            *seconds.entry(at.since(from) / 1_000).or_default() += 1;
        }
        assert_eq!(reminded.len(), 20);
    }
    let peak = *seconds.values().max().unwrap();
    assert!(peak as f64 <= 2.0 * 320.0 / SHORT_S as f64, "{peak} in one second of 320");
}

/// Nobody is there for so long. Since when somebody is again, whose reminders of the first short period are noted.
fn restart_after(herd: &mut Herd, away_s: u64) -> Timestamp {
    herd.now = herd.now.plus(1_000 * away_s);
    herd.server.restart(herd.now);
    herd.reminders.clear();
    let from = herd.now;
    herd.pass(SHORT_S + 5, |_| Peers::Answer);
    from
}

/// A peer that answers no reminder is given up after `watchdog.tries`, and nobody else is.
#[test]
fn who_answers_no_reminder_is_given_up_alone() {
    let mut herd = Herd::new(watchful(), 20);
    let what = |server: &_| if *server == peer(7) { Peers::Ignore } else { Peers::Answer };
    herd.pass(3 * (SHORT_S + 5), what);
    assert_eq!(herd.server.machines.totals().lapsed, 0, "not before the last reminder had its time");
    herd.pass(2 * (SHORT_S + 5), what);
    assert_eq!(herd.server.machines.totals().lapsed, 1);
    herd.server.peer(herd.now, &peer(7), PeerSignal::Heard);
    herd.pass(SHORT_S + 10, |_| Peers::Answer);
    assert_eq!(herd.server.machines.totals().lapsed, 0, "anything heard brings it back");
    let said = [false, true].map(|is_over| Lapse { server: peer(7), is_over });
    assert_eq!(herd.server.lapses, said, "the log says both, once each");
}

/// Deliveries that fail for `watchdog.give_up` do the same.
#[test]
fn who_cannot_be_reached_is_given_up_after_a_while() {
    let mut herd = Herd::new(watchful(), 20);
    let what = |server: &_| if *server == peer(7) { Peers::Fail } else { Peers::Answer };
    herd.pass(9 * 60, what);
    assert_eq!(herd.server.machines.totals().lapsed, 0);
    herd.pass(5 * 60, what);
    assert_eq!(herd.server.machines.totals().lapsed, 1);
}

/// When most fall silent at once the fault is ours until one is heard; then the others get all their chances again.
#[test]
fn an_outage_of_our_own_gives_nobody_up() {
    let mut herd = Herd::new(watchful(), 40);
    herd.pass(30, |_| Peers::Answer);
    herd.pass(3_600, |_| Peers::Fail);
    assert_eq!(herd.server.machines.totals().lapsed, 0, "nobody, after an hour");
    herd.reminders.clear();
    herd.pass(660, |server| if *server == peer(3) { Peers::Ignore } else { Peers::Answer });
    assert_eq!(herd.server.machines.totals().lapsed, 1, "only who is really gone");
    let reminders = herd.reminders.iter().filter(|(_, server)| *server == peer(3)).count();
    assert!(reminders >= 3, "not before all its chances: {reminders}");
}

/// What is unread in a queue is no silence: while no beat comes back, nobody is given up, however late it is.
#[test]
fn a_backlog_gives_nobody_up() {
    let mut herd = Herd::new(watchful(), 20);
    herd.pass(30, |_| Peers::Answer);
    for _ in 0..600 {
        herd.now = herd.now.plus(1_000);
        herd.server.machines.handle_timeout(herd.now);
    }
    let effects = herd.server.machines.take_effects();
    assert!(effects.outputs.is_empty(), "no reminders either: {:?}", effects.outputs);
    assert_eq!(herd.server.machines.totals().lapsed, 0);
}

/// Two servers, `many` of whose users are promised: `a` serves, `b` watches.
fn crowd(many: usize) -> (Timestamp, Server, Server) {
    let (mut a, mut b) = (Server::with("a.example", watchful()), Server::with("b.example", watchful()));
    let mut now = START;
    let users: Vec<String> = (0..many).map(|n| format!("@u{n}:a.example")).collect();
    for (n, users) in users.chunks(5_000).enumerate() {
        let watcher = format!("@w{n}:b.example");
        b.list(now, &watcher, &users.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        b.session(now, &watcher, HOUR.map(|hour| 24 * hour));
    }
    pass(&mut now, 600, &mut a, &mut b);
    (now, a, b)
}

/// Where a transaction is about reminders alone: its bytes. What else it says of them.
fn reminder_bytes(body: &Value) -> Option<usize> {
    let first = &body["edus"][0]["content"];
    let idle = first["push"].as_array().is_some_and(Vec::is_empty) && body["edus"].as_array().unwrap().len() == 1;
    idle.then(|| body.to_string().len())
}

/// E3, E7: an unchanged link costs a few bytes, whatever was promised, and however much changes meanwhile.
#[test]
fn a_reminder_costs_the_same_whatever_was_promised() {
    let (mut now, mut a, mut b) = crowd(20_000);
    let quiet = pass(&mut now, 600, &mut a, &mut b);
    let reminders = quiet.iter().filter(|(_, body)| reminder_of(body).is_some()).count();
    assert!(reminders >= 8, "{reminders}");
    for (from, body) in &quiet {
        assert!(reminder_bytes(body).is_some_and(|bytes| bytes <= 700), "{from}: {body}");
    }
    // 20,000 are promised, and one changes every second: no digest is wrong for what is on its way.
    for n in 0..600 {
        a.set(now, &format!("@u{}:a.example", 31 * n % 20_000), Presence::Online, None);
        for (from, body) in pass(&mut now, 1, &mut a, &mut b) {
            let words = &body["edus"][0]["content"]["rollcall"];
            assert!(words["have"].is_null() && words["differ"].is_null(), "{from}: {words}");
            assert!(words.to_string().len() <= 700 - 150, "{from}: {words}");
        }
    }
}

/// E7: one status that differs is found by its bucket and mended for a few of all the bytes.
#[test]
fn one_differing_status_of_many_is_found_and_mended() {
    let (mut now, mut a, mut b) = crowd(20_000);
    let target = "@u77:a.example";
    let mut row: RemoteRow = known(&b, target);
    assert_eq!(row.status.presence, Presence::Offline);
    row.status.presence = Presence::Busy;
    b.rows.insert(user_key(RowKind::Remote, &user(target)), encode(&row));
    b.restart(now);
    let seen = pass(&mut now, 30, &mut a, &mut b);
    let bytes: usize = seen.iter().map(|(_, body)| body.to_string().len()).sum();
    assert_eq!(known(&b, target).status.presence, Presence::Offline);
    assert!(bytes <= 30_000, "{bytes} bytes in {} transactions", seen.len());
    assert!(seen.iter().any(|(_, body)| !body["edus"][0]["content"]["rollcall"]["have"].is_null()));
}

/// What is not believed any longer is not shown, and what is confirmed is.
#[test]
fn a_lapsed_peer_is_unknown_until_it_confirms() {
    let (mut a, mut b) = (Server::with("a.example", watchful()), Server::with("b.example", watchful()));
    let (mut now, bob) = (START, "@bob:b.example");
    b.list(now, bob, &[ALICE], &[]);
    b.stream(now, bob, "edge");
    a.session(now, ALICE, HOUR);
    a.set(now, ALICE, Presence::Busy, None);
    pass(&mut now, 40, &mut a, &mut b);
    assert_eq!(b.sees(now, bob, ALICE).unwrap().status.presence, Presence::Busy);
    b.updates.clear();
    let before: Vec<_> = b.rows.iter().filter(|(key, _)| key.kind == RowKind::Remote).map(|(_, v)| v.clone()).collect();
    for _ in 0..5 * (SHORT_S + 5) {
        now = now.plus(1_000);
        b.tick(now);
        while let Some((transaction, _)) = b.sent() {
            b.receipt(now, &transaction, rollcall::core::signal::Outcome::Delivered);
        }
    }
    assert_eq!(b.updated(), [format!("{bob}: {ALICE} unknown")]);
    assert_eq!(b.sees(now, bob, ALICE).unwrap().status.presence, Presence::Unknown);
    let after: Vec<_> = b.rows.iter().filter(|(key, _)| key.kind == RowKind::Remote).map(|(_, v)| v.clone()).collect();
    assert_eq!(before, after, "giving a peer up writes no row a user");
    let _: Vec<RemoteRow> = after.iter().map(|row| decode(row).unwrap()).collect();
    b.restart(now);
    assert_eq!(b.sees(now, bob, ALICE).unwrap().status.presence, Presence::Unknown, "a restart knows no more");
    pass(&mut now, 40, &mut a, &mut b);
    assert_eq!(b.sees(now, bob, ALICE).unwrap().status.presence, Presence::Busy);
}

/// A plain peer's pushes are ordered by its clock, and good for as long as they have been here.
#[test]
fn a_peer_whose_clock_is_behind_is_believed_for_as_long_as_any() {
    let mut a = Server::with("a.example", Settings { symmetric: true, ..watchful() });
    let (mut now, john, bob) = (START, "@john:a.example", "@bob:b.example");
    a.list(now, john, &[bob], &[]);
    a.session(now, john, HOUR);
    let push = |now: Timestamp| Inbound {
        origin_server_ts: now.minus(7_200_000),
        push: vec![(user(bob), Status { presence: Presence::Online, ..Status::default() })],
        ..Inbound::default()
    };
    a.peer(now, &server("b.example"), PeerSignal::Transaction(Box::new(push(now))));
    for minutes in [29, 2] {
        for _ in 0..minutes * 60 {
            now = now.plus(1_000);
            a.tick(now);
        }
        let known = a.sees(now, john, bob).unwrap();
        let expected = if minutes == 29 { Presence::Online } else { Presence::Unknown };
        assert_eq!(
            (known.status.presence, known.stale_ms),
            (expected, now.since(START)),
            "after {minutes} minutes more"
        );
    }
}
