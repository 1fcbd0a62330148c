use serde_json::json;

use super::kind::Kind;
use super::*;
use crate::policy::without_b;

fn context(key: Source) -> Context {
    let local = ServerName::parse("a.example").unwrap();
    Context { local, now: Timestamp(1_795_400_000_000), key, policy: Policy::everybody() }
}

#[test]
fn kinds_know_their_names_and_sources() {
    for kind in Kind::ALL {
        assert_eq!(Kind::parse(kind.as_str()), Some(*kind));
        let prefix = kind.as_str().split('.').next().unwrap();
        assert_eq!(Source::from_routing_key(prefix), Some(kind.source()));
    }
}

/// [`MAX_EVENTS`] must never refuse an array of good events.
#[test]
fn no_body_of_good_events_has_too_many_members() {
    let smallest = r#"{"v":1,"type":"federation.heard","id":"1","ts":1,"origin":"b"}"#;
    assert_eq!(parse(smallest.as_bytes(), &context(Source::Any)).signals.len(), 1);
    assert!(MAX_BODY / (smallest.len() + 1) < MAX_EVENTS);
}

#[test]
fn a_flood_of_empty_members_is_one_reject() {
    let body = format!("[{}{{}}]", "{},".repeat(MAX_EVENTS));
    let parsed = parse(body.as_bytes(), &context(Source::Any));
    assert_eq!(parsed.signals, []);
    assert_eq!(parsed.rejects.len(), 1);
    assert_eq!(parsed.rejects[0].class, class::SIZE);
    assert_eq!(parsed.rejects[0].body, body.as_bytes());
}

#[test]
fn one_bad_member_costs_itself_alone() {
    let good = json!({"v": 1, "type": "federation.heard", "id": "1", "ts": 1, "origin": "b.example"});
    let bad = json!({"v": 1, "type": "federation.heard", "id": "1", "ts": 1});
    let body = json!([good, bad, good]).to_string();
    let parsed = parse(body.as_bytes(), &context(Source::Federation));
    assert_eq!(parsed.signals.len(), 2);
    assert_eq!(parsed.rejects.len(), 1);
    assert_eq!(parsed.rejects[0].reason, r#"[1] federation.heard: "origin" is missing"#);
    assert_eq!(parsed.rejects[0].body, bad.to_string().as_bytes());
}

#[test]
fn fields_of_other_types_are_nobodys_business() {
    let body =
        json!({"v": 1, "type": "federation.heard", "id": "1", "ts": 1, "origin": "b.example", "edus": "no array"});
    let parsed = parse(body.to_string().as_bytes(), &context(Source::Federation));
    assert_eq!((parsed.signals.len(), parsed.rejects), (1, vec![]));
}

#[test]
fn internal_messages_round_trip_and_no_clock_runs_ahead() {
    use crate::wire::envelope::{Job, Packet};
    let now = Timestamp(2_000);
    let beat = |at| Packet::Beat { worker: "w\"1".into(), at };
    assert_eq!(parse_internal(&encode_beat("w\"1", Timestamp(1_000)), now), Ok(beat(Timestamp(1_000))));
    assert_eq!(parse_internal(&encode_beat("w\"1", Timestamp(3_000)), now), Ok(beat(now)));
    assert_eq!(parse_internal(&encode_job(Job::Compact, now), now), Ok(Packet::Job(Job::Compact)));
    assert_eq!(encode_job(Job::Compact, now), r#"{"v":1,"type":"job","job":"compact","ts":2000}"#);
    assert_eq!(encode_beat("w", now), r#"{"v":1,"type":"beat","worker":"w","ts":2000}"#);
    let error = parse_internal(br#"{"v":2,"type":"job","job":"compact","ts":1}"#, now).unwrap_err();
    assert_eq!(error.reason, r#""v" must be 1, not 2"#);
    assert!(parse_internal(b"[]", now).is_err());
}

/// Such a server may have had a hand in whatever else its events hold.
#[test]
fn of_a_server_that_is_denied_nothing_more_is_looked_at() {
    let context = context(Source::Federation);
    context.policy.replace(&without_b());
    let event = |kind: &str, origin: &str, more: &str| {
        format!(r#"{{"v":1,"type":"federation.{kind}","id":"1","ts":1,"origin":"{origin}"{more}}}"#)
    };
    let bad_edu = r#","txn_id":"1","origin_server_ts":1,"edus":[{"edu_type":"m.presence","content":5}]"#;
    for (kind, more) in [("heard", ""), ("transaction", bad_edu), ("transaction", r#","origin_server_ts":"x""#)] {
        let parsed = parse(event(kind, "b.example", more).as_bytes(), &context);
        assert!(parsed.signals.is_empty() && parsed.rejects.len() == 1, "{parsed:?}");
        let Reject { class, reason, .. } = &parsed.rejects[0];
        assert_eq!((*class, &**reason), (class::DENIED, "b.example is not listened to here"));
    }
    let events = ["b.example", "c.example"].map(|origin| event("heard", origin, ""));
    let parsed = parse(format!("[{}]", events.join(",")).as_bytes(), &context);
    assert_eq!((parsed.signals.len(), parsed.rejects.len()), (1, 1));
    assert_eq!(parsed.rejects[0].reason, "[0] b.example is not listened to here");
    let receipt = event("receipt", "b.example", r#","destination":"b.example","txn_id":"1","outcome":"failed""#);
    assert_eq!(parse(receipt.as_bytes(), &context).signals.len(), 1, "what becomes of ours is another matter");
}
