//! What is remembered of peers' keys, and for how long.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::poll;
use rollcall::clock::Clock as _;
use rollcall::config::FederationConfig;
use rollcall::edge::PeerKeys;
use rollcall::edge::peer_keys::PeerKeyError;
use rollcall::model::ServerName;
use rollcall::outbound::keys::{SigningKey, SigningKeys, server_keys_json};
use rollcall::outbound::well_known::MAX_STRANGERS;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::courier::{config, peers};
use super::edge::PATIENCE;
use super::moved::Moved;
use super::name;
use super::peer::Peer;

fn keys_of(peer: &Peer) -> (PeerKeys, Moved) {
    let clock = Moved::new();
    (PeerKeys::new(peers(&config(peer.name.as_str(), &peer.base)), Arc::new(clock.clone())), clock)
}

#[tokio::test]
async fn a_new_key_is_found_when_it_is_used() {
    let peer = Peer::start("b.example", vec![]).await;
    let (keys, clock) = keys_of(&peer);
    keys.with_key(&peer.name, "ed25519:p_1", None).await.unwrap();
    let new = SigningKeys::single(SigningKey::generate("p_2").unwrap());
    peer.publish(server_keys_json(&peer.name, &new, clock.now(), Duration::from_secs(3600)));
    let too_soon = keys.with_key(&peer.name, "ed25519:p_2", None).await;
    assert!(matches!(too_soon, Err(PeerKeyError::Unknown { .. })), "{too_soon:?}");
    clock.by_seconds(30);
    keys.with_key(&peer.name, "ed25519:p_2", None).await.unwrap();
    let withdrawn = keys.with_key(&peer.name, "ed25519:p_1", None).await;
    assert!(matches!(withdrawn, Err(PeerKeyError::Unknown { .. })), "{withdrawn:?}");
    assert_eq!(peer.asked_for_keys(), 2);
}

#[tokio::test]
async fn keys_are_good_for_no_longer_than_they_say_though_their_server_was_asked_just_now() {
    let peer = Peer::start("b.example", vec![]).await;
    let (keys, clock) = keys_of(&peer);
    peer.publish(server_keys_json(&peer.name, &peer.keys, clock.now(), Duration::from_secs(10)));
    keys.with_key(&peer.name, "ed25519:p_1", None).await.unwrap();
    clock.by_seconds(11);
    let expired = keys.with_key(&peer.name, "ed25519:p_1", None).await;
    assert!(matches!(expired, Err(PeerKeyError::Unavailable { .. })), "{expired:?}");
    assert_eq!(peer.asked_for_keys(), 1);
}

#[tokio::test]
async fn keys_outlive_a_peer_s_absence_but_not_their_time() {
    let peer = Peer::start("b.example", vec![]).await;
    let (keys, clock) = keys_of(&peer);
    keys.with_key(&peer.name, "ed25519:p_1", None).await.unwrap();
    peer.publish("<html>".into());
    clock.by_seconds(30);
    let made_up = keys.with_key(&peer.name, "ed25519:made_up", None).await;
    assert!(matches!(made_up, Err(PeerKeyError::Unknown { .. })), "{made_up:?}");
    assert_eq!(peer.asked_for_keys(), 2);
    keys.with_key(&peer.name, "ed25519:p_1", None).await.unwrap();
    clock.by_seconds(3600);
    let expired = keys.with_key(&peer.name, "ed25519:p_1", None).await;
    assert!(matches!(expired, Err(PeerKeyError::Unavailable { .. })), "{expired:?}");
    peer.publish(server_keys_json(&peer.name, &peer.keys, clock.now(), Duration::from_secs(3600)));
    clock.by_seconds(30);
    keys.with_key(&peer.name, "ed25519:p_1", None).await.unwrap();
}

/// As many servers as may be asked at once. They take connections, for as long as the listener is there, and say nothing.
async fn strangers(config: &mut FederationConfig) -> (TcpListener, Vec<ServerName>) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let made_up: Vec<_> = (0..MAX_STRANGERS).map(|number| name(&format!("{number}.example"))).collect();
    for server in &made_up {
        config.resolve.insert(server.clone(), format!("http://{}", silent.local_addr().unwrap()));
    }
    (silent, made_up)
}

#[tokio::test]
async fn one_address_does_not_take_all_questions_for_keys() {
    let peer = Peer::start("b.example", vec![]).await;
    let mut config = config(peer.name.as_str(), &peer.base);
    let (_silent, made_up) = strangers(&mut config).await;
    let keys = PeerKeys::new(peers(&config), Arc::new(Moved::new()));
    let [one, another] = [[198, 51, 100, 7], [203, 0, 113, 9]].map(IpAddr::from);
    let mut asking: Vec<_> =
        made_up.iter().map(|server| Box::pin(keys.with_key(server, "ed25519:p_1", Some(one)))).collect();
    // Who waits for their share keeps nobody waiting who asks for the same server.
    asking.push(Box::pin(keys.with_key(&peer.name, "ed25519:p_1", Some(one))));
    for question in &mut asking {
        assert!(poll!(question).is_pending());
    }
    let answer = keys.with_key(&peer.name, "ed25519:p_1", Some(another));
    timeout(PATIENCE, answer).await.expect("an answer").unwrap();
}

#[tokio::test]
async fn while_nobody_can_be_asked_a_new_key_gets_no_verdict() {
    let peer = Peer::start("b.example", vec![]).await;
    let mut config = config(peer.name.as_str(), &peer.base);
    let (_silent, made_up) = strangers(&mut config).await;
    let clock = Moved::new();
    let keys = PeerKeys::new(peers(&config), Arc::new(clock.clone()));
    keys.with_key(&peer.name, "ed25519:p_1", None).await.unwrap();
    let new = SigningKeys::single(SigningKey::generate("p_2").unwrap());
    peer.publish(server_keys_json(&peer.name, &new, clock.now(), Duration::from_secs(3600)));
    clock.by_seconds(30);
    let mut asking: Vec<_> =
        made_up.iter().map(|server| Box::pin(keys.with_key(server, "ed25519:p_1", None))).collect();
    for question in &mut asking {
        assert!(poll!(question).is_pending());
        tokio::task::yield_now().await;
    }
    // Nothing answers, so time may jump to the end of the wait.
    tokio::time::pause();
    let unasked = keys.with_key(&peer.name, "ed25519:p_2", None).await.unwrap_err();
    assert!(unasked.to_string().ends_with("too many servers are being asked"), "{unasked:?}");
    keys.with_key(&peer.name, "ed25519:p_1", None).await.unwrap();
    tokio::time::resume();
    drop(asking);
    keys.with_key(&peer.name, "ed25519:p_2", None).await.unwrap();
}
