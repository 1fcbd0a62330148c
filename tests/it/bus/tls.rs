//! `amqps` to a real RabbitMQ that wants certificates.

use std::time::Duration;

use rollcall::bus::amqp::Amqp;
use rollcall::bus::{Bus as _, BusError, Topology};
use rollcall::config::{BusConfig, BusTls};

use super::contract::numbered;
use crate::support::broker::Broker;
use crate::support::certificates::{Authority, write};

async fn publish(port: u16, tls: BusTls) -> Result<u64, BusError> {
    let url = format!("amqps://guest:guest@127.0.0.1:{port}");
    let config = BusConfig { tls, ..super::amqp::config(vec![url], "t.", Duration::from_secs(20)) };
    let bus = Amqp::connect(&config, Topology { prefix: "t.".into(), partitions: 1 }, "a test").await?;
    bus.declare().await?;
    bus.publish(numbered(0..1)).await.unwrap();
    let depths = bus.depths().await?;
    bus.close().await;
    Ok(depths.iter().map(|queue| queue.ready).sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broker_and_rollcall_prove_themselves_by_certificates() {
    let (brokers, clients) = (Authority::new("brokers"), Authority::new("clients"));
    let (_broker, port) = Broker::start_with_tls(&brokers.server(), &clients).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = Some(write(folder.path(), "brokers.pem", &brokers.pem()));
    let good = BusTls { ca, identity: Some(clients.client("rollcall").write(folder.path(), "rollcall")) };
    assert_eq!(publish(port, good.clone()).await.unwrap(), 1);

    let stranger = Authority::new("clients").client("rollcall").write(folder.path(), "stranger");
    for (tls, what) in [
        (BusTls { ca: None, ..good.clone() }, "a broker of an unknown authority"),
        (BusTls { identity: None, ..good.clone() }, "no certificate"),
        (BusTls { identity: Some(stranger), ..good.clone() }, "a certificate of another authority"),
    ] {
        let refused = publish(port, tls).await;
        assert!(matches!(refused, Err(BusError::Unreachable(_))), "{what}: {refused:?}");
    }

    // Files are read at each connecting: with those of the stranger in their place the same configuration leads nowhere.
    std::fs::copy(folder.path().join("stranger.pem"), folder.path().join("rollcall.pem")).unwrap();
    std::fs::copy(folder.path().join("stranger.key"), folder.path().join("rollcall.key")).unwrap();
    assert!(publish(port, good).await.is_err());
}
