//! Why sending fails, as the counter tells it.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use metrics_exporter_prometheus::PrometheusBuilder;
use rollcall::clock::SystemClock;
use rollcall::config::FederationConfig;
use rollcall::core::signal::Outcome;
use rollcall::outbound::courier::{Courier, Report};
use rollcall::outbound::keys::{SigningKey, SigningKeys};
use rollcall::policy::Policy;
use rollcall::wire::outbound::OutboundMessage;
use tokio::net::TcpListener;

use super::courier::{config, now, peers};
use super::name;
use super::peer::{Answer, Peer};

async fn deliver(config: FederationConfig, to: &str, good_for_ms: u64) -> Report {
    let (peers, policy) = (peers(&config), Policy::new(&config.servers));
    let keys = Arc::new(SigningKeys::single(SigningKey::generate("a_1").unwrap()));
    let courier = Courier::new(Arc::new(SystemClock), peers, policy, keys, config, name("a.example"));
    let body = serde_json::from_str("{}").unwrap();
    let not_after = now().plus(good_for_ms);
    courier
        .deliver(&OutboundMessage { v: 1, destination: name(to), txn_id: "1".into(), not_after, body })
        .await
        .unwrap()
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
