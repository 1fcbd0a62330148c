//! `cargo bench --bench core`: how fast the pure machines are, and what a known user of a peer costs.
//!
//! A link's cost is the growth of the resident set with a million idle links that each watch one user of a peer that speaks rollcall:
//! the poll was delivered and answered, and both watchdogs are armed. The peer's name is not counted (the sender has it). A promise's
//! cost is the growth when each link watches a second user; a link's without its promise is the difference.
//! A reset is one "heard" of a peer in random order: by name, as deliveries of a thousand bring it in production, and by the
//! link's number.
//!
//! Events a second are CPU-bound on one thread, in deliveries of a thousand, rows encoded (as they are for every commit) and effects
//! dropped. Memory is the growth of the resident set while a million users of a peer become known, each watched by one local user:
//! polled, answered, and nothing on its way; none of it estimated.

#![allow(clippy::print_stdout, reason = "the figures")]

use std::hint::black_box;

use rollcall::config::ListAccept;
use rollcall::core::signal::{
    Addressed, Extension, Inbound, LinkSignal, MessageEdit, Multicast, Outcome, PeerSignal, Stamp, UserSignal,
};
use rollcall::core::{Machines, Output, Settings};
use rollcall::model::{DeviceId, Presence, Serial, ServerName, Status, Timestamp, UserId};

/// As the command has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USERS: usize = 100_000;
const EVENTS: usize = 2_000_000;
const REMOTES: usize = 1_000_000;
const LINKS: usize = 1_000_000;
/// Signals between two commits.
const RUN: usize = 1_000;
const WINDOW_MS: u64 = 5_000;
const START: Timestamp = Timestamp(1_795_400_000_000);

fn main() {
    let rate = user_events();
    println!(
        "user machines: {rate:.0} events/s on one core ({USERS} users, {EVENTS} events, rows encoded every {RUN})"
    );
    let bytes = remote_memory();
    println!("known remote user: {bytes:.0} B each at {REMOTES} users (resident set, all told)");
    let Figures { link, promise, by_name, by_number } = links();
    println!("link: {link:.0} B each at {LINKS} links, one promise each (resident set, all told)");
    println!("link: {:.0} B each besides its promise, which is {promise:.0} B", link - promise);
    println!("watchdogs reset: {by_name:.0} ns each by name, {by_number:.0} ns by number, in random order");
}

fn settings() -> Settings {
    Settings {
        window_ms: WINDOW_MS,
        phase_ms: 0,
        max_entries: 5_000,
        max_bytes: 512 << 10,
        hold_max_ms: 15_000,
        resend_ms: 60_000,
        backoff_min_ms: 1_000,
        backoff_max_ms: 600_000,
        short_ms: 60_000,
        long_ms: 3_600_000,
        tries: 3,
        give_up_ms: 600_000,
        plain_refresh_ms: 1_500_000,
        plain_promise_ms: 1_800_000,
        accept: ListAccept::Reciprocal,
        symmetric: true,
        clients_window_ms: 1_000,
        idle_after_ms: 300_000,
        offline_after_ms: 60_000,
        settle_ms: 5_000,
        granularity_ms: 60_000,
        repeat_ms: 0,
        repeat_cost_us: 0,
        linger_ms: 30_000,
    }
}

fn machines() -> Machines {
    Machines::new(ServerName::parse("a.example").expect("valid"), settings(), 1)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn user_events() -> f64 {
    let mut machines = machines();
    let users: Vec<UserId> =
        (0..USERS).map(|n| UserId::parse(&format!("@user{n}:a.example")).expect("valid")).collect();
    let mut elapsed = std::time::Duration::ZERO;
    for run in 0..EVENTS / RUN {
        let signals: Vec<_> = (0..RUN).map(|n| event(&users, run * RUN + n)).collect();
        let begun = std::time::Instant::now();
        machines.handle_users(START, signals);
        drop(black_box(machines.take_effects()));
        elapsed += begun.elapsed();
    }
    EVENTS as f64 / elapsed.as_secs_f64()
}

/// A status event of a user picked by a fixed stride, presences alternating.
fn event(users: &[UserId], n: usize) -> Addressed<UserId, UserSignal> {
    let presence = if (n / users.len()).is_multiple_of(2) { Presence::Online } else { Presence::Unavailable };
    let signal = UserSignal::Status {
        device: DeviceId::parse("PHONE").expect("valid"),
        presence,
        status_msg: MessageEdit::Keep,
        stamp: Stamp { ts: START.plus(n as u64), id: format!("{n:026}").into() },
    };
    Addressed { to: users[n * 7_919 % users.len()].clone(), at: START, reply: None, trace: None, signal }
}

fn remote_memory() -> f64 {
    let mut machines = machines();
    let peer = ServerName::parse("b.example").expect("valid");
    let before = resident_bytes();
    for run in 0..REMOTES / RUN {
        let targets: Vec<UserId> = (run * RUN..(run + 1) * RUN)
            .map(|n| UserId::parse(&format!("@user{n}:b.example")).expect("valid"))
            .collect();
        let now = START.plus(run as u64 * 2 * WINDOW_MS);
        watch(&mut machines, &peer, &targets, now);
        deliver(&mut machines, now.plus(WINDOW_MS), 1);
        push(&mut machines, &peer, targets, now.plus(WINDOW_MS));
        drop(black_box(machines.take_effects()));
    }
    let grown = resident_bytes() - before;
    assert_eq!(machines.totals().remotes, REMOTES);
    grown as f64 / REMOTES as f64
}

/// Of a million links: bytes, and nanoseconds a reset.
struct Figures {
    link: f64,
    promise: f64,
    by_name: f64,
    by_number: f64,
}

fn links() -> Figures {
    let mut machines = machines();
    let peers: Vec<ServerName> =
        (0..LINKS).map(|n| ServerName::parse(&format!("peer{n}.example")).expect("valid")).collect();
    let link = promises(&mut machines, &peers, START, "user");
    assert_eq!(machines.totals().links, LINKS);
    let took = (LINKS / RUN) as u64 * 2 * WINDOW_MS;
    let promise = promises(&mut machines, &peers, START.plus(took), "other");
    assert_eq!(machines.totals().remotes, 2 * LINKS);
    let (by_name, by_number) = resets(&mut machines, &peers, START.plus(2 * took));
    Figures { link, promise, by_name, by_number }
}

/// A user of each peer comes to be watched and known: bytes a link.
fn promises(machines: &mut Machines, peers: &[ServerName], start: Timestamp, localpart: &str) -> f64 {
    let before = resident_bytes();
    for (run, peers) in peers.chunks(RUN).enumerate() {
        let now = start.plus(run as u64 * 2 * WINDOW_MS);
        let users: Vec<(&ServerName, UserId)> = peers.iter().map(|peer| (peer, user(localpart, peer))).collect();
        for (peer, user) in &users {
            guard(machines, peer, user, now);
        }
        deliver(machines, now.plus(WINDOW_MS), RUN);
        for (peer, user) in users {
            answer(machines, peer, user, now.plus(WINDOW_MS));
        }
        drop(black_box(machines.take_effects()));
    }
    (resident_bytes() - before) as f64 / peers.len() as f64
}

fn user(localpart: &str, peer: &ServerName) -> UserId {
    UserId::parse(&format!("@{localpart}:{peer}")).expect("valid")
}

/// Nanoseconds each, by name and by number.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn resets(machines: &mut Machines, peers: &[ServerName], now: Timestamp) -> (f64, f64) {
    let heard = |n: usize| Addressed {
        to: peers[n * 7_919 % LINKS].clone(),
        at: now,
        reply: None,
        trace: None,
        signal: PeerSignal::Heard,
    };
    let signals: Vec<Vec<_>> = (0..LINKS / RUN).map(|run| (run * RUN..(run + 1) * RUN).map(heard).collect()).collect();
    let numbers: Vec<u32> =
        signals.iter().flatten().map(|signal| machines.link_number(&signal.to).expect("a link")).collect();
    let begun = std::time::Instant::now();
    for signals in signals {
        machines.handle_peers(now, signals);
    }
    let by_name = begun.elapsed();
    let begun = std::time::Instant::now();
    for number in numbers {
        assert!(machines.heard_as_ever(now, number, now));
    }
    let by_number = begun.elapsed();
    (by_name.as_nanos() as f64 / LINKS as f64, by_number.as_nanos() as f64 / LINKS as f64)
}

/// One local user watches `target`.
fn guard(machines: &mut Machines, peer: &ServerName, target: &UserId, now: Timestamp) {
    let observer = UserId::parse("@watcher:a.example").expect("valid");
    let (target, serial) = (target.clone(), Serial { epoch: 1, counter: now.0 });
    let signal = LinkSignal::Watch { observer, target, on: true, accepted: true, serial };
    machines.handle_batch(now, now.0, vec![Multicast { to: vec![peer.clone()], at: now, trace: None, signal }]);
}

/// What the windows hold leaves and arrives.
fn deliver(machines: &mut Machines, now: Timestamp, transactions: usize) {
    while machines.poll_timeout().is_some_and(|due| due <= now) {
        machines.handle_timeout(now);
    }
    let outputs = machines.take_effects().outputs;
    let mut left = transactions;
    for output in outputs {
        // Others are for users' machines.
        let Output::Transmit(transaction) = output else { continue };
        left -= 1;
        let signal =
            PeerSignal::Receipt { txn_id: transaction.txn_id, outcome: Outcome::Delivered, retry_after_ms: None };
        let to = transaction.destination;
        machines.handle_peer(now, Addressed { to, at: now, reply: None, trace: None, signal });
    }
    assert_eq!(left, 0, "transactions that poll");
}

/// The peer says how its user is, and shows that it speaks rollcall.
fn answer(machines: &mut Machines, peer: &ServerName, user: UserId, now: Timestamp) {
    let status = Status { presence: Presence::Online, last_active: now, currently_active: true, ..Status::default() };
    let extension = Some(Extension { seq: Serial { epoch: 1, counter: now.0 }, ..Extension::default() });
    let push = vec![(user, status)];
    let inbound = Inbound { txn_id: "1".into(), origin_server_ts: now, extension, push, ..Inbound::default() };
    let signal = PeerSignal::Transaction(Box::new(inbound));
    machines.handle_peer(now, Addressed { to: peer.clone(), at: now, reply: None, trace: None, signal });
}

/// A hundred contacts a local user.
fn watch(machines: &mut Machines, peer: &ServerName, targets: &[UserId], now: Timestamp) {
    let signals = targets
        .iter()
        .enumerate()
        .map(|(n, target)| {
            let observer = UserId::parse(&format!("@watcher{}-{}:a.example", now.0, n / 100)).expect("valid");
            let serial = Serial { epoch: 1, counter: now.0 };
            let signal = LinkSignal::Watch { observer, target: target.clone(), on: true, accepted: true, serial };
            Multicast { to: vec![peer.clone()], at: now, trace: None, signal }
        })
        .collect();
    machines.handle_batch(now, now.0, signals);
}

/// The peer says how its users are.
fn push(machines: &mut Machines, peer: &ServerName, targets: Vec<UserId>, now: Timestamp) {
    let status = Status { presence: Presence::Online, last_active: now, currently_active: true, ..Status::default() };
    let push = targets.into_iter().map(|user| (user, status.clone())).collect();
    let inbound = Inbound { txn_id: format!("{}", now.0).into(), origin_server_ts: now, push, ..Inbound::default() };
    let signal = PeerSignal::Transaction(Box::new(inbound));
    machines.handle_peer(now, Addressed { to: peer.clone(), at: now, reply: None, trace: None, signal });
}

/// The resident set, from `/proc/self/statm` (pages of 4 KiB), once the allocator has given back what it freed: that takes it a
/// while, and further allocations.
#[expect(clippy::disallowed_methods, reason = "a benchmark may wait")]
fn resident_bytes() -> i64 {
    let pages = || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(black_box(vec![0_u8; 4 << 20]));
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
        statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<i64>().ok()).expect("statm")
    };
    (0..20).map(|_| pages()).min().expect("some") * 4096
}
