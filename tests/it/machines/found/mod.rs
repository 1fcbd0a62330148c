//! What the simulation found, each told once more with nothing around it.

mod compared;
mod hidden;

use rollcall::core::Settings;
use rollcall::core::signal::{LinkSignal, Multicast, Outcome};
use rollcall::model::{Presence, Serial, Status, Timestamp};
use serde_json::{Value, json};

use super::watched;
use crate::support::pair::{START, Server, defaults, lines, pass, said, server, settings, user};

const JOHN: &str = "@john:a.example";
const ALICE: &str = "@alice:b.example";

/// A transaction of b.example with this number.
fn numbered(counter: u64, lists: &Value) -> Value {
    let mut content = json!({"push": [], "rollcall": {"v": 1, "seq": [1, counter], "promise_ms": 3_600_000}});
    content.as_object_mut().unwrap().extend(lists.as_object().cloned().unwrap());
    json!({"edu_type": "m.presence", "content": content})
}

fn pushes(server: &mut Server, now: Timestamp) -> Vec<String> {
    sent(server, now).iter().flat_map(lines).filter(|line| line.starts_with("push")).collect()
}

/// What has left by then, unanswered.
fn sent(server: &mut Server, now: Timestamp) -> Vec<Value> {
    server.tick(now);
    std::iter::from_fn(|| server.sent()).map(|(_, body)| body).collect()
}

/// What has left by then, and what became of it.
fn answered(server: &mut Server, now: Timestamp, outcome: Outcome) -> Vec<Value> {
    server.tick(now);
    let sent: Vec<_> = std::iter::from_fn(|| server.sent()).collect();
    sent.iter().for_each(|(transaction, _)| server.receipt(now, transaction, outcome));
    sent.into_iter().map(|(_, body)| body).collect()
}

/// A message between machines, which comes late.
fn late(to: &mut Server, now: Timestamp, signal: LinkSignal) {
    let signal = Multicast { to: vec![server("b.example")], at: now, trace: None, signal };
    to.machines.handle_batch(now, 1_000, vec![signal]);
}

fn edu(kind: &str, observed: &str, observer: &str) -> Value {
    json!({"edu_type": kind, "content": {"observed_user": observed, "observer_user": observer}})
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

/// Seed 231: the unpoll made the link forget what it had told.
#[test]
fn a_change_that_comes_again_after_an_unpoll_is_not_told_again() {
    let mut a = Server::new("a.example");
    a.set(START, JOHN, Presence::Online, None);
    a.foreign(START, "b.example", &json!([numbered(1, &json!({"poll": [JOHN]}))]));
    a.set(START, JOHN, Presence::Busy, None);
    assert_eq!(answered(&mut a, START.plus(6_000), Outcome::Delivered).len(), 1);
    a.foreign(START.plus(7_000), "b.example", &json!([numbered(2, &json!({"unpoll": [JOHN]}))]));
    let serial = Serial { epoch: 1, counter: 1 };
    late(
        &mut a,
        START.plus(8_000),
        LinkSignal::Change { user: user(JOHN), status: Status::default(), serial, promise: true },
    );
    assert_eq!(pushes(&mut a, START.plus(20_000)), [""; 0]);
}

/// Seed 383: a session ended and began anew before the peer heard of it, which said something meanwhile.
#[test]
fn what_a_peer_says_between_two_sessions_is_kept_if_it_was_not_unpolled() {
    let mut a = Server::with("a.example", defaults());
    let push = |n, message: &str| {
        let push =
            json!({"push": [{"user_id": ALICE, "presence": "online", "status_msg": message, "last_active_ago": 1}]});
        json!([numbered(n, &push)])
    };
    a.list(START, JOHN, &[ALICE], &[]);
    a.foreign(START, "b.example", &json!([numbered(1, &json!({})), edu("m.presence_accept", ALICE, JOHN)]));
    a.session(START, JOHN, Some(3_600_000));
    answered(&mut a, START.plus(6_000), Outcome::Delivered);
    a.foreign(START.plus(7_000), "b.example", &push(2, "before"));
    let serial = |counter| Serial { epoch: 2, counter };
    let (observer, target) = (user(JOHN), user(ALICE));
    let watch = |on, serial| LinkSignal::Watch {
        observer: observer.clone(),
        target: target.clone(),
        on,
        accepted: true,
        serial,
    };
    late(&mut a, START.plus(8_000), watch(false, serial(1)));
    a.foreign(START.plus(8_000), "b.example", &push(3, "between"));
    late(&mut a, START.plus(8_000), watch(true, serial(2)));
    a.tick(START.plus(9_000));
    let shown = a.sees(START.plus(9_000), JOHN, ALICE).and_then(|known| known.status.status_msg);
    assert_eq!(shown.as_deref(), Some("between"));
}

/// Seed 1256: whether the peer took the unpoll was not known, and then somebody came to watch again.
#[test]
fn who_comes_back_after_an_unpoll_that_got_no_answer_is_polled_for() {
    let mut a = Server::with("a.example", defaults());
    a.list(START, JOHN, &[ALICE], &[]);
    a.foreign(START, "b.example", &json!([numbered(1, &json!({})), edu("m.presence_accept", ALICE, JOHN)]));
    a.session(START, JOHN, Some(60_000));
    answered(&mut a, START.plus(6_000), Outcome::Delivered);
    a.session(START.plus(7_000), JOHN, None);
    a.tick(START.plus(40_000));
    let unpolls: Vec<String> = answered(&mut a, START.plus(46_000), Outcome::Expired).iter().flat_map(lines).collect();
    assert!(unpolls.contains(&format!("unpoll {ALICE}")), "{unpolls:?}");
    a.session(START.plus(46_100), JOHN, Some(60_000));
    a.tick(START.plus(46_200));
    let polls: Vec<String> = sent(&mut a, START.plus(120_000)).iter().flat_map(lines).collect();
    assert!(polls.contains(&format!("poll {ALICE}")), "{polls:?}");
}

/// Seed 1400: the link forgot an answer as soon as it was delivered.
#[test]
fn a_yes_that_comes_again_after_a_no_was_delivered_is_not_said_again() {
    let mut a = Server::new("a.example");
    a.set(START, JOHN, Presence::Online, None);
    a.answer(START, JOHN, ALICE, true);
    answered(&mut a, START.plus(6_000), Outcome::Delivered);
    a.answer(START.plus(7_000), JOHN, ALICE, false);
    answered(&mut a, START.plus(13_000), Outcome::Delivered);
    for restarted in [false, true] {
        if restarted {
            a.restart(START.plus(14_000));
        }
        let serial = Serial { epoch: 1, counter: 1 };
        let yes = LinkSignal::Decide { observed: user(JOHN), observer: user(ALICE), allow: true, serial };
        late(&mut a, START.plus(15_000), yes);
        let said: Vec<String> = sent(&mut a, START.plus(30_000)).iter().flat_map(lines).collect();
        assert!(!said.iter().any(|line| line.starts_with("accept")), "{said:?}");
    }
}

/// Seed 801: the yes, given without having been asked, reached the peer before the question was there, and counted for nothing.
#[test]
fn a_question_that_crosses_its_answer_is_answered_again() {
    let mut a = Server::with("a.example", settings());
    a.set(START, JOHN, Presence::Online, None);
    a.answer(START, JOHN, ALICE, true);
    a.tick(START.plus(6_000));
    let (first, _) = a.sent().expect("the yes");
    a.foreign(START.plus(6_100), "b.example", &json!([numbered(1, &json!({})), edu("m.presence_invite", JOHN, ALICE)]));
    a.receipt(START.plus(6_200), &first, Outcome::Delivered);
    let said: Vec<String> = sent(&mut a, START.plus(20_000)).iter().flat_map(lines).collect();
    assert!(said.iter().any(|line| line.starts_with("accept")), "{said:?}");
}

/// Seed 1380: a restart took the older answer that was under way for the one that waited.
#[test]
fn a_no_that_waits_behind_a_yes_under_way_outlives_a_restart() {
    let mut a = Server::with("a.example", settings());
    a.set(START, JOHN, Presence::Online, None);
    a.answer(START, JOHN, ALICE, true);
    a.tick(START.plus(6_000));
    let (yes, _) = a.sent().expect("the yes");
    a.answer(START.plus(7_000), JOHN, ALICE, false);
    a.restart(START.plus(8_000));
    a.receipt(START.plus(9_000), &yes, Outcome::Delivered);
    let said: Vec<String> = sent(&mut a, START.plus(20_000)).iter().flat_map(lines).collect();
    assert!(said.iter().any(|line| line.starts_with("deny")), "{said:?}");
}

/// Seed 712: a server that was restored from a backup doubted what the other held. Its own reminder had crossed the other's, and an
/// unpoll was on its way: nothing was compared.
#[test]
fn what_the_peer_doubts_is_said_even_while_an_unpoll_is_on_its_way() {
    let mut a = Server::with("a.example", Settings { short_ms: 60_000, ..defaults() });
    let push = |user: &str| json!({"push": [{"user_id": user, "presence": "online", "last_active_ago": 1}]});
    a.list(START, JOHN, &[ALICE], &[]);
    a.foreign(START, "b.example", &json!([numbered(1, &json!({})), edu("m.presence_accept", ALICE, JOHN)]));
    a.session(START, JOHN, Some(3_600_000));
    answered(&mut a, START.plus(6_000), Outcome::Delivered);
    a.foreign(START.plus(7_000), "b.example", &json!([numbered(2, &push(ALICE))]));
    a.tick(START.plus(70_000));
    let ours = extension(&answered(&mut a, START.plus(80_000), Outcome::Delivered), "reminder");
    let mut crossing = numbered(3, &json!({}));
    crossing["content"]["rollcall"]["reminder"] = json!({"id": "1-3"});
    a.foreign(START.plus(81_000), "b.example", &json!([crossing]));
    // It tells of somebody whom nobody here wants, and who is to be unpolled.
    let mut doubt = numbered(4, &push("@bob:b.example"));
    let nobody = json!({"as_of": [1, 4], "count": 0, "digest": "0".repeat(32)});
    doubt["content"]["rollcall"]["answers"] = json!([ours["id"]]);
    doubt["content"]["rollcall"]["reminder"] = json!({"id": "1-4", "mine": nobody});
    a.foreign(START.plus(82_000), "b.example", &json!([doubt]));
    assert_eq!(extension(&sent(&mut a, START.plus(90_000)), "have")["as_of"], json!([1, 4]));
}

/// Seed 1954: a poll may have arrived or not, and a restart forgot that this was not known.
#[test]
fn whom_a_peer_may_have_been_asked_for_is_unpolled_after_a_restart() {
    let mut a = Server::with("a.example", Settings { linger_ms: 0, ..defaults() });
    a.list(START, JOHN, &[ALICE], &[]);
    a.foreign(START, "b.example", &json!([numbered(1, &json!({})), edu("m.presence_accept", ALICE, JOHN)]));
    a.session(START, JOHN, Some(3_600_000));
    let said: Vec<String> = answered(&mut a, START.plus(6_000), Outcome::Expired).iter().flat_map(lines).collect();
    assert!(said.contains(&format!("poll {ALICE}")), "{said:?}");
    a.restart(START.plus(6_100));
    a.session(START.plus(6_200), JOHN, None);
    let said: Vec<String> = sent(&mut a, START.plus(120_000)).iter().flat_map(lines).collect();
    assert!(said.contains(&format!("unpoll {ALICE}")), "{said:?}");
}

/// The first such part of the extension in what was sent.
fn extension(bodies: &[Value], part: &str) -> Value {
    let edus = bodies.iter().flat_map(|body| body["edus"].as_array().unwrap());
    edus.map(|edu| edu["content"]["rollcall"][part].clone()).find(|part| !part.is_null()).unwrap_or_default()
}

/// Seed 1009: two servers' long watchdogs had the same phase, and one of them always came first. The other had no need to remind.
#[test]
fn a_peer_that_only_ever_answers_keeps_its_promises() {
    let mut a = Server::new("a.example");
    a.set(START, JOHN, Presence::Online, None);
    a.foreign(START, "b.example", &json!([numbered(1, &json!({"poll": [JOHN]}))]));
    let mut answers = 0;
    for minute in 1..4 * 60 {
        let now = START.plus(minute * 60_000);
        for body in answered(&mut a, now, Outcome::Delivered) {
            let Some(id) = body["edus"][0]["content"]["rollcall"]["reminder"]["id"].as_str() else { continue };
            answers += 1;
            let mut answer = numbered(1 + answers, &json!({}));
            answer["content"]["rollcall"]["answers"] = json!([id]);
            a.foreign(now, "b.example", &json!([answer]));
        }
    }
    assert!(answers >= 4, "{answers}");
    a.set(START.plus(14_400_000), JOHN, Presence::Busy, None);
    assert_eq!(pushes(&mut a, START.plus(14_410_000)), [format!("push {JOHN} busy")]);
}

/// Seeds 2852 and 4404: a server was restored from a backup of before it had ever spoken to the other.
#[test]
fn who_has_forgotten_a_peer_that_reminds_it_takes_its_polls_back() {
    let (mut now, mut a, mut b) = watched();
    b.rows.clear();
    b.restart(now);
    let seen = said(&pass(&mut now, 4_000, &mut a, &mut b));
    assert!(seen.contains(&"b.example: unpoll @alice:a.example".to_owned()), "{seen:?}");
    let quiet = said(&pass(&mut now, 8_000, &mut a, &mut b));
    assert_eq!(quiet, [""; 0], "nobody is promised, nobody is reminded");
}

/// Seed 4873: the answer to an earlier question came once more, from a queue whose consumer had hung.
#[test]
fn an_old_answer_that_comes_again_does_not_end_a_new_question() {
    let says = |n, kind| json!([numbered(n, &json!({})), edu(kind, ALICE, JOHN)]);
    let (yes, no) = ("m.presence_accept", "m.presence_deny");
    let mut a = Server::with("a.example", defaults());
    a.list(START, JOHN, &[ALICE], &[]);
    a.foreign(START, "b.example", &says(1, no));
    for (ms, on) in [(1, false), (2, true)] {
        let (add, remove): (&[&str], &[&str]) = if on { (&[ALICE], &[]) } else { (&[], &[ALICE]) };
        a.list(START.plus(ms), JOHN, add, remove);
    }
    a.foreign(START.plus(3), "b.example", &says(1, no));
    assert_eq!(a.list_of(START.plus(3), JOHN), [(ALICE.to_owned(), false, Presence::Unknown)]);
    a.foreign(START.plus(4), "b.example", &says(2, yes));
    assert_eq!(a.list_of(START.plus(4), JOHN), [(ALICE.to_owned(), true, Presence::Unknown)]);
}

/// Seed 91443: who had taken somebody off the list, was refused meanwhile, and asked anew, took an old yes for the answer.
#[test]
fn an_old_yes_that_comes_again_is_none_to_a_new_question() {
    let mut a = Server::with("a.example", defaults());
    let yes = json!([numbered(1, &json!({})), edu("m.presence_accept", ALICE, JOHN)]);
    a.list(START, JOHN, &[ALICE], &[]);
    answered(&mut a, START.plus(6_000), Outcome::Delivered);
    a.foreign(START.plus(7_000), "b.example", &yes);
    assert_eq!(a.list_of(START.plus(7_000), JOHN), [(ALICE.to_owned(), true, Presence::Unknown)]);
    a.list(START.plus(8_000), JOHN, &[], &[ALICE]);
    answered(&mut a, START.plus(14_000), Outcome::Delivered);
    a.list(START.plus(20_000), JOHN, &[ALICE], &[]);
    a.foreign(START.plus(20_001), "b.example", &yes);
    assert_eq!(a.list_of(START.plus(20_001), JOHN), [(ALICE.to_owned(), false, Presence::Unknown)]);
}
