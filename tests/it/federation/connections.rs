//! Connections on bare sockets: how many there may be, and what becomes of those that are slow.

use std::net::SocketAddr;
use std::time::Duration;

use rollcall::config::{ConnectionsConfig, EdgeConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::edge::{Edge, PATIENCE, config};

const VERSION: &str = "GET /_matrix/federation/v1/version HTTP/1.1\r\nhost: a.example\r\n\r\n";
const STATUS: &str = "PUT /_matrix/client/v3/presence/@john:a.example/status HTTP/1.1\r\nhost: a.example\r\n\
                      authorization: Bearer @john:a.example|PHONE\r\ncontent-length: 21\r\n\r\n";
const ONLINE: &str = r#"{"presence":"online"}"#;
/// What a slow client has, in these tests.
const SHORT: Duration = Duration::from_secs(1);
/// Between two drops of a slow client.
const DROP: Duration = Duration::from_millis(50);

async fn edge(change: impl FnOnce(&mut ConnectionsConfig)) -> Edge {
    let mut config = EdgeConfig { trusted_proxies: Vec::new(), ..config() };
    change(&mut config.connections);
    Edge::start(config, &[]).await
}

async fn connect(edge: &Edge) -> Client {
    connect_from(edge, "127.0.0.1:0").await
}

async fn connect_from(edge: &Edge, address: &str) -> Client {
    let to: SocketAddr = edge.base.strip_prefix("http://").unwrap().parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(address.parse().unwrap()).unwrap();
    Client(socket.connect(to).await.unwrap())
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Whether a request on this connection is answered.
    async fn is_served(&mut self) -> bool {
        self.0.write_all(VERSION.as_bytes()).await.is_ok() && self.answer().await.starts_with("HTTP/1.1 200")
    }

    /// What comes of an answer with a body of JSON; all that came if the connection ends before.
    async fn answer(&mut self) -> String {
        let mut all = Vec::new();
        while !all.ends_with(b"}") && self.read(&mut all).await {}
        String::from_utf8(all).unwrap()
    }

    /// Waits until the other side has closed it; what came before.
    async fn end(&mut self) -> String {
        let mut all = Vec::new();
        while self.read(&mut all).await {}
        String::from_utf8(all).unwrap()
    }

    /// `false`: the connection is over.
    async fn read(&mut self, all: &mut Vec<u8>) -> bool {
        let read = timeout(PATIENCE, self.0.read_buf(all)).await.expect("something within the deadline");
        read.is_ok_and(|count| count > 0)
    }

    /// Sends `text` over and over, byte by byte, until the other side has closed it; what came, and how long that took.
    async fn dribble(mut self, text: &str) -> (String, Duration) {
        let begun = Instant::now();
        let (mut reading, mut writing) = self.0.split();
        let mut all = Vec::new();
        let dribbling = async {
            for byte in text.bytes().cycle() {
                if writing.write_all(&[byte]).await.is_err() {
                    return;
                }
                sleep(DROP).await;
            }
        };
        let ended = async { while reading.read_buf(&mut all).await.is_ok_and(|count| count > 0) {} };
        let slowly = async { tokio::join!(dribbling, ended) };
        timeout(PATIENCE, slowly).await.expect("it is cut off");
        (String::from_utf8(all).unwrap(), begun.elapsed())
    }
}

#[tokio::test]
async fn a_head_that_comes_drop_by_drop_is_cut_off_and_others_are_served() {
    let edge = edge(|connections| connections.head_timeout = SHORT).await;
    let slow = connect(&edge).await;
    let serving = async {
        sleep(SHORT / 2).await;
        connect(&edge).await.is_served().await
    };
    let ((came, took), is_served) = tokio::join!(slow.dribble("GET / HTTP/1.1\r\nx-header: endless"), serving);
    assert!(came.is_empty() && took >= SHORT, "{came:?} after {took:?}");
    assert!(is_served);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_before_and_after_a_request() {
    let edge = edge(|connections| connections.head_timeout = SHORT).await;
    let begun = Instant::now();
    assert_eq!(connect(&edge).await.end().await, "");
    assert!(begun.elapsed() >= SHORT);
    let mut idle = connect(&edge).await;
    assert!(idle.is_served().await);
    let begun = Instant::now();
    assert_eq!(idle.end().await, "");
    assert!(begun.elapsed() >= SHORT / 2, "it waits for the next request: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_body_that_comes_drop_by_drop_is_refused_and_cut_off() {
    let edge = edge(|connections| connections.body_timeout = SHORT).await;
    let mut slow = connect(&edge).await;
    slow.send(&STATUS.replace("21", "100000")).await;
    let (came, took) = slow.dribble(" ").await;
    assert!(came.starts_with("HTTP/1.1 408") && came.contains("did not arrive in time"), "{came}");
    assert!(came.contains("connection: close"), "{came}");
    assert!(took >= SHORT, "{took:?}");
}

/// A transaction, signed by nobody, of which all but the last byte has arrived, or will.
async fn nearly_sent(edge: &Edge, from: &str, size: usize) -> Client {
    all_but_the_last(edge, from, &transaction(size), size).await
}

/// A request that has this head and a body of `size`, of which all but the last byte has arrived, or will.
async fn all_but_the_last(edge: &Edge, from: &str, head: &str, size: usize) -> Client {
    let mut peer = connect_from(edge, from).await;
    peer.send(head).await;
    let mut go_on = Vec::new();
    assert!(peer.read(&mut go_on).await && go_on.starts_with(b"HTTP/1.1 100"), "its body is being read");
    // It may be refused while it still sends.
    let _refused = peer.0.write_all(&vec![b'x'; size - 1]).await;
    peer
}

/// Whether there is no room for another one.
async fn is_full_for(edge: &Edge, from: &str, size: usize) -> bool {
    let mut peer = connect_from(edge, from).await;
    peer.send(&transaction(size)).await;
    peer.send(&"x".repeat(size)).await;
    let answer = peer.answer().await;
    answer.contains("HTTP/1.1 503") && answer.contains("too much at once")
}

fn transaction(size: usize) -> String {
    format!(
        "PUT /_matrix/federation/v1/send/1 HTTP/1.1\r\nhost: a.example\r\nexpect: 100-continue\r\n\
         authorization: X-Matrix origin=\"b.example\",key=\"ed25519:x\",sig=\"AAAA\"\r\ncontent-length: {size}\r\n\r\n"
    )
}

#[tokio::test]
async fn bodies_of_peers_take_nothing_from_clients() {
    let edge = edge(|_| ()).await;
    let mut peers = Vec::new();
    let begun = Instant::now();
    // Down to the last KiB.
    for size in [10_000_000, 1_000_000, 100_000, 10_000, 1_000] {
        // Each from an address of its own.
        while !is_full_for(&edge, "127.0.1.1:0", size).await {
            peers.push(nearly_sent(&edge, &format!("127.0.0.{}:0", peers.len() + 2), size).await);
            assert!(begun.elapsed() < PATIENCE, "{} are let in", peers.len());
        }
    }
    let mut client = connect(&edge).await;
    client.send(&format!("{STATUS}{ONLINE}")).await;
    let answer = client.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Of the largest bodies, from one address: 256 would fill it.
#[tokio::test]
async fn one_user_does_not_fill_the_memory_of_clients() {
    const LARGEST: usize = 128 << 10;
    let edge = edge(|_| ()).await;
    let head = |user: &str| {
        format!(
            "PUT /_matrix/client/v3/presence/@{user}:a.example/status HTTP/1.1\r\nhost: a.example\r\nexpect: 100-continue\r\n\
             authorization: Bearer @{user}:a.example|PHONE\r\ncontent-length: {LARGEST}\r\n\r\n"
        )
    };
    let mut slow = Vec::new();
    let refused = async || {
        let mut client = connect(&edge).await;
        client.send(&head("john")).await;
        client.send(&" ".repeat(LARGEST)).await;
        client.answer().await.contains("too much at once")
    };
    while !refused().await {
        slow.push(all_but_the_last(&edge, "127.0.0.1:0", &head("john"), LARGEST).await);
        assert!(slow.len() < 8, "that many are let in");
    }
    let mut other = connect(&edge).await;
    other.send(&head("mary")).await;
    other.send(&format!("{ONLINE}{}", " ".repeat(LARGEST - ONLINE.len()))).await;
    let answer = other.answer().await;
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn one_address_does_not_fill_the_memory_of_peers() {
    let edge = edge(|_| ()).await;
    let _first = nearly_sent(&edge, "127.0.0.1:0", 10_000_000).await;
    let begun = Instant::now();
    while !is_full_for(&edge, "127.0.0.1:0", 10_000_000).await {
        assert!(begun.elapsed() < PATIENCE, "two of the largest are let in at once");
    }
    assert!(!is_full_for(&edge, "127.0.0.2:0", 10_000_000).await, "another address has a share of its own");
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let edge = edge(|_| ()).await;
    let mut client = connect(&edge).await;
    client.send("GET / HTTP/1.1\r\nx-header: ").await;
    let header = "x".repeat(64 << 10);
    // It may be cut off while it still sends.
    let _refused = client.0.write_all(header.as_bytes()).await;
    let came = client.end().await;
    assert!(came.is_empty() || came.starts_with("HTTP/1.1 431"), "{came}");
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_and_the_others_go_on() {
    let edge = edge(|connections| connections.max = 2).await;
    let (mut one, mut two) = (connect(&edge).await, connect(&edge).await);
    assert!(one.is_served().await && two.is_served().await);
    assert_eq!(connect(&edge).await.end().await, "");
    assert!(one.is_served().await && two.is_served().await);
    drop(one);
    let end = Instant::now() + PATIENCE;
    while !connect(&edge).await.is_served().await {
        assert!(Instant::now() < end, "the place of one that ended stays taken");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(two.is_served().await);
}

#[tokio::test]
async fn one_address_does_not_take_all_places() {
    let edge = edge(|connections| connections.per_address = 2).await;
    let (mut one, mut two) = (connect(&edge).await, connect(&edge).await);
    assert!(one.is_served().await && two.is_served().await);
    assert_eq!(connect(&edge).await.end().await, "");
    assert!(connect_from(&edge, "127.0.0.2:0").await.is_served().await, "another address has places of its own");
}

#[tokio::test]
async fn a_trusted_proxy_has_as_many_connections_as_there_are() {
    let mut config = config();
    config.connections.per_address = 2;
    let edge = Edge::start(config, &[]).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut client = connect(&edge).await;
        assert!(client.is_served().await);
        held.push(client);
    }
}

#[tokio::test]
async fn a_stop_answers_what_was_begun_and_waits_for_no_half_a_head() {
    let edge = edge(|connections| connections.head_timeout = Duration::from_secs(3600)).await;
    let (mut half, mut idle, mut begun) = (connect(&edge).await, connect(&edge).await, connect(&edge).await);
    assert!(half.is_served().await && idle.is_served().await && begun.is_served().await);
    half.send("GET /_matrix/federation").await;
    begun.send(&STATUS[..STATUS.len() - 2]).await;
    begun.send("expect: 100-continue\r\n\r\n").await;
    let mut go_on = Vec::new();
    assert!(begun.read(&mut go_on).await && go_on.starts_with(b"HTTP/1.1 100"), "its body is being read");
    let answering = async {
        assert_eq!(idle.end().await, "", "the stop has begun");
        begun.send(ONLINE).await;
        begun.end().await
    };
    let (stopped, answer) = tokio::join!(edge.stop(), answering);
    stopped.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(half.end().await, "");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_body_that_never_comes() {
    let edge = edge(|connections| connections.body_timeout = Duration::from_secs(3600)).await;
    let mut begun = connect(&edge).await;
    begun.send(&STATUS[..STATUS.len() - 2]).await;
    begun.send("expect: 100-continue\r\n\r\n").await;
    let mut go_on = Vec::new();
    assert!(begun.read(&mut go_on).await && go_on.starts_with(b"HTTP/1.1 100"), "its body is being read");
    edge.stop().await.expect("an end within the deadline");
    assert_eq!(begun.end().await, "");
}
