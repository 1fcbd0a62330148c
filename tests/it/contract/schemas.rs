//! The documented examples are accepted, what is produced is as documented, and the schemas say the same as the parser.

use std::path::Path;

use jsonschema::Validator;
use rollcall::core::signal::{Have, Permission, PermissionKind, Reminder, Summary};
use rollcall::model::{Partition, Presence, Serial, ServerName, Status, Timestamp, UserId};
use rollcall::wire::contract::Source;
use rollcall::wire::matrix::{TransactionContent, build_transaction};
use rollcall::wire::outbound::OutboundMessage;
use rollcall::wire::update::{Shown, UpdateMessage};
use serde_json::{Value, json};

use super::{NOW, read};

fn doc(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn schema(name: &str) -> Validator {
    let schema: Value = serde_json::from_str(&doc(&format!("schemas/{name}.json"))).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn assert_valid(schema: &Validator, value: &Value) {
    let errors: Vec<_> = schema.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{value}\n{errors:#?}");
}

/// The code blocks of docs/wire.md that open with exactly this fence.
fn examples(fence: &str) -> Vec<Value> {
    let text = doc("wire.md");
    let open = format!("```{fence}\n");
    let blocks = text.split(open.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(|block| serde_json::from_str(block).unwrap_or_else(|error| panic!("{error} in {block}"))).collect()
}

#[test]
fn every_documented_event_is_accepted() {
    let schema = schema("event");
    let examples = examples("json");
    assert_eq!(examples.len(), 10, "one of each type");
    for example in &examples {
        assert_valid(&schema, example);
        let parsed = read(Source::Any, &example.to_string());
        assert_eq!(parsed.rejects, [], "{example}");
        assert_eq!(example["type"], parsed.signals[0].kind());
    }
    let all = Value::from(examples);
    assert_valid(&schema, &all);
    assert_eq!(read(Source::Any, &all.to_string()).signals.len(), 10);
}

/// Takes every field of every example away, and gives it wrong values: the schema and the parser agree on what is allowed.
#[test]
fn schema_and_parser_agree() {
    let schema = schema("event");
    let wrong = [
        json!(null),
        json!(-1),
        json!(1.5),
        json!(7),
        json!(""),
        json!("x"),
        json!([]),
        json!([1]),
        json!({}),
        json!(true),
    ];
    let mut refused = 0;
    for example in examples("json") {
        let fields: Vec<String> = example.as_object().unwrap().keys().cloned().collect();
        for field in fields {
            let mut changed: Vec<Value> = wrong.iter().map(|value| with(&example, &field, value.clone())).collect();
            let mut without = example.clone();
            without.as_object_mut().unwrap().remove(&field);
            changed.push(without);
            for event in changed {
                let accepted = read(Source::Any, &event.to_string()).signals.len() == 1;
                assert_eq!(schema.is_valid(&event), accepted, "{event}");
                refused += usize::from(!accepted);
            }
        }
    }
    assert!(refused > 300, "only {refused} were refused");
}

fn with(event: &Value, field: &str, value: Value) -> Value {
    let mut event = event.clone();
    event[field] = value;
    event
}

#[test]
fn documented_transactions_are_as_described() {
    let (transaction, outbound) = (schema("transaction"), schema("outbound"));
    for example in examples("json transaction") {
        assert_valid(&transaction, &example);
    }
    for example in examples("json outbound") {
        assert_valid(&outbound, &example);
        assert_valid(&transaction, &example["body"]);
        serde_json::from_value::<OutboundMessage>(example).unwrap();
    }
}

#[test]
fn produced_transactions_are_as_described() {
    let origin = ServerName::parse("a.example").unwrap();
    let body = build_transaction(&origin, NOW, &content());
    assert_valid(&schema("transaction"), &serde_json::from_str(body.get()).unwrap());
    let message = OutboundMessage {
        v: 1,
        destination: ServerName::parse("b.example").unwrap(),
        txn_id: "7-1".into(),
        not_after: NOW.plus(60_000),
        body,
    };
    assert_valid(&schema("outbound"), &serde_json::to_value(&message).unwrap());
}

/// What a worker makes of it and an edge reads of it is the documented example again.
#[test]
fn documented_updates_are_what_is_produced() {
    let schema = schema("updates");
    let examples = examples("json updates");
    assert_eq!(examples.len(), 1);
    for example in examples {
        assert_valid(&schema, &example);
        let (observer, events) = UpdateMessage::decode(example.to_string().as_bytes(), NOW).unwrap();
        let [made] = UpdateMessage::split(&observer, events, NOW).try_into().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&made.encode()).unwrap(), example);
    }
}

#[test]
fn produced_updates_are_as_described() {
    let schema = schema("updates");
    let observer = UserId::parse("@bob:a.example").unwrap();
    let unknown = (UserId::parse("@carol:c.example").unwrap(), Status::default());
    let events = content().pushes.into_iter().chain([unknown]);
    let shown = events.map(|(of, status)| (of, Shown { status, known_at: NOW.minus(5) }));
    let messages = UpdateMessage::split(&observer, shown, NOW);
    messages.iter().for_each(|message| assert_valid(&schema, &serde_json::to_value(message).unwrap()));
    let empty = UpdateMessage::split(&observer, [], NOW);
    assert_valid(&schema, &serde_json::to_value(&empty[0]).unwrap());
    for (field, wrong) in [("presence", "unknown"), ("rollcall", "x"), ("presence", "away")] {
        let mut bad = serde_json::to_value(&messages[0]).unwrap();
        bad["events"][0]["content"][field] = wrong.into();
        assert!(!schema.is_valid(&bad), "{field} {wrong}");
    }
}

#[test]
fn documented_partitions_are_right() {
    let text = doc("wire.md");
    let rows = text.split("| key | partition |").nth(1).unwrap().lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<_> = rows.map(|row| row.trim_matches(['|', ' ']).split_once(" | ").unwrap()).collect();
    assert_eq!(rows.len(), 4);
    for (key, partition) in rows {
        assert_eq!(Partition::of(key.trim_matches('`'), 16).to_string(), partition, "{key}");
    }
}

#[test]
fn the_asyncapi_document_names_schemas_that_exist() {
    let text = doc("asyncapi.yaml");
    let names: Vec<_> = text.split("./schemas/").skip(1).map(|rest| rest.split(".json").next().unwrap()).collect();
    assert_eq!(names, ["event", "outbound", "updates"]);
    names.into_iter().for_each(|name| drop(schema(name)));
}

/// Enough for several EDUs.
fn content() -> TransactionContent {
    let user = |n: usize, server: &str| UserId::parse(&format!("@u{n}:{server}")).unwrap();
    let presences = [Presence::Online, Presence::Busy, Presence::Unavailable, Presence::Offline];
    let status = |n: usize| Status {
        presence: presences[n % 4],
        status_msg: n.is_multiple_of(3).then(|| "cup\"cakes".into()),
        last_active: Timestamp(NOW.0 * (n as u64 % 2)),
        currently_active: n.is_multiple_of(5),
        device_types: if n.is_multiple_of(2) { ["mobile".into(), "web".into()].into() } else { [].into() },
    };
    let permission = |kind| Permission { kind, observed: user(1, "b.example"), observer: user(1, "a.example") };
    let summary = Summary { as_of: Serial { epoch: 1_795_400_000, counter: 17 }, count: 600, digest: 7 };
    TransactionContent {
        pushes: (0..600).map(|n| (user(n, "a.example"), status(n))).collect(),
        polls: (0..3_000).map(|n| user(n, "b.example")).collect(),
        unpolls: (3_000..3_010).map(|n| user(n, "b.example")).collect(),
        permissions: [PermissionKind::Invite, PermissionKind::Accept, PermissionKind::Deny].map(permission).to_vec(),
        seq: Serial { epoch: 1_795_400_000, counter: 17 },
        promise_ms: 3_600_000,
        plain: false,
        reminder: Some(Reminder { id: "1795400000-17".into(), mine: Some(summary), yours: Some(summary) }),
        answers: vec!["1795400000-16".into()],
        have: Some(Have { as_of: summary.as_of, buckets: (0..256).collect() }),
        differ: vec![0, 255],
    }
}
