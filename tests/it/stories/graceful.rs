//! SIGTERM while a window is open: it exits in good order, and what was gathered is not lost. SIGTERM during the start: it exits at once.

use std::time::Duration;

use rollcall::config::Config;
use rollcall::ops::tools::GuestBus;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

use super::Pair;
use crate::support::broker;
use crate::support::process::Place;

const PATIENCE: Duration = Duration::from_secs(30);
/// Far below the 15 s that connecting to an address may take.
const AT_ONCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_with_an_open_window_loses_nothing_over_rabbitmq() {
    a_stop_with_an_open_window_loses_nothing(&broker::shared_url().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_with_an_open_window_loses_nothing_on_the_embedded_bus() {
    a_stop_with_an_open_window_loses_nothing("embedded:").await;
}

async fn a_stop_with_an_open_window_loses_nothing(bus: &str) {
    let mut pair = Pair::start(bus, r#"batch.window = "4s""#).await;
    let (alice, bob) = (pair.alice(), pair.bob());
    pair.watch(&[&alice.id]).await;
    let set = Instant::now();
    alice.set("online", "leaving").await;
    gathered(&pair.a).await;
    let exit = pair.at_a.terminate().await;
    assert!(exit.success(), "{exit}");
    assert!(set.elapsed() < Duration::from_millis(3_200), "the shortest window of 4 s was over: {:?}", set.elapsed());
    // With nobody there, what was not acknowledged would be ready again.
    drained(&pair.a).await;

    pair.at_a = pair.a.serve().await;
    let seen = bob.sees_message(&alice.id, "leaving").await;
    assert_eq!(seen["presence"], "online", "{seen}");
    pair.stop().await;
}

/// Waits until a window holds a change, unacknowledged.
async fn gathered(place: &Place) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status: Value = serde_json::from_str(&place.run(&["status", "--json"]).await).unwrap();
        let queues = status["queues"].as_array().unwrap().iter();
        let batch = queues.filter(|queue| queue["name"].as_str().unwrap().contains(".batch."));
        let held: u64 = batch.map(|queue| queue["unacked"].as_u64().expect("its own process tells")).sum();
        if held == 1 {
            return;
        }
        assert!(Instant::now() < deadline, "nothing is held: {status}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until nothing is on the batching exchange's queues; a broker may count a moment late.
async fn drained(place: &Place) {
    let guest = GuestBus::open(&Config::load(Some(&place.config())).unwrap(), "a test").await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let depths = guest.bus().depths().await.unwrap();
        let batch: Vec<_> = depths.into_iter().filter(|depth| depth.name.contains(".batch.")).collect();
        assert_eq!(batch.len(), 4, "a queue a partition: {batch:?}");
        if batch.iter().all(|depth| depth.ready == 0 && depth.unacked.unwrap_or(0) == 0) {
            return guest.close().await;
        }
        assert!(Instant::now() < deadline, "left behind: {batch:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// What accepts and says nothing: a broker that is overloaded, or something else on its port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_the_broker_is_silent_is_obeyed_at_once() {
    let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = broker.local_addr().unwrap();
    let place = Place::new("a.example", &format!("amqp://me:sesame@{address}"), "");
    let process = place.spawn("edge,ingest,worker,sender", &[]);
    let (_silent, _) = timeout(PATIENCE, broker.accept()).await.expect("it connects").unwrap();
    let said = process.log();
    assert!(said.contains("connecting to the broker") && said.contains(&format!("amqp://{address}")), "{said}");
    assert!(!said.contains("sesame"), "{said}");
    let begun = Instant::now();
    let exit = process.terminate().await;
    assert!(exit.success(), "{exit}");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert!(!place.directory().join("signing.key").exists(), "something was begun");
}
