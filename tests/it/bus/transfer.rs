//! From embedded queues to RabbitMQ.

use std::time::Duration;

use rollcall::bus::embedded::Embedded;
use rollcall::bus::transfer::transfer;
use rollcall::bus::{Exchange, Headers, Outgoing, Queue, SharedBus, Topology};
use rollcall::model::{Partition, TraceId};
use rollcall::store::Store;
use rollcall::store::sqlite::{Mode, Sqlite};
use tempfile::TempDir;

use super::amqp::{OnBroker, connect};
use super::contract::{Deployment, USERS, body, numbered, numbers, take};
use crate::support::broker::Broker;
use crate::support::process::Place;

async fn embedded(topology: Topology) -> (TempDir, SharedBus) {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("rollcall.db"), Mode::Owner).await.unwrap();
    (folder, Embedded::new(store, topology, Duration::from_secs(20)).shared())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_embedded_queues_goes_to_the_broker() {
    let broker = OnBroker::shared().await;
    let (_folder, former) = embedded(broker.topology()).await;
    former.publish(numbered(0..1_200)).await.unwrap();
    let mut dead = Outgoing::new(Exchange::Dead, "", body(7));
    dead.headers = Headers {
        trace: Some(TraceId(5)),
        reason: Some("not JSON".into()),
        origin: Some("inbound".into()),
        reply_to: Some("somebody long gone".into()),
    };
    let others = [
        (Exchange::Inbound, "client"),
        (Exchange::Inbound, "beat"),
        (Exchange::Outbound, "outbound"),
        (Exchange::Batch, "1"),
    ];
    let others = others.map(|(exchange, key)| Outgoing::new(exchange, key, body(9)));
    former.publish([others.to_vec(), vec![dead.clone()]].concat()).await.unwrap();
    // Taken and not acknowledged: not done with.
    let held = take(&mut *former.subscribe(&[(USERS, 10)]).await.unwrap(), 10).await;
    drop(held);

    let (to, topology) = (broker.bus(), broker.topology());
    assert_eq!(transfer(&former, to, &topology).await.unwrap(), 1_205);
    assert_eq!(transfer(&former, to, &topology).await.unwrap(), 0, "nothing is left");
    former.close().await;

    let mut subscription = to.subscribe(&[(USERS, 1_200)]).await.unwrap();
    assert_eq!(numbers(&take(&mut *subscription, 1_200).await), (0..1_200).collect::<Vec<_>>());
    let mut keys = Vec::new();
    for (queue, count) in [(Queue::Inbound, 2), (Queue::Outbound, 1), (Queue::Batch(Partition(1)), 1)] {
        let mut subscription = to.subscribe(&[(queue, 10)]).await.unwrap();
        keys.extend(take(&mut *subscription, count).await.into_iter().map(|delivery| delivery.routing_key.to_string()));
    }
    assert_eq!(keys, ["client", "beat", "outbound", "1"]);
    let mut subscription = to.subscribe(&[(Queue::Dead, 10)]).await.unwrap();
    let letter = take(&mut *subscription, 1).await.remove(0);
    dead.headers.reply_to = None;
    assert_eq!((letter.body, letter.headers), (dead.body, dead.headers));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_broker_takes_the_embedded_queues_along() {
    let broker = Broker::start().await;
    let place = Place::new("a.example", "embedded:", "");
    let topology = Topology { prefix: "a.example.".into(), partitions: 4 };
    let store = Sqlite::open(&place.directory().join("rollcall.db"), Mode::Owner).await.unwrap();
    let former = Embedded::new(store.clone(), topology, Duration::from_secs(20)).shared();
    let mut letter = Outgoing::new(Exchange::Dead, "", "what was said");
    letter.headers.reason = Some("not JSON: of before".into());
    former.publish(vec![letter]).await.unwrap();
    former.close().await;
    store.close().await;
    place.configure(&broker.url(), "");
    let process = place.serve().await;
    assert!(process.log().contains("what waited in the embedded queues is with the broker now"), "{}", process.log());
    let listed = place.run(&["dead", "list"]).await;
    assert!(listed.contains("not JSON: of before"), "{listed}");
    assert!(process.terminate().await.success());
}

/// As where the node is down on which the dead letters lie: see `operators.rs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_that_are_not_taken_stay_and_keep_nothing_else() {
    let broker = Broker::start().await;
    let topology = Topology { prefix: "t.".into(), partitions: 2 };
    let to = connect(vec![broker.url()], topology.clone()).await.unwrap();
    to.declare().await.unwrap();
    let forget = r#"mnesia:dirty_delete(rabbit_queue, rabbit_misc:r(<<"/">>, queue, <<"t.dead">>))."#;
    broker.ctl(&["eval", forget]).await;
    let (_folder, former) = embedded(topology.clone()).await;
    let letter = Outgoing::new(Exchange::Dead, "", body(7));
    former.publish([numbered(0..3), vec![letter]].concat()).await.unwrap();
    assert_eq!(transfer(&former, &to, &topology).await.unwrap(), 3);
    let left = take(&mut *former.subscribe(&[(Queue::Dead, 10)]).await.unwrap(), 1).await;
    assert_eq!(numbers(&left), [7]);
}
