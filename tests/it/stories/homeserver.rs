//! `federation.via = "edge"`: a homeserver of the same name sends for us, and the links go on by what its edge tells.

use axum::http::StatusCode;
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use super::{server, user};
use crate::federation::peer::{Answer, Peer, Seen};
use crate::support::broker;
use crate::support::edge::HomeserverEdge;
use crate::support::process::Place;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_homeserver_s_edge_takes_transactions_and_its_receipts_move_the_link_on() {
    let bus = broker::shared_url().await;
    let place = Place::new(&server("h"), &bus, "federation.via = \"edge\"\nfederation.backoff_min = \"100ms\"");
    let busy = r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":700}"#;
    let script = vec![say(StatusCode::OK, "{}"), say(StatusCode::TOO_MANY_REQUESTS, busy), say(StatusCode::OK, "{}")];
    let homeserver = Peer::start("homeserver.example", script).await;
    let process = place.serve().await;
    let edge = HomeserverEdge::start(&bus, &format!("{}.", place.name), &homeserver.base);

    let alice = user("alice", &place);
    alice.set("online", "one").await;
    alice.list(&["@bob:b.example"]).await;
    let first = wait_for(&homeserver, 1).await;
    assert!(first[0].uri.path().starts_with("/b.example/"), "{}", first[0].uri);
    assert_eq!(message(&first[0]), "one");

    alice.set("busy", "two").await;
    let seen = wait_for(&homeserver, 3).await;
    let (refused, again) = (&seen[1], &seen[2]);
    assert_eq!((message(refused), message(again)), ("two".into(), "two".into()));
    assert_ne!(refused.uri, again.uri, "what the homeserver refused leaves as a new transaction");
    assert!(
        again.at - refused.at >= Duration::from_millis(700),
        "as late as the homeserver asked: {:?}",
        again.at - refused.at
    );

    drop(edge);
    assert!(process.terminate().await.success());
}

fn say(status: StatusCode, body: &str) -> Answer {
    Answer::Now(status, body.into())
}

async fn wait_for(homeserver: &Peer, count: usize) -> Vec<Seen> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = homeserver.seen();
        if seen.len() >= count {
            return seen;
        }
        assert!(Instant::now() < deadline, "{count} transactions expected: {seen:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Of the first user pushed.
fn message(seen: &Seen) -> String {
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    body["edus"][0]["content"]["push"][0]["status_msg"].as_str().unwrap_or_default().to_owned()
}
