//! What the broker's operator sees of us, and what ours sees of the broker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use rollcall::bus::amqp::{Amqp, client_name};
use rollcall::bus::{Exchange, Outgoing, PublishError, Queue, SharedBus, Topology};
use rollcall::clock::SystemClock;
use rollcall::model::{Partition, ServerName};
use rollcall::ops::dead::DeadLetters;
use rollcall::ops::status::Observer;
use rollcall::store::sqlite::{Mode, Sqlite};
use tokio::time::timeout;

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

/// The rights that operations.md tells to give.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_user_of_the_broker_may_do_what_is_theirs() {
    let broker = Broker::start().await;
    for (user, rights) in
        [("rollcall", [r"^t\.", r"^(t\.|amq\.default$)", r"^t\."]), ("edge", ["^$", r"^t\.clients$", "^$"])]
    {
        broker.ctl(&["add_user", user, "secret"]).await;
        broker.ctl(&[&["set_permissions", user][..], &rights].concat()).await;
    }
    let as_user = |user: &str| broker.url().replace("://", &format!("://{user}:secret@"));
    let topology = Topology { prefix: "t.".into(), partitions: 2 };
    let ours = config(vec![as_user("rollcall")], "t.", PATIENCE);
    let bus = Amqp::connect(&ours, topology, "a test").await.unwrap() as SharedBus;
    bus.declare().await.unwrap();
    bus.publish(numbered(0..1)).await.unwrap();

    let (_theirs, operator) = channel(&broker.url()).await;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let nothing = FieldTable::default;
    operator.exchange_declare("t.clients".into(), ExchangeKind::Direct, durable, nothing()).await.unwrap();
    let [to, from, key] = ["t.inbound", "t.clients", "client"].map(Into::into);
    operator.exchange_bind(to, from, key, ExchangeBindOptions::default(), nothing()).await.unwrap();

    let (_theirs, edge) = channel(&as_user("edge")).await;
    assert!(matches!(say(&edge, "t.clients", "client").await, Ok(Confirmation::Ack(None))));
    for key in ["beat", "federation"] {
        let said = say(&edge, "t.clients", key).await;
        assert!(matches!(said, Ok(Confirmation::Ack(Some(_)))), "{key} comes back: {said:?}");
    }
    let said = say(&edge, "t.inbound", "client").await.map(drop).unwrap_err().to_string();
    assert!(said.contains("ACCESS_REFUSED") || said.contains("access"), "{said}");

    let mut inbound = bus.subscribe(&[(Queue::Inbound, 10)]).await.unwrap();
    let came = inbound.next().await.unwrap();
    assert_eq!((&*came.routing_key, &came.body[..]), ("client", &b"x"[..]));
    inbound.ack(vec![came.token]).await.unwrap();
    replies_arrive(&bus).await;
    an_edge_takes_its_own_updates(&broker, &as_user("edge")).await;
    bus.close().await;
}

/// And nobody else's.
async fn an_edge_takes_its_own_updates(broker: &Broker, url: &str) {
    let rights = [r"^t\.updates\.chat$", r"^t\.(clients|updates\.chat)$", r"^t\.updates(\.chat)?$"];
    broker.ctl(&[&["set_permissions", "edge"][..], &rights].concat()).await;
    broker.ctl(&["set_topic_permissions", "edge", "t.updates", "^$", "^chat$"]).await;
    let (_theirs, edge) = channel(url).await;
    let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let nothing = FieldTable::default;
    edge.queue_declare("t.updates.chat".into(), own, nothing()).await.unwrap();
    let bind = async |channel: &Channel, key: &str| {
        let [queue, exchange, key] = ["t.updates.chat", "t.updates", key].map(Into::into);
        channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), nothing()).await
    };
    bind(&edge, "chat").await.unwrap();
    let refused = bind(&edge, "another").await.unwrap_err().to_string();
    assert!(refused.contains("ACCESS_REFUSED") || refused.contains("access"), "{refused}");
}

/// On the default exchange, to whoever asked.
async fn replies_arrive(bus: &SharedBus) {
    let mut replies = bus.replies();
    bus.publish(vec![Outgoing::new(Exchange::Users, "0", "?").wants_reply()]).await.unwrap();
    let mut users = bus.subscribe(&[(Queue::Users(Partition(0)), 10)]).await.unwrap();
    let asked = loop {
        let came = users.next().await.unwrap();
        if came.headers.reply_to.is_some() {
            break came;
        }
    };
    bus.reply(&asked.headers.reply_to.unwrap(), Bytes::from_static(b"!")).await;
    let reply = timeout(PATIENCE, replies.recv()).await.expect("the broker hands it on").unwrap();
    assert_eq!(&reply.body[..], b"!");
}

async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

async fn say(channel: &Channel, exchange: &str, key: &str) -> Result<Confirmation, lapin::Error> {
    let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let published = channel.basic_publish(exchange.into(), key.into(), mandatory, b"x", BasicProperties::default());
    published.await?.await
}
