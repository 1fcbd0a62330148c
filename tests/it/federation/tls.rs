//! TLS at the edge: certificates of a test's own authority, renewed without a restart; certificates of trusted edges.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reqwest::{Certificate, Client, StatusCode};
use rollcall::bus::Queue;
use rollcall::config::{EdgeConfig, EdgeFederation, TlsConfig};
use rollcall::edge::{EdgeState, StartError};
use rollcall::model::Partition;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep};

use super::edge::{Edge, Own, PATIENCE, answer, assert_error, config, parts};
use crate::support::certificates::{Authority, Identity, write};

const VERSION: &str = "/_matrix/federation/v1/version";

/// An edge with a certificate of `authority`, and the folder that it lies in.
struct Secured {
    edge: Edge,
    folder: TempDir,
}

impl Secured {
    async fn start(authority: &Authority, change: impl FnOnce(&Path, &mut EdgeConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = EdgeConfig { tls: Some(tls(folder.path())), ..config() };
        authority.server().write(folder.path(), "server");
        change(folder.path(), &mut config);
        Self { edge: Edge::start(config, &[]).await, folder }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.edge.base.replace("http://", "https://"))
    }

    async fn is_believed_by(&self, client: &Client) -> bool {
        client.get(self.url(VERSION)).send().await.is_ok_and(|answer| answer.status() == StatusCode::OK)
    }

    /// Waits until new connections get a certificate that `client` believes.
    async fn until_believed_by(&self, client: impl Fn() -> Client) {
        let end = Instant::now() + PATIENCE;
        while !self.is_believed_by(&client()).await {
            assert!(Instant::now() < end, "still the old certificate");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn tls(folder: &Path) -> TlsConfig {
    let file = |name| folder.join(name);
    TlsConfig { cert: file("server.pem"), key: file("server.key"), client_ca: None, reload: Duration::from_secs(3600) }
}

/// Believes nobody but `authority`.
fn client(authority: &Authority, identity: Option<&Identity>) -> Client {
    rollcall::outbound::http::install_crypto();
    let root = Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let builder = Client::builder().no_proxy().timeout(PATIENCE).tls_certs_only([root]);
    let builder = match identity {
        None => builder,
        Some(Identity { cert, key }) => {
            builder.identity(reqwest::Identity::from_pem(format!("{cert}{key}").as_bytes()).unwrap())
        }
    };
    builder.build().unwrap()
}

#[tokio::test]
async fn the_edge_speaks_tls_and_nothing_else() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("another"));
    let secured = Secured::start(&authority, |_, _| ()).await;
    assert!(secured.is_believed_by(&client(&authority, None)).await);
    assert!(!secured.is_believed_by(&client(&stranger, None)).await);
    let plain = secured.edge.request(reqwest::Method::GET, VERSION).send().await;
    assert!(plain.is_err(), "{plain:?}");
}

#[tokio::test]
async fn connections_that_say_nothing_hold_nobody_up() {
    let authority = Authority::new("ours");
    let secured = Secured::start(&authority, |_, _| ()).await;
    let address = secured.edge.base.strip_prefix("http://").unwrap();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let begun = Instant::now();
    assert!(secured.is_believed_by(&client(&authority, None)).await);
    assert!(begun.elapsed() < Duration::from_secs(5), "it waited for handshakes of others");
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_broken_off() {
    let authority = Authority::new("ours");
    let secured =
        Secured::start(&authority, |_, config| config.connections.head_timeout = Duration::from_millis(300)).await;
    let address = secured.edge.base.strip_prefix("http://").unwrap();
    let mut silent = tokio::net::TcpStream::connect(address).await.unwrap();
    let end = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 1])).await.expect("it ends");
    assert_eq!(end.unwrap_or(0), 0);
}

#[tokio::test]
async fn new_certificates_are_used_when_their_files_change() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let secured = Secured::start(&old, |_, config| {
        config.tls.as_mut().unwrap().reload = Duration::from_millis(50);
    })
    .await;
    let (old_client, new_client) = (client(&old, None), client(&new, None));
    assert!(secured.is_believed_by(&old_client).await && !secured.is_believed_by(&new_client).await);
    // Only one of two files has come: what was there stays.
    let renewed = new.server();
    write(secured.folder.path(), "server.pem", &renewed.cert);
    sleep(Duration::from_millis(200)).await;
    assert!(secured.is_believed_by(&client(&old, None)).await, "half of a change is none");
    write(secured.folder.path(), "server.key", &renewed.key);
    secured.until_believed_by(|| client(&new, None)).await;
    assert!(secured.is_believed_by(&old_client).await, "connections of before go on");
}

#[tokio::test]
async fn new_certificates_are_used_at_sighup() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let secured = Secured::start(&old, |_, _| ()).await;
    // Once it serves, it listens for the signal.
    assert!(secured.is_believed_by(&client(&old, None)).await);
    new.server().write(secured.folder.path(), "server");
    let me = std::process::id().to_string();
    assert!(Command::new("kill").args(["-HUP", &me]).status().unwrap().success());
    secured.until_believed_by(|| client(&new, None)).await;
}

#[tokio::test]
async fn a_certificate_proves_a_trusted_edge() {
    let (authority, private) = (Authority::new("ours"), Authority::new("edges"));
    let secured = Secured::start(&authority, |folder, config| {
        config.federation = EdgeFederation::Trusted;
        config.tls.as_mut().unwrap().client_ca = Some(write(folder, "edges.pem", &private.pem()));
    })
    .await;
    let send = |client: Client| {
        let body = json!({ "origin": "b.example", "origin_server_ts": 5, "pdus": [], "edus": [] });
        client.put(secured.url("/_matrix/federation/v1/send/1")).body(body.to_string())
    };
    let nobody = answer(send(client(&authority, None))).await;
    assert_error(&nobody, 401, "M_UNAUTHORIZED", "trusted edge");
    let forger = Authority::new("edges").client("edge");
    let forged = send(client(&authority, Some(&forger))).send().await;
    assert!(forged.is_err(), "a certificate of another authority: {forged:?}");
    let good = answer(send(client(&authority, Some(&private.client("edge"))))).await;
    assert_eq!(good, (StatusCode::OK, json!({ "pdus": {} })));
    let server = send(client(&authority, Some(&private.server()))).send().await;
    assert!(server.is_err(), "a certificate that is for servers: {server:?}");
    // What a trusted edge hands on is answered before it lies there.
    secured.edge.own.take(Queue::Peers(Partition(0))).await;
}

#[tokio::test]
async fn an_edge_without_good_certificates_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (Authority::new("one").server(), Authority::new("other").server());
    let own = Own::start().await;
    let refused = |cert: &str, key: &str| {
        write(folder.path(), "server.pem", cert);
        write(folder.path(), "server.key", key);
        let config = EdgeConfig { tls: Some(tls(folder.path())), ..config() };
        match EdgeState::start(parts(&own, config, &[])) {
            Err(StartError::Tls(error)) => error.to_string(),
            _ => panic!("it starts"),
        }
    };
    assert!(refused("", &one.key).contains("server.pem"));
    let secret = one.key.replace("PRIVATE KEY", "SECRET");
    let error = refused(&one.cert, &secret);
    assert!(error.contains("server.key") && !error.contains(secret.lines().nth(1).unwrap()), "{error}");
    assert!(refused(&one.cert, &other.key).starts_with("edge.tls: "));
}
