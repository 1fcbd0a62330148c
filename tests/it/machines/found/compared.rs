//! Two servers that hold different things, and had to find out.

use rollcall::core::Settings;
use rollcall::core::signal::{LinkSignal, Outcome};
use rollcall::model::{Presence, Serial, Status};
use serde_json::json;

use super::{ALICE, JOHN, answered, edu, extension, late, numbered, sent};
use crate::support::pair::{START, Server, defaults, lines, user};

/// A server where John watches Alice of b.example, who says nothing of herself.
fn watching() -> Server {
    let mut a = Server::with("a.example", Settings { short_ms: 60_000, linger_ms: 0, symmetric: false, ..defaults() });
    a.list(START, JOHN, &[ALICE], &[]);
    a.foreign(START, "b.example", &json!([numbered(1, &json!({})), edu("m.presence_accept", ALICE, JOHN)]));
    a.session(START, JOHN, Some(3_600_000));
    answered(&mut a, START.plus(6_000), Outcome::Delivered);
    a
}

/// Seeds 2586 and 15358: what was to be compared was forgotten with the last watcher, and the peer relied on a promise of before.
#[test]
fn a_reminder_that_is_due_outlives_the_last_watcher() {
    let mut a = watching();
    let holds_more = |n: u64| {
        let mut reminder = numbered(n, &json!({}));
        let yours = json!({"as_of": [1, 1], "count": 1, "digest": "1".repeat(32)});
        reminder["content"]["rollcall"]["reminder"] = json!({"id": format!("1-{n}"), "yours": yours});
        json!([reminder])
    };
    a.foreign(START.plus(10_000), "b.example", &holds_more(2));
    assert!(extension(&answered(&mut a, START.plus(16_000), Outcome::Delivered), "reminder").is_object());
    // That was lost on the peer. It asks again, too early to be answered by a reminder once more.
    a.foreign(START.plus(20_000), "b.example", &holds_more(3));
    a.session(START.plus(21_000), JOHN, None);
    assert!(extension(&answered(&mut a, START.plus(30_000), Outcome::Delivered), "reminder").is_null());
    a.tick(START.plus(77_000));
    let reminder = extension(&sent(&mut a, START.plus(83_000)), "reminder");
    assert_eq!(reminder["mine"]["count"], 0, "{reminder}");
}

/// Seed 6658: a server that was restored from a backup knew of no promise, and talked, so that nobody missed it.
#[test]
fn a_peer_that_numbers_anew_is_compared_with_unless_it_does_so_itself() {
    let anew = || {
        let mut anew = numbered(1, &json!({}));
        anew["content"]["rollcall"]["seq"] = json!([2, 1]);
        anew
    };
    let mut a = watching();
    a.foreign(START.plus(10_000), "b.example", &json!([anew()]));
    a.tick(START.plus(40_000));
    let reminder = extension(&sent(&mut a, START.plus(46_000)), "reminder");
    assert_eq!(reminder["yours"]["as_of"], json!([2, 1]));

    let mut a = watching();
    a.foreign(START.plus(10_000), "b.example", &json!([anew()]));
    let mut compares = anew();
    compares["content"]["rollcall"]["seq"] = json!([2, 2]);
    let nobody = json!({"as_of": [2, 2], "count": 0, "digest": "0".repeat(32)});
    compares["content"]["rollcall"]["reminder"] = json!({"id": "2-2", "mine": nobody});
    a.foreign(START.plus(10_001), "b.example", &json!([compares]));
    a.tick(START.plus(40_000));
    assert!(extension(&sent(&mut a, START.plus(46_000)), "reminder").is_null());
}

/// Seed 394: a server that never had to remind, since the other always did first, waited for a status that it was never told.
#[test]
fn who_is_polled_and_not_known_is_polled_anew_whoever_reminds() {
    let mut a = watching();
    let mut compares = numbered(2, &json!({}));
    let nobody = json!({"as_of": [1, 2], "count": 0, "digest": "0".repeat(32)});
    compares["content"]["rollcall"]["reminder"] = json!({"id": "1-2", "mine": nobody});
    a.foreign(START.plus(10_000), "b.example", &json!([compares]));
    let said: Vec<String> = sent(&mut a, START.plus(16_000)).iter().flat_map(lines).collect();
    assert!(said.contains(&format!("poll {ALICE}")), "{said:?}");
}

/// Seed 23586: a status that a later transaction overtook was passed over, and missed until the long watchdog expired.
#[test]
fn a_status_that_a_later_transaction_overtook_is_found_soon() {
    let mut a = watching();
    let late = json!({"push": [{"user_id": ALICE, "presence": "online", "last_active_ago": 1}]});
    a.foreign(START.plus(10_000), "b.example", &json!([numbered(3, &json!({}))]));
    a.foreign(START.plus(10_001), "b.example", &json!([numbered(2, &late)]));
    a.tick(START.plus(40_000));
    assert!(extension(&sent(&mut a, START.plus(46_000)), "reminder").is_object());
}

/// Seed 35816: a peer that did not know yet what it had told answered by a reminder that did not say. Nobody asked any further.
#[test]
fn who_is_doubted_and_cannot_tell_why_says_what_it_holds() {
    let mut a = watching();
    let alice = json!({"push": [{"user_id": ALICE, "presence": "online", "last_active_ago": 1}]});
    a.foreign(START.plus(10_000), "b.example", &json!([numbered(2, &alice)]));
    let mut doubts = numbered(3, &json!({}));
    doubts["content"]["rollcall"]["answers"] = json!(["1-9"]);
    doubts["content"]["rollcall"]["reminder"] = json!({"id": "1-3"});
    a.foreign(START.plus(20_000), "b.example", &json!([doubts]));
    assert_eq!(extension(&sent(&mut a, START.plus(26_000)), "have")["as_of"], json!([1, 3]));
}

/// One comparison makes what differs doubtful, the next one makes it unknown: on a busy link that was a long watchdog later.
#[test]
fn who_learns_that_something_differs_compares_once_more() {
    let mut a = watching();
    let alice = json!({"push": [{"user_id": ALICE, "presence": "online", "last_active_ago": 1}]});
    a.foreign(START.plus(10_000), "b.example", &json!([numbered(2, &alice)]));
    let mut differs = numbered(3, &json!({}));
    differs["content"]["rollcall"]["differ"] = (0..=255).collect();
    a.tick(START.plus(19_000));
    a.foreign(START.plus(20_000), "b.example", &json!([differs]));
    let asked = answered(&mut a, START.plus(26_000), Outcome::Delivered);
    assert_eq!(asked.iter().flat_map(lines).collect::<Vec<_>>(), [format!("poll {ALICE}")]);
    a.foreign(START.plus(40_000), "b.example", &json!([numbered(4, &json!({}))]));
    a.tick(START.plus(50_000));
    assert_eq!(extension(&sent(&mut a, START.plus(56_000)), "reminder")["yours"]["count"], 1);
}

/// Comparisons may be wanted faster than a peer answers, whose workers are away: that does not shorten the time that it gets.
#[test]
fn who_is_compared_with_often_is_given_up_no_sooner() {
    let mut a = watching();
    let alice = json!({"push": [{"user_id": ALICE, "presence": "online", "last_active_ago": 1}]});
    let status = Status { presence: Presence::Online, ..Status::default() };
    let watched = |n: u64| user(&format!("@u{n}:a.example"));
    for n in 1..=6 {
        let serial = Serial { epoch: 1, counter: 1 };
        let change = LinkSignal::Change { user: watched(n), status: status.clone(), serial, promise: true };
        late(&mut a, START.plus(7_000), change);
    }
    a.foreign(START.plus(10_000), "b.example", &json!([numbered(2, &alice)]));
    let mut reminded = Vec::new();
    let given_up = (11..).find(|second| {
        let now = START.plus(second * 1_000);
        if second % 20 == 0 && second / 20 <= 6 {
            late(&mut a, now, LinkSignal::Hide { user: watched(second / 20), serial: Serial { epoch: 1, counter: 2 } });
        }
        let sent = answered(&mut a, now, Outcome::Delivered);
        reminded.extend(extension(&sent, "reminder").is_object().then_some(*second));
        a.list_of(now, JOHN)[0].2 == Presence::Unknown
    });
    assert!(reminded.len() > 3, "{reminded:?}");
    assert!(given_up.is_some_and(|at| at >= reminded[0] + 3 * 60), "{reminded:?}, {given_up:?}");
}
