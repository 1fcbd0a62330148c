//! Finding servers: real DNS, real TLS, real redirects, on loopback addresses that the tests allow.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use reqwest::Method;
use rollcall::config::FederationConfig;
use rollcall::core::signal::Outcome;
use rollcall::outbound::discovery::Ports;
use rollcall::outbound::peers::Peers;
use tokio::net::TcpListener;

use super::courier::{GIVE_UP, courier_by, ended, key, message};
use super::https::{Asked, Authority, Https};
use super::moved::Moved;
use super::name;
use super::nameserver::NameServer;

const PATH: &str = "/_matrix/federation/v1/version";
const WELL_KNOWN: &str = "/.well-known/matrix/server";

/// A small internet, on loopback addresses of its own.
pub(super) struct World {
    pub(super) authority: Authority,
    pub(super) names: NameServer,
    pub(super) clock: Moved,
    /// Where hosts' HTTPS is.
    pub(super) site_at: String,
    /// Where Matrix servers are.
    pub(super) server_at: String,
    /// Where nobody may go.
    pub(super) trap_at: Ipv4Addr,
    /// HTTPS of `b.example`; its port stands for 443.
    pub(super) site: Https,
    /// A Matrix server, `b.example`; its port stands for 8448.
    pub(super) server: Https,
    pub(super) peers: Peers,
}

impl World {
    /// `b.example` is at two addresses: its HTTPS on one, its Matrix server on the other, whose certificate is for `certified` as well.
    pub(super) async fn new(certified: &[&str]) -> Self {
        let [site_at, server_at, trap_at] = network();
        let (site_at, server_at) = (site_at.to_string(), server_at.to_string());
        let authority = Authority::new();
        let names = NameServer::start().await;
        names.address("b.example", &[&site_at, &server_at]);
        let site = Https::start(&authority, &format!("{site_at}:0"), &["b.example"]).await;
        let all: Vec<_> = ["b.example", &server_at].iter().chain(certified).copied().collect();
        // Ports of two addresses may be the same, and then the first of `b.example` answers for the second.
        let server = loop {
            let server = Https::start(&authority, &format!("{server_at}:0"), &all).await;
            if server.address.port() != site.address.port() {
                break server;
            }
        };
        let clock = Moved::new();
        let config = config(&authority, &[&site_at, &server_at]);
        let ports = Ports { well_known: site.address.port(), federation: server.address.port() };
        let peers = Peers::new(&config, names.dns(), Arc::new(clock.clone()), ports).unwrap();
        Self { authority, names, clock, site_at, server_at, trap_at, site, server, peers }
    }

    /// Another server where Matrix servers are, at a port of its own.
    async fn another(&self, names: &[&str]) -> Https {
        Https::start(&self.authority, &format!("{}:0", self.server_at), names).await
    }

    /// Asks the server called `server`; an error is why that failed.
    pub(super) async fn ask(&self, server: &str) -> Result<(), String> {
        let request = self.peers.request(Method::GET, &name(server), PATH).await.map_err(|error| error.to_string())?;
        let response = request.send().await.map_err(|error| chain(&error))?;
        response.error_for_status().map(drop).map_err(|error| error.to_string())
    }

    /// The same, where it has to be answered by `by`: with which name in TLS and in `Host`.
    async fn reach(&self, server: &str, by: &Https) -> (Option<String>, String) {
        let before = by.asked_for(PATH);
        self.ask(server).await.unwrap();
        assert_eq!(by.asked_for(PATH), before + 1, "another server answered");
        let Asked { sni, host, .. } = by.asked().into_iter().rfind(|asked| asked.path == PATH).unwrap();
        (sni, host)
    }
}

/// Addresses that no other test uses, so that no two stand in for the same port.
fn network() -> [Ipv4Addr; 3] {
    let (a, b) = (fastrand::u8(1..), fastrand::u8(..));
    [2, 3, 9].map(|c| Ipv4Addr::new(127, a, b, c))
}

fn config(authority: &Authority, allowed: &[&str]) -> FederationConfig {
    let config = super::courier::config("nobody.example", "http://127.0.0.1:1");
    let allow_private = allowed.iter().map(|address| format!("{address}/32").parse().unwrap()).collect();
    FederationConfig { allow_private, extra_roots: vec![authority.root()], ..config }
}

/// All that is known of an error, in the words of programs and of people.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(|cause| format!("{cause} ({cause:?})\n")).collect()
}

fn named(sni: &str, host: &str) -> (Option<String>, String) {
    (Some(sni.to_owned()), host.to_owned())
}

#[tokio::test]
async fn a_host_without_anything_else_is_at_the_port_of_federation() {
    let world = World::new(&[]).await;
    assert_eq!(world.reach("b.example", &world.server).await, named("b.example", "b.example"));
    assert_eq!(world.site.asked_for(WELL_KNOWN), 1);
}

#[tokio::test]
async fn a_host_with_a_port_is_there_and_nobody_else_is_asked() {
    let world = World::new(&[]).await;
    world.site.delegate("elsewhere.example");
    let name = format!("b.example:{}", world.server.address.port());
    assert_eq!(world.reach(&name, &world.server).await, named("b.example", &name));
    assert_eq!(world.site.asked_for(WELL_KNOWN), 0);
}

#[tokio::test]
async fn an_address_is_where_it_says_with_a_certificate_for_it() {
    let world = World::new(&[]).await;
    let with_port = format!("{}:{}", world.server_at, world.server.address.port());
    for name in [&world.server_at, &with_port] {
        assert_eq!(world.reach(name, &world.server).await, (None, name.to_owned()));
    }
    assert_eq!(world.site.connections(), 0);
}

#[tokio::test]
async fn a_service_record_says_where_and_under_which_of_its_names() {
    for service in ["_matrix-fed._tcp", "_matrix._tcp"] {
        let world = World::new(&[]).await;
        let elsewhere = world.another(&["b.example"]).await;
        world.names.address("host.example", &[&world.server_at]);
        world.names.service(&format!("{service}.b.example"), 1, "host.example", elsewhere.address.port());
        assert_eq!(world.reach("b.example", &elsewhere).await, named("b.example", "b.example"), "{service}");
        assert_eq!(world.server.connections(), 0);
    }
}

#[tokio::test]
async fn the_new_service_name_comes_before_the_old_and_a_lower_priority_before_a_higher() {
    let world = World::new(&[]).await;
    let first = world.another(&["b.example"]).await;
    world.names.address("host.example", &[&world.server_at]);
    world.names.service("_matrix._tcp.b.example", 0, "host.example", world.server.address.port());
    world.names.service("_matrix-fed._tcp.b.example", 20, "host.example", world.server.address.port());
    world.names.service("_matrix-fed._tcp.b.example", 10, "host.example", first.address.port());
    assert_eq!(world.reach("b.example", &first).await, named("b.example", "b.example"));
}

#[tokio::test]
async fn a_host_that_is_down_leaves_it_to_the_next_of_the_service() {
    let world = World::new(&[]).await;
    let gone = Https::start(&world.authority, &format!("{}:0", world.site_at), &["b.example"]).await.address.port();
    world.names.address("gone.example", &[&world.site_at]);
    world.names.address("host.example", &[&world.server_at]);
    world.names.service("_matrix-fed._tcp.b.example", 10, "gone.example", gone);
    world.names.service("_matrix-fed._tcp.b.example", 20, "host.example", world.server.address.port());
    assert_eq!(world.reach("b.example", &world.server).await, named("b.example", "b.example"));
}

#[tokio::test]
async fn a_delegate_with_a_port_is_there() {
    let world = World::new(&["m.example"]).await;
    let delegate = format!("m.example:{}", world.server.address.port());
    world.names.address("m.example", &[&world.server_at]);
    world.site.delegate(&delegate);
    assert_eq!(world.reach("b.example", &world.server).await, named("m.example", &delegate));
}

#[tokio::test]
async fn a_delegate_that_is_an_address_is_there() {
    let world = World::new(&[]).await;
    world.site.delegate(&world.server_at);
    assert_eq!(world.reach("b.example", &world.server).await, (None, world.server_at.clone()));
}

#[tokio::test]
async fn a_delegate_s_service_record_counts_and_not_the_host_s() {
    let world = World::new(&["m.example"]).await;
    world.names.address("host.example", &[&world.server_at]);
    world.site.delegate("m.example");
    world.names.service("_matrix-fed._tcp.m.example", 1, "host.example", world.server.address.port());
    world.names.service("_matrix-fed._tcp.b.example", 1, "host.example", 1);
    assert_eq!(world.reach("b.example", &world.server).await, named("m.example", "m.example"));
}

#[tokio::test]
async fn a_delegate_without_anything_else_is_at_the_port_of_federation_and_has_no_delegate_of_its_own() {
    let world = World::new(&["m.example"]).await;
    let other =
        Https::start(&world.authority, &format!("{}:{}", world.server_at, world.site.address.port()), &["m.example"])
            .await;
    other.delegate("another.example");
    world.names.address("m.example", &[&world.server_at]);
    world.site.delegate("m.example");
    assert_eq!(world.reach("b.example", &world.server).await, named("m.example", "m.example"));
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn a_redirect_is_followed_to_the_delegate() {
    let world = World::new(&["m.example"]).await;
    world.names.address("m.example", &[&world.server_at]);
    world.site.say(WELL_KNOWN, 302, &[("location", "/elsewhere")], "");
    let document = format!(r#"{{"m.server": "m.example:{}"}}"#, world.server.address.port());
    world.site.say("/elsewhere", 200, &[], &document);
    assert_eq!(world.reach("b.example", &world.server).await.0.as_deref(), Some("m.example"));
}

#[tokio::test]
async fn redirects_without_end_have_one_and_the_host_itself_is_taken() {
    let world = World::new(&[]).await;
    world.site.say(WELL_KNOWN, 307, &[("location", WELL_KNOWN)], "");
    assert_eq!(world.reach("b.example", &world.server).await, named("b.example", "b.example"));
    assert_eq!(world.site.asked_for(WELL_KNOWN), 6);
}

#[tokio::test]
async fn an_endless_document_is_not_read_to_its_end() {
    let world = World::new(&[]).await;
    let long = format!(r#"{{"m.server": "m.example", "x": "{}"}}"#, "x".repeat(70_000));
    world.site.say(WELL_KNOWN, 200, &[], &long);
    assert_eq!(world.reach("b.example", &world.server).await, named("b.example", "b.example"));
}

#[tokio::test]
async fn a_host_is_asked_again_when_its_word_has_expired() {
    let world = World::new(&["m.example"]).await;
    world.names.address("m.example", &[&world.server_at]);
    world.site.say(WELL_KNOWN, 200, &[("cache-control", "max-age=600")], r#"{"m.server": "m.example"}"#);
    for (seconds, asked) in [(0, 1), (599, 1), (1, 2)] {
        world.clock.by_seconds(seconds);
        world.reach("b.example", &world.server).await;
        assert_eq!(world.site.asked_for(WELL_KNOWN), asked, "after {seconds} s more");
    }
}

#[tokio::test]
async fn a_host_whose_well_known_fails_keeps_its_last_word() {
    let world = World::new(&["m.example"]).await;
    world.names.address("m.example", &[&world.server_at]);
    world.site.delegate("m.example");
    world.reach("b.example", &world.server).await;
    world.site.say(WELL_KNOWN, 502, &[], "");
    world.clock.by_seconds(24 * 3600);
    assert_eq!(world.reach("b.example", &world.server).await, named("m.example", "m.example"));
    world.clock.by_seconds(24 * 3600);
    assert_eq!(world.reach("b.example", &world.server).await, named("b.example", "b.example"));
}

#[tokio::test]
async fn a_host_that_takes_connections_and_says_nothing_leaves_time_to_reach_its_server() {
    let world = World::new(&[]).await;
    let silent = TcpListener::bind(format!("{}:0", world.site_at)).await.unwrap();
    let ports = Ports { well_known: silent.local_addr().unwrap().port(), federation: world.server.address.port() };
    let config = config(&world.authority, &[&world.site_at, &world.server_at]);
    let config = FederationConfig { timeout: Duration::from_secs(4), ..config };
    let peers = Peers::new(&config, world.names.dns(), Arc::new(world.clock.clone()), ports).unwrap();
    // Less than one request may take: whoever waits for .well-known for so long has no time left.
    let report = courier_by(peers, config, key(), GIVE_UP).deliver(&message(3_800)).await.unwrap();
    assert_eq!(report, ended(Outcome::Delivered));
}

#[tokio::test]
async fn a_host_whose_well_known_comes_byte_by_byte_leaves_time_to_reach_its_server() {
    let world = World::new(&[]).await;
    world.site.dribble(WELL_KNOWN);
    let ports = Ports { well_known: world.site.address.port(), federation: world.server.address.port() };
    let config = config(&world.authority, &[&world.site_at, &world.server_at]);
    let config = FederationConfig { timeout: Duration::from_secs(4), ..config };
    let peers = Peers::new(&config, world.names.dns(), Arc::new(world.clock.clone()), ports).unwrap();
    let report = courier_by(peers, config, key(), GIVE_UP).deliver(&message(3_800)).await.unwrap();
    assert_eq!((report, world.site.asked_for(WELL_KNOWN)), (ended(Outcome::Delivered), 1));
}

#[tokio::test]
async fn a_host_is_asked_for_well_known_once_however_it_is_spelled() {
    let world = World::new(&[]).await;
    for spelling in ["B.Example", "b.example", "b.EXAMPLE"] {
        world.ask(spelling).await.unwrap();
    }
    assert_eq!(world.site.asked_for(WELL_KNOWN), 1);
}

#[tokio::test]
async fn a_name_is_asked_for_once_within_its_time_and_so_is_one_that_there_is_not() {
    let world = World::new(&[]).await;
    world.names.lasts(600);
    for _ in 0..3 {
        world.ask("b.example").await.unwrap();
    }
    for (name, kind) in [("b.example", RecordType::A), ("_matrix-fed._tcp.b.example", RecordType::SRV)] {
        assert_eq!(world.names.asked_for(name, kind), 1, "{name}");
    }
}

/// Whatever DNS says of the family that the file does not have.
#[tokio::test]
async fn a_name_in_the_hosts_file_is_where_that_says_and_dns_is_not_asked() {
    let mut world = World::new(&["m.example"]).await;
    world.names.address("m.example", &["::1"]);
    let hosts = format!("{} m.example\n", world.server_at);
    let dns = world.names.dns().with_hosts(hosts.as_bytes()).unwrap();
    let config = config(&world.authority, &[&world.server_at]);
    world.peers = Peers::new(&config, dns, Arc::new(world.clock.clone()), Ports::default()).unwrap();
    let name = format!("m.example:{}", world.server.address.port());
    assert_eq!(world.reach(&name, &world.server).await, named("m.example", &name));
    for family in [RecordType::A, RecordType::AAAA] {
        assert_eq!(world.names.asked_for("m.example", family), 0, "{family}");
    }
}

/// A name that has addresses of one family only, and those could not be told: that there are none of the other is no answer.
#[tokio::test]
async fn an_answer_that_failed_is_not_taken_for_none() {
    let world = World::new(&[]).await;
    world.names.lasts(600);
    world.names.breaks_for(Some(RecordType::A));
    assert!(world.ask("b.example").await.is_err());
    world.names.breaks_for(None);
    world.ask("b.example").await.unwrap();
}

#[tokio::test]
async fn nobody_who_is_asked_for_well_known_stays_connected() {
    let world = World::new(&[]).await;
    for asked in 1..=3 {
        world.reach("b.example", &world.server).await;
        assert_eq!((world.site.asked_for(WELL_KNOWN), world.site.connections()), (asked, asked));
        world.clock.by_seconds(3_600);
    }
}

#[tokio::test]
async fn those_who_need_one_host_at_once_ask_it_once() {
    let world = World::new(&[]).await;
    let all = futures_util::future::join_all((0..20).map(|_| world.ask("b.example"))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(world.site.asked_for(WELL_KNOWN), 1);
}

#[tokio::test]
async fn a_certificate_for_another_name_or_of_a_stranger_is_refused() {
    let world = World::new(&[]).await;
    world.names.address("c.example", &[&world.server_at]);
    let error = world.ask(&format!("c.example:{}", world.server.address.port())).await.unwrap_err();
    assert!(error.contains("NotValidForName"), "{error}");
    let stranger = Https::start(&Authority::new(), &format!("{}:0", world.server_at), &["b.example"]).await;
    let error = world.ask(&format!("b.example:{}", stranger.address.port())).await.unwrap_err();
    // The stranger calls itself as our authority does, and cannot sign as it does.
    assert!(error.contains("BadSignature"), "{error}");
}

#[tokio::test]
async fn a_name_server_that_fails_is_no_word_on_services() {
    let world = World::new(&[]).await;
    world.names.breaks();
    let error = world.ask("b.example").await.unwrap_err();
    assert!(error.contains("_matrix-fed._tcp.b.example"), "{error}");
    assert_eq!(world.server.connections(), 0);
}

#[tokio::test]
async fn a_service_that_is_declined_is_not_looked_for_elsewhere() {
    let world = World::new(&[]).await;
    world.names.service("_matrix-fed._tcp.b.example", 0, ".", 0);
    assert!(world.ask("b.example").await.is_err());
    assert_eq!(world.server.connections(), 0);
}
