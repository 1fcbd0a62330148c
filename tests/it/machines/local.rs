//! Lists and permission within one server: the same, without leaving it.

use rollcall::config::ListAccept;
use rollcall::core::Settings;
use rollcall::core::rows::user_key;
use rollcall::model::Presence;
use rollcall::store::RowKind;

use super::{ALICE, HOUR};
use crate::support::pair::{START, Server, defaults, user};

const AMY: &str = "@amy:a.example";

fn accepting(accept: ListAccept) -> Server {
    Server::with("a.example", Settings { accept, ..defaults() })
}

/// Amy lists Alice, who lists Amy.
fn friends() -> Server {
    let mut a = accepting(ListAccept::Reciprocal);
    a.list(START, ALICE, &[AMY], &[]);
    a.list(START, AMY, &[ALICE], &[]);
    a
}

#[test]
fn inviting_a_local_user_works_and_is_accepted_at_once_where_policy_says_so() {
    let mut a = accepting(ListAccept::Everyone);
    a.set(START, ALICE, Presence::Online, None);
    a.list(START, AMY, &[ALICE], &[]);
    assert_eq!(a.list_of(START, AMY), [(ALICE.to_owned(), true, Presence::Online)]);
    assert!(a.sent().is_none(), "nothing leaves the server");
}

#[test]
fn whoever_is_listed_in_turn_is_accepted_at_once() {
    let mut a = accepting(ListAccept::Reciprocal);
    a.set(START, ALICE, Presence::Online, None);
    a.list(START, AMY, &[ALICE], &[]);
    assert_eq!(a.list_of(START, AMY), [(ALICE.to_owned(), false, Presence::Unknown)]);
    assert_eq!(a.sees(START, AMY, ALICE), None);
    assert_eq!(a.questions(ALICE), [AMY]);
    a.list(START, ALICE, &[AMY], &[]);
    assert_eq!(a.list_of(START, AMY), [(ALICE.to_owned(), true, Presence::Online)]);
    assert_eq!(a.list_of(START, ALICE), [(AMY.to_owned(), true, Presence::Unknown)], "never there, nothing to tell");
    assert!(a.questions(ALICE).is_empty());
}

/// Alice's word is committed before Amy's entry hears of it, and whoever reads between the two sees all of it or nothing.
#[test]
fn an_entry_is_accepted_for_as_long_as_its_status_shows() {
    let mut a = accepting(ListAccept::Ask);
    let entry = user_key(RowKind::Relations, &user(AMY));
    a.set(START, ALICE, Presence::Online, None);
    a.list(START, AMY, &[ALICE], &[]);
    let asked = a.rows[&entry].clone();
    a.answer(START, ALICE, AMY, true);
    let accepted = a.rows.insert(entry.clone(), asked).unwrap();
    assert_eq!(a.list_of(START, AMY), [(ALICE.to_owned(), true, Presence::Online)], "allowed");
    a.answer(START.plus(1), ALICE, AMY, false);
    a.rows.insert(entry, accepted);
    assert_eq!(a.list_of(START, AMY), [(ALICE.to_owned(), false, Presence::Unknown)], "revoked");
}

#[test]
fn ones_own_status_is_stored_and_readable_and_others_are_refused() {
    let mut a = accepting(ListAccept::Ask);
    a.set(START, ALICE, Presence::Busy, Some("cupcakes"));
    let own = a.sees(START, ALICE, ALICE).unwrap().status;
    assert_eq!((own.presence, own.status_msg.as_deref()), (Presence::Busy, Some("cupcakes")));
    assert_eq!(a.sees(START, AMY, ALICE), None);
    a.answer(START, ALICE, AMY, true);
    assert_eq!(a.sees(START, AMY, ALICE).unwrap().status.presence, Presence::Busy, "an allowed observer, unlisted");
    a.answer(START.plus(1), ALICE, AMY, false);
    assert_eq!(a.sees(START, AMY, ALICE), None);
}

#[test]
fn a_change_reaches_each_watching_local_user_once() {
    let mut a = friends();
    a.list(START, "@ann:a.example", &[ALICE], &[]);
    a.list(START, ALICE, &["@ann:a.example"], &[]);
    a.stream(START, AMY, "one");
    a.stream(START, "@ann:a.example", "two");
    a.tick(START.plus(1_000));
    a.updated();
    a.set(START.plus(2_000), ALICE, Presence::Online, None);
    a.tick(START.plus(3_000));
    assert_eq!(a.updated(), ["@amy:a.example: @alice:a.example online", "@ann:a.example: @alice:a.example online"]);
}

#[test]
fn dropping_a_local_entry_removes_it_and_ends_the_watching() {
    let mut a = friends();
    a.stream(START, AMY, "one");
    a.set(START, ALICE, Presence::Online, None);
    a.tick(START.plus(1_000));
    a.updated();
    a.list(START.plus(1_000), AMY, &[], &[ALICE]);
    a.tick(START.plus(2_000));
    assert_eq!(a.updated(), ["@amy:a.example: @alice:a.example unknown"], "clients forget her");
    assert!(a.list_of(START, AMY).is_empty());
    a.set(START.plus(2_000), ALICE, Presence::Busy, None);
    a.tick(START.plus(4_000));
    assert_eq!(a.updated(), [""; 0]);
    assert!(!a.rows.keys().any(|key| key.kind == RowKind::Observer));
}

#[test]
fn dropping_ends_what_was_allowed() {
    let mut a = accepting(ListAccept::Ask);
    a.set(START, ALICE, Presence::Online, None);
    a.list(START, AMY, &[ALICE], &[]);
    a.answer(START, ALICE, AMY, true);
    assert_eq!(a.list_of(START, AMY), [(ALICE.to_owned(), true, Presence::Online)]);
    a.list(START.plus(1), AMY, &[], &[ALICE]);
    assert_eq!(a.sees(START, AMY, ALICE), None);
    a.list(START.plus(2), AMY, &[ALICE], &[]);
    assert_eq!(a.list_of(START, AMY), [(ALICE.to_owned(), false, Presence::Unknown)], "asked anew");
}

#[test]
fn revoking_tells_clients_that_nothing_is_known() {
    let mut a = friends();
    a.stream(START, AMY, "one");
    a.set(START, ALICE, Presence::Online, None);
    a.tick(START.plus(1_000));
    a.updated();
    a.set(START.plus(1_000), ALICE, Presence::Busy, None);
    a.answer(START.plus(1_001), ALICE, AMY, false);
    a.tick(START.plus(3_000));
    assert_eq!(a.updated(), ["@amy:a.example: @alice:a.example unknown"], "busy was not told any more");
    assert!(a.list_of(START, AMY).is_empty());
    a.set(START.plus(3_000), ALICE, Presence::Online, None);
    a.tick(START.plus(5_000));
    assert_eq!(a.updated(), [""; 0]);
}

#[test]
fn watching_survives_a_restart() {
    let mut a = friends();
    a.stream(START, AMY, "one");
    a.tick(START.plus(1_000));
    a.restart(START.plus(1_000));
    a.updated();
    a.set(START.plus(2_000), ALICE, Presence::Busy, None);
    a.tick(START.plus(3_000));
    assert_eq!(a.updated(), ["@amy:a.example: @alice:a.example busy"]);
}

/// E1 holds at home, too: without a session nobody is told.
#[test]
fn without_a_session_nobody_watches() {
    let mut a = friends();
    a.set(START, ALICE, Presence::Online, None);
    assert!(!a.rows.keys().any(|key| key.kind == RowKind::Observer));
    a.session(START, AMY, HOUR);
    assert!(a.rows.keys().any(|key| key.kind == RowKind::Observer));
    a.session(START.plus(1), AMY, None);
    a.tick(START.plus(1_000));
    a.tick(START.plus(40_000));
    assert!(!a.rows.keys().any(|key| key.kind == RowKind::Observer));
}
