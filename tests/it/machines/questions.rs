//! Questions of peers' users that wait for an answer (S1): bounded, and withdrawn when nobody repeats them.

use rollcall::config::ListAccept;
use rollcall::core::signal::{Inbound, PeerSignal, Permission, PermissionKind};
use rollcall::store::RowKind;
use rollcall::wire::envelope::Job;
use serde_json::json;

use super::ALICE;
use super::permission::{permission, policy};
use crate::support::pair::{START, Server, server, user};

/// A server that still wants to know asks again once a day at least.
#[test]
fn a_question_that_nobody_repeats_is_withdrawn_after_a_week() {
    let mut a = Server::with("a.example", policy(ListAccept::Ask));
    let day = 24 * 3_600_000;
    let ask = |a: &mut Server, now, observer| {
        a.foreign(now, "c.example", &json!([permission("invite", ALICE, observer)]));
    };
    ask(&mut a, START, "@x:c.example");
    ask(&mut a, START, "@y:c.example");
    ask(&mut a, START.plus(3 * day), "@y:c.example");
    a.job(START.plus(7 * day - 1), Job::Compact);
    assert_eq!(a.questions(ALICE), ["@x:c.example", "@y:c.example"]);
    a.job(START.plus(7 * day), Job::Compact);
    assert_eq!(a.questions(ALICE), ["@y:c.example"]);
    assert_eq!(a.rows.keys().filter(|key| key.kind == RowKind::Permit).count(), 1);
    ask(&mut a, START.plus(8 * day), "@x:c.example");
    assert_eq!(a.questions(ALICE), ["@x:c.example", "@y:c.example"], "asked anew");
}

#[test]
fn a_hundred_questions_a_user_the_oldest_makes_room() {
    let mut a = Server::with("a.example", policy(ListAccept::Ask));
    for n in 0..103 {
        let invite = permission("invite", ALICE, &format!("@asker{n:03}:c.example"));
        a.foreign(START.plus(n), "c.example", &json!([invite]));
    }
    let questions = a.questions(ALICE);
    assert_eq!((questions.len(), questions[0].as_str()), (100, "@asker003:c.example"));
}

#[test]
fn a_thousand_questions_a_peer_the_oldest_is_taken_back() {
    let mut a = Server::with("a.example", policy(ListAccept::Ask));
    let whom = |n: u64| format!("@user{n:04}:a.example");
    for n in 0..1_003_u64 {
        let permission =
            Permission { kind: PermissionKind::Invite, observed: user(&whom(n)), observer: user("@x:c.example") };
        let inbound = Inbound { permissions: vec![permission], ..Inbound::default() };
        a.peer(START.plus(n), &server("c.example"), PeerSignal::Transaction(Box::new(inbound)));
    }
    assert_eq!((0..4).map(|n| a.questions(&whom(n)).len()).collect::<Vec<_>>(), [0, 0, 0, 1]);
    let permits = a.rows.keys().filter(|key| key.kind == RowKind::Permit).count();
    assert_eq!(permits, 1_000);
}
