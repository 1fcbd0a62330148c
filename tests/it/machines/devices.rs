//! Devices and their merge (C2, C3, W8).

use rollcall::core::signal::UserSignal;
use rollcall::model::{Presence, Timestamp};

use super::{ALICE, presence, pushes, watched};
use crate::support::pair::{START, Server, device, pass};

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
fn a_lease_holds_a_device_that_spoke_only_after_it_began() {
    let (mut now, mut a, mut b) = watched();
    a.session(now, "@alice:a.example", Some(600_000));
    a.set(now.plus(1), "@alice:a.example", Presence::Online, None);
    let held = pass(&mut now, 600, &mut a, &mut b);
    assert!(held.iter().all(|(_, body)| pushes(body).iter().all(|push| push["presence"] == "online")), "{held:?}");
    pass(&mut now, 90, &mut a, &mut b);
    assert_eq!(presence(&b, "@alice:a.example"), Presence::Offline, "a minute and a little after its end");
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

/// As a client does that goes on syncing.
fn sync(a: &mut Server, now: Timestamp, implied: Option<Presence>) {
    let stamp = a.stamp(now);
    a.tell(now, ALICE, UserSignal::Activity { device: device("PHONE"), set_presence: implied, stamp });
}

#[test]
fn a_client_that_goes_on_does_not_betray_who_is_invisible() {
    for (set, implied) in [(Presence::Offline, None), (Presence::Online, Some(Presence::Offline))] {
        let (mut now, mut a, mut b) = watched();
        sync(&mut a, now, implied);
        a.set(now, ALICE, set, None);
        now = now.plus(10);
        sync(&mut a, now, implied);
        pass(&mut now, 90, &mut a, &mut b);
        assert_eq!(presence(&b, ALICE), Presence::Offline);
        for _ in 0..20 {
            sync(&mut a, now, implied);
            let seen = pass(&mut now, 30, &mut a, &mut b);
            assert!(seen.is_empty(), "{set}, {implied:?}: {seen:?}");
        }
    }
}

#[test]
fn a_client_that_goes_on_makes_nobody_active_who_is_idle() {
    for implied in [None, Some(Presence::Online)] {
        let (mut now, mut a, mut b) = watched();
        a.set(now, ALICE, Presence::Online, None);
        pass(&mut now, 10, &mut a, &mut b);
        let idle_at = now;
        let stamp = a.stamp(now);
        a.tell(now, ALICE, UserSignal::Idle { device: device("PHONE"), idle_ms: Some(0), stamp });
        for _ in 0..8 {
            now = now.plus(1);
            sync(&mut a, now, implied);
            pass(&mut now, 40, &mut a, &mut b);
        }
        assert_eq!(presence(&b, ALICE), Presence::Unavailable);
        for _ in 0..20 {
            sync(&mut a, now, implied);
            let seen = pass(&mut now, 40, &mut a, &mut b);
            assert!(seen.is_empty(), "{implied:?}: {seen:?}");
        }
        assert!(a.sees(now, ALICE, ALICE).unwrap().status.last_active <= idle_at);
    }
}
