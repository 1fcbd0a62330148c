//! Events through AMQP, from a publisher that shares no code with us, do what they do through HTTP.

use serde_json::{Value, json};

use super::{now, server, user};
use crate::support::person::Person;
use crate::support::process::Place;
use crate::support::{broker, edge};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_foreign_edge_publishes_counts_as_what_comes_over_http() {
    let bus = broker::shared_url().await;
    let place = Place::new(&server("s"), &bus, "");
    let _process = place.serve().await;
    let (carol, dave) = (user("carol", &place), user("dave", &place));
    // Past for every clock that reads it.
    let at = now().0 - 1_000;

    let bodies = events(&carol, at).map(|body| body.to_string());
    edge::publish(&bus, &format!("{}.", place.name), "client", &bodies).await;
    for body in events(&dave, at) {
        let (status, answer) = dave.events(&body).await;
        let accepted = body.as_array().map_or(1, Vec::len);
        assert_eq!((status.as_u16(), answer), (200, json!({ "accepted": accepted, "rejected": [] })));
    }

    let (over_amqp, over_http) = (last(&carol, at).await, last(&dave, at).await);
    assert_eq!(over_amqp, over_http);
    let rollcall = json!({ "known": true, "device_types": ["mobile"], "stale_ms": 0 });
    assert_eq!(
        over_amqp,
        json!({
            "presence": "busy", "status_msg": "in a meeting", "currently_active": true, "rollcall": rollcall,
        })
    );
}

/// A single event, an array, a single one.
fn events(person: &Person, at: u64) -> [Value; 3] {
    let event = |kind: &str, after: u64, mut fields: Value| {
        let id = format!("{at}-{after}");
        let head =
            json!({ "v": 1, "type": kind, "id": id, "ts": at + after, "user_id": person.id, "device_id": "PHONE" });
        fields.as_object_mut().unwrap().extend(head.as_object().unwrap().clone());
        fields
    };
    [
        event("client.status", 0, json!({ "presence": "online", "status_msg": "hello" })),
        json!([
            event("client.device", 1, json!({ "device_type": "mobile" })),
            event("client.status", 2, json!({ "presence": "unavailable", "status_msg": null })),
        ]),
        event("client.status", 3, json!({ "presence": "busy", "status_msg": "in a meeting" })),
    ]
}

/// What the last event left. Its age is taken out, once it fits.
async fn last(person: &Person, at: u64) -> Value {
    person.sees_message(&person.id, "in a meeting").await;
    let before = now().0;
    let mut seen = person.sees(&person.id).await;
    let after = now().0;
    let ago = seen.as_object_mut().unwrap().remove("last_active_ago").unwrap().as_u64().unwrap();
    assert!(
        (before - at - 3..=after - at - 3).contains(&ago),
        "{ago} ms, read {before} to {after}, active at {at} + 3"
    );
    seen
}
