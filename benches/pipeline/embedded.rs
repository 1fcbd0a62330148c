//! The embedded bus: a real `rollcall serve`, fed by `POST /_rollcall/v1/events`, drained by its own sender into an HTTP sink.

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::HeaderMap;
use axum::routing::put;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::load::{Load, Seen, peer_name};
use crate::process::Place;
use crate::rabbitmq::now;
use crate::{Measured, meter};

/// Requests at once.
const CLIENTS: usize = 16;

type Sink = Arc<Mutex<Seen>>;

pub(crate) async fn measure(name: &str, load: &Load) -> Measured {
    let local = format!("{name}.example");
    let sink: Sink = Arc::new(Mutex::new(Seen::new(load)));
    let address = serve(sink.clone()).await;
    let mut extra = String::from(
        "list.accept = \"everyone\"\npresence.offline_after = \"1h\"\nedge.lag_max = \"1h\"\n[federation.resolve]\n",
    );
    for peer in (0..load.peers).map(peer_name) {
        writeln!(extra, "\"{peer}\" = \"http://{address}\"").expect("a String takes all");
    }
    let mut place = Place::new(&local, "embedded:", "");
    place.partitions = 16;
    place.configure("embedded:", &extra);
    let process = place.serve().await;
    let url = format!("{}/_rollcall/v1/events", place.url());
    post_all(&url, load.polls(&local, now())).await;
    until(&sink, |seen| seen.answered == load.users).await;
    let before = meter::cpu_seconds(process.id());
    post_all(&url, load.bodies(&local, now())).await;
    until(&sink, Seen::is_complete).await;
    let cpu = (meter::cpu_seconds(process.id()) - before) / load.users as f64 * 10_000.0;
    let rss = meter::rss_mib(process.id());
    let rate = sink.lock().expect("not poisoned").rate();
    assert!(process.terminate().await.success());
    Measured { rate, cpu: [None, Some(cpu), None], rss: [None, Some(rss)], packed: None }
}

async fn serve(sink: Sink) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("an address");
    let router = Router::new()
        .route("/_matrix/federation/v1/send/{txn}", put(take))
        .layer(DefaultBodyLimit::max(16 << 20))
        .with_state(sink);
    drop(rollcall::lifecycle::spawn("sink", async move { axum::serve(listener, router).await }));
    address
}

async fn take(State(sink): State<Sink>, headers: HeaderMap, body: Bytes) -> &'static str {
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok()).expect("a signed request");
    let after = authorization.split_once("destination=").expect("a destination").1.trim_start_matches('"');
    let end = after.find(['"', ',']).unwrap_or(after.len());
    let body = std::str::from_utf8(&body).expect("JSON");
    sink.lock().expect("not poisoned").transaction(&after[..end], body);
    r#"{"pdus":{}}"#
}

/// Posts every body, each confirmed, some at once.
async fn post_all(url: &str, bodies: Vec<Vec<u8>>) {
    let bodies = Arc::new(Mutex::new(bodies.into_iter()));
    let client = reqwest::Client::new();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (client, bodies, url) = (client.clone(), bodies.clone(), url.to_owned());
            rollcall::lifecycle::spawn("client", async move {
                loop {
                    let Some(body) = bodies.lock().expect("not poisoned").next() else { return };
                    post(&client, &url, body, n).await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("a client");
    }
}

async fn post(client: &reqwest::Client, url: &str, body: Vec<u8>, n: usize) {
    loop {
        let request = client.post(url).bearer_auth(format!("@edge{n}:bench.example|X")).body(body.clone());
        let answer = request.send().await.expect("an answer");
        if answer.status().is_success() {
            return;
        }
        // Overload is said by 503: an edge waits and tries again.
        assert_eq!(answer.status(), 503, "{}", answer.text().await.unwrap_or_default());
        sleep(Duration::from_millis(50)).await;
    }
}

async fn until(sink: &Sink, done: impl Fn(&Seen) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !done(&sink.lock().expect("not poisoned")) {
        assert!(Instant::now() < deadline, "not all arrived");
        sleep(Duration::from_millis(1)).await;
    }
}
