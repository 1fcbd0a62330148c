//! `presence.inbound`: the JSON of foreign edges, and our own beats.

use rollcall::core::signal::{MessageEdit, Stamp, UserSignal};
use rollcall::policy::Policy;
use rollcall::wire::contract::{Context, MAX_EVENTS, Parsed, Routed, Source, encode_beat, parse, parse_internal};
use rollcall::wire::envelope::{Packer, Packet};
use serde_json::value::RawValue;

use super::{NOW, REASON_MAX, envelope, local};

/// Members that are also read one by one: more would only take time.
const SINGLY_MAX: usize = 16;

pub fn check(data: &[u8]) {
    let context = Context { local: local(), now: NOW, key: Source::Any, policy: Policy::everybody() };
    let parsed = parse(data, &context);
    assert!(parsed.signals.len() <= MAX_EVENTS);
    assert!(parsed.rejects.iter().all(|reject| reject.reason.len() <= REASON_MAX && reject.body.len() <= data.len()));
    parsed.signals.iter().for_each(in_bounds);
    together_is_the_same_as_singly(data, &parsed, &context);
    packs_and_unpacks(parsed);
    beat(data);
}

fn in_bounds(signal: &Routed) {
    match signal {
        Routed::Peer(signal) => assert!(signal.to != local() && signal.at == NOW),
        Routed::User(signal) => {
            assert!(signal.to.belongs_to(&local()) && signal.at == NOW);
            assert!(stamp(&signal.signal).is_some_and(|stamp| stamp.ts <= NOW && (1..=128).contains(&stamp.id.len())));
            match &signal.signal {
                UserSignal::Status { status_msg: MessageEdit::Set(text), .. } => assert!(text.len() <= 1 << 10),
                UserSignal::List { add, remove, .. } => assert!(add.len() <= 1_000 && remove.len() <= 1_000),
                _ => {}
            }
        }
    }
}

/// `None`: no event makes this.
fn stamp(signal: &UserSignal) -> Option<&Stamp> {
    match signal {
        UserSignal::Status { stamp, .. }
        | UserSignal::Idle { stamp, .. }
        | UserSignal::Device { stamp, .. }
        | UserSignal::Activity { stamp, .. }
        | UserSignal::Session { stamp, .. }
        | UserSignal::List { stamp, .. }
        | UserSignal::Answer { stamp, .. } => Some(stamp),
        _ => None,
    }
}

/// There is a fast way and a thorough one: they agree, and account for every member.
fn together_is_the_same_as_singly(data: &[u8], together: &Parsed, context: &Context) {
    let Ok(members) = serde_json::from_slice::<Vec<&RawValue>>(data) else {
        assert!(together.signals.len() + together.rejects.len() > 0, "nothing is passed over in silence");
        return;
    };
    assert!(together.signals.len() + together.rejects.len() >= members.len().min(1));
    if members.len() > SINGLY_MAX {
        return;
    }
    let singly: Vec<_> = members.iter().map(|member| parse(member.get().as_bytes(), context)).collect();
    let signals: Vec<_> = singly.iter().flat_map(|parsed| parsed.signals.clone()).collect();
    // A member that is an array itself is a mistake here, and a body there.
    if members.iter().all(|member| !member.get().starts_with('[')) {
        assert_eq!(together.signals, signals);
        let rejects: usize = singly.iter().map(|parsed| parsed.rejects.len()).sum();
        assert_eq!(together.rejects.len(), rejects);
    }
}

/// What was read survives our own encoding.
fn packs_and_unpacks(parsed: Parsed) {
    let mut packer = Packer::new(1);
    let (mut users, mut peers) = (Vec::new(), Vec::new());
    for signal in parsed.signals {
        match signal {
            Routed::User(signal) => {
                users.push(signal.clone());
                packer.user(signal);
            }
            Routed::Peer(signal) => {
                peers.push(signal.clone());
                packer.peer(signal);
            }
        }
    }
    for message in packer.finish(false) {
        match envelope::same_again(&message.body) {
            Some(Packet::Users(signals)) => assert_eq!(users.drain(..signals.len()).collect::<Vec<_>>(), signals),
            Some(Packet::Peers(signals)) => assert_eq!(peers.drain(..signals.len()).collect::<Vec<_>>(), signals),
            other => panic!("no packet of signals: {other:?}"),
        }
    }
    assert!(users.is_empty() && peers.is_empty(), "everything was packed");
}

fn beat(data: &[u8]) {
    match parse_internal(data, NOW) {
        Ok(Packet::Beat { worker, at }) => {
            assert!(at <= NOW);
            assert_eq!(parse_internal(&encode_beat(&worker, at), NOW), Ok(Packet::Beat { worker, at }));
        }
        Ok(packet) => assert!(matches!(packet, Packet::Job(_))),
        Err(reject) => assert!(reject.reason.len() <= REASON_MAX),
    }
}
