//! Who may see whom (S1, S2): nobody gets a status that they may not see.

use rollcall::config::ListAccept;
use rollcall::core::Settings;
use rollcall::core::signal::{Extension, Inbound, LinkSignal, Multicast, PeerSignal, UserSignal};
use rollcall::model::{Presence, Serial, Status, Timestamp};
use rollcall::wire::envelope::Job;
use serde_json::{Value, json};

use super::{ALICE, BOB, HOUR, friends, known, pushes};
use crate::support::pair::{START, Server, defaults, lines, pass, said, server, settings, user};

pub(super) fn policy(accept: ListAccept) -> Settings {
    Settings { accept, symmetric: false, ..settings() }
}

/// Bob, with a session, lists Alice, whose server has this policy.
fn asked(settings: Settings) -> (Timestamp, Server, Server) {
    let (mut a, mut b) = (Server::with("a.example", settings), Server::new("b.example"));
    let mut now = START;
    a.set(now, ALICE, Presence::Online, None);
    b.list(now, BOB, &[ALICE], &[]);
    b.session(now, BOB, HOUR);
    pass(&mut now, 30, &mut a, &mut b);
    (now, a, b)
}

/// The friends, with Bob watching.
fn seen_by_bob() -> (Timestamp, Server, Server) {
    let (mut now, mut a, mut b) = friends();
    b.session(now, BOB, HOUR);
    a.set(now, ALICE, Presence::Online, Some("for friends"));
    pass(&mut now, 20, &mut a, &mut b);
    assert_eq!(b.list_of(now, BOB), [(ALICE.to_owned(), true, Presence::Online)]);
    (now, a, b)
}

pub(super) fn permission(kind: &str, observed: &str, observer: &str) -> Value {
    let content = json!({"observed_user": observed, "observer_user": observer});
    json!({"edu_type": format!("m.presence_{kind}"), "content": content})
}

fn poll(list: &str, whom: &[&str]) -> Value {
    json!([{"edu_type": "m.presence", "content": {"push": [], list: whom}}])
}

#[test]
fn who_lets_everybody_answers_at_once() {
    let (now, a, b) = asked(policy(ListAccept::Everyone));
    assert_eq!(b.list_of(now, BOB), [(ALICE.to_owned(), true, Presence::Online)]);
    assert!(a.questions(ALICE).is_empty());
}

#[test]
fn who_wants_to_be_asked_says_nothing_before() {
    for accept in [ListAccept::Ask, ListAccept::Reciprocal] {
        let (mut now, mut a, mut b) = asked(policy(accept));
        assert_eq!(b.list_of(now, BOB), [(ALICE.to_owned(), false, Presence::Unknown)]);
        assert_eq!(a.questions(ALICE), [BOB]);
        let seen = b.sees(now, BOB, ALICE).map(|known| known.status);
        assert!(seen.is_none_or(|status| status == Status::default()), "nothing");
        a.answer(now, ALICE, BOB, true);
        pass(&mut now, 20, &mut a, &mut b);
        assert_eq!(b.list_of(now, BOB), [(ALICE.to_owned(), true, Presence::Online)]);
    }
}

#[test]
fn listing_who_asks_is_a_yes_where_policy_says_so() {
    let (mut now, mut a, mut b) = asked(policy(ListAccept::Reciprocal));
    a.list(now, ALICE, &[BOB], &[]);
    pass(&mut now, 20, &mut a, &mut b);
    assert_eq!(b.list_of(now, BOB), [(ALICE.to_owned(), true, Presence::Online)]);
    let (mut now, mut a, mut b) = asked(policy(ListAccept::Ask));
    a.list(now, ALICE, &[BOB], &[]);
    pass(&mut now, 20, &mut a, &mut b);
    assert_eq!(b.list_of(now, BOB), [(ALICE.to_owned(), false, Presence::Unknown)]);
    assert_eq!(a.questions(ALICE), [BOB], "who wants to be asked answers in person");
}

#[test]
fn revoking_takes_effect_at_once_and_tells_the_peer() {
    let (mut now, mut a, mut b) = seen_by_bob();
    a.released.clear();
    a.set(now, ALICE, Presence::Busy, Some("not for Bob"));
    a.answer(now, ALICE, BOB, false);
    assert_eq!(a.machines.totals().owed, 0);
    assert!(!a.released.is_empty(), "what waited is let go");
    let seen = said(&pass(&mut now, 20, &mut a, &mut b));
    assert_eq!(seen[0], "a.example: deny @bob:b.example to see @alice:a.example", "{seen:?}");
    assert!(seen.iter().all(|line| !line.contains("push @alice")), "{seen:?}");
    assert!(b.list_of(now, BOB).is_empty());
    assert_eq!(b.sees(now, BOB, ALICE), None);
    assert_eq!(known(&b, ALICE).status, Status::default(), "forgotten");
    b.foreign(now, "a.example", &json!([]));
    for presence in [Presence::Online, Presence::Unavailable, Presence::Busy] {
        a.set(now, ALICE, presence, None);
        a.restart(now);
        assert!(pass(&mut now, 30, &mut a, &mut b).is_empty());
    }
}

#[test]
fn a_peer_that_polls_all_the_same_hears_nothing() {
    let (mut now, mut a, mut b) = seen_by_bob();
    a.answer(now, ALICE, BOB, false);
    pass(&mut now, 30, &mut a, &mut b);
    a.foreign(now, "b.example", &poll("poll", &[ALICE]));
    a.set(now, ALICE, Presence::Unavailable, None);
    assert!(pass(&mut now, 30, &mut a, &mut b).is_empty());
    a.answer(now, ALICE, "@ben:b.example", true);
    let seen = said(&pass(&mut now, 12, &mut a, &mut b));
    let expected =
        ["a.example: push @alice:a.example unavailable", "a.example: accept @ben:b.example to see @alice:a.example"];
    assert_eq!(seen[..2], expected, "somebody else there may: the poll stands");
}

/// Alice's refusal stands against the list that would share, and the newer word wins.
#[test]
fn a_refusal_outdoes_the_list_and_a_later_edit_outdoes_the_refusal() {
    let (mut a, mut b) = (Server::with("a.example", defaults()), Server::with("b.example", defaults()));
    let mut now = START;
    a.list(now, ALICE, &[BOB], &[]);
    a.answer(now.plus(1), ALICE, BOB, false);
    a.set(now.plus(2), ALICE, Presence::Online, None);
    let seen = said(&pass(&mut now, 12, &mut a, &mut b));
    assert!(seen.iter().all(|line| !line.contains("push")), "{seen:?}");
    a.foreign(now, "b.example", &poll("poll", &[ALICE]));
    assert!(pass(&mut now, 12, &mut a, &mut b).is_empty());
    now = now.plus(30 * 24 * 3_600_000);
    a.machines.handle_users_job(now, Job::Compact);
    a.restart(now);
    a.set(now, ALICE, Presence::Unavailable, None);
    assert!(pass(&mut now, 12, &mut a, &mut b).iter().all(|(_, body)| pushes(body).is_empty()), "a no does not lapse");
    a.list(now, ALICE, &[BOB], &[]);
    let seen = said(&pass(&mut now, 12, &mut a, &mut b));
    assert!(seen.contains(&"a.example: push @alice:a.example unavailable".into()), "{seen:?}");
}

#[test]
fn of_two_words_at_one_moment_the_refusal_counts() {
    for order in [[true, false], [false, true]] {
        let mut a = Server::with("a.example", policy(ListAccept::Ask));
        let stamp = a.stamp(START);
        for allow in order {
            let answer = UserSignal::Answer { observer: user("@amy:a.example"), allow, stamp: stamp.clone() };
            a.tell(START, ALICE, answer);
        }
        assert_eq!(a.sees(START, "@amy:a.example", ALICE), None, "{order:?}");
    }
}

/// Somebody else at the peer may see Alice. Showing her to them alone is our duty, as theirs is for ours.
#[test]
fn whoever_was_not_accepted_is_not_shown_what_another_is() {
    let (mut now, mut a, mut b) = seen_by_bob();
    let carol = "@carol:b.example";
    b.list(now, carol, &[ALICE], &[]);
    b.stream(now, carol, "edge");
    pass(&mut now, 20, &mut a, &mut b);
    a.set(now, ALICE, Presence::Busy, None);
    pass(&mut now, 20, &mut a, &mut b);
    assert_eq!(b.list_of(now, BOB), [(ALICE.to_owned(), true, Presence::Busy)]);
    assert_eq!(b.list_of(now, carol), [(ALICE.to_owned(), false, Presence::Unknown)]);
    assert_eq!(b.sees(now, carol, ALICE), None);
    assert_eq!(b.updated(), [""; 0]);
}

/// Bob was revoked while he had no session, and Carol keeps Alice polled.
#[test]
fn a_no_counts_for_somebody_who_is_not_there() {
    let (mut now, mut a, mut b) = seen_by_bob();
    let carol = "@carol:b.example";
    a.answer(now, ALICE, carol, true);
    b.list(now, carol, &[ALICE], &[]);
    b.session(now, carol, HOUR);
    b.session(now, BOB, None);
    pass(&mut now, 60, &mut a, &mut b);
    a.set(now, ALICE, Presence::Online, None);
    pass(&mut now, 12, &mut a, &mut b);
    assert_eq!(b.list_of(now, carol), [(ALICE.to_owned(), true, Presence::Online)]);
    a.answer(now, ALICE, BOB, false);
    pass(&mut now, 12, &mut a, &mut b);
    assert_eq!(b.sees(now, BOB, ALICE), None);
    assert!(b.list_of(now, BOB).is_empty());
    assert_eq!(b.list_of(now, carol), [(ALICE.to_owned(), true, Presence::Online)], "and for nobody else");
}

#[test]
fn an_answer_without_promise_is_taken_back_too() {
    let mut a = Server::with("a.example", policy(ListAccept::Ask));
    let now = START;
    a.set(now, ALICE, Presence::Online, None);
    a.answer(now, ALICE, BOB, true);
    let extension = Extension { query: vec![user(ALICE)], ..Extension::default() };
    let inbound = Inbound { extension: Some(extension), ..Inbound::default() };
    a.peer(now, &server("b.example"), PeerSignal::Transaction(Box::new(inbound)));
    a.answer(now.plus(1), ALICE, BOB, false);
    a.tick(now.plus(6_000));
    let (_, body) = a.sent().unwrap();
    assert_eq!(lines(&body), ["deny @bob:b.example to see @alice:a.example"]);
}

/// Who was silent for long does not become a server that knows no better.
#[test]
fn a_peer_that_once_knew_of_permission_always_does() {
    let (mut now, mut a, mut b) = asked(policy(ListAccept::Ask));
    a.answer(now, ALICE, "@carol:b.example", true);
    b.list(now, "@carol:b.example", &[ALICE], &[]);
    b.session(now, "@carol:b.example", Some(30 * 24 * 3_600_000));
    b.session(now, BOB, Some(30 * 24 * 3_600_000));
    pass(&mut now, 30, &mut a, &mut b);
    now = now.plus(7 * 24 * 3_600_000);
    let push = json!([{"user_id": ALICE, "presence": "busy", "last_active_ago": 0}]);
    b.foreign(now, "a.example", &json!([{"edu_type": "m.presence", "content": {"push": push}}]));
    assert_eq!(b.list_of(now, "@carol:b.example"), [(ALICE.to_owned(), true, Presence::Busy)]);
    assert_eq!(b.list_of(now, BOB), [(ALICE.to_owned(), false, Presence::Unknown)]);
}

#[test]
fn strangers_learn_nothing_not_even_who_exists() {
    let mut a = Server::with("a.example", policy(ListAccept::Reciprocal));
    let mut now = START;
    a.set(now, ALICE, Presence::Online, None);
    let (rows, ghost) = (a.rows.keys().cloned().collect::<Vec<_>>(), "@ghost:a.example");
    for whom in [ALICE, ghost] {
        a.foreign(now, "c.example", &poll("poll", &[whom]));
        a.foreign(now, "c.example", &poll("unpoll", &[whom]));
        a.foreign(now, "c.example", &json!([permission("accept", "@x:c.example", whom)]));
        a.foreign(now, "c.example", &json!([permission("deny", "@x:c.example", whom)]));
    }
    now = now.plus(60_000);
    a.tick(now);
    assert!(a.sent().is_none());
    a.machines.handle_peers_job(now, Job::Compact);
    a.tick(now);
    assert_eq!(a.rows.keys().cloned().collect::<Vec<_>>(), rows, "and leave nothing behind");
    assert_eq!(a.sees(now, "@amy:a.example", ALICE), a.sees(now, "@amy:a.example", ghost));
    for whom in [ALICE, ghost] {
        a.foreign(now, "c.example", &json!([permission("invite", whom, "@x:c.example")]));
        assert_eq!(a.questions(whom), ["@x:c.example"]);
    }
    now = now.plus(60_000);
    a.tick(now);
    assert!(a.sent().is_none(), "no answer tells them apart");
}

#[test]
fn a_yes_that_nobody_asked_for_changes_nothing() {
    let (now, _, mut b) = asked(policy(ListAccept::Ask));
    b.foreign(now, "a.example", &json!([permission("accept", "@amy:a.example", BOB)]));
    assert_eq!(b.list_of(now, BOB), [(ALICE.to_owned(), false, Presence::Unknown)]);
    assert_eq!(b.sees(now, BOB, "@amy:a.example"), None);
}

#[test]
fn a_change_that_comes_late_does_not_undo_what_was_revoked() {
    let (mut now, mut a, mut b) = seen_by_bob();
    let again = |server: &mut Server, now| {
        let status = Status { presence: Presence::Online, ..Status::default() };
        let signal =
            LinkSignal::Change { user: user(ALICE), status, serial: Serial { epoch: 1, counter: 8 }, promise: true };
        let again = Multicast { to: vec![self::server("b.example")], at: now, trace: None, signal };
        server.machines.handle_batch(now, 1_000_000, vec![again]);
    };
    a.answer(now, ALICE, BOB, false);
    pass(&mut now, 20, &mut a, &mut b);
    again(&mut a, now);
    assert!(pass(&mut now, 20, &mut a, &mut b).is_empty());
    a.restart(now);
    again(&mut a, now);
    assert!(pass(&mut now, 20, &mut a, &mut b).is_empty(), "nor after a restart");
}

#[test]
fn a_stricter_policy_counts_from_the_restart_on() {
    let (mut now, mut a, mut b) = asked(policy(ListAccept::Everyone));
    a.settings = policy(ListAccept::Ask);
    a.restart(now);
    a.set(now, ALICE, Presence::Busy, None);
    let told = said(&pass(&mut now, 40, &mut a, &mut b));
    assert!(!told.iter().any(|line| line.contains("push")), "{told:?}");
    a.settings = policy(ListAccept::Everyone);
    a.restart(now);
    assert_eq!(said(&pass(&mut now, 20, &mut a, &mut b)), ["a.example: push @alice:a.example busy"]);
}

/// Today's homeservers answer no questions: there, what they choose to push is shown to who lists the user.
#[test]
fn a_plain_peers_pushes_are_shown_to_who_asks_until_it_turns_out_to_know_better() {
    let mut a = Server::with("a.example", defaults());
    let (now, dan) = (START, "@dan:c.example");
    a.list(now, ALICE, &[dan], &[]);
    a.stream(now, ALICE, "edge");
    let push = json!([{"user_id": dan, "presence": "online", "last_active_ago": 0}]);
    let pushed = json!([{"edu_type": "m.presence", "content": {"push": push}}]);
    a.foreign(now, "c.example", &pushed);
    assert_eq!(a.list_of(now, ALICE), [(dan.to_owned(), false, Presence::Online)]);
    a.tick(now.plus(1_000));
    assert_eq!(a.updated(), ["@alice:a.example: @dan:c.example online"]);
    a.foreign(now.plus(1_000), "c.example", &poll("poll", &[ALICE]));
    assert_eq!(a.list_of(now, ALICE), [(dan.to_owned(), false, Presence::Unknown)]);
    a.tick(now.plus(2_000));
    assert_eq!(a.updated(), ["@alice:a.example: @dan:c.example unknown"]);
    a.foreign(now.plus(2_000), "c.example", &pushed);
    a.tick(now.plus(3_000));
    assert_eq!(a.updated(), [""; 0]);
    assert_eq!(a.sees(now, ALICE, dan), None);
}

/// An unpoll ends the pushes for users with whom nothing else is shared, too, and for those whom only the list promised.
#[test]
fn an_unpoll_ends_all_pushes_also_those_that_the_list_promised() {
    let (mut now, mut a, mut b) = seen_by_bob();
    b.session(now, BOB, None);
    assert_eq!(said(&pass(&mut now, 60, &mut a, &mut b)), ["b.example: unpoll @alice:a.example"]);
    a.set(now, ALICE, Presence::Busy, None);
    a.restart(now);
    a.set(now.plus(1), ALICE, Presence::Online, None);
    assert!(pass(&mut now, 60, &mut a, &mut b).is_empty());
    a.set(now, ALICE, Presence::Online, None);
    b.session(now, BOB, HOUR);
    let seen = said(&pass(&mut now, 20, &mut a, &mut b));
    assert_eq!(seen[..2], ["b.example: poll @alice:a.example", "a.example: push @alice:a.example online"]);
}

#[test]
fn a_refusal_that_arrives_before_an_older_edit_of_the_list_stands_all_the_same() {
    let mut a = Server::with("a.example", defaults());
    let (older, newer) = (a.stamp(START), a.stamp(START.plus(1)));
    a.set(START, ALICE, Presence::Online, None);
    a.tell(START.plus(2), ALICE, UserSignal::Answer { observer: user(BOB), allow: false, stamp: newer });
    a.tell(START.plus(2), ALICE, UserSignal::List { add: vec![user(BOB)], remove: vec![], stamp: older });
    a.foreign(START.plus(2), "b.example", &poll("poll", &[ALICE]));
    a.tick(START.plus(8_000));
    while let Some((transaction, body)) = a.sent() {
        assert!(pushes(&body).is_empty(), "{body}");
        a.receipt(START.plus(8_000), &transaction, rollcall::core::signal::Outcome::Delivered);
        a.tick(START.plus(16_000));
    }
    assert_eq!(a.list_of(START, ALICE), [(BOB.to_owned(), false, Presence::Unknown)], "asked all the same");
}

/// A peer that drowns its own users' questions in others takes nothing away from those who were answered.
#[test]
fn a_question_that_made_room_ends_nothing_that_was_allowed() {
    let mut a = Server::with("a.example", policy(ListAccept::Ask));
    a.set(START, ALICE, Presence::Online, None);
    a.foreign(START, "b.example", &json!([permission("invite", ALICE, BOB)]));
    a.answer(START, ALICE, BOB, true);
    let off = |observed| UserSignal::Invited {
        observer: user(observed),
        on: false,
        serial: Serial { epoch: u64::from(u32::MAX), counter: 1 },
    };
    a.tell(START, ALICE, off(BOB));
    a.foreign(START, "b.example", &poll("poll", &[ALICE]));
    a.tick(START.plus(6_000));
    let (_, body) = a.sent().unwrap();
    assert_eq!(lines(&body)[0], "push @alice:a.example online");
}
