//! One transaction on its way: the same bytes until answered or too old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, StatusCode};
use rollcall::clock::{Clock as _, SystemClock};
use rollcall::config::{FederationConfig, FederationVia, ServerLists, ServerRules};
use rollcall::core::signal::Outcome;
use rollcall::lifecycle::spawn;
use rollcall::model::{ServerName, Timestamp};
use rollcall::outbound::courier::{Courier, Report};
use rollcall::outbound::discovery::Ports;
use rollcall::outbound::dns::Dns;
use rollcall::outbound::keys::{SigningKey, SigningKeys};
use rollcall::outbound::peers::Peers;
use rollcall::outbound::sign;
use rollcall::policy::Policy;
use rollcall::wire::outbound::OutboundMessage;
use ruma::api::federation::authentication::XMatrix;
use ruma::serde::Base64;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

use super::edge::PATIENCE;
use super::name;
use super::peer::{Answer, Peer};

/// Deliberately not canonical: it has to arrive as it is.
const BODY: &str = r#"{ "pdus":[], "edus":[],"origin":"a.example" ,"origin_server_ts":5 }"#;

/// Longer than any test lasts.
pub(super) const GIVE_UP: Duration = Duration::from_secs(600);

pub(super) fn now() -> Timestamp {
    SystemClock.now()
}

pub(super) fn config(peer: &str, base: &str) -> FederationConfig {
    FederationConfig {
        resolve: BTreeMap::from([(name(peer), base.to_owned())]),
        allow_private: Vec::new(),
        extra_roots: Vec::new(),
        via: FederationVia::Http,
        servers: everybody(),
        resend: Duration::from_secs(60),
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(100),
        timeout: Duration::from_secs(10),
        concurrency: 4,
        plain_refresh: Duration::from_secs(1_500),
        plain_promise: Duration::from_secs(1_800),
    }
}

/// Everybody is dealt with.
pub(super) fn everybody() -> ServerLists {
    let rules = ServerRules { allow: vec!["*".into()], deny: Vec::new() };
    ServerLists { inbound: rules.clone(), outbound: rules }
}

/// The way to whom `config.resolve` names: there is no name server.
pub(super) fn peers(config: &FederationConfig) -> Peers {
    Peers::new(config, Dns::of_servers(&[]).unwrap(), Arc::new(SystemClock), Ports::default()).unwrap()
}

pub(super) fn courier(base: &str, keys: SigningKeys) -> Courier {
    let config = config("b.example", base);
    courier_by(peers(&config), config, keys, GIVE_UP)
}

/// Sends by `peers`, to one that fails for `give_up` once each.
pub(super) fn courier_by(peers: Peers, config: FederationConfig, keys: SigningKeys, give_up: Duration) -> Courier {
    let policy = Policy::new(&config.servers);
    Courier::new(Arc::new(SystemClock), peers, policy, Arc::new(keys), config, name("a.example"), give_up)
}

pub(super) fn key() -> SigningKeys {
    SigningKeys::single(SigningKey::generate("a_1").unwrap())
}

pub(super) fn message(good_for_ms: u64) -> OutboundMessage {
    OutboundMessage {
        v: 1,
        destination: name("b.example"),
        txn_id: "1795400000-17/x".into(),
        not_after: now().plus(good_for_ms),
        body: serde_json::from_str(BODY).unwrap(),
    }
}

async fn deliver(peer: &Peer, good_for_ms: u64) -> Report {
    courier(&peer.base, key()).deliver(&message(good_for_ms)).await.unwrap()
}

fn say(status: StatusCode, body: &str) -> Answer {
    Answer::Now(status, body.into())
}

pub(super) fn ended(outcome: Outcome) -> Report {
    Report::of(outcome)
}

#[tokio::test]
async fn a_failing_peer_gets_the_same_bytes_again() {
    let script = vec![say(StatusCode::INTERNAL_SERVER_ERROR, "oops"), say(StatusCode::OK, "{}")];
    let peer = Peer::start("b.example", script).await;
    assert_eq!(deliver(&peer, 30_000).await, ended(Outcome::Delivered));
    let seen = peer.seen();
    assert_eq!(seen.len(), 2);
    for request in &seen {
        assert_eq!(request.method, "PUT");
        assert_eq!(request.uri, "/_matrix/federation/v1/send/1795400000-17%2Fx");
        assert_eq!(request.body, BODY);
        assert_eq!(request.headers["content-type"], "application/json");
        assert!(!request.headers.contains_key("accept-encoding"), "nobody is asked to compress");
        assert_eq!(request.headers["authorization"], seen[0].headers["authorization"]);
    }
}

#[tokio::test]
async fn what_arrives_is_signed_for_whom_it_is_meant() {
    let peer = Peer::start("b.example", vec![]).await;
    let keys = key();
    let public = BTreeMap::from([("ed25519:a_1".into(), Base64::parse(keys.current().public_base64()).unwrap())]);
    let body = serde_json::from_str(r#"{"edus":[],"origin":"a.example"}"#).unwrap();
    courier(&peer.base, keys).deliver(&OutboundMessage { body, ..message(30_000) }).await.unwrap();
    let seen = peer.seen().remove(0);
    let scheme = XMatrix::try_from(&seen.headers["authorization"]).unwrap();
    assert_eq!((scheme.origin.as_str(), scheme.key.as_str()), ("a.example", "ed25519:a_1"));
    let request = Request::builder().method(seen.method).uri(seen.uri).body(seen.body).unwrap();
    sign::verify(&scheme, &request, &name("b.example"), public.clone()).unwrap();
    sign::verify(&scheme, &request, &name("c.example"), public).unwrap_err();
}

#[tokio::test]
async fn a_peer_that_asks_for_patience_gets_it() {
    let limited = say(StatusCode::TOO_MANY_REQUESTS, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":300}"#);
    let peer = Peer::start("b.example", vec![limited, say(StatusCode::OK, "{}")]).await;
    assert_eq!(deliver(&peer, 30_000).await, ended(Outcome::Delivered));
    let seen = peer.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(300));
}

/// Or else it would be asked as often as it can answer.
#[tokio::test]
async fn a_peer_that_asks_for_no_patience_at_all_gets_some() {
    let limited = say(StatusCode::TOO_MANY_REQUESTS, r#"{"retry_after_ms":0}"#);
    let peer = Peer::start("b.example", vec![limited]).await;
    assert_eq!(deliver(&peer, 1_000).await.outcome, Outcome::Expired);
    // Waits of at least 10, 20, 40 and then 50 ms.
    assert!((2..=23).contains(&peer.seen().len()), "{} attempts", peer.seen().len());
}

#[tokio::test]
async fn patience_beyond_its_time_ends_it_at_once() {
    let limited = say(StatusCode::TOO_MANY_REQUESTS, r#"{"retry_after_ms":60000}"#);
    let peer = Peer::start("b.example", vec![limited]).await;
    let report = deliver(&peer, 30_000).await;
    assert_eq!(report, Report { retry_after_ms: Some(60_000), ..ended(Outcome::Expired) });
    assert_eq!(peer.seen().len(), 1);
}

/// A link begins anew when its peer is heard; that is no reason for the peer to have changed its mind.
#[tokio::test]
async fn a_peer_that_asks_for_patience_gets_it_of_what_is_sent_next_and_others_go_by() {
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        let peer = Peer::start("b.example", vec![say(status, r#"{"retry_after_ms":3600000}"#)]).await;
        let other = Peer::start("c.example", vec![]).await;
        let mut config = config("b.example", &peer.base);
        config.resolve.insert(name("c.example"), other.base.clone());
        let courier = courier_by(peers(&config), config, key(), GIVE_UP);
        let first = courier.deliver(&message(30_000)).await.unwrap();
        assert_eq!(first, Report { retry_after_ms: Some(3_600_000), ..ended(Outcome::Expired) });
        let next = courier.deliver(&message(30_000)).await.unwrap();
        assert_eq!((next.outcome, peer.seen().len()), (Outcome::Expired, 1));
        let rest = next.retry_after_ms.expect("a time");
        assert!((3_570_000..=3_600_000).contains(&rest), "{rest}");
        let message = OutboundMessage { destination: name("c.example"), ..message(30_000) };
        assert_eq!(courier.deliver(&message).await.unwrap(), ended(Outcome::Delivered));
    }
}

#[tokio::test]
async fn what_is_sent_next_waits_for_the_rest_of_a_peer_s_time() {
    let limited = say(StatusCode::TOO_MANY_REQUESTS, r#"{"retry_after_ms":500}"#);
    let peer = Peer::start("b.example", vec![limited, say(StatusCode::OK, "{}")]).await;
    let courier = courier(&peer.base, key());
    let first = courier.deliver(&message(400)).await.unwrap();
    assert_eq!(first, Report { retry_after_ms: Some(500), ..ended(Outcome::Expired) });
    assert_eq!(courier.deliver(&message(30_000)).await.unwrap(), ended(Outcome::Delivered));
    let seen = peer.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(490), "{:?}", seen[1].at - seen[0].at);
}

#[tokio::test]
async fn a_refusal_is_final() {
    for (status, outcome) in [
        (StatusCode::PAYLOAD_TOO_LARGE, Outcome::TooLarge),
        (StatusCode::FORBIDDEN, Outcome::Failed),
        (StatusCode::FOUND, Outcome::Failed),
    ] {
        let peer = Peer::start("b.example", vec![say(status, "{}")]).await;
        assert_eq!(deliver(&peer, 30_000).await, ended(outcome));
        assert_eq!(peer.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_peer_that_never_answers_well_gets_it_until_it_is_too_old() {
    let peer = Peer::start("b.example", vec![say(StatusCode::BAD_GATEWAY, "")]).await;
    let message = message(400);
    let report = courier(&peer.base, key()).deliver(&message).await.unwrap();
    assert_eq!(report, ended(Outcome::Expired));
    assert!(peer.seen().len() > 1);
}

#[tokio::test]
async fn a_peer_that_hangs_holds_it_no_longer_than_its_time() {
    let peer = Peer::start("b.example", vec![Answer::Never]).await;
    let expired = timeout(Duration::from_secs(8), deliver(&peer, 400)).await;
    assert_eq!(expired.expect("config.timeout is 10 s, its own time 0.4 s"), ended(Outcome::Expired));
    assert_eq!(peer.seen().len(), 1);
}

#[tokio::test]
async fn a_peer_that_answers_byte_by_byte_holds_it_no_longer_than_its_time() {
    let peer = Peer::start("b.example", vec![Answer::Dribble]).await;
    let expired = timeout(PATIENCE, deliver(&peer, 1_000)).await;
    assert_eq!(expired.expect("its own time is 1 s"), ended(Outcome::Expired));
    let mut config = config("b.example", &peer.base);
    config.timeout = Duration::from_secs(1);
    // Whether it counts as an answer or not, it ends: whoever has failed once gets no second attempt.
    let courier = courier_by(peers(&config), config, key(), Duration::ZERO);
    timeout(PATIENCE, courier.deliver(&message(60_000))).await.expect("a request has 1 s").unwrap();
    assert_eq!(peer.seen().len(), 2);
}

#[tokio::test]
async fn more_silent_peers_than_requests_leave_those_who_answer_their_turn() {
    let (silent, quick) = (Peer::start("b.example", vec![Answer::Never]).await, Peer::start("c.example", vec![]).await);
    let mut config = config("c.example", &quick.base);
    let names: Vec<_> = (0..10).map(|number| name(&format!("{number}.example"))).collect();
    config.resolve.extend(names.iter().map(|name| (name.clone(), silent.base.clone())));
    let courier = Arc::new(courier_by(peers(&config), config, key(), GIVE_UP));
    let to = |destination: &ServerName| OutboundMessage { destination: destination.clone(), ..message(60_000) };
    let (delivered, quick) = (ended(Outcome::Delivered), to(&quick.name));
    assert_eq!(courier.deliver(&quick).await.unwrap(), delivered);
    let begin = |destination: &ServerName| {
        let (courier, message) = (courier.clone(), to(destination));
        spawn("a transaction", async move { courier.deliver(&message).await.unwrap() })
    };
    let mut waiting: Vec<_> = names.iter().map(begin).collect();
    let end = Instant::now() + PATIENCE;
    // Being new, two of them may be sent to.
    while silent.seen().len() < 2 {
        assert!(Instant::now() < end, "nothing was sent");
        sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..10 {
        assert_eq!(timeout(PATIENCE, courier.deliver(&quick)).await.expect("a turn").unwrap(), delivered);
    }
    for transaction in &mut waiting {
        assert!(!transaction.is_finished());
        transaction.abort();
    }
}

/// Or else whoever is sent something at its last moment would be taken for slow, and get nothing in gzip for a while.
#[tokio::test]
async fn a_peer_that_had_no_time_to_answer_is_what_it_was() {
    let offers = Answer::OffersGzip(StatusCode::OK, "{}".into());
    let peer = Peer::start("b.example", vec![offers.clone(), Answer::Never, offers]).await;
    let slow = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config("b.example", &peer.base);
    config.resolve.insert(name("c.example"), format!("http://{}", slow.local_addr().unwrap()));
    let courier = Arc::new(courier_by(peers(&config), config, key(), Duration::ZERO));
    let body = format!(r#"{{"edus":{:?}}}"#, (0..1_000).collect::<Vec<_>>());
    let large = |good_for_ms| OutboundMessage { body: serde_json::from_str(&body).unwrap(), ..message(good_for_ms) };
    for (good_for_ms, outcome) in [(30_000, Outcome::Delivered), (1_000, Outcome::Expired)] {
        assert_eq!(courier.deliver(&large(good_for_ms)).await.unwrap(), ended(outcome));
    }
    // One that hangs up is slow; then it has the one place of those who are.
    let to_slow = OutboundMessage { destination: name("c.example"), ..message(30_000) };
    let hang_up = async { drop(slow.accept().await.unwrap()) };
    let (hung_up, ()) = futures_util::future::join(courier.deliver(&to_slow), hang_up).await;
    assert_eq!(hung_up.unwrap(), ended(Outcome::Expired));
    let sending = courier.clone();
    let holding = spawn("a transaction", async move { sending.deliver(&to_slow).await.unwrap() });
    let _held = slow.accept().await.unwrap();
    assert_eq!(courier.deliver(&large(5_000)).await.unwrap(), ended(Outcome::Delivered));
    let is_gzip: Vec<_> = peer.seen().iter().map(|seen| seen.headers.contains_key("content-encoding")).collect();
    assert_eq!(is_gzip, [false, true, true]);
    holding.abort();
}

#[tokio::test]
async fn a_peer_that_is_away_costs_it_its_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let report = courier(&format!("http://{address}"), key()).deliver(&message(300)).await.unwrap();
    assert_eq!(report, ended(Outcome::Expired));
}

#[tokio::test]
async fn what_is_too_old_is_not_sent() {
    let peer = Peer::start("b.example", vec![]).await;
    assert_eq!(deliver(&peer, 0).await, ended(Outcome::Expired));
    assert!(peer.seen().is_empty());
}

#[tokio::test]
async fn a_homeserver_that_is_busy_with_another_one_is_waited_out() {
    // Word for word what Synapse says, without a time.
    let busy =
        say(StatusCode::TOO_MANY_REQUESTS, r#"{"errcode":"M_UNKNOWN","error":"Too many concurrent transactions"}"#);
    let peer = Peer::start("b.example", vec![busy.clone(), busy, say(StatusCode::OK, "{}")]).await;
    assert_eq!(deliver(&peer, 30_000).await, ended(Outcome::Delivered));
    let seen = peer.seen();
    assert_eq!(seen.len(), 3);
    // Half of backoff_min at least, then half of its double.
    assert!(
        seen[1].at - seen[0].at >= Duration::from_millis(10) && seen[2].at - seen[1].at >= Duration::from_millis(20)
    );
}

#[tokio::test]
async fn a_peer_gets_one_transaction_at_a_time_and_others_go_by() {
    let (slow, quick) = (Peer::start("b.example", vec![Answer::Never]).await, Peer::start("c.example", vec![]).await);
    let mut config = config("b.example", &slow.base);
    config.resolve.insert(name("c.example"), quick.base.clone());
    let courier = courier_by(peers(&config), config, key(), GIVE_UP);
    let to = |server: &str, txn_id: &str, good_for_ms| OutboundMessage {
        destination: name(server),
        txn_id: txn_id.into(),
        ..message(good_for_ms)
    };
    let (first, second, other) = (to("b.example", "1", 600), to("b.example", "2", 300), to("c.example", "3", 30_000));
    let all = futures_util::future::join3(courier.deliver(&first), courier.deliver(&second), courier.deliver(&other));
    let (first, second, other) = all.await;
    assert_eq!((first.unwrap(), second.unwrap()), (ended(Outcome::Expired), ended(Outcome::Expired)));
    assert_eq!(other.unwrap(), ended(Outcome::Delivered));
    let ids: Vec<_> = slow.seen().iter().map(|seen| seen.uri.path().rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(ids, ["1"], "the second one waited for its turn until it was too old");
}

#[tokio::test]
async fn a_peer_that_policy_denies_is_not_sent_to() {
    let peer = Peer::start("b.example", vec![]).await;
    let config = config("b.example", &peer.base);
    let policy = Policy::new(&config.servers);
    let clock = Arc::new(SystemClock);
    let (peers, keys) = (peers(&config), Arc::new(key()));
    let courier = Courier::new(clock, peers, policy.clone(), keys, config, name("a.example"), GIVE_UP);
    let denied = ServerRules { allow: vec!["*".into()], deny: vec!["b.*".into()] };
    policy.replace(&ServerLists { inbound: everybody().inbound, outbound: denied });
    let report = courier.deliver(&message(30_000)).await.unwrap();
    assert_eq!((report.outcome, report.as_str()), (Outcome::Failed, "denied"));
    assert!(peer.seen().is_empty());
    policy.replace(&everybody());
    assert_eq!(courier.deliver(&message(30_000)).await.unwrap(), ended(Outcome::Delivered));
}
