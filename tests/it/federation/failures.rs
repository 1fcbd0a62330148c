//! Why sending fails, as the counter tells it, and what a peer costs that fails for long.

use std::time::Duration;

use axum::http::StatusCode;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rollcall::config::FederationConfig;
use rollcall::core::signal::Outcome;
use rollcall::outbound::courier::Report;
use rollcall::wire::outbound::OutboundMessage;
use tokio::net::TcpListener;

use super::courier::{GIVE_UP, config, courier_by, ended, key, message, peers};
use super::name;
use super::peer::{Answer, Peer};

async fn deliver(config: FederationConfig, to: &str, good_for_ms: u64) -> Report {
    let courier = courier_by(peers(&config), config, key(), GIVE_UP);
    let message = OutboundMessage { destination: name(to), ..message(good_for_ms) };
    courier.deliver(&message).await.unwrap()
}

/// The reasons that were counted, while `to` was sent something that `config` makes fail.
async fn reasons(config: FederationConfig, to: &str, good_for_ms: u64) -> Vec<String> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // This test's thread alone, which is all that it runs on.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let report = deliver(config, to, good_for_ms).await;
    assert_ne!(report.outcome, Outcome::Delivered);
    let scrape = handle.render();
    let lines = scrape.lines().filter_map(|line| line.strip_prefix("rollcall_send_failures_total{reason=\""));
    lines.map(|line| line.split('"').next().unwrap().to_owned()).collect()
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn what_a_peer_answers_is_a_class() {
    for (status, class) in [(StatusCode::FORBIDDEN, "http_4xx"), (StatusCode::BAD_GATEWAY, "http_5xx")] {
        let peer = Peer::start("b.example", vec![Answer::Now(status, "no".into())]).await;
        assert_eq!(reasons(config("b.example", &peer.base), "b.example", 500).await, [class]);
    }
    let silent = Peer::start("b.example", vec![Answer::Never]).await;
    let hasty = FederationConfig { timeout: Duration::from_millis(100), ..config("b.example", &silent.base) };
    assert_eq!(reasons(hasty, "b.example", 500).await, ["timeout"]);
}

#[tokio::test]
async fn a_way_that_leads_nowhere_is_a_class() {
    let closed = format!("http://127.0.0.1:{}", free_port().await);
    assert_eq!(reasons(config("b.example", &closed), "b.example", 500).await, ["connect"]);
    let peer = Peer::start("b.example", vec![]).await;
    let plain = peer.base.replace("http:", "https:");
    assert_eq!(reasons(config("b.example", &plain), "b.example", 500).await, ["tls"]);
    // There is no name server.
    assert_eq!(reasons(config("b.example", &closed), "c.example:8448", 500).await, ["dns"]);
    assert_eq!(reasons(config("b.example", &closed), "10.0.0.1:8448", 500).await, ["refused_address"]);
}

/// Failed attempts so far.
fn failures(handle: &PrometheusHandle) -> u64 {
    let scrape = handle.render();
    let lines = scrape.lines().filter(|line| line.starts_with("rollcall_send_failures_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_peer_that_is_given_up_costs_one_attempt_a_transaction() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    // Nobody else listens at this address.
    let closed = TcpListener::bind("127.0.0.77:0").await.unwrap().local_addr().unwrap();
    let config = config("b.example", &format!("http://{closed}"));
    let courier = courier_by(peers(&config), config, key(), Duration::from_millis(300));
    assert_eq!(courier.deliver(&message(5_000)).await.unwrap(), ended(Outcome::Expired));
    let first = failures(&handle);
    assert!(first > 1, "it has chances until then");
    for next in 1..=5 {
        assert_eq!(courier.deliver(&message(5_000)).await.unwrap(), ended(Outcome::Expired));
        assert_eq!(failures(&handle), first + next);
    }
}

#[tokio::test]
async fn a_peer_that_had_no_time_to_answer_has_not_failed() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let silent = Peer::start("b.example", vec![Answer::Never]).await;
    let config = config("b.example", &silent.base);
    // That is little of the minute that a transaction has, and then most of its time.
    let short = FederationConfig { resend: Duration::from_millis(600), ..config.clone() };
    for (config, failed) in [(config, 0), (short, 1)] {
        assert_eq!(deliver(config, "b.example", 400).await, ended(Outcome::Expired));
        assert_eq!(failures(&handle), failed);
    }
}

#[tokio::test]
async fn a_peer_that_asks_for_patience_is_not_given_up_and_one_that_is_back_has_all_its_chances() {
    let says = |status, body: &str| Answer::Now(status, body.into());
    let limited = says(StatusCode::TOO_MANY_REQUESTS, r#"{"retry_after_ms":300}"#);
    let (failing, ok) = (says(StatusCode::BAD_GATEWAY, ""), says(StatusCode::OK, "{}"));
    let mut script = vec![limited; 5];
    script.extend([ok.clone(), failing.clone(), failing, ok]);
    let peer = Peer::start("b.example", script).await;
    let config = config("b.example", &peer.base);
    let courier = courier_by(peers(&config), config, key(), Duration::from_secs(1));
    for requests in [6, 9] {
        assert_eq!(courier.deliver(&message(30_000)).await.unwrap(), ended(Outcome::Delivered));
        assert_eq!(peer.seen().len(), requests);
    }
}
