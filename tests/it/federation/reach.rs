//! Nothing that a stranger says makes us connect to what only we can reach. Each test leads to a trap that counts connections, by
//! another way.

use std::net::Ipv4Addr;

use super::discovery::World;
use super::https::Https;

const WELL_KNOWN: &str = "/.well-known/matrix/server";

/// Listens where nobody may connect, with a certificate that would be believed, at `port` (0: a free one).
async fn trap(world: &World, port: u16) -> Https {
    let address = world.trap_at.to_string();
    let names = ["b.example", "m.example", "trap.example", &address];
    Https::start(&world.authority, &format!("{address}:{port}"), &names).await
}

async fn refused(world: &World, trap: &Https, server: &str) {
    let error = world.ask(server).await.unwrap_err();
    assert_eq!(trap.connections(), 0, "{server} led to the trap: {error}");
    assert!(error.contains("allow_private"), "{server} failed for another reason: {error}");
}

#[tokio::test]
async fn an_address_as_a_name_leads_nowhere_special() {
    let world = World::new(&[]).await;
    let trap = trap(&world, 0).await;
    let port = trap.address.port();
    refused(&world, &trap, &format!("{}:{port}", world.trap_at)).await;
    let (mapped, embedded) = (format!("[::ffff:{}]", world.trap_at), format!("[64:ff9b::{}]", world.trap_at));
    for address in [&*mapped, &embedded, "[::1]", "[fe80::1]", "10.0.0.1"] {
        refused(&world, &trap, &format!("{address}:{port}")).await;
        refused(&world, &trap, address).await;
    }
}

#[tokio::test]
async fn an_address_in_disguise_leads_nowhere_special() {
    let world = World::new(&[]).await;
    let trap = trap(&world, 0).await;
    // Host names to Matrix, the trap's address to whoever parses URLs.
    for name in disguises(world.trap_at) {
        refused(&world, &trap, &format!("{name}:{}", trap.address.port())).await;
    }
}

fn disguises(address: Ipv4Addr) -> [String; 4] {
    let [a, b, c, d] = address.octets();
    let all = u32::from(address);
    [format!("{all:#x}"), format!("{all}"), format!("{a}.{}", all & 0xff_ffff), format!("0{a:o}.{b:#x}.{c}.{d}")]
}

#[tokio::test]
async fn a_name_leads_nowhere_special() {
    let world = World::new(&[]).await;
    let trap = trap(&world, 0).await;
    let (plain, mapped) = (world.trap_at.to_string(), format!("::ffff:{}", world.trap_at));
    for address in [&*plain, &mapped, "::1"] {
        world.names.address("trap.example", &[address]);
        refused(&world, &trap, &format!("trap.example:{}", trap.address.port())).await;
    }
    refused(&world, &trap, &format!("localhost:{}", trap.address.port())).await;
}

#[tokio::test]
async fn of_a_name_s_addresses_the_special_ones_do_not_count() {
    let world = World::new(&["m.example"]).await;
    let trap = trap(&world, world.server.address.port()).await;
    world.names.address("m.example", &[&world.trap_at.to_string(), &world.server_at]);
    world.ask(&format!("m.example:{}", world.server.address.port())).await.unwrap();
    assert_eq!((trap.connections(), world.server.connections()), (0, 1));
}

#[tokio::test]
async fn a_service_record_leads_nowhere_special() {
    for service in ["_matrix-fed._tcp", "_matrix._tcp"] {
        let world = World::new(&[]).await;
        let trap = trap(&world, 0).await;
        world.names.address("trap.example", &[&world.trap_at.to_string()]);
        world.names.service(&format!("{service}.b.example"), 1, "trap.example", trap.address.port());
        refused(&world, &trap, "b.example").await;
    }
}

#[tokio::test]
async fn a_delegate_leads_nowhere_special() {
    for kind in 0..3 {
        let world = World::new(&[]).await;
        let trap = trap(&world, 0).await;
        world.names.address("m.example", &[&world.trap_at.to_string()]);
        let delegate = [world.trap_at.to_string(), format!("{:#x}", u32::from(world.trap_at)), "m.example".into()];
        world.site.delegate(&format!("{}:{}", delegate[kind], trap.address.port()));
        refused(&world, &trap, "b.example").await;
    }
}

#[tokio::test]
async fn the_asking_for_well_known_itself_leads_nowhere_special() {
    let world = World::new(&[]).await;
    let trap = trap(&world, world.site.address.port()).await;
    world.names.address("m.example", &[&world.trap_at.to_string()]);
    refused(&world, &trap, "m.example").await;
}

#[tokio::test]
async fn a_redirect_leads_nowhere_special() {
    for kind in 0..3 {
        let world = World::new(&[]).await;
        let hosts = [world.trap_at.to_string(), format!("{:#x}", u32::from(world.trap_at)), "trap.example".into()];
        let host = &hosts[kind];
        let trap = trap(&world, 0).await;
        trap.say("/x", 200, &[], r#"{"m.server": "m.example"}"#);
        world.names.address("trap.example", &[&world.trap_at.to_string()]);
        let there = format!("https://{host}:{}/x", trap.address.port());
        world.site.say(WELL_KNOWN, 302, &[("location", &there)], "");
        // What cannot be asked is as if it were not there.
        world.ask("b.example").await.unwrap();
        assert_eq!((world.site.asked_for(WELL_KNOWN), trap.connections()), (1, 0), "{host}");
    }
}

#[tokio::test]
async fn a_redirect_to_plain_http_is_not_followed() {
    let world = World::new(&[]).await;
    let listener = std::net::TcpListener::bind(format!("{}:0", world.site_at)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let there = format!("http://b.example:{}/x", listener.local_addr().unwrap().port());
    world.site.say(WELL_KNOWN, 302, &[("location", &there)], "");
    world.ask("b.example").await.unwrap();
    assert!(listener.accept().is_err(), "somebody connected");
}

#[tokio::test]
async fn a_request_itself_is_redirected_nowhere() {
    let world = World::new(&[]).await;
    let trap = trap(&world, 0).await;
    let there = format!("https://{}:{}/x", world.trap_at, trap.address.port());
    world.server.say("/_matrix/federation/v1/version", 307, &[("location", &there)], "");
    world.ask("b.example").await.unwrap();
    assert_eq!(trap.connections(), 0);
}

#[tokio::test]
async fn a_name_that_comes_to_mean_something_else_leads_nowhere_special() {
    let world = World::new(&["m.example"]).await;
    let port = world.server.address.port();
    let trap = Https::start(&world.authority, &format!("{}:{port}", world.trap_at), &["m.example"]).await;
    let name = format!("m.example:{port}");
    // Each request is a connection, and each connection a question.
    world.server.say("/_matrix/federation/v1/version", 200, &[("connection", "close")], "{}");
    world.names.address("m.example", &[&world.server_at]);
    world.ask(&name).await.unwrap();
    world.names.address("m.example", &[&world.trap_at.to_string()]);
    refused(&world, &trap, &name).await;
}

#[tokio::test]
async fn what_the_operator_names_is_reached_wherever_it_is() {
    let peer = super::peer::Peer::start("b.example", vec![]).await;
    let peers = super::courier::peers(&super::courier::config("b.example", &peer.base));
    peers.request(reqwest::Method::GET, &peer.name, "/x").await.unwrap().send().await.unwrap();
    assert_eq!(peer.seen().len(), 1);
}
