//! What the broker's operator sees of us, and what ours sees of the broker.

use std::sync::Arc;
use std::time::Duration;

use rollcall::bus::amqp::{Amqp, client_name};
use rollcall::bus::{Exchange, Outgoing, PublishError, SharedBus, Topology};
use rollcall::clock::SystemClock;
use rollcall::model::ServerName;
use rollcall::ops::dead::DeadLetters;
use rollcall::ops::status::Observer;
use rollcall::store::sqlite::{Mode, Sqlite};

use super::amqp::config;
use super::contract::numbered;
use crate::support::broker::Broker;

const PATIENCE: Duration = Duration::from_secs(20);

async fn connect(broker: &Broker, client: &str) -> SharedBus {
    let topology = Topology { prefix: "t.".into(), partitions: 2 };
    Amqp::connect(&config(vec![broker.url()], "t.", PATIENCE), topology, client).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_s_list_of_connections_tells_processes_apart() {
    let broker = Broker::start().await;
    let server = ServerName::parse("a.example").unwrap();
    let bus = connect(&broker, &client_name(&server, "edge,sender", "east-1")).await;
    let listed = broker.ctl(&["list_connections", "client_properties"]).await;
    let version = format!(r#"{{"version","{}"}}"#, env!("CARGO_PKG_VERSION"));
    for purpose in ["publish", "consume"] {
        let name = format!(r#"{{"connection_name","rollcall a.example edge,sender east-1 {purpose}"}}"#);
        let line = listed.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("no {name}: {listed}"));
        assert!(line.contains(r#"{"product","rollcall"}"#) && line.contains(&version), "{line}");
    }
    bus.close().await;
}

/// To the broker a durable classic queue is one that it knows of and does not have, while its node is down. So is this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_node_of_the_dead_letters_everything_else_goes_on() {
    let broker = Broker::start().await;
    connect(&broker, "a test").await.declare().await.unwrap();
    let forget = r#"mnesia:dirty_delete(rabbit_queue, rabbit_misc:r(<<"/">>, queue, <<"t.dead">>))."#;
    broker.ctl(&["eval", forget]).await;

    let bus = connect(&broker, "a test").await;
    bus.declare().await.expect("a start does without it");
    bus.publish(numbered(0..3)).await.unwrap();
    let dead = bus.publish(vec![Outgoing::new(Exchange::Dead, "", "x")]).await;
    assert!(matches!(dead, Err(PublishError::Unroutable { .. })), "it waits where it is: {dead:?}");

    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("rollcall.db"), Mode::Owner).await.unwrap();
    let seen = Observer::new(bus.clone(), store, Arc::new(SystemClock), 2).snapshot().await;
    assert_eq!(seen.broker, Ok(()), "the deployment is ready");
    let [error] = &seen.status.errors[..] else { panic!("{:?}", seen.status.errors) };
    assert!(error.contains("t.dead is out of reach") && error.contains("is down or inaccessible"), "{error}");
    let ready: Vec<_> = seen.status.queues.iter().map(|queue| (queue.name.as_str(), queue.ready)).collect();
    assert_eq!((ready.len(), ready.iter().map(|(_, ready)| ready).sum()), (2 + 3 * 2, 3), "{ready:?}");
    let error = DeadLetters::hold(&*bus, 10).await.err().expect("nobody knows whether there are any").to_string();
    assert!(error.contains("t.dead is out of reach"), "{error}");
    bus.close().await;
}
