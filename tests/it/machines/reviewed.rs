//! What readers of the code found, each told once with nothing around it.

use rollcall::config::ListAccept;
use rollcall::core::Settings;
use rollcall::core::rows::user_key;
use rollcall::core::signal::Outcome;
use rollcall::model::Presence;
use rollcall::store::RowKind;
use serde_json::{Value, json};

use super::{ALICE, BOB, watched_by};
use crate::support::pair::{START, Server, defaults, lines, pass, said, settings, user};

fn presence(fields: &Value) -> Value {
    json!({"edu_type": "m.presence", "content": fields})
}

fn edu(kind: &str, observed: &str, observer: &str) -> Value {
    json!({"edu_type": kind, "content": {"observed_user": observed, "observer_user": observer}})
}

/// A server stopped telling of somebody without a word, which the protocol of permission allows: whoever relied on it is told
/// `unknown` once the servers have compared, and they do not compare for ever.
#[test]
fn who_is_promised_no_longer_becomes_unknown_and_the_servers_agree() {
    let (mut now, mut a, mut b) = watched_by(Server::new("a.example"), Server::new("b.example"));
    a.set(now, ALICE, Presence::Online, None);
    pass(&mut now, 10, &mut a, &mut b);
    a.settings.accept = ListAccept::Ask;
    a.restart(now);
    b.session(now, BOB, Some(86_400_000));
    pass(&mut now, 5 * 1_800, &mut a, &mut b);
    assert_eq!(b.sees(now, BOB, ALICE).unwrap().status.presence, Presence::Unknown);
    let seen = said(&pass(&mut now, 3_600, &mut a, &mut b));
    assert!(seen.len() <= 12, "{seen:#?}");
}

/// A peer numbered what it said once, and does no longer.
#[test]
fn a_refusal_without_a_number_counts_after_a_yes_with_one() {
    let mut a = Server::with("a.example", defaults());
    a.list(START, ALICE, &[BOB], &[]);
    let numbered = presence(&json!({"push": [], "rollcall": {"v": 1, "seq": [1, 1], "promise_ms": 3_600_000}}));
    a.foreign(START, "b.example", &json!([numbered, edu("m.presence_accept", BOB, ALICE)]));
    assert_eq!(a.list_of(START, ALICE), [(BOB.to_owned(), true, Presence::Unknown)]);
    a.foreign(START.plus(1), "b.example", &json!([edu("m.presence_deny", BOB, ALICE)]));
    assert_eq!(a.list_of(START.plus(1), ALICE), []);
}

/// The same peer: what bears no number is an answer whenever it comes.
#[test]
fn a_yes_without_a_number_counts_after_what_had_one() {
    let mut a = Server::with("a.example", defaults());
    a.list(START, ALICE, &["@joan:b.example"], &[]);
    let numbered = presence(&json!({"push": [], "rollcall": {"v": 1, "seq": [1, 1], "promise_ms": 3_600_000}}));
    a.foreign(START, "b.example", &json!([numbered, edu("m.presence_accept", "@joan:b.example", ALICE)]));
    a.list(START.plus(1), ALICE, &[BOB], &[]);
    a.foreign(START.plus(2), "b.example", &json!([edu("m.presence_accept", BOB, ALICE)]));
    assert!(a.list_of(START.plus(2), ALICE).contains(&(BOB.to_owned(), true, Presence::Unknown)));
}

/// A peer that subscribes and does not speak rollcall: what it says when it is reminded is all that it can answer.
#[test]
fn a_peer_without_digests_that_answers_reminders_keeps_its_promises() {
    let mut a = Server::new("a.example");
    a.set(START, ALICE, Presence::Online, None);
    a.foreign(START, "b.example", &json!([presence(&json!({"push": [], "poll": [ALICE]}))]));
    let push = json!({"push": [{"user_id": BOB, "presence": "online", "last_active_ago": 1}]});
    for minute in 1..4 * 60 {
        let now = START.plus(minute * 60_000);
        a.tick(now);
        let sent: Vec<_> = std::iter::from_fn(|| a.sent()).collect();
        for (transaction, _) in sent {
            a.receipt(now, &transaction, Outcome::Delivered);
            a.foreign(now.plus(1), "b.example", &json!([presence(&push)]));
        }
    }
    let now = START.plus(4 * 3_600_000);
    a.set(now, ALICE, Presence::Unavailable, None);
    let mut told = Vec::new();
    for seconds in [6, 12, 18] {
        a.tick(now.plus(seconds * 1_000));
        let sent: Vec<_> = std::iter::from_fn(|| a.sent()).collect();
        for (transaction, body) in sent {
            a.receipt(now.plus(seconds * 1_000), &transaction, Outcome::Delivered);
            told.extend(lines(&body));
        }
    }
    assert!(told.contains(&format!("push {ALICE} unavailable")), "{told:?}");
}

/// Somebody with a domain full of servers asks and polls from each.
#[test]
fn strangers_polls_are_forgotten_with_their_questions() {
    let ask = Settings { accept: ListAccept::Ask, ..settings() };
    let mut a = Server::with("a.example", ask);
    a.set(START, ALICE, Presence::Online, None);
    let mut size_after = |servers: std::ops::Range<u64>| {
        for n in servers {
            let (peer, poll) = (format!("s{n}.example"), presence(&json!({"push": [], "poll": [ALICE]})));
            let invite = edu("m.presence_invite", ALICE, &format!("@mallory:{peer}"));
            a.foreign(START.plus(n), &peer, &json!([invite, poll]));
        }
        a.rows[&user_key(RowKind::Relations, &user(ALICE))].len()
    };
    let (before, after) = (size_after(1_000..1_200), size_after(1_200..1_600));
    assert!(after <= before + 200, "{before} bytes, then {after}");
}
