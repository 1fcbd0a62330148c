//! Every way to get an event wrong, and the words that come back.

use rollcall::wire::contract::{MAX_BODY, Source, parse};
use serde_json::{Value, json};

use super::{context, read};

fn event(kind: &str, fields: Value) -> Value {
    let mut event = json!({"v": 1, "type": kind, "id": "1", "ts": 1});
    merge(&mut event, fields);
    event
}

/// A good `client.status`, changed: a field that is null here is missing.
fn status(changes: Value) -> Value {
    let mut event =
        event("client.status", json!({"user_id": "@john:a.example", "device_id": "D", "presence": "online"}));
    merge(&mut event, changes);
    event
}

fn of_user(kind: &str, changes: Value) -> Value {
    let mut event = event(kind, json!({"user_id": "@john:a.example", "device_id": "D"}));
    merge(&mut event, changes);
    event
}

fn transaction(changes: Value) -> Value {
    let mut event = event(
        "federation.transaction",
        json!({"origin": "b.example", "txn_id": "7", "origin_server_ts": 1, "edus": []}),
    );
    merge(&mut event, changes);
    event
}

fn receipt(changes: Value) -> Value {
    let mut event =
        event("federation.receipt", json!({"destination": "b.example", "txn_id": "7", "outcome": "failed"}));
    merge(&mut event, changes);
    event
}

fn merge(event: &mut Value, changes: Value) {
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    event.as_object_mut().unwrap().extend(changes);
}

fn expect(table: Vec<(Value, &str, &str)>) {
    for (event, class, reason) in table {
        let parsed = read(Source::Any, &event.to_string());
        assert_eq!(parsed.signals, [], "{event}");
        assert_eq!(parsed.rejects.len(), 1, "{event}");
        let reject = &parsed.rejects[0];
        assert_eq!((reject.class, reject.reason.as_str()), (class, reason), "{event}");
        assert_eq!(reject.body, event.to_string().as_bytes());
    }
}

#[test]
fn what_every_event_has() {
    let long = "x".repeat(129);
    let long_reason =
        format!("client.status: \"id\" must be text of 1 to 128 bytes, not \"{}…\" of 129 bytes", "x".repeat(100));
    expect(vec![
        (json!(5), "field", "an event must be an object, not 5"),
        (json!("client.status"), "field", r#"an event must be an object, not "client.status""#),
        (json!({}), "field", r#""v" is missing"#),
        (status(json!({"v": 2})), "field", r#""v" must be 1, not 2"#),
        (status(json!({"v": "1"})), "field", r#""v" must be a whole number, not "1""#),
        (status(json!({"type": null})), "field", r#""type" is missing"#),
        (status(json!({"type": ["client.status"]})), "field", r#""type" must be text, not ["client.status"]"#),
        (status(json!({"type": "client.foo"})), "type", r#"unknown type "client.foo""#),
        (status(json!({"id": null})), "field", r#"client.status: "id" is missing"#),
        (
            status(json!({"id": ""})),
            "field",
            r#"client.status: "id" must be text of 1 to 128 bytes, not "" of 0 bytes"#,
        ),
        (status(json!({"id": long})), "field", &long_reason),
        (status(json!({"id": 1})), "field", r#"client.status: "id" must be text, not 1"#),
        (status(json!({"ts": null})), "field", r#"client.status: "ts" is missing"#),
        (status(json!({"ts": -1})), "field", r#"client.status: "ts" must be a whole number of milliseconds, not -1"#),
        (status(json!({"ts": 1.5})), "field", r#"client.status: "ts" must be a whole number of milliseconds, not 1.5"#),
    ]);
}

#[test]
fn clients() {
    expect(vec![
        (status(json!({"user_id": null})), "field", r#"client.status: "user_id" is missing"#),
        (
            status(json!({"user_id": "john"})),
            "field",
            r#"client.status: "user_id": "john" is not a user ID: leading sigil is incorrect or missing"#,
        ),
        (
            status(json!({"user_id": "@x:other.example"})),
            "foreign_user",
            r#"client.status: "user_id": @x:other.example belongs to other.example, not to a.example"#,
        ),
        (status(json!({"device_id": null})), "field", r#"client.status: "device_id" is missing"#),
        (status(json!({"device_id": ""})), "field", r#"client.status: "device_id": "" is not a device ID: empty"#),
        (status(json!({"presence": null})), "field", r#"client.status: "presence" is missing"#),
        (
            status(json!({"presence": "onlin"})),
            "field",
            r#"client.status: "presence" must be one of online, unavailable, busy, offline, not "onlin""#,
        ),
        (status(json!({"status_msg": 5})), "field", r#"client.status: "status_msg" must be text, not 5"#),
        (of_user("client.idle", json!({})), "field", r#"client.idle: "idle_ms" is missing"#),
        (
            of_user("client.idle", json!({"idle_ms": "5"})),
            "field",
            r#"client.idle: "idle_ms" must be a whole number of milliseconds, not "5""#,
        ),
        (of_user("client.device", json!({})), "field", r#"client.device: "device_type" is missing"#),
        (
            of_user("client.device", json!({"device_type": ""})),
            "field",
            r#"client.device: "device_type" must be text of 1 to 32 bytes, not "" of 0 bytes"#,
        ),
        (
            of_user("client.activity", json!({"set_presence": "unknown"})),
            "field",
            r#"client.activity: "set_presence" must be one of online, unavailable, busy, offline, not "unknown""#,
        ),
        (of_user("client.poll", json!({})), "field", r#"client.poll: "action" is missing"#),
        (
            of_user("client.poll", json!({"action": "renew"})),
            "field",
            r#"client.poll: "action" must be one of start, stop, not "renew""#,
        ),
        (
            of_user("client.poll", json!({"action": "start", "edge": "Edge 1"})),
            "field",
            r#"client.poll: "edge" must be 1 to 64 of a-z, 0-9 and -, not "Edge 1""#,
        ),
    ]);
}

#[test]
fn lists_and_answers() {
    let many: Vec<_> = (0..1_001).map(|n| format!("@u{n}:b.example")).collect();
    expect(vec![
        (
            of_user("client.list", json!({"add": many})),
            "size",
            r#"client.list: "add" are 1001, at most 1000 are allowed"#,
        ),
        (
            of_user("client.list", json!({"remove": ["@a:b.example", "x"]})),
            "field",
            r#"client.list: "remove[1]": "x" is not a user ID: leading sigil is incorrect or missing"#,
        ),
        (
            of_user("client.list", json!({"add": "@a:b"})),
            "field",
            r#"client.list: "add" must be an array of texts, not "@a:b""#,
        ),
        (of_user("client.answer", json!({"allow": true})), "field", r#"client.answer: "observer" is missing"#),
        (
            of_user("client.answer", json!({"observer": "@a:b.example"})),
            "field",
            r#"client.answer: "allow" is missing"#,
        ),
        (
            of_user("client.answer", json!({"observer": "@a:b.example", "allow": 1})),
            "field",
            r#"client.answer: "allow" must be true or false, not 1"#,
        ),
    ]);
}

#[test]
fn federation() {
    expect(vec![
        (event("federation.heard", json!({})), "field", r#"federation.heard: "origin" is missing"#),
        (
            event("federation.heard", json!({"origin": "b example"})),
            "field",
            r#"federation.heard: "origin": "b example" is not a server name: server name is not a valid IP address or domain name"#,
        ),
        (
            event("federation.heard", json!({"origin": "a.example"})),
            "field",
            r#"federation.heard: "origin" must be another server than the local one, not "a.example""#,
        ),
        (transaction(json!({"txn_id": null})), "field", r#"federation.transaction: "txn_id" is missing"#),
        (
            transaction(json!({"origin_server_ts": null})),
            "field",
            r#"federation.transaction: "origin_server_ts" is missing"#,
        ),
        (transaction(json!({"edus": null})), "field", r#"federation.transaction: "edus" is missing"#),
        (transaction(json!({"edus": {}})), "field", r#"federation.transaction: "edus" must be an array, not {}"#),
        (
            transaction(json!({"edus": vec![json!({}); 101]})),
            "size",
            r#"federation.transaction: "edus" are 101, at most 100 are allowed"#,
        ),
        (transaction(json!({"pdus": 51})), "size", r#"federation.transaction: "pdus" are 51, at most 50 are allowed"#),
        (transaction(json!({"pdus": []})), "field", r#"federation.transaction: "pdus" must be a whole number, not []"#),
        (receipt(json!({"destination": null})), "field", r#"federation.receipt: "destination" is missing"#),
        (
            receipt(json!({"outcome": "lost"})),
            "field",
            r#"federation.receipt: "outcome" must be one of delivered, failed, expired, too_large, not "lost""#,
        ),
    ]);
}

#[test]
fn bad_edus_do_not_cost_the_transaction() {
    let push = json!([{"user_id": "@x:b.example", "presence": "online"}, {"user_id": "@y:b.example"}]);
    let edus = json!([{"edu_type": "m.presence", "content": {"push": push}}, 5]);
    let parsed = read(Source::Federation, &json!([transaction(json!({"edus": edus}))]).to_string());
    assert_eq!(parsed.signals.len(), 1);
    let reasons: Vec<_> = parsed.rejects.iter().map(|reject| reject.reason.as_str()).collect();
    let expected = [
        r#"[0] federation.transaction from b.example: edus[0].content.push[1]: "presence" is missing"#,
        r#"[0] federation.transaction from b.example: edus[1]: it must be an object, not 5"#,
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn bodies_that_are_no_json() {
    for (body, reason) in [
        (&b"nonsense"[..], "not JSON: expected ident at line 1 column 2"),
        (b"", "not JSON: EOF while parsing a value at line 1 column 0"),
        (b"[{},", "not JSON: EOF while parsing a value at line 1 column 4"),
        (b"{} {}", "not JSON: trailing characters at line 1 column 4"),
        (b"\"\xff\"", "not JSON: invalid utf-8 sequence of 1 bytes from index 1"),
    ] {
        let parsed = parse(body, &context(Source::Any));
        assert_eq!((parsed.signals.len(), parsed.rejects.len()), (0, 1));
        assert_eq!((parsed.rejects[0].class, parsed.rejects[0].reason.as_str()), ("json", reason));
        assert_eq!(parsed.rejects[0].body, body);
    }
}

#[test]
fn a_deep_body_is_refused_not_followed() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for body in [deep.clone(), status(json!({})).to_string().replace("\"D\"", &deep)] {
        let parsed = read(Source::Any, &body);
        assert_eq!((parsed.signals.len(), parsed.rejects.len()), (0, 1));
        assert_eq!(parsed.rejects[0].class, "json");
    }
}

#[test]
fn a_body_over_the_bound_is_refused_whole() {
    let body = vec![b' '; MAX_BODY + 1];
    let parsed = parse(&body, &context(Source::Any));
    assert_eq!(parsed.rejects[0].reason, "the body has 1048577 bytes, at most 1048576 are allowed");
    assert_eq!((parsed.rejects[0].class, parsed.rejects[0].body.len()), ("size", body.len()));
}

#[test]
fn the_routing_key_must_match() {
    let heard = event("federation.heard", json!({"origin": "b.example"}));
    for (key, event, good) in [
        (Source::Client, status(json!({})), true),
        (Source::Federation, status(json!({})), false),
        (Source::Client, heard.clone(), false),
        (Source::Federation, heard, true),
    ] {
        let parsed = read(key, &event.to_string());
        assert_eq!(parsed.signals.len() == 1, good, "{event}");
        assert!(good || parsed.rejects[0].class == "type");
    }
}
