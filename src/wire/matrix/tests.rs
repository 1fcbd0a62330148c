use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::core::digest::BUCKETS;
use crate::core::signal::{Extension, Have, Inbound, Permission, PermissionKind, Reminder, Summary};
use crate::model::{Presence, Serial, ServerName, Status, Timestamp, UserId};
use crate::wire::reject::class;

use super::*;

const NOW: Timestamp = Timestamp(1_795_400_000_000);

fn server(name: &str) -> ServerName {
    ServerName::parse(name).unwrap()
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

/// What `b.example` receives from `a.example`.
fn receive(edus: &[Value]) -> (Inbound, Vec<crate::wire::reject::Reject>) {
    let raw: Vec<Box<RawValue>> = edus.iter().map(|edu| RawValue::from_string(edu.to_string()).unwrap()).collect();
    parse_edus(&server("a.example"), &server("b.example"), &raw, NOW, NOW)
}

fn edus_of(body: &RawValue) -> Vec<Value> {
    let mut body: Value = serde_json::from_str(body.get()).unwrap();
    serde_json::from_value(body["edus"].take()).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "every caller makes one for it")]
fn presence(content: Value) -> Value {
    json!({"edu_type": "m.presence", "content": content})
}

#[test]
fn todays_servers_are_understood() {
    let (inbound, rejects) = receive(&[
        json!({"edu_type": "m.typing", "content": 5}),
        presence(json!({"push": [
            {"user_id": "@x:a.example", "presence": "org.matrix.msc3026.busy", "currently_active": true, "new": {}},
            {"user_id": "@y:a.example", "presence": "unavailable", "last_active_ago": -3.5, "status_msg": null},
        ]})),
    ]);
    assert_eq!(rejects, []);
    let active =
        |presence, currently_active| Status { presence, last_active: NOW, currently_active, ..Status::default() };
    // An age of less than nothing is none.
    let expected = [
        (user("@x:a.example"), active(Presence::Busy, true)),
        (user("@y:a.example"), active(Presence::Unavailable, false)),
    ];
    assert_eq!(inbound.push, expected);
    assert_eq!(inbound.extension, None);
}

#[test]
fn a_bad_entry_costs_itself_alone_and_says_why() {
    let good = json!({"user_id": "@x:a.example", "presence": "online", "last_active_ago": 5000});
    let bad = [
        (
            json!({"user_id": "@x:c.example", "presence": "online"}),
            r#""user_id": @x:c.example belongs to c.example, not to a.example"#,
        ),
        (
            json!({"user_id": "@x:a.example", "presence": "unknown"}),
            r#""presence" must be one of online, unavailable, busy, offline, not "unknown""#,
        ),
        (json!({"user_id": "@x:a.example"}), r#""presence" is missing"#),
        (json!({"user_id": 5, "presence": "online"}), r#""user_id" must be text, not 5"#),
        (
            json!({"user_id": "x", "presence": "online"}),
            r#""user_id": "x" is not a user ID: leading sigil is incorrect or missing"#,
        ),
        (json!(["@x:a.example", "online"]), r#"it must be an object, not ["@x:a.example","online"]"#),
    ];
    for (entry, reason) in bad {
        let (inbound, rejects) = receive(&[presence(json!({"push": [entry, good], "poll": ["@z:b.example"]}))]);
        assert_eq!(rejects.len(), 1, "{entry}");
        assert_eq!(rejects[0].reason, format!("edus[0].content.push[0]: {reason}"));
        assert_eq!(rejects[0].body, entry.to_string().as_bytes());
        assert_eq!(inbound.push.len(), 1);
        assert_eq!(inbound.push[0].1.last_active, NOW.minus(5000));
        assert_eq!(inbound.poll, [user("@z:b.example")]);
    }
}

#[test]
fn only_our_users_are_polled() {
    let content = json!({"push": null, "poll": ["@z:b.example", "@z:a.example", 5], "unpoll": "@z:b.example"});
    let (inbound, rejects) = receive(&[presence(content)]);
    assert_eq!((inbound.poll, inbound.unpoll), (vec![user("@z:b.example")], vec![]));
    let reasons: Vec<_> = rejects.iter().map(|reject| reject.reason.as_str()).collect();
    let expected = [
        r#"edus[0].content.poll[1]: "poll": @z:a.example belongs to a.example, not to b.example"#,
        r#"edus[0].content.poll[2]: "poll" must be a user ID, not 5"#,
        r#"edus[0].content.unpoll: must be an array, not "@z:b.example""#,
    ];
    assert_eq!(reasons, expected);
    assert_eq!(rejects[0].class, class::FOREIGN_USER);
}

#[test]
fn permissions_come_from_the_side_that_may_give_them() {
    let edu = |kind: &str, observed: &str, observer: &str| json!({"edu_type": format!("m.presence_{kind}"), "content": {"observed_user": observed, "observer_user": observer}});
    let (ours, theirs) = ("@z:b.example", "@x:a.example");
    let good = [edu("invite", ours, theirs), edu("accept", theirs, ours), edu("deny", theirs, ours)];
    let (inbound, rejects) = receive(&good);
    assert_eq!((inbound.permissions.len(), rejects), (3, vec![]));
    assert_eq!(inbound.permissions[2].kind, PermissionKind::Deny);
    let (inbound, rejects) =
        receive(&[edu("invite", theirs, ours), edu("accept", ours, theirs), edu("deny", ours, theirs)]);
    assert_eq!((inbound.permissions, rejects.len()), (vec![], 3));
    assert!(rejects.iter().all(|reject| reject.class == class::FOREIGN_USER));
}

#[test]
fn the_last_push_of_a_user_counts() {
    let push = |presence: &str| json!({"user_id": "@x:a.example", "presence": presence, "last_active_ago": 0});
    let (inbound, _) = receive(&[
        presence(json!({"push": [push("online"), push("offline")]})),
        presence(json!({"push": [push("busy")]})),
    ]);
    assert_eq!(inbound.push.len(), 1);
    assert_eq!(inbound.push[0].1.presence, Presence::Busy);
}

#[test]
fn the_extension_counts_on_the_first_edu_in_version_1() {
    let ext = |value: Value| presence(json!({"push": [], "rollcall": value}));
    let (inbound, rejects) = receive(&[ext(json!({"v": 1, "seq": [7, 8], "promise_ms": 9, "full": true}))]);
    let expected =
        Extension { seq: Serial { epoch: 7, counter: 8 }, promise_ms: Some(9), full: true, ..Extension::default() };
    assert_eq!((inbound.extension, rejects), (Some(expected), vec![]));
    let (inbound, rejects) = receive(&[presence(json!({"push": []})), ext(json!({"v": 1, "seq": [7, 8]}))]);
    assert_eq!((inbound.extension, rejects), (None, vec![]));
    let (inbound, rejects) = receive(&[ext(json!({"v": 2, "seq": "later"}))]);
    assert_eq!((inbound.extension, rejects), (None, vec![]));
    let (inbound, rejects) = receive(&[ext(json!({"v": 1, "seq": [7]}))]);
    assert_eq!(inbound.extension, None);
    assert_eq!(rejects[0].reason, r#"edus[0].content.rollcall: "seq" must be two whole numbers, not [7]"#);
}

#[test]
fn a_flood_of_bad_entries_is_counted_not_kept() {
    let (_, rejects) = receive(&[presence(json!({"push": vec![1; 1_000]}))]);
    assert_eq!(rejects.len(), MAX_REJECTS);
    assert!(rejects[MAX_REJECTS - 1].reason.ends_with("(and 900 more bad parts of the same transaction)"));
}

#[test]
fn an_object_is_put_aside_once_however_much_of_it_is_wrong() {
    let object = json!({"v": 1, "seq": [7, 8], "query": vec!["x"; 1_000], "pad": "x".repeat(1 << 20)});
    let (inbound, rejects) = receive(&[presence(json!({"push": [], "rollcall": object}))]);
    assert_eq!(inbound.extension.map(|extension| extension.seq.counter), Some(8));
    let [reject] = rejects.as_slice() else { panic!("{} of them", rejects.len()) };
    assert!(
        reject
            .reason
            .ends_with(r#""query": "x" is not a user ID: leading sigil is incorrect or missing (and 999 more in it)"#)
    );
}

#[test]
fn who_was_never_active_is_not_said_to_have_been() {
    let push = |age: Value| json!({"user_id": "@x:a.example", "presence": "online", "last_active_ago": age});
    let day = 24 * 3_600_000;
    for (age, last_active) in [
        (Value::Null, Timestamp(0)),
        // By a clock of theirs, and at a time on the way, that are not ours.
        (NOW.0.into(), Timestamp(0)),
        ((NOW.0 - day).into(), Timestamp(0)),
        ((NOW.0 + day).into(), Timestamp(0)),
        (0.into(), NOW),
        ((NOW.0 - 400 * day).into(), Timestamp(400 * day)),
    ] {
        let (inbound, rejects) = receive(&[presence(json!({"push": [push(age.clone())]}))]);
        assert_eq!((inbound.push[0].1.last_active, rejects), (last_active, vec![]), "{age}");
    }
}

#[test]
fn long_messages_are_cut_and_odd_device_types_dropped() {
    let entry = json!({"user_id": "@x:a.example", "presence": "online", "status_msg": "é".repeat(600),
        "rollcall.device_types": ["", "mobile", "x".repeat(33)]});
    let (inbound, rejects) = receive(&[presence(json!({"push": [entry]}))]);
    assert_eq!(rejects, []);
    let status = &inbound.push[0].1;
    assert_eq!(status.status_msg.as_deref(), Some("é".repeat(512).as_str()));
    assert_eq!(status.device_types, ["mobile".into()].into());
}

#[test]
fn a_transaction_reads_as_the_design_has_it() {
    let status = Status {
        presence: Presence::Busy,
        status_msg: Some("cup\"cakes".into()),
        last_active: NOW.minus(5000),
        currently_active: true,
        device_types: ["mobile".into()].into(),
    };
    let invite = Permission {
        kind: PermissionKind::Invite,
        observed: user("@alice:b.example"),
        observer: user("@john:a.example"),
    };
    let content = TransactionContent {
        pushes: vec![(user("@john:a.example"), status)],
        polls: vec![user("@alice:b.example")],
        permissions: vec![invite],
        seq: Serial { epoch: 1_795_400_000, counter: 17 },
        promise_ms: 3_600_000,
        plain: true,
        ..TransactionContent::default()
    };
    let body = build_transaction(&server("a.example"), NOW, &content);
    let expected = concat!(
        r#"{"edus":[{"content":{"poll":["@alice:b.example"],"push":["#,
        r#"{"currently_active":true,"last_active_ago":5000,"presence":"online","rollcall.device_types":["mobile"],"#,
        r#""status_msg":"cup\"cakes","user_id":"@john:a.example"}],"#,
        r#""rollcall":{"promise_ms":3600000,"seq":[1795400000,17],"v":1}},"edu_type":"m.presence"},"#,
        r#"{"content":{"observed_user":"@alice:b.example","observer_user":"@john:a.example"},"edu_type":"m.presence_invite"}],"#,
        r#""origin":"a.example","origin_server_ts":1795400000000,"pdus":[]}"#,
    );
    assert_eq!(body.get(), expected);
}

#[test]
fn an_empty_transaction_still_says_who_we_are() {
    let body = build_transaction(&server("a.example"), NOW, &TransactionContent::default());
    let expected = [presence(json!({"push": [], "rollcall": {"v": 1, "seq": [0, 0], "promise_ms": 0}}))];
    assert_eq!(edus_of(&body), expected);
}

#[test]
fn edus_stay_within_their_bounds() {
    let entry = |n: usize, message: usize| {
        let status_msg = Some("m".repeat(message).into());
        (user(&format!("@u{n}:a.example")), Status { presence: Presence::Online, status_msg, ..Status::default() })
    };
    let ids = |n: usize| (0..n).map(|n| user(&format!("@a-rather-long-localpart-{n}:b.example"))).collect::<Vec<_>>();
    for (pushes, message, polls, unpolls) in
        [(1_000, 0, 0, 0), (1_000, 1_024, 0, 0), (300, 700, 4_000, 3_000), (0, 0, 3_000, 1)]
    {
        let content = TransactionContent {
            pushes: (0..pushes).map(|n| entry(n, message)).collect(),
            polls: ids(polls),
            unpolls: ids(unpolls),
            ..TransactionContent::default()
        };
        let body = build_transaction(&server("a.example"), NOW, &content);
        let edus = edus_of(&body);
        for edu in &edus {
            let content = &edu["content"];
            assert!(edu.to_string().len() <= MAX_EDU_BYTES);
            assert!(content["push"].as_array().unwrap().len() <= MAX_EDU_ENTRIES);
            for list in ["poll", "unpoll"] {
                assert!(content.get(list).is_none_or(|list| !list.as_array().unwrap().is_empty()));
            }
        }
        let (inbound, rejects) = receive(&edus);
        assert_eq!(rejects, []);
        assert_eq!((inbound.push, inbound.poll, inbound.unpoll), (content.pushes, content.polls, content.unpolls));
    }
}

fn statuses() -> impl Strategy<Value = Status> {
    let presences = [Presence::Offline, Presence::Unavailable, Presence::Online, Presence::Busy];
    let message = proptest::option::of(any::<String>().prop_map(|text| truncate(&text)));
    let types = proptest::collection::btree_set("[a-z\"\\\\\\x01]{1,8}".prop_map(Into::into), 0..=8);
    let moments = proptest::option::of(400 * 24 * 3_600_000..=NOW.0).prop_map(Option::unwrap_or_default);
    (proptest::sample::select(presences.to_vec()), message, moments, any::<bool>(), types).prop_map(
        |(presence, status_msg, ms, currently_active, device_types)| Status {
            presence,
            status_msg,
            last_active: Timestamp(ms),
            currently_active,
            device_types,
        },
    )
}

/// What an extension may say of reminders.
fn words() -> impl Strategy<Value = Extension> {
    let serial = || any::<(u64, u64)>().prop_map(|(epoch, counter)| Serial { epoch, counter });
    let summary = (serial(), any::<u64>(), any::<u128>());
    let summary = proptest::option::of(summary.prop_map(|(as_of, count, digest)| Summary { as_of, count, digest }));
    let reminder = ("[0-9]{1,20}-[0-9]{1,20}", summary.clone(), summary);
    let reminder = reminder.prop_map(|(id, mine, yours)| Reminder { id: id.into(), mine, yours });
    let buckets = proptest::collection::vec(any::<u64>(), BUCKETS);
    let have = (serial(), buckets).prop_map(|(as_of, buckets)| Have { as_of, buckets });
    let answers = proptest::collection::vec("[0-9]{1,20}".prop_map(Into::into), 0..=8);
    let differ = proptest::collection::btree_set(any::<u8>(), 0..=256);
    (proptest::option::of(reminder), answers, proptest::option::of(have), differ).prop_map(
        |(reminder, answers, have, differ)| {
            let differ = differ.into_iter().collect();
            Extension { reminder, answers, have, differ, ..Extension::default() }
        },
    )
}

fn truncate(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(1024)].into()
}

proptest! {
    #[test]
    fn what_is_built_is_read_the_same(
        statuses in proptest::collection::vec(statuses(), 0..40),
        polls in 0..20_usize,
        unpolls in 0..20_usize,
        words in words(),
        counter: u64,
    ) {
        let ids = |n: usize| (0..n).map(|n| user(&format!("@p{n}:b.example"))).collect::<Vec<_>>();
        let content = TransactionContent {
            pushes: statuses.into_iter().enumerate().map(|(n, status)| (user(&format!("@u{n}:a.example")), status)).collect(),
            polls: ids(polls),
            unpolls: ids(unpolls),
            seq: Serial { epoch: 3, counter },
            promise_ms: 60_000,
            reminder: words.reminder.clone(),
            answers: words.answers.clone(),
            have: words.have.clone(),
            differ: words.differ.clone(),
            ..TransactionContent::default()
        };
        let body = build_transaction(&server("a.example"), NOW, &content);
        let sorted: Value = serde_json::from_str(body.get()).expect("JSON");
        prop_assert_eq!(sorted.to_string(), body.get(), "canonical: sorted, and without spaces");
        let (inbound, rejects) = receive(&edus_of(&body));
        prop_assert_eq!(rejects, []);
        prop_assert_eq!(inbound.push, content.pushes);
        prop_assert_eq!(inbound.poll, content.polls);
        prop_assert_eq!(inbound.unpoll, content.unpolls);
        prop_assert_eq!(inbound.extension, Some(Extension { seq: content.seq, promise_ms: Some(60_000), ..words }));
    }

    #[test]
    fn an_entry_is_never_larger_than_estimated(status in statuses()) {
        let user = user("@some\"one:a.example");
        let size = |content: &TransactionContent| build_transaction(&server("a.example"), NOW, content).get().len();
        let empty = size(&TransactionContent::default());
        let content = TransactionContent { pushes: vec![(user.clone(), status.clone())], ..TransactionContent::default() };
        let real = size(&content) - empty;
        let estimate = entry_size(&user, &status);
        prop_assert!(real < estimate, "{} is estimated, {} is real", estimate, real);
        prop_assert!(estimate < real + 64, "a wild guess: {} for {}", estimate, real);
    }
}
