//! Whatever comes, the parsers answer, and every member is accounted for.

use proptest::prelude::*;
use rollcall::model::{ServerName, Timestamp};
use rollcall::wire::contract::{Source, parse, parse_internal};
use rollcall::wire::matrix::parse_edus;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{NOW, context};

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        proptest::sample::select(vec!["online", "start", "@x:a.example", "@y:b.example", "b.example", "failed"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(names(), inner, 0..4).prop_map(Value::from_iter),
        ]
    })
}

fn names() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "v",
        "id",
        "ts",
        "user_id",
        "device_id",
        "presence",
        "status_msg",
        "idle_ms",
        "device_type",
        "action",
        "edge",
        "add",
        "observer",
        "allow",
        "origin",
        "txn_id",
        "edus",
        "content",
        "push",
        "poll",
        "unpoll",
        "rollcall",
        "seq",
        "edu_type",
    ])
    .prop_map(str::to_owned)
}

fn events() -> impl Strategy<Value = Value> {
    let kinds = proptest::sample::select(vec![
        "client.status",
        "client.idle",
        "client.device",
        "client.activity",
        "client.poll",
        "client.list",
        "client.answer",
        "federation.transaction",
        "federation.heard",
        "federation.receipt",
    ]);
    let changes = proptest::collection::hash_map(names(), values(), 0..3);
    (kinds, changes).prop_map(|(kind, changes)| {
        let mut event = json!({
            "v": 1, "type": kind, "id": "1", "ts": 1, "user_id": "@x:a.example", "device_id": "D", "presence": "online",
            "idle_ms": 1, "device_type": "web", "action": "stop", "observer": "@y:b.example", "allow": true,
            "origin": "b.example", "txn_id": "1", "origin_server_ts": 1, "edus": [], "destination": "b.example",
            "outcome": "failed",
        });
        event.as_object_mut().unwrap().extend(changes);
        event
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let parsed = parse(&body, &context(Source::Any));
        let empty = body.trim_ascii() == b"[]";
        prop_assert!(empty || parsed.signals.len() + parsed.rejects.len() > 0);
        prop_assert!(parse_internal(&body, NOW).is_err());
    }

    #[test]
    fn every_member_becomes_a_signal_or_a_reject(events in proptest::collection::vec(events(), 1..6)) {
        // EDUs are rejected beside their transaction: they have a test of their own.
        let edus = |event: &Value| event["type"] == "federation.transaction" && event["edus"] != json!([]);
        let events: Vec<_> = events.into_iter().filter(|event| !edus(event)).collect();
        let parsed = parse(Value::from(events.clone()).to_string().as_bytes(), &context(Source::Any));
        prop_assert_eq!(parsed.signals.len() + parsed.rejects.len(), events.len());
        let alone = events.iter().map(|event| parse(event.to_string().as_bytes(), &context(Source::Any)));
        let signals: Vec<_> = alone.flat_map(|parsed| parsed.signals).collect();
        prop_assert_eq!(parsed.signals, signals, "together is the same as one by one");
    }

    #[test]
    fn no_edu_panics(contents in proptest::collection::vec(values(), 0..4), push in proptest::collection::vec(values(), 0..4)) {
        let mut edus: Vec<_> = contents.into_iter().map(|content| json!({"edu_type": "m.presence", "content": content})).collect();
        let pushed = push.len();
        edus.push(json!({"edu_type": "m.presence", "content": {"push": push}}));
        let raw = edus.iter().map(|edu| RawValue::from_string(edu.to_string()).unwrap());
        let (a, b) = (ServerName::parse("a.example").unwrap(), ServerName::parse("b.example").unwrap());
        let (inbound, rejects) = parse_edus(&b, &a, &raw.collect::<Vec<_>>(), NOW, Timestamp(u64::MAX));
        prop_assert_eq!(inbound.origin_server_ts, NOW);
        prop_assert!(inbound.push.iter().all(|(user, _)| user.belongs_to(&b)));
        prop_assert!(inbound.poll.iter().chain(&inbound.unpoll).all(|user| user.belongs_to(&a)));
        prop_assert!(inbound.push.len() + rejects.len() >= usize::from(pushed > 0));
    }
}
