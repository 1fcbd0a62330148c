//! What the broker's operator sees of us, and what we say of the broker to ours.

use std::time::Duration;

use rollcall::bus::amqp::{Amqp, client_name};
use rollcall::bus::{Bus as _, Topology};
use rollcall::model::ServerName;

use super::amqp::config;
use crate::support::broker::Broker;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_s_list_of_connections_tells_processes_apart() {
    let broker = Broker::start().await;
    let client = client_name(&ServerName::parse("a.example").unwrap(), "edge,sender", "east-1");
    let topology = Topology { prefix: "t.".into(), partitions: 1 };
    let bus = Amqp::connect(&config(vec![broker.url()], "t.", PATIENCE), topology, &client).await.unwrap();
    let listed = broker.ctl(&["list_connections", "client_properties"]).await;
    let version = format!(r#"{{"version","{}"}}"#, env!("CARGO_PKG_VERSION"));
    for purpose in ["publish", "consume"] {
        let name = format!(r#"{{"connection_name","rollcall a.example edge,sender east-1 {purpose}"}}"#);
        let line = listed.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("no {name}: {listed}"));
        assert!(line.contains(r#"{"product","rollcall"}"#) && line.contains(&version), "{line}");
    }
    bus.close().await;
}
