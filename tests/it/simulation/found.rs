//! What the simulation found, each told once more with nothing around it.

use rollcall::model::Presence;
use serde_json::json;

use crate::support::pair::{START, Server, defaults, lines};

const JOHN: &str = "@john:a.example";
const ALICE: &str = "@alice:b.example";

/// A transaction of b.example with this number.
fn numbered(counter: u64, lists: &serde_json::Value) -> serde_json::Value {
    let mut content = json!({"push": [], "rollcall": {"v": 1, "seq": [1, counter], "promise_ms": 3_600_000}});
    content.as_object_mut().unwrap().extend(lists.as_object().cloned().unwrap());
    json!({"edu_type": "m.presence", "content": content})
}

fn pushes(server: &mut Server, now: rollcall::model::Timestamp) -> Vec<String> {
    server.tick(now);
    let sent: Vec<_> = std::iter::from_fn(|| server.sent()).collect();
    sent.iter().flat_map(|(_, body)| lines(body)).filter(|line| line.starts_with("push")).collect()
}

/// Seed 2: one process' queue was longer than the other's.
#[test]
fn a_poll_that_a_later_transaction_overtook_is_answered() {
    let mut a = Server::new("a.example");
    a.set(START, JOHN, Presence::Online, None);
    a.foreign(START, "b.example", &json!([numbered(2, &json!({}))]));
    a.foreign(START, "b.example", &json!([numbered(1, &json!({"poll": [JOHN]}))]));
    assert_eq!(pushes(&mut a, START.plus(6_000)), [format!("push {JOHN} online")]);
}

#[test]
fn an_unpoll_that_a_later_poll_overtook_ends_nothing() {
    let mut a = Server::new("a.example");
    a.set(START, JOHN, Presence::Online, None);
    a.foreign(START, "b.example", &json!([numbered(2, &json!({"poll": [JOHN]}))]));
    a.foreign(START, "b.example", &json!([numbered(1, &json!({"unpoll": [JOHN]}))]));
    assert_eq!(pushes(&mut a, START.plus(6_000)), [format!("push {JOHN} online")]);
}

#[test]
fn an_answer_that_a_later_transaction_overtook_counts_and_a_no_that_a_later_yes_overtook_does_not() {
    let answer = |kind: &str| json!({"edu_type": kind, "content": {"observed_user": ALICE, "observer_user": JOHN}});
    let mut a = Server::with("a.example", defaults());
    a.list(START, JOHN, &[ALICE], &[]);
    a.foreign(START, "b.example", &json!([numbered(3, &json!({}))]));
    a.foreign(START, "b.example", &json!([numbered(2, &json!({})), answer("m.presence_accept")]));
    a.foreign(START, "b.example", &json!([numbered(1, &json!({})), answer("m.presence_deny")]));
    assert_eq!(a.list_of(START, JOHN), [(ALICE.to_owned(), true, Presence::Unknown)]);
}

#[test]
fn whoever_spoke_while_the_clock_was_ahead_is_heard_once_it_came_back() {
    let mut a = Server::new("a.example");
    a.set(START.plus(600_000), JOHN, Presence::Busy, None);
    let stamp = a.stamp(START);
    let signal = rollcall::core::signal::UserSignal::Status {
        device: crate::support::pair::device("PHONE"),
        presence: Presence::Online,
        status_msg: rollcall::core::signal::MessageEdit::Keep,
        stamp,
    };
    // A moment passes between the edge and the machine.
    a.tell(START.plus(20), JOHN, signal);
    assert_eq!(a.sees(START, JOHN, JOHN).unwrap().status.presence, Presence::Online);
}
