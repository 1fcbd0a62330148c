//! What is remembered of peers' keys, and for how long.

use std::sync::Arc;
use std::time::Duration;

use rollcall::clock::Clock as _;
use rollcall::edge::PeerKeys;
use rollcall::edge::peer_keys::PeerKeyError;
use rollcall::outbound::keys::{SigningKey, SigningKeys, server_keys_json};

use super::courier::{config, peers};
use super::moved::Moved;
use super::peer::Peer;

fn keys_of(peer: &Peer) -> (PeerKeys, Moved) {
    let clock = Moved::new();
    (PeerKeys::new(peers(&config(peer.name.as_str(), &peer.base)), Arc::new(clock.clone())), clock)
}

#[tokio::test]
async fn a_new_key_is_found_when_it_is_used() {
    let peer = Peer::start("b.example", vec![]).await;
    let (keys, clock) = keys_of(&peer);
    keys.with_key(&peer.name, "ed25519:p_1").await.unwrap();
    let new = SigningKeys::single(SigningKey::generate("p_2").unwrap());
    peer.publish(server_keys_json(&peer.name, &new, clock.now(), Duration::from_secs(3600)));
    let too_soon = keys.with_key(&peer.name, "ed25519:p_2").await;
    assert!(matches!(too_soon, Err(PeerKeyError::Unknown { .. })), "{too_soon:?}");
    clock.by_seconds(30);
    keys.with_key(&peer.name, "ed25519:p_2").await.unwrap();
    let withdrawn = keys.with_key(&peer.name, "ed25519:p_1").await;
    assert!(matches!(withdrawn, Err(PeerKeyError::Unknown { .. })), "{withdrawn:?}");
    assert_eq!(peer.asked_for_keys(), 2);
}

#[tokio::test]
async fn keys_are_good_for_no_longer_than_they_say_though_their_server_was_asked_just_now() {
    let peer = Peer::start("b.example", vec![]).await;
    let (keys, clock) = keys_of(&peer);
    peer.publish(server_keys_json(&peer.name, &peer.keys, clock.now(), Duration::from_secs(10)));
    keys.with_key(&peer.name, "ed25519:p_1").await.unwrap();
    clock.by_seconds(11);
    let expired = keys.with_key(&peer.name, "ed25519:p_1").await;
    assert!(matches!(expired, Err(PeerKeyError::Unavailable { .. })), "{expired:?}");
    assert_eq!(peer.asked_for_keys(), 1);
}

#[tokio::test]
async fn keys_outlive_a_peer_s_absence_but_not_their_time() {
    let peer = Peer::start("b.example", vec![]).await;
    let (keys, clock) = keys_of(&peer);
    keys.with_key(&peer.name, "ed25519:p_1").await.unwrap();
    peer.publish("<html>".into());
    clock.by_seconds(30);
    let made_up = keys.with_key(&peer.name, "ed25519:made_up").await;
    assert!(matches!(made_up, Err(PeerKeyError::Unknown { .. })), "{made_up:?}");
    assert_eq!(peer.asked_for_keys(), 2);
    keys.with_key(&peer.name, "ed25519:p_1").await.unwrap();
    clock.by_seconds(3600);
    let expired = keys.with_key(&peer.name, "ed25519:p_1").await;
    assert!(matches!(expired, Err(PeerKeyError::Unavailable { .. })), "{expired:?}");
    peer.publish(server_keys_json(&peer.name, &peer.keys, clock.now(), Duration::from_secs(3600)));
    clock.by_seconds(30);
    keys.with_key(&peer.name, "ed25519:p_1").await.unwrap();
}
