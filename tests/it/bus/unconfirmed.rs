//! A broker that takes messages, and confirms none of them: its connection looks alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rollcall::bus::amqp::Amqp;
use rollcall::bus::{PublishError, SharedBus};
use rollcall::lifecycle::spawn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::amqp::{OnBroker, config};
use super::contract::{DEADLINE, Deployment as _, numbered};
use crate::support::broker::shared_url;

/// Of the frame of a method: its class and its number.
const BASIC_ACK: [u8; 4] = [0, 60, 0, 80];

/// Stands between a client and the broker, and keeps confirms back.
struct Silence {
    port: u16,
    /// Connections that are there.
    open: Arc<AtomicUsize>,
    /// Connections that ever were.
    all: Arc<AtomicUsize>,
}

impl Silence {
    async fn before(broker: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, ever) = (open.clone(), all.clone());
        drop(spawn("silence", async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let broker = TcpStream::connect(&broker).await.unwrap();
                let ((from_client, to_client), (from_broker, to_broker)) = (client.into_split(), broker.into_split());
                ever.fetch_add(1, Ordering::Relaxed);
                counted.fetch_add(1, Ordering::Relaxed);
                let counted = counted.clone();
                drop(spawn("said", pass(from_client, to_broker)));
                drop(spawn("answered", async move {
                    let _ = pass_all_but_confirms(from_broker, to_client).await;
                    counted.fetch_sub(1, Ordering::Relaxed);
                }));
            }
        }));
        Self { port, open, all }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

/// Frame by frame: a type, a channel, a length, so many bytes, and an end.
async fn pass_all_but_confirms(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> std::io::Result<()> {
    loop {
        let mut frame = vec![0; 7];
        from.read_exact(&mut frame).await?;
        let length = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]) as usize;
        frame.resize(7 + length + 1, 0);
        from.read_exact(&mut frame[7..]).await?;
        if frame[0] != 1 || !frame[7..].starts_with(&BASIC_ACK) {
            to.write_all(&frame).await?;
        }
    }
}

/// A bus behind such a broker, which gives up after `patience`.
async fn bus_behind(patience: Duration) -> (Silence, SharedBus) {
    let url = shared_url().await;
    let deployment = OnBroker::at(vec![url.clone()]).await;
    let mut url = reqwest::Url::parse(&url).unwrap();
    let broker = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672));
    let silence = Silence::before(broker).await;
    url.set_port(Some(silence.port)).unwrap();
    url.set_host(Some("127.0.0.1")).unwrap();
    let topology = deployment.topology();
    let bus = Amqp::connect(&config(vec![url.into()], &topology.prefix, patience), topology, "a test").await.unwrap();
    (silence, bus)
}

/// Or each unconfirmed publish would leave a connection behind, with its thread and its heartbeats, until the process ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_confirms_nothing_is_closed_when_it_is_given_up() {
    let (silence, bus) = bus_behind(Duration::from_millis(500)).await;
    // One to consume, and three to publish, one after the other.
    let replaced = async {
        while silence.all.load(Ordering::Relaxed) < 4 {
            let outcome = bus.publish(numbered(0..1)).await;
            assert!(matches!(outcome, Err(PublishError::Unconfirmed(..))), "{outcome:?}");
        }
    };
    timeout(DEADLINE, replaced).await.expect("what confirms nothing is replaced");
    let closed = async {
        while silence.open.load(Ordering::Relaxed) > 2 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, closed).await.expect("what was given up is closed");
    bus.close().await;
}

/// Whoever comes to a connection late in their time does not judge it: callers that give up one after the other would each close the
/// connection of all others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_had_only_the_end_of_the_time_is_not_given_up() {
    let patience = Duration::from_secs(3);
    let (silence, bus) = bus_behind(patience).await;
    let publish = async |after: Duration| {
        sleep(after).await;
        bus.publish(numbered(0..1)).await
    };
    let (first, second) = tokio::join!(publish(Duration::ZERO), publish(patience / 2));
    assert!(first.is_err() && second.is_err());
    // One to consume, the first to publish, and the one in its place, which the next caller uses from the beginning.
    assert!(bus.publish(numbered(0..1)).await.is_err());
    assert_eq!(silence.all.load(Ordering::Relaxed), 3);
    bus.close().await;
}
