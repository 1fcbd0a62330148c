//! Periodic jobs: what each finds, puts right, and leaves alone.

use rollcall::core::Settings;
use rollcall::core::rows::user_key;
use rollcall::core::signal::Outcome;
use rollcall::model::{Presence, Timestamp};
use rollcall::store::{RowKey, RowKind};
use rollcall::wire::envelope::Job;

use super::{ALICE, BOB, HOUR, known, presence, watched};
use crate::support::herd::{Herd, Peers, peer};
use crate::support::pair::{START, Server, defaults, pass, said, settings, user};

const HOUR_MS: u64 = 3_600_000;

/// Lets time pass for one server whose peers are gone, a minute a step.
fn alone(now: &mut Timestamp, minutes: u64, server: &mut Server) -> usize {
    let mut sent = 0;
    for _ in 0..minutes {
        *now = now.plus(60_000);
        server.tick(*now);
        while let Some((transaction, _)) = server.sent() {
            sent += 1;
            server.receipt(*now, &transaction, Outcome::Failed);
        }
    }
    sent
}

/// Every user has its turn once.
fn audit(now: Timestamp, server: &mut Server) {
    for _ in 0..Settings::AUDIT_SLICES {
        server.job(now, Job::Audit);
    }
}

#[test]
fn whom_nobody_wants_is_forgotten_though_their_server_is_gone() {
    let (mut now, _, mut b) = watched();
    b.session(now, BOB, None);
    alone(&mut now, 47 * 60, &mut b);
    b.job(now, Job::Expire);
    assert_eq!(presence(&b, ALICE), Presence::Offline, "its promise may not have ended");
    assert!(alone(&mut now, 30, &mut b) > 0, "the unpoll waits for the peer");
    alone(&mut now, 60, &mut b);
    b.job(now, Job::Expire);
    assert_eq!(b.machines.totals().jobs.expired, 1);
    assert_eq!(presence(&b, ALICE), Presence::Unknown);
    alone(&mut now, 10, &mut b);
    assert_eq!(alone(&mut now, 60, &mut b), 0, "nothing is left to be said");
    now = now.plus(6 * 24 * HOUR_MS);
    b.job(now, Job::Compact);
    assert!(!b.rows.contains_key(&user_key(RowKind::Remote, &user(ALICE))), "and then nothing to be known");
}

#[test]
fn who_is_watched_is_not_forgotten_and_comes_back_when_wanted_again() {
    let (mut now, mut a, mut b) = watched();
    alone(&mut now, 50, &mut b);
    b.session(now, BOB, None);
    alone(&mut now, 49 * 60, &mut b);
    b.job(now, Job::Expire);
    assert_eq!(presence(&b, ALICE), Presence::Unknown);
    b.session(now, BOB, HOUR);
    a.set(now, ALICE, Presence::Busy, None);
    a.session(now, ALICE, HOUR);
    pass(&mut now, 700, &mut a, &mut b);
    assert_eq!(presence(&b, ALICE), Presence::Busy);
    b.job(now, Job::Expire);
    assert_eq!((presence(&b, ALICE), b.machines.totals().jobs.expired), (Presence::Busy, 1));
}

#[test]
fn an_audit_where_both_sides_agree_says_nothing() {
    let (now, mut a, mut b) = watched();
    for server in [&mut a, &mut b] {
        let rows = server.rows.clone();
        audit(now, server);
        assert_eq!((server.machines.totals().jobs.repaired, server.out.len()), (0, 0));
        assert_eq!(server.rows, rows);
    }
}

/// A row is lost; the audit of the next day finds out. What was `a`'s is told again, what was `b`'s is asked for again.
#[test]
fn what_one_side_lost_is_found_by_the_other_and_put_right() {
    let (mut now, mut a, mut b) = watched();
    let served = RowKey { kind: RowKind::Served, key: format!("b.example\0{ALICE}") };
    assert!(a.rows.remove(&served).is_some());
    a.restart(now);
    a.set(now, ALICE, Presence::Busy, None);
    audit(now, &mut a);
    pass(&mut now, 10, &mut a, &mut b);
    assert_eq!((a.rows.contains_key(&served), presence(&b, ALICE)), (true, Presence::Busy));

    assert!(b.rows.remove(&user_key(RowKind::Remote, &user(ALICE))).is_some());
    b.restart(now);
    audit(now, &mut b);
    assert_eq!(b.machines.totals().jobs.repaired, 1);
    let seen = said(&pass(&mut now, 10, &mut a, &mut b));
    assert!(seen.contains(&format!("b.example: poll {ALICE}")), "{seen:?}");
    assert_eq!(presence(&b, ALICE), Presence::Busy);
}

/// The users' machines are the authority: what a link does for a user who wants nothing of it ends.
#[test]
fn what_a_link_does_for_nobody_s_sake_ends() {
    let (mut now, mut a, mut b) = watched();
    for kind in [RowKind::Relations, RowKind::User] {
        assert!(a.rows.remove(&user_key(kind, &user(ALICE))).is_some());
    }
    a.restart(now);
    audit(now, &mut a);
    assert_eq!(a.machines.totals().jobs.repaired, 1);
    let served = RowKey { kind: RowKind::Served, key: format!("b.example\0{ALICE}") };
    let row = rollcall::wire::envelope::decode::<rollcall::core::rows::ServedRow>(&a.rows[&served]).unwrap();
    assert!(row.hidden.is_some(), "nothing leaves for her any longer");

    assert!(b.rows.remove(&user_key(RowKind::User, &user(BOB))).is_some());
    b.restart(now);
    audit(now, &mut b);
    assert_eq!(b.machines.totals().jobs.repaired, 1);
    let seen = said(&pass(&mut now, 10, &mut a, &mut b));
    assert!(seen.contains(&format!("b.example: unpoll {ALICE}")), "{seen:?}");
    assert_eq!(known(&b, ALICE).status.presence, Presence::Unknown);
}

/// Back-off has grown to ten minutes and reminders come once an hour: the job asks now, one after the other.
#[test]
fn peers_that_were_given_up_are_tried_again_in_turn() {
    let mut herd = Herd::new(Settings { short_ms: 60_000, backoff_max_ms: 6 * HOUR_MS, ..settings() }, 40);
    let is_dead = |server: &_| (0..12).any(|n| *server == peer(n));
    let gone = move |server: &_| if is_dead(server) { Peers::Fail } else { Peers::Answer };
    herd.pass(3_600, gone);
    assert_eq!(herd.server.machines.totals().lapsed, 12);
    herd.reminders.clear();
    let from = herd.now;
    herd.server.job(herd.now, Job::Probe);
    assert_eq!(herd.server.machines.totals().jobs.probed, 12);
    herd.pass(75, |_| Peers::Answer);
    assert_eq!(herd.server.machines.totals().lapsed, 0, "all of them are back");
    let mut tried: Vec<u64> =
        herd.reminders.iter().filter(|(_, server)| is_dead(server)).map(|(at, _)| at.since(from)).collect();
    tried.sort_unstable();
    tried.truncate(12);
    assert!(tried[11] - tried[0] > 40_000, "not all at once: {tried:?}");
    herd.server.job(herd.now, Job::Probe);
    assert_eq!(herd.server.machines.totals().jobs.probed, 12, "nobody is left");
}

/// What happened is counted by hour, outlives the process, and adds up.
#[test]
fn a_day_is_remembered_by_hour() {
    let (mut a, mut b) = (Server::with("a.example", defaults()), Server::with("b.example", defaults()));
    let mut now = START;
    a.list(now, ALICE, &[BOB], &[]);
    b.list(now, BOB, &[ALICE], &[]);
    pass(&mut now, 60, &mut a, &mut b);
    a.set(now, ALICE, Presence::Busy, None);
    let hour = |server: &Server, at: Timestamp| {
        let start = Timestamp(at.0 - at.0 % HOUR_MS);
        server.machines.totals().hours.into_iter().find(|hour| hour.start == start).unwrap_or_default()
    };
    let before = hour(&a, now);
    assert_eq!((before.events, before.statuses, before.failed), (2, 1, 0), "{before:?}");
    assert_eq!((before.heard, before.transactions), (2, 2), "{before:?}");
    assert!(before.bytes > 600, "{before:?}");
    a.restart(now);
    assert_eq!(hour(&a, now).events, 0, "not before it is rolled up");
    a.set(now, ALICE, Presence::Online, None);
    a.job(now, Job::Statistics);
    a.restart(now);
    assert_eq!(hour(&a, now).events, 1);
    let rows = a.rows.keys().filter(|key| key.kind == RowKind::Hour).count();
    assert_eq!(rows, 1);
}

#[test]
fn devices_are_forgotten_after_a_week_and_with_them_whom_nobody_knows() {
    let (mut now, mut a, mut b) = watched();
    let carol = "@carol:a.example";
    a.session(now, carol, HOUR);
    a.list(now, ALICE, &[BOB], &[]);
    for who in [ALICE, carol] {
        a.set(now, who, Presence::Online, None);
    }
    let set_at = now;
    pass(&mut now, 2 * 3_600, &mut a, &mut b);
    let rows = |a: &Server, who: &str| {
        let kinds = [RowKind::User, RowKind::Relations];
        kinds.into_iter().filter(|kind| a.rows.contains_key(&user_key(*kind, &user(who)))).count()
    };
    for (days, left) in [(6, 1), (2, 0)] {
        now = now.plus(days * 24 * HOUR_MS);
        a.tick(now);
        a.job(now, Job::Compact);
        assert_eq!(rows(&a, carol), left, "after {days} more days");
    }
    assert_eq!(rows(&a, ALICE), 2, "she lists somebody");
    a.restart(now);
    let alice = a.sees(now, ALICE, ALICE).unwrap().status;
    assert_eq!((alice.presence, alice.last_active), (Presence::Offline, set_at));
    a.set(now, ALICE, Presence::Unavailable, None);
    assert_eq!(a.sees(now, ALICE, ALICE).unwrap().status.presence, Presence::Unavailable);
}

#[test]
fn a_device_is_not_forgotten_before_its_silence_was_told() {
    let (now, mut a, _) = watched();
    a.set(now, ALICE, Presence::Online, None);
    let later = now.plus(8 * 24 * HOUR_MS);
    // A beat, and no look at whom it expires yet.
    a.machines.handle_users_beat(later, later);
    a.job(later, Job::Compact);
    a.restart(later);
    a.tick(later);
    a.tick(later.plus(10_000));
    assert_eq!(a.sees(later, ALICE, ALICE).unwrap().status.presence, Presence::Offline);
}
