//! What is remembered of peers' keys, and for how long.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::poll;
use rollcall::clock::Clock as _;
use rollcall::config::FederationConfig;
use rollcall::edge::PeerKeys;
use rollcall::edge::peer_keys::{ASK_TIMEOUT, PeerKeyError};
use rollcall::model::ServerName;
use rollcall::outbound::keys::{SigningKey, SigningKeys, server_keys_json};
use rollcall::outbound::well_known::MAX_STRANGERS;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

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
    assert!(matches!(too_soon, Err(PeerKeyError::Unasked { .. })), "{too_soon:?}");
    clock.by_seconds(30);
    keys.with_key(&peer.name, "ed25519:p_2", None).await.unwrap();
    let too_soon = keys.with_key(&peer.name, "ed25519:p_1", None).await;
    assert!(matches!(too_soon, Err(PeerKeyError::Unasked { .. })), "{too_soon:?}");
    assert_eq!(peer.asked_for_keys(), 2);
    clock.by_seconds(30);
    for _ in 0..2 {
        let withdrawn = keys.with_key(&peer.name, "ed25519:p_1", None).await;
        assert!(matches!(withdrawn, Err(PeerKeyError::Unknown { .. })), "{withdrawn:?}");
    }
    assert_eq!(peer.asked_for_keys(), 3);
}

#[tokio::test]
async fn whoever_makes_keys_up_gets_no_new_one_refused() {
    let peer = Peer::start("b.example", vec![]).await;
    let (keys, clock) = keys_of(&peer);
    let made_up = keys.with_key(&peer.name, "ed25519:made_up", None).await;
    assert!(matches!(made_up, Err(PeerKeyError::Unknown { .. })), "{made_up:?}");
    let new = SigningKeys::single(SigningKey::generate("p_2").unwrap());
    peer.publish(server_keys_json(&peer.name, &new, clock.now(), Duration::from_secs(3600)));
    let unasked = keys.with_key(&peer.name, "ed25519:p_2", None).await;
    assert!(matches!(unasked, Err(PeerKeyError::Unasked { .. })), "{unasked:?}");
    clock.by_seconds(30);
    keys.with_key(&peer.name, "ed25519:made_up", None).await.unwrap_err();
    keys.with_key(&peer.name, "ed25519:p_2", None).await.unwrap();
    assert_eq!(peer.asked_for_keys(), 2);
}

#[tokio::test]
async fn a_server_is_asked_for_its_keys_once_however_it_is_spelled() {
    let peer = Peer::start("b.example", vec![]).await;
    let (keys, _clock) = keys_of(&peer);
    for spelling in ["B.Example", "b.example", "b.EXAMPLE"] {
        keys.with_key(&name(spelling), "ed25519:p_1", None).await.unwrap();
    }
    assert_eq!(peer.asked_for_keys(), 1);
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
    assert!(matches!(made_up, Err(PeerKeyError::Unasked { .. })), "nonsense is no answer: {made_up:?}");
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
    // They hold their places for as long as anybody may.
    config.timeout = 10 * ASK_TIMEOUT;
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
    let (silent, made_up) = strangers(&mut config).await;
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
    drop(silent);
    for question in asking {
        question.await.unwrap_err();
    }
    keys.with_key(&peer.name, "ed25519:p_2", None).await.unwrap();
}

/// Each name with another port is another server to ask, at the same host.
#[tokio::test]
async fn one_host_is_asked_by_few_at_once_whatever_ports_are_made_up() {
    let peer = Peer::start("b.example", vec![]).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(peer.name.as_str(), &peer.base);
    let made_up: Vec<_> = (1..=20).map(|port| name(&format!("victim.example:{port}"))).collect();
    for server in &made_up {
        config.resolve.insert(server.clone(), format!("http://{}", silent.local_addr().unwrap()));
    }
    let keys = PeerKeys::new(peers(&config), Arc::new(Moved::new()));
    let mut asking: Vec<_> =
        made_up.iter().map(|server| Box::pin(keys.with_key(server, "ed25519:p_1", None))).collect();
    for question in &mut asking {
        assert!(poll!(question).is_pending());
    }
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(timeout(PATIENCE, silent.accept()).await.expect("a connection").unwrap());
    }
    timeout(PATIENCE, keys.with_key(&peer.name, "ed25519:p_1", None)).await.expect("an answer").unwrap();
    // Nothing answers, so time may jump to the end of the wait.
    tokio::time::pause();
    let refused = asking.pop().unwrap().await.unwrap_err();
    assert!(refused.to_string().ends_with("too many servers are being asked"), "{refused:?}");
    tokio::time::resume();
    for question in &mut asking {
        let _ = poll!(question);
    }
    assert!(poll!(Box::pin(silent.accept())).is_pending(), "a fifth connection");
}

#[tokio::test]
async fn a_server_that_says_nothing_holds_a_question_for_keys_no_longer_than_its_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config("b.example", &format!("http://{}", silent.local_addr().unwrap()));
    let config = FederationConfig { timeout: 10 * ASK_TIMEOUT, ..config };
    let keys = PeerKeys::new(peers(&config), Arc::new(Moved::new()));
    let (server, started) = (name("b.example"), Instant::now());
    let mut question = Box::pin(keys.with_key(&server, "ed25519:p_1", None));
    let asked = async {
        let (mut stream, _) = silent.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream
    };
    let _stream = tokio::select! {
        early = &mut question => panic!("{early:?}"),
        stream = asked => stream,
    };
    // Nothing answers, so time may jump to the end of the wait.
    tokio::time::pause();
    let unanswered = question.await.unwrap_err();
    assert!(unanswered.to_string().ends_with("it takes too long"), "{unanswered:?}");
    assert!(started.elapsed() >= ASK_TIMEOUT && started.elapsed() < 2 * ASK_TIMEOUT, "{:?}", started.elapsed());
}

/// Or whoever never waits would have a server asked as often as they like.
#[tokio::test]
async fn a_question_for_keys_outlives_whoever_hangs_up() {
    let slow = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config("b.example", &format!("http://{}", slow.local_addr().unwrap()));
    let keys = PeerKeys::new(peers(&config), Arc::new(Moved::new()));
    let server = name("b.example");
    let mut first = Box::pin(keys.with_key(&server, "ed25519:p_1", None));
    let (mut asked, _) = tokio::select! {
        early = &mut first => panic!("{early:?}"),
        asked = slow.accept() => asked.unwrap(),
    };
    drop(first);
    let mut second = Box::pin(keys.with_key(&server, "ed25519:p_1", None));
    assert!(poll!(&mut second).is_pending());
    asked.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let answer = timeout(PATIENCE, second).await.expect("the first question's answer").unwrap_err();
    assert!(answer.to_string().contains("404"), "{answer:?}");
    assert!(poll!(Box::pin(slow.accept())).is_pending(), "a second connection");
}

#[tokio::test]
async fn keys_that_come_byte_by_byte_hold_a_question_no_longer_than_its_time() {
    let peer = Peer::start("b.example", vec![]).await;
    peer.dribbles();
    let config = FederationConfig { timeout: Duration::from_secs(1), ..config("b.example", &peer.base) };
    let keys = PeerKeys::new(peers(&config), Arc::new(Moved::new()));
    let answer = timeout(ASK_TIMEOUT / 2, keys.with_key(&peer.name, "ed25519:p_1", None)).await.expect("it is cut off");
    assert!(matches!(answer, Err(PeerKeyError::Unavailable { .. })), "{answer:?}");
    assert_eq!(peer.asked_for_keys(), 1);
}
