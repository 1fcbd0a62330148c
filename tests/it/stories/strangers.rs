//! What an operator and the surroundings of a process have to say about whom it talks to.

use std::time::Duration;

use reqwest::StatusCode;
use rollcall::model::ServerName;
use rollcall::outbound::http::client;
use rollcall::outbound::sign::authorize_put;
use tokio::time::{Instant, sleep};

use super::{resolve, server, user};
use crate::federation::peer::Peer;
use crate::support::process::{Place, Process};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_servers_are_read_again_on_sighup() {
    let peer = Peer::start("b.example", vec![]).await;
    let place = Place::new(&server("p"), "embedded:", "");
    let known = resolve(&[("b.example", &peer.base)]);
    let configure = |more: &str| place.configure("embedded:", &format!("{known}\n{more}"));
    configure("");
    let process = place.serve().await;
    assert_eq!(transact(&place, &peer).await, StatusCode::OK);
    configure("federation.inbound.deny = [\"b.*\"]");
    hang_up_until(&process, &place, &peer, StatusCode::FORBIDDEN).await;
    // A mistake changes nothing, and ends nothing.
    configure("federation.inbound.deny = [\"not a name\"]");
    process.hang_up();
    let deadline = Instant::now() + PATIENCE;
    while !process.log().contains("stay as they were") {
        assert!(Instant::now() < deadline, "{}", process.log());
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(transact(&place, &peer).await, StatusCode::FORBIDDEN);
    configure("");
    hang_up_until(&process, &place, &peer, StatusCode::OK).await;
    assert!(process.terminate().await.success());
}

async fn hang_up_until(process: &Process, place: &Place, peer: &Peer, status: StatusCode) {
    process.hang_up();
    let deadline = Instant::now() + PATIENCE;
    while transact(place, peer).await != status {
        assert!(Instant::now() < deadline, "{status} expected:\n{}", process.log());
        sleep(Duration::from_millis(20)).await;
    }
}

/// An empty transaction of the peer.
async fn transact(place: &Place, peer: &Peer) -> StatusCode {
    const PATH: &str = "/_matrix/federation/v1/send/1";
    const BODY: &str = r#"{"origin_server_ts":5,"pdus":[],"edus":[]}"#;
    let local = ServerName::parse(&place.name).unwrap();
    let signed = authorize_put(peer.keys.current(), &peer.name, &local, PATH, BODY.as_bytes()).unwrap();
    let request = client(PATIENCE).unwrap().put(format!("{}{PATH}", place.url())).header("authorization", signed);
    request.body(BODY).send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_of_the_environment_sees_nothing() {
    let (peer, proxy) = (Peer::start("b.example", vec![]).await, Peer::start("proxy.example", vec![]).await);
    let place = Place::new(&server("x"), "embedded:", &resolve(&[("b.example", &peer.base)]));
    let names = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    let process = place.serve_in(&names.map(|name| (name, &*proxy.base))).await;
    let alice = user("alice", &place);
    alice.set("online", "direct").await;
    alice.list(&["@bob:b.example"]).await;
    let deadline = Instant::now() + PATIENCE;
    while peer.seen().is_empty() {
        assert_eq!(proxy.seen().len(), 0, "the proxy was asked");
        assert!(Instant::now() < deadline, "{}", process.log());
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(proxy.seen().len(), 0);
    assert!(process.terminate().await.success());
}
