//! For how long a peer's promise is believed (E6): `promise_ms`, and its bounds.

use rollcall::core::Settings;
use rollcall::core::signal::{Extension, Inbound, PeerSignal};

use crate::support::herd::{Herd, Peers, peer};
use crate::support::pair::settings;

const SHORT_S: u64 = 60;
const LONG_S: u64 = 3_600;
const MINUTE_MS: u64 = 60_000;
/// What a reminder finds is to be mended within the promise: a short period and eight windows are left for that.
const MENDING_S: u64 = SHORT_S + 8 * 5;

/// How far apart the reminders of the long watchdog are, in s, to a peer that talks all the time and promised for so long.
fn apart(promise_ms: u64) -> u64 {
    let settings = Settings { short_ms: SHORT_S * 1_000, long_ms: LONG_S * 1_000, ..settings() };
    let mut herd = Herd::new(settings, 1);
    let extension = Some(Extension { promise_ms: Some(promise_ms), ..Extension::default() });
    herd.says(&peer(0), Inbound { extension, ..Inbound::default() });
    for _ in 0..4 * LONG_S / (SHORT_S / 2) {
        herd.pass(SHORT_S / 2, |_| Peers::Answer);
        herd.server.peer(herd.now, &peer(0), PeerSignal::Heard);
    }
    // The first one comes at the link's own phase.
    let [_, one, next, ..] = herd.reminders.as_slice() else { panic!("{:?}", herd.reminders) };
    next.0.since(one.0) / 1_000
}

/// Reminders leave with a window, which is why they are seconds off.
#[track_caller]
fn assert_about(found: u64, expected: u64) {
    assert!(found.abs_diff(expected) <= 6, "{found} s, not {expected} s");
}

#[test]
fn a_promise_is_believed_for_as_long_as_the_peer_says() {
    assert_about(apart(10 * MINUTE_MS), 600 - MENDING_S);
}

#[test]
fn a_promise_is_believed_for_twice_the_short_time_at_least() {
    // Half of that, however long mending may take.
    assert_about(apart(1_000), 2 * SHORT_S / 2);
}

#[test]
fn a_promise_is_believed_for_no_longer_than_the_configured_time() {
    assert_about(apart(30 * 60 * MINUTE_MS), LONG_S - MENDING_S);
}
