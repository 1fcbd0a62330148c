//! When a peer that fails is tried again.

use rollcall::core::signal::{Outcome, PeerSignal};
use rollcall::model::{Presence, Timestamp};

use super::{ALICE, presence, watched};
use crate::support::pair::{Server, pass, server};

const RESEND_MS: u64 = 60_000;

/// A server whose last transactions all ended so; when the last did.
fn failing(outcome: Outcome) -> (Timestamp, Server, Server) {
    let (mut now, mut a, b) = watched();
    a.set(now, ALICE, Presence::Online, None);
    let mut failed = 0;
    while failed < 8 {
        now = now.plus(1_000);
        a.tick(now);
        let Some((transaction, _)) = a.sent() else { continue };
        if outcome == Outcome::Expired {
            now = transaction.not_after;
        }
        a.receipt(now, &transaction, outcome);
        failed += 1;
    }
    (now, a, b)
}

fn hear(a: &mut Server, now: Timestamp) {
    a.peer(now, &server("b.example"), PeerSignal::Heard);
}

#[test]
fn anything_heard_from_a_peer_that_was_away_ends_the_back_off() {
    let (mut now, mut a, mut b) = failing(Outcome::Expired);
    assert!(pass(&mut now, 20, &mut a, &mut b).is_empty(), "it is left alone");
    hear(&mut a, now);
    assert!(!pass(&mut now, 6, &mut a, &mut b).is_empty(), "tried within a window");
}

#[test]
fn a_peer_that_refuses_while_it_talks_is_tried_now_and_then() {
    let (mut now, mut a, mut b) = failing(Outcome::Failed);
    let mut last = now;
    for n in 0..600u64 {
        now = now.plus(1_000);
        hear(&mut a, now);
        a.set(now, ALICE, Presence::Online, Some(&n.to_string()));
        a.tick(now);
        let Some((transaction, _)) = a.sent() else { continue };
        let waited = now.since(last);
        assert!((RESEND_MS..=RESEND_MS + 6_000).contains(&waited), "{waited} ms");
        a.receipt(now, &transaction, Outcome::Failed);
        last = now;
    }
    assert!(now.since(last) < RESEND_MS + 6_000, "it is tried on");
    hear(&mut a, now);
    pass(&mut now, 66, &mut a, &mut b);
    assert_eq!(presence(&b, ALICE), Presence::Online, "it takes what it is sent now");
    a.set(now, ALICE, Presence::Busy, None);
    assert_eq!(pass(&mut now, 6, &mut a, &mut b).len(), 1, "and is a peer like any other");
}

#[test]
fn a_restart_shortens_no_back_off() {
    for outcome in [Outcome::Failed, Outcome::Expired] {
        let (mut now, mut a, mut b) = failing(outcome);
        a.restart(now);
        for _ in 0..59 {
            if outcome == Outcome::Failed {
                hear(&mut a, now);
            }
            let seen = pass(&mut now, 1, &mut a, &mut b);
            assert!(seen.is_empty(), "{outcome:?}: {seen:?}");
        }
        let seen = pass(&mut now, 80, &mut a, &mut b);
        assert!(!seen.is_empty(), "{outcome:?}: said in the end");
    }
}
