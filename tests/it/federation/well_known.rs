//! How many hosts are asked for `.well-known` at once.

use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rollcall::config::FederationConfig;
use rollcall::outbound::discovery::Ports;
use rollcall::outbound::peers::Peers;
use rollcall::outbound::well_known::MAX_STRANGERS;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use super::courier;
use super::discovery::World;
use super::edge::PATIENCE;

/// Asks as [`World`] does, and waits for each answer for as long as it ever does: 10 s.
fn patient(world: &World, ports: Ports) -> Peers {
    let allowed = [&world.site_at, &world.server_at];
    let config = FederationConfig {
        allow_private: allowed.iter().map(|address| format!("{address}/32").parse().unwrap()).collect(),
        extra_roots: vec![world.authority.root()],
        timeout: 3 * PATIENCE,
        ..courier::config("nobody.example", "http://127.0.0.1:1")
    };
    Peers::new(&config, world.names.dns(), Arc::new(world.clock.clone()), ports).unwrap()
}

#[tokio::test]
async fn so_many_hosts_are_asked_for_well_known_at_once_and_the_next_is_told_so() {
    let mut world = World::new(&[]).await;
    let ports = Ports { well_known: world.site.address.port(), federation: world.server.address.port() };
    world.peers = patient(&world, ports);
    // Takes connections and says nothing.
    let silent = TcpListener::bind(format!("{}:{}", world.server_at, ports.well_known)).await.unwrap();
    let hosts: Vec<_> = (0..2 * MAX_STRANGERS).map(|number| format!("{number}.example")).collect();
    let (mut asking, mut taken) = (FuturesUnordered::new(), Vec::new());
    for host in &hosts {
        world.names.address(host, &[&world.server_at]);
        asking.push(world.ask(host));
        tokio::select! {
            early = asking.next() => panic!("{host}: {early:?}"),
            connection = silent.accept() => taken.push(connection.unwrap()),
        }
    }
    // Nothing answers, so time may jump to the end of the wait.
    tokio::time::pause();
    let (begun, refused) = (Instant::now(), world.ask("next.example").await);
    assert_eq!(refused, Err("too many hosts are being asked for .well-known".into()));
    assert_eq!(begun.elapsed().as_secs(), 5, "it waits for an answer to another question");
    tokio::time::resume();
    // Whoever asked has hung up: others take their places.
    drop(asking);
    timeout(PATIENCE, world.ask("b.example")).await.expect("an answer").unwrap();
}
