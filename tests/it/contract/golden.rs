//! The bytes of the envelope, written down: an encoding cannot change by accident. A new variant adds a line; no line ever changes
//! within a version.

use rollcall::bus::{Exchange, Outgoing};
use rollcall::core::signal::{
    Addressed, Extension, Inbound, LinkSignal, MessageEdit, Multicast, Outcome, PeerSignal, Permission, PermissionKind,
    SessionAction, Stamp, UserSignal,
};
use rollcall::model::{DeviceId, Presence, Serial, ServerName, Status, Timestamp, TraceId, UserId};
use rollcall::wire::envelope::{EnvelopeError, Job, Packer, Packet, decode, encode, join};

#[rustfmt::skip]
const GOLDEN: &[(&str, &str)] = &[
    ("beat", "01030177fd00e22d06a2010000"),
    ("job compact", "010400"),
    ("job audit", "010401"),
    ("job probe", "010402"),
    ("job expire", "010403"),
    ("job statistics", "010404"),
    ("no users", "010000"),
    ("status keep", "01000106406a3a612e6201010901fe000000000000000000000000100000000001440300fb2c010169"),
    ("status clear", "01000106406a3a612e6201010901fe000000000000000000000000100000000001440301fb2c010169"),
    ("status set", "01000106406a3a612e6201010901fe000000000000000000000000100000000001440302016dfb2c010169"),
    ("idle", "01000106406a3a612e6201010901fe000000000000000000000000100000000101440107fb2c010169"),
    ("device", "01000106406a3a612e6201010901fe000000000000000000000000100000000201440103776562fb2c010169"),
    ("activity", "01000106406a3a612e6201010901fe000000000000000000000000100000000301440101fb2c010169"),
    ("session start", "01000106406a3a612e6201010901fe0000000000000000000000001000000004014400fcc0d40100010165fb2c010169"),
    ("session stop", "01000106406a3a612e6201010901fe0000000000000000000000001000000004014401fb2c010169"),
    ("session leave", "01000106406a3a612e6201010901fe00000000000000000000000010000000040144020165fb2c010169"),
    ("list", "01000106406a3a612e6201010901fe00000000000000000000000010000000050106406b3a632e640106406a3a612e62fb2c010169"),
    ("answer", "01000106406a3a612e6201010901fe000000000000000000000000100000000606406b3a632e6401fb2c010169"),
    ("watched", "01000106406a3a612e6201010901fe000000000000000000000000100000000703632e6401fc7011010002"),
    ("tell", "01000106406a3a612e6201010901fe000000000000000000000000100000000803632e64"),
    ("queried", "01000106406a3a612e6201010901fe000000000000000000000000100000000903632e64"),
    ("invited", "01000106406a3a612e6201010901fe000000000000000000000000100000000a06406b3a632e6401fc7011010002"),
    ("answered", "01000106406a3a612e6201010901fe000000000000000000000000100000000b06406b3a632e6401fc7011010002"),
    ("observed", "01000106406a3a612e6201010901fe000000000000000000000000100000000c06406a3a612e6201fc7011010002"),
    ("update", "01000106406a3a612e6201010901fe000000000000000000000000100000000d06406b3a632e640401016d0501010377656206fc7011010002"),
    ("refresh", "01000106406a3a612e6201010901fe000000000000000000000000100000000e03632e64"),
    ("audit of a promise", "01000106406a3a612e6201010901fe000000000000000000000000100000000f03632e64"),
    ("audit of a watch", "01000106406a3a612e6201010901fe000000000000000000000000100000001006406b3a632e64"),
    ("transaction", "01010103632e64010000000174040106406b3a632e640401016d050101037765620106406a3a612e620106406a3a612e62030006406a3a612e6206406b3a632e640106406a3a612e6206406b3a632e640206406a3a612e6206406b3a632e6401fc701101000201fb60ea010000000000"),
    ("heard", "01010103632e6401000001"),
    ("receipt delivered", "01010103632e640100000201740001fbe803"),
    ("receipt failed", "01010103632e640100000201740101fbe803"),
    ("receipt too large", "01010103632e640100000201740201fbe803"),
    ("receipt expired", "01010103632e640100000201740301fbe803"),
    ("change", "01020103632e640100000006406a3a612e620401016d05010103776562fc701101000201"),
    ("hide", "01020103632e640100000106406a3a612e62fc7011010002"),
    ("watch", "01020103632e640100000206406a3a612e6206406b3a632e640101fc7011010002"),
    ("ask", "01020103632e640100000306406a3a612e6206406b3a632e6401fc7011010002"),
    ("decide", "01020103632e640100000406406a3a612e6206406b3a632e6401fc7011010002"),
    ("audit of the told", "01020103632e640100000506406a3a612e62fc7011010002"),
    ("audit of the watched", "01020103632e640100000606406a3a612e6206406b3a632e6401fc7011010002"),
    ("links", "0105010203632e6403652e6601000106406a3a612e62fc7011010002"),
];

fn local() -> UserId {
    UserId::parse("@j:a.b").unwrap()
}

fn remote() -> UserId {
    UserId::parse("@k:c.d").unwrap()
}

fn server() -> ServerName {
    ServerName::parse("c.d").unwrap()
}

fn device() -> DeviceId {
    DeviceId::parse("D").unwrap()
}

fn stamp() -> Stamp {
    Stamp { ts: Timestamp(300), id: "i".into() }
}

const SERIAL: Serial = Serial { epoch: 70_000, counter: 2 };

fn status() -> Status {
    Status {
        presence: Presence::Busy,
        status_msg: Some("m".into()),
        last_active: Timestamp(5),
        currently_active: true,
        device_types: ["web".into()].into(),
    }
}

fn packets() -> Vec<(&'static str, Packet)> {
    let mut packets = vec![
        ("beat", Packet::Beat { worker: "w".into(), at: Timestamp(1_795_400_000_000) }),
        ("job compact", Packet::Job(Job::Compact)),
        ("job audit", Packet::Job(Job::Audit)),
        ("job probe", Packet::Job(Job::Probe)),
        ("job expire", Packet::Job(Job::Expire)),
        ("job statistics", Packet::Job(Job::Statistics)),
        ("no users", Packet::Users(vec![])),
    ];
    let all =
        |signal| Addressed { to: local(), at: Timestamp(1), reply: Some(9), trace: Some(TraceId(1 << 100)), signal };
    packets.extend(user_signals().into_iter().map(|(name, signal)| (name, Packet::Users(vec![all(signal)]))));
    let to_peer = |signal| Addressed { to: server(), at: Timestamp(1), reply: None, trace: None, signal };
    packets.extend(peer_signals().into_iter().map(|(name, signal)| (name, Packet::Peers(vec![to_peer(signal)]))));
    let to_link = |signal| Addressed { to: server(), at: Timestamp(1), reply: None, trace: None, signal };
    packets.extend(link_signals().into_iter().map(|(name, signal)| (name, Packet::Batch(vec![to_link(signal)]))));
    let (to, signal) =
        (vec![server(), ServerName::parse("e.f").unwrap()], LinkSignal::Hide { user: local(), serial: SERIAL });
    packets.push(("links", Packet::Links(vec![Multicast { to, at: Timestamp(1), trace: None, signal }])));
    packets
}

fn user_signals() -> Vec<(&'static str, UserSignal)> {
    let (device, stamp) = (device(), stamp());
    let set = |status_msg| UserSignal::Status {
        device: self::device(),
        presence: Presence::Online,
        status_msg,
        stamp: self::stamp(),
    };
    let session = |action| UserSignal::Session { device: self::device(), action, stamp: self::stamp() };
    vec![
        ("status keep", set(MessageEdit::Keep)),
        ("status clear", set(MessageEdit::Clear)),
        ("status set", set(MessageEdit::Set("m".into()))),
        ("idle", UserSignal::Idle { device: device.clone(), idle_ms: Some(7), stamp: stamp.clone() }),
        (
            "device",
            UserSignal::Device { device: device.clone(), device_type: Some("web".into()), stamp: stamp.clone() },
        ),
        ("activity", UserSignal::Activity { device, set_presence: Some(Presence::Offline), stamp: stamp.clone() }),
        ("session start", session(SessionAction::Start { lease_ms: 120_000, edge: Some("e".into()) })),
        ("session stop", session(SessionAction::Stop)),
        ("session leave", session(SessionAction::Leave { edge: "e".into() })),
        ("list", UserSignal::List { add: vec![remote()], remove: vec![local()], stamp: stamp.clone() }),
        ("answer", UserSignal::Answer { observer: remote(), allow: true, stamp }),
        ("watched", UserSignal::Watched { peer: server(), on: true, serial: SERIAL }),
        ("tell", UserSignal::Tell { peer: server() }),
        ("queried", UserSignal::Queried { peer: server() }),
        ("invited", UserSignal::Invited { observer: remote(), on: true, serial: SERIAL }),
        ("answered", UserSignal::Answered { observed: remote(), allow: true, serial: SERIAL }),
        ("observed", UserSignal::Observed { observer: local(), on: true, serial: SERIAL }),
        ("update", UserSignal::Update { of: remote(), status: status(), known_at: Timestamp(6), serial: SERIAL }),
        ("refresh", UserSignal::Refresh { peer: server() }),
        ("audit of a promise", UserSignal::AuditTold { peer: server() }),
        ("audit of a watch", UserSignal::AuditWatch { target: remote() }),
    ]
}

fn peer_signals() -> Vec<(&'static str, PeerSignal)> {
    let permission = |kind| Permission { kind, observed: local(), observer: remote() };
    let inbound = Inbound {
        txn_id: "t".into(),
        origin_server_ts: Timestamp(4),
        push: vec![(remote(), status())],
        poll: vec![local()],
        unpoll: vec![local()],
        permissions: [PermissionKind::Invite, PermissionKind::Accept, PermissionKind::Deny].map(permission).to_vec(),
        extension: Some(Extension { seq: SERIAL, promise_ms: Some(60_000), full: true, ..Extension::default() }),
    };
    let receipt = |outcome| PeerSignal::Receipt { txn_id: "t".into(), outcome, retry_after_ms: Some(1_000) };
    vec![
        ("transaction", PeerSignal::Transaction(Box::new(inbound))),
        ("heard", PeerSignal::Heard),
        ("receipt delivered", receipt(Outcome::Delivered)),
        ("receipt failed", receipt(Outcome::Failed)),
        ("receipt too large", receipt(Outcome::TooLarge)),
        ("receipt expired", receipt(Outcome::Expired)),
    ]
}

fn link_signals() -> Vec<(&'static str, LinkSignal)> {
    vec![
        ("change", LinkSignal::Change { user: local(), status: status(), serial: SERIAL, promise: true }),
        ("hide", LinkSignal::Hide { user: local(), serial: SERIAL }),
        ("watch", LinkSignal::Watch { observer: local(), target: remote(), on: true, accepted: true, serial: SERIAL }),
        ("ask", LinkSignal::Ask { observer: local(), observed: remote(), on: true, serial: SERIAL }),
        ("decide", LinkSignal::Decide { observed: local(), observer: remote(), allow: true, serial: SERIAL }),
        ("audit of the told", LinkSignal::AuditTold { user: local(), serial: SERIAL }),
        (
            "audit of the watched",
            LinkSignal::AuditWatch { observer: local(), target: remote(), accepted: true, serial: SERIAL },
        ),
    ]
}

#[test]
fn bytes_stay_what_they_were() {
    let got: Vec<(&str, String)> = packets().iter().map(|(name, packet)| (*name, hex(&encode(packet)))).collect();
    let expected: Vec<(&str, String)> = GOLDEN.iter().map(|(name, bytes)| (*name, (*bytes).to_owned())).collect();
    assert_eq!(got, expected);
    for (name, packet) in packets() {
        assert_eq!(decode::<Packet>(&encode(&packet)), Ok(packet), "{name}");
    }
}

#[test]
fn what_was_said_to_each_link_by_itself_is_read_as_ever() {
    let signal = LinkSignal::Hide { user: local(), serial: SERIAL };
    let to_link = Addressed { to: server(), at: Timestamp(1), reply: None, trace: None, signal: signal.clone() };
    let to_links = |to| Packet::Links(vec![Multicast { to, at: Timestamp(1), trace: None, signal: signal.clone() }]);
    assert_eq!(Packet::Batch(vec![to_link]).renewed(), to_links(vec![server()]));
    let other = ServerName::parse("e.f").unwrap();
    let singles = to_links(vec![server(), other.clone()]).singles();
    assert_eq!(singles, [to_links(vec![server()]), to_links(vec![other])]);
}

#[test]
fn one_signal_is_for_so_many_links_and_each_of_them_keeps_it() {
    let to: Vec<ServerName> = (0..100).map(|n| ServerName::parse(&format!("b{n}.example")).unwrap()).collect();
    let signal = LinkSignal::Change { user: local(), status: status(), serial: SERIAL, promise: true };
    let mut packer = Packer::new(1);
    packer.links(Multicast { to: to.clone(), at: Timestamp(1), trace: None, signal });
    let messages = packer.finish(false);
    assert_eq!(messages.len(), 1);
    let packet: Packet = decode(&messages[0].body).unwrap();
    let Packet::Links(signals) = &packet else { panic!("{packet:?}") };
    assert_eq!(signals.iter().map(|signal| signal.to.len()).collect::<Vec<_>>(), [64, 36]);
    assert_eq!(signals.iter().flat_map(|signal| &signal.to).collect::<Vec<_>>(), to.iter().collect::<Vec<_>>());
    let (weight, singles) = (packet.weight(), packet.singles());
    assert_eq!((singles.len(), singles.iter().map(Packet::weight).sum::<usize>()), (100, weight));
}

#[test]
fn a_newer_envelope_is_told_from_a_damaged_one() {
    let mut bytes = encode(&Packet::Job(Job::Audit)).to_vec();
    bytes.push(0);
    assert!(matches!(decode::<Packet>(&bytes), Err(EnvelopeError::Malformed(_))), "a byte too many");
    bytes[0] = 2;
    assert_eq!(decode::<Packet>(&bytes), Err(EnvelopeError::Newer(2)));
    assert!(matches!(decode::<Packet>(&[]), Err(EnvelopeError::Malformed(_))));
    let claims_too_much = [1, 0, 253, 255, 255, 255, 255, 255, 255, 255, 127];
    assert!(matches!(decode::<Packet>(&claims_too_much), Err(EnvelopeError::Malformed(_))));
}

fn changes(users: std::ops::Range<usize>) -> Packet {
    let change = |n| {
        let user = UserId::parse(&format!("@u{n}:a.b")).unwrap();
        let signal = LinkSignal::Change { user, status: status(), serial: SERIAL, promise: true };
        Multicast { to: vec![server()], at: Timestamp(1), trace: None, signal }
    };
    Packet::Links(users.map(change).collect())
}

fn message(packet: &Packet) -> Outgoing {
    Outgoing::new(Exchange::Batch, "7", encode(packet))
}

#[test]
fn joined_packets_are_one_packet_of_all_their_signals() {
    // The length takes one byte, three bytes and three bytes again.
    let apart = [changes(0..2), changes(2..400), changes(400..700)];
    assert_eq!(join(apart.iter().map(message).collect()), [message(&changes(0..700))]);
}

#[test]
fn only_packets_of_one_kind_are_joined_and_order_stays() {
    let beat = Packet::Beat { worker: "w".into(), at: Timestamp(1) };
    let kinds = [changes(0..2), beat, changes(2..3), Packet::Users(vec![]), changes(3..4), changes(4..5)];
    let joined = join(kinds.iter().map(message).collect());
    let [before, beat, between, users, ..] = kinds;
    assert_eq!(joined, [before, beat, between, users, changes(3..5)].each_ref().map(message));
}

#[test]
fn a_joined_packet_is_not_larger_than_any_other() {
    let joined = join((0..40).map(|n| message(&changes(n * 100..n * 100 + 100))).collect());
    assert!((2..=5).contains(&joined.len()), "{}", joined.len());
    assert!(joined.iter().all(|message| message.body.len() <= (128 << 10) + 16));
    let signals: usize = joined.iter().map(|message| decode::<Packet>(&message.body).unwrap().len()).sum();
    assert_eq!(signals, 4_000);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
