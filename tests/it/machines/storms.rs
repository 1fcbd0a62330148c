//! Storms: much happens at once. Whatever it is, no change costs more than one status for each peer that watches, and what a peer
//! asks for is answered once. Who is given up in an outage of our own, and who is not, is in `watchdogs`.

use rollcall::model::Presence;

use super::presence;
use crate::support::fleet::{Fleet, Line, ours};
use crate::support::pair::Server;

const MINUTE: u64 = 60;

/// The newest status of each user of the hub's is known at each peer.
fn assert_settled(fleet: &Fleet, users: usize, expected: Presence) {
    for peer in &fleet.peers {
        for user in 0..users {
            assert_eq!(presence(peer, &ours(user)), expected, "{} at {}", ours(user), peer.name);
        }
    }
}

/// Everybody at the hub is there and has nothing to say, and so it has been for a while.
fn present(peers: usize, users: usize) -> Fleet {
    let mut fleet = Fleet::new(peers, users);
    for user in 0..users {
        fleet.set(user, Presence::Online);
        fleet.open(user);
    }
    fleet.pass(5 * MINUTE);
    fleet.forget();
    fleet
}

/// A change each second, of one user after the other, for so many minutes.
fn chatter(fleet: &mut Fleet, users: usize, minutes: u64) {
    for second in 0..minutes * MINUTE {
        let user = usize::try_from(second * 31).unwrap() % users;
        fleet.say(user, &format!("task {second}"));
        fleet.pass(1);
    }
}

fn lapsed(server: &Server) -> usize {
    server.machines.totals().lapsed
}

/// A peer comes and goes, a little faster and a little slower than the short watchdog.
#[test]
fn a_peer_that_flaps_around_the_short_period_multiplies_nothing() {
    let mut fleet = present(5, 60);
    for round in 0..24 {
        fleet.lines[0] = if round % 2 == 0 { Line::Down } else { Line::Up };
        for second in 0..50 + round % 5 * 5 {
            if second % 3 == 0 {
                fleet.say(usize::try_from(round * 17 + second).unwrap() % 60, &format!("{round}/{second}"));
            }
            fleet.pass(1);
        }
        assert_eq!(lapsed(&fleet.hub), 0, "a minute's silence makes nobody unknown");
    }
    fleet.lines[0] = Line::Up;
    fleet.pass(2 * MINUTE);
    fleet.judge("a flapping peer");
}

/// 9:00: everybody comes within a few minutes, here and there, and looks at their list.
#[test]
fn everybody_signing_on_at_nine_multiplies_nothing() {
    let (peers, users) = (8, 200);
    let mut fleet = Fleet::new(peers, users);
    for user in 0..users {
        fleet.set(user, Presence::Online);
        fleet.open(user);
        if user % 2 == 0 {
            fleet.pass(1);
        }
    }
    fleet.pass(5 * MINUTE);
    fleet.judge("sign-on at nine");
    assert_settled(&fleet, users, Presence::Online);
}

/// A peer that watches many is away for two minutes and starts again, from its rows, while changes go on.
#[test]
fn a_big_peer_s_restart_multiplies_nothing() {
    let users = 1_000;
    let mut fleet = present(1, users);
    chatter(&mut fleet, users, 1);
    fleet.lines[0] = Line::Down;
    chatter(&mut fleet, users, 2);
    fleet.peers[0].restart(fleet.now);
    fleet.lines[0] = Line::Up;
    chatter(&mut fleet, users, 2);
    fleet.pass(2 * MINUTE);
    fleet.judge("a big peer's restart");
    assert_eq!((lapsed(&fleet.hub), lapsed(&fleet.peers[0])), (0, 0));
}

/// The hub's own restart: nothing was lost, so nothing is told twice.
#[test]
fn a_restart_of_our_own_multiplies_nothing() {
    let users = 500;
    let mut fleet = present(3, users);
    chatter(&mut fleet, users, 1);
    fleet.hub.restart(fleet.now);
    chatter(&mut fleet, users, 1);
    fleet.pass(2 * MINUTE);
    fleet.judge("our own restart");
}

/// Nobody can be reached for an hour, while changes go on: what they come to is told once, when all are back.
#[test]
fn an_outage_of_our_own_multiplies_nothing() {
    let (peers, users) = (12, 60);
    let mut fleet = present(peers, users);
    fleet.lines.fill(Line::Down);
    chatter(&mut fleet, users, 60);
    assert_eq!(lapsed(&fleet.hub), 0, "that nobody at all can be reached is our own fault");
    fleet.lines.fill(Line::Up);
    fleet.pass(15 * MINUTE);
    fleet.judge("an hour's outage of our own");
    // Nobody said anything for a quarter of an hour.
    assert_settled(&fleet, users, Presence::Unavailable);
    assert!(fleet.peers.iter().chain([&fleet.hub]).all(|server| lapsed(server) == 0));
}

/// Everybody is idle, the host sleeps for an hour, and all of them are back at once: what was not read yet expires nobody, and whoever
/// counted as gone for a moment does not flicker.
#[test]
fn everybody_back_from_idleness_at_once_multiplies_nothing() {
    let (peers, users) = (6, 200);
    let mut fleet = present(peers, users);
    for user in 0..users {
        fleet.idle(user, Some(0));
    }
    fleet.pass(10 * MINUTE);
    assert_settled(&fleet, users, Presence::Unavailable);
    fleet.sleep(60 * MINUTE);
    for user in 0..users {
        fleet.idle(user, None);
    }
    fleet.pass(5 * MINUTE);
    fleet.judge("a laptop wake");
    assert_settled(&fleet, users, Presence::Online);
}

/// The same, but the beat was there first, and the leases of all are over: everybody is gone for as long as it takes to say the contrary.
#[test]
fn who_comes_back_while_counting_as_gone_does_not_flicker() {
    let (peers, users) = (6, 200);
    let mut fleet = Fleet::new(peers, users);
    for user in 0..users {
        fleet.set(user, Presence::Online);
    }
    fleet.pass(40);
    fleet.forget();
    fleet.sleep(60 * MINUTE);
    fleet.pass(2);
    for user in 0..users {
        fleet.act(user);
    }
    fleet.pass(40);
    fleet.judge("a wake after the beat");
    assert_settled(&fleet, users, Presence::Online);
}

/// A peer answers, but late, and then so late that nobody waits for it any longer.
#[test]
fn an_overloaded_peer_that_answers_late_multiplies_nothing() {
    for (late_ms, storm) in
        [(25_000, "answers after 25 s"), (50_000, "answers after 50 s"), (90_000, "answers after 90 s")]
    {
        let mut fleet = present(4, 60);
        fleet.lines[0] = Line::Late(late_ms);
        chatter(&mut fleet, 60, 20);
        fleet.lines[0] = Line::Up;
        fleet.pass(5 * MINUTE);
        fleet.judge(storm);
        assert_eq!(lapsed(&fleet.hub), 0);
    }
}
