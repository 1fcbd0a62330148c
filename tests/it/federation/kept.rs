//! Connections that are kept when nothing is asked any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rollcall::config::FederationConfig;
use rollcall::core::signal::Outcome;
use rollcall::edge::PeerKeys;
use rollcall::lifecycle::spawn;
use rollcall::model::ServerName;
use rollcall::wire::outbound::OutboundMessage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::courier::{GIVE_UP, config, courier_by, ended, key, message, peers};
use super::moved::Moved;
use super::name;

/// Much less than an idle connection is kept for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server at every address of this machine. It closes no connection.
struct Patient {
    port: u16,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Patient {
    async fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (accepted, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let patient = Self { port, accepted: accepted.clone(), open: open.clone() };
        drop(spawn("patient", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::Relaxed);
                open.fetch_add(1, Ordering::Relaxed);
                let open = open.clone();
                drop(spawn("connection", async move {
                    serve(stream).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                }));
            }
        }));
        patient
    }

    /// So many servers, each at an address of its own.
    fn servers(&self, count: u8) -> (Vec<ServerName>, FederationConfig) {
        let mut config = config("nobody.example", "http://127.0.0.1:1");
        let names: Vec<_> = (1..=count).map(|number| name(&format!("{number}.example"))).collect();
        let bases = (1..=count).map(|number| format!("http://127.0.1.{number}:{}", self.port));
        config.resolve.extend(names.iter().cloned().zip(bases));
        (names, config)
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Waits until so many connections are left.
    async fn left(&self, expected: usize) {
        let end = Instant::now() + PATIENCE;
        loop {
            let open = self.open.load(Ordering::Relaxed);
            if open == expected {
                return;
            }
            assert!(Instant::now() < end, "{open} connections stay open, not {expected}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Answers each request, until the other side closes.
async fn serve(mut stream: TcpStream) {
    let mut request = Vec::new();
    while stream.read_buf(&mut request).await.is_ok_and(|count| count > 0) {
        let is_whole = request.starts_with(b"GET") && request.ends_with(b"\r\n\r\n") || request.ends_with(b"}");
        if is_whole {
            request.clear();
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn nobody_who_is_asked_for_keys_stays_connected() {
    let patient = Patient::start().await;
    let (names, config) = patient.servers(100);
    let keys = PeerKeys::new(peers(&config), Arc::new(Moved::new()));
    for name in &names {
        keys.with_key(name, "ed25519:x", None).await.unwrap_err();
    }
    assert_eq!(patient.accepted(), 100);
    patient.left(0).await;
}

#[tokio::test]
async fn so_many_peers_stay_connected_as_are_sent_to_at_once_and_no_more() {
    let patient = Patient::start().await;
    let (names, config) = patient.servers(20);
    let most = config.concurrency;
    let courier = courier_by(peers(&config), config, key(), GIVE_UP);
    let to = |name: &ServerName| OutboundMessage { destination: name.clone(), ..message(30_000) };
    for name in &names {
        assert_eq!(courier.deliver(&to(name)).await.unwrap(), ended(Outcome::Delivered));
    }
    assert_eq!(patient.accepted(), 20);
    patient.left(most).await;
    assert_eq!(courier.deliver(&to(&names[0])).await.unwrap(), ended(Outcome::Delivered));
    assert_eq!(patient.accepted(), 20, "that is what it is kept for");
}
