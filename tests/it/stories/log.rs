//! What the log of a real process says at its default level: enough, once each.

use std::time::Duration;

use axum::http::StatusCode;
use rollcall::outbound::http::client;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{resolve, server, user};
use crate::federation::peer::{Answer, Peer};
use crate::support::broker::shared_url;
use crate::support::process::{Place, Process};

const PATIENCE: Duration = Duration::from_secs(30);

async fn until(process: &Process, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !process.log().contains(text) {
        assert!(Instant::now() < deadline, "{text} is not said:\n{}", process.log());
        sleep(Duration::from_millis(20)).await;
    }
}

fn lines<'a>(log: &'a str, text: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(text)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_fails_is_said_once_with_the_cause_and_once_when_it_is_back() {
    let no = || Answer::Now(StatusCode::BAD_GATEWAY, "asleep\nFORGED a line".into());
    let peer = Peer::start("b.example", vec![no(), no(), no(), Answer::Now(StatusCode::OK, "{}".into())]).await;
    let place = Place::new(&server("l"), "embedded:", "");
    let quick = "federation.backoff_min = \"50ms\"";
    place.configure("embedded:", &format!("{}\n{quick}", resolve(&[("b.example", &peer.base)])));
    let process = place.serve().await;
    user("alice", &place).list(&["@bob:b.example"]).await;
    until(&process, "a peer takes what it is sent again").await;
    let log = process.log();
    let [said] = lines(&log, "sending to a peer fails")[..] else { panic!("not once:\n{log}") };
    for part in ["WARN", "destination=b.example", "http_5xx", "502 Bad Gateway: asleep FORGED"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(lines(&log, "takes what it is sent again")[0].contains("INFO"), "{log}");
    let scrape = client(PATIENCE).unwrap().get(format!("http://{}/metrics", place.ops)).send().await.unwrap();
    let scrape = scrape.text().await.unwrap();
    assert!(scrape.contains(r#"rollcall_send_failures_total{reason="http_5xx"} 3"#), "{scrape}");
    assert!(scrape.contains(r#"rollcall_send_failures_total{reason="dns"} 0"#), "{scrape}");
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_and_an_end_can_be_read_from_json_alone() {
    let place = Place::new(&server("l"), "embedded:", "log.format = \"json\"");
    let process = place.serve().await;
    until(&process, "owning").await;
    process.interrupt();
    until(&process, "stopped").await;
    let log = process.log();
    let events: Vec<Value> = lines(&log, "\"level\"").into_iter().map(parse).collect();
    let said = |text: &str| {
        let found = events.iter().find(|event| event["message"].as_str().unwrap_or_default().contains(text));
        found.unwrap_or_else(|| panic!("no {text:?}:\n{log}"))
    };
    let start = said("starting");
    assert_eq!(start["server"], place.name);
    assert_eq!(start["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&start["roles"], &start["bus"]), (&"edge,ingest,worker,sender".into(), &"embedded".into()));
    assert!(start["store"].as_str().unwrap().ends_with("rollcall.db"), "{start}");
    assert_eq!(said("edge.auth")["level"], "WARN");
    let owning = said("owning");
    assert_eq!((&owning["span"]["task"], owning["span"]["partition"].is_u64()), (&"partition".into(), true));
    assert!(said("draining")["message"].as_str().unwrap().contains("SIGINT"));
    assert_eq!(said("stopped")["level"], "INFO");
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_end_alarms_nobody() {
    let place = Place::new(&server("l"), &shared_url().await, "");
    let process = place.serve().await;
    user("alice", &place).set("online", "here").await;
    process.interrupt();
    until(&process, "stopped").await;
    let path = place.directory().join("log");
    assert!(process.terminate().await.success());
    let log = std::fs::read_to_string(path).unwrap();
    let (_, end) = log.split_once("draining").unwrap();
    assert!(!end.contains("ERROR") && !end.contains("WARN"), "{end}");
}

/// Strict about keys: a collector may be, too.
fn parse(line: &str) -> Value {
    let span = line.split("\"span\":{").nth(1).and_then(|rest| rest.split('}').next()).unwrap_or_default();
    assert!(span.matches("\"name\":").count() <= 1, "a key twice: {line}");
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}
