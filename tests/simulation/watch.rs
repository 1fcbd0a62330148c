//! Looks at everything that passes, and says what must not be.

use bytes::Bytes;
use rollcall::bus::Outgoing;
use rollcall::clock::Clock;
use rollcall::core::rows::{RemoteRow, SentRow, UserState};
use rollcall::core::signal::{LinkSignal, Outcome};
use rollcall::model::{Serial, Timestamp, TraceId, UserId};
use rollcall::store::{Commit, RowChange, RowKind};
use rollcall::wire::envelope::{Packet, decode, decode_own, encode};
use rollcall::wire::outbound::OutboundMessage;
use rollcall::wire::update::UpdateMessage;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::broker::is_committed_first;
use super::ledger::Sent;
use super::life::Life;
use super::plan::WINDOW_MS;
use super::polling::{self, Watches};
use super::sim::Sim;
use super::store::Rows;

/// As the worker's outbox keeps it.
#[derive(Serialize, Deserialize)]
struct Kept {
    exchange: u8,
    routing_key: String,
    body: Vec<u8>,
    trace: Option<TraceId>,
}

/// After this a server that was restored from a backup has heard again who is there.
const RESTORED_MS: u64 = 10_000;

const BATCH: u8 = 4;
const OUTBOUND: u8 = 5;

#[derive(Deserialize)]
struct Body {
    origin_server_ts: Timestamp,
    edus: Vec<Edu>,
}

#[derive(Deserialize)]
struct Edu {
    edu_type: String,
    content: Box<RawValue>,
}

#[derive(Deserialize)]
struct Presence {
    push: Vec<Push>,
    #[serde(default)]
    poll: Vec<UserId>,
    #[serde(default)]
    unpoll: Vec<UserId>,
    rollcall: Option<Numbered>,
}

#[derive(Deserialize)]
struct Push {
    user_id: UserId,
    #[serde(default)]
    status_msg: Option<String>,
}

#[derive(Deserialize)]
struct Numbered {
    seq: (u64, u64),
}

/// A run is committed.
pub fn committed(sim: &Sim, server: usize, life: &Life, commit: &Commit, rows: &Rows) {
    let mut watches = Watches::default();
    let outbox = commit.outbox.as_ref().map(|(_, outbox)| decode_own::<Vec<Kept>>(outbox).expect("a list of messages"));
    for kept in outbox.into_iter().flatten() {
        for word in words(&kept.routing_key, &kept.body) {
            sim.ledger().owes_word(server, word, sim.elapsed());
        }
        match kept.exchange {
            OUTBOUND => {
                let message = serde_json::from_slice(&kept.body).expect("what leaves is JSON");
                let (polled, then) = transmitted(sim, server, life, &message);
                polled.iter().for_each(|user| polling::polls(sim, server, rows, commit, (user, then)));
            }
            BATCH => changed(sim, server, &kept.body),
            _ => {}
        }
        watches.note(&kept.body);
    }
    watches.check(sim, rows, commit.partition);
    for row in &commit.rows {
        row_committed(sim, server, row);
    }
}

/// Users' machines tell links of statuses: more of them than their rows say, if much happens in one run.
fn changed(sim: &Sim, server: usize, body: &[u8]) {
    let Ok(Packet::Links(signals)) = decode(body) else { return };
    for signal in signals {
        let LinkSignal::Change { user, status, serial, .. } = signal.signal else { continue };
        let content = xxh3_64(format!("{status:?}").as_bytes());
        sim.ledger().says(&user, &status);
        if !sim.ledger().numbered(server, serial, &user, content) {
            sim.blame(format!("s{server} numbers two statuses of {user} {serial:?}"));
        }
    }
}

/// A link has done what a user's machine told it.
pub fn acknowledged(sim: &Sim, server: usize, body: &[u8]) {
    let Ok(Packet::Links(signals)) = decode(body) else { return };
    for signal in signals {
        let LinkSignal::Hide { user, serial } = signal.signal else { continue };
        for to in signal.to {
            sim.ledger().hides((server, home_named(sim, to.as_str())), user.clone(), serial);
        }
    }
}

fn row_committed(sim: &Sim, server: usize, row: &RowChange) {
    let Some(value) = &row.value else { return };
    match row.key.kind {
        RowKind::User => {
            let state: UserState = decode(value).expect("a user's row");
            let user = UserId::parse(&row.key.key).expect("a user's key");
            let left = sim.ledger().tells(&user, state.status().clone(), state.is_withheld(), sim.elapsed());
            let ledger = sim.ledger();
            // Whoever was restored from a backup must hear it first.
            let hears = sim.elapsed().checked_sub(RESTORED_MS).is_none_or(|since| ledger.remembers(server, since));
            let excused = !hears || ledger.is_shaky(server);
            drop(ledger);
            if state.is_watching() {
                polling::watches(sim, server, &user);
            }
            if left && !excused {
                sim.blame(format!(
                    "{} is taken for gone, though they said all the time that they are there",
                    row.key.key
                ));
            }
        }
        RowKind::Remote => {
            let known: RemoteRow = decode(value).expect("a remote's row");
            let user = UserId::parse(&row.key.key).expect("a user's key");
            let home = home_of(sim, &user);
            let wrong = sim.ledger().knows(server, home, &user, &known.status);
            wrong.into_iter().for_each(|wrong| sim.blame(wrong));
        }
        RowKind::Sent => {
            let sent: SentRow = decode(value).expect("what a transaction holds");
            let (peer, _) = row.key.key.split_once('\0').expect("a key of two parts");
            let pair = (server, home_named(sim, peer));
            for (user, serial) in sent.entries {
                let wrong = sim.ledger().pushes(pair, &user, serial);
                wrong.into_iter().for_each(|wrong| sim.blame(wrong));
            }
        }
        _ => {}
    }
}

/// A transaction is committed; whom it polls, and when it was made.
fn transmitted(sim: &Sim, from: usize, life: &Life, message: &OutboundMessage) -> (Vec<UserId>, Timestamp) {
    let to = home_named(sim, message.destination.as_str());
    let body: Body = serde_json::from_str(message.body.get()).expect("a transaction");
    let presence = body.edus.iter().filter(|edu| edu.edu_type == "m.presence");
    let parts: Vec<Presence> = presence.map(|edu| serde_json::from_str(edu.content.get()).expect("an EDU")).collect();
    let (epoch, counter) = parts.iter().find_map(|part| part.rollcall.as_ref()).expect("a number").seq;
    let polled: Vec<UserId> = parts.iter().flat_map(|part| &part.poll).cloned().collect();
    let polls = polled.iter().map(|user| (user.clone(), true));
    let unpolls = parts.iter().flat_map(|part| &part.unpoll).map(|user| (user.clone(), false));
    let sent = Sent {
        txn_id: message.txn_id.clone().into(),
        seq: Serial { epoch, counter },
        made: body.origin_server_ts,
        not_after: message.not_after,
        body: xxh3_64(message.body.get().as_bytes()),
        is_over: false,
        arrived: false,
        polls: polls.chain(unpolls).collect(),
    };
    let drains = life.stop.is_cancelled();
    let wrong = sim.ledger().transmitted((from, to), sent, life.now(), drains, WINDOW_MS);
    wrong.into_iter().for_each(|wrong| sim.blame(wrong));
    for push in parts.iter().flat_map(|part| &part.push) {
        let ledger = sim.ledger();
        let hidden = ledger.truth.hidden_since(&push.user_id, from, to);
        let wrong = hidden.is_some_and(|since| !ledger.truth.is_older(push.status_msg.as_deref(), since));
        drop(ledger);
        if wrong {
            let said = push.status_msg.as_deref().unwrap_or("-");
            sim.blame(format!("s{to} is told {said} of {}, whom nobody there may see", push.user_id));
        }
    }
    (polled, body.origin_server_ts)
}

/// A worker says something.
pub fn published(sim: &Sim, server: usize, message: &Outgoing) {
    if !is_committed_first(message.exchange) {
        return;
    }
    for word in words(&message.routing_key, &message.body) {
        if !sim.ledger().said(server, word) {
            sim.blame(format!("s{server} says on {} what is not committed", message.exchange.name()));
        }
    }
}

/// Clients are told something.
pub fn shown(sim: &Sim, server: usize, clock: &dyn Clock, body: &[u8]) {
    let (observer, events) = UpdateMessage::decode(body, clock.now()).expect("an update");
    let now = sim.elapsed();
    for (of, shown) in events {
        let home = home_of(sim, &of);
        let mut ledger = sim.ledger();
        let hidden = (home == server).then(|| ledger.truth.hidden_from_since(&of, home, &observer)).flatten();
        let said = shown.status.status_msg.clone();
        let wrong = hidden.is_some_and(|since| said.is_some() && !ledger.truth.is_older(said.as_deref(), since));
        ledger.shown.insert((observer.clone(), of.clone()), (now, shown.status));
        drop(ledger);
        if wrong {
            sim.blame(format!("{observer} is shown {said:?} of {of}, whom they may not see"));
        }
    }
}

/// A worker says that it applied something.
pub fn applied(sim: &Sim, body: &Bytes) {
    let now = sim.elapsed();
    for id in decode::<Vec<u64>>(body).expect("numbers") {
        sim.ledger().truth.applied(id, now);
    }
}

/// A sender tries.
pub fn attempted(sim: &Sim, from: usize, to: usize, message: &OutboundMessage) {
    let bytes = xxh3_64(message.body.get().as_bytes());
    let known = sim.ledger().sent((from, to), &message.txn_id).map(|sent| sent.body);
    match known {
        Some(known) if known != bytes => sim.blame(format!("{} is sent with other bytes", message.txn_id)),
        None => sim.blame(format!("{} is sent and was never committed", message.txn_id)),
        Some(_) => {}
    }
}

/// It arrived.
pub fn arrived(sim: &Sim, from: usize, to: usize, txn_id: &str) {
    let now = sim.now();
    let offset = sim.plan.servers[from].offset_ms;
    let now = Timestamp(now.0.checked_add_signed(offset).unwrap());
    if !sim.ledger().arrived((from, to), txn_id, now) {
        sim.blame(format!("{txn_id} of s{from} arrives at s{to} after a later one"));
    }
}

/// A sender says what became of it.
pub fn receipted(sim: &Sim, from: usize, to: usize, txn_id: &str, outcome: Outcome) {
    sim.note(outcome as u64, || format!("s{from} -> s{to} {txn_id}: {}", outcome.as_str()));
    sim.ledger().receipted((from, to), txn_id, outcome);
}

/// What a message says, each thing by itself: packets of several runs leave as one.
fn words(routing_key: &str, body: &[u8]) -> Vec<u64> {
    let singles = decode(body).map(Packet::singles).unwrap_or_default();
    if singles.is_empty() {
        return vec![hash(routing_key, body)];
    }
    singles.iter().map(|single| hash(routing_key, &encode(single))).collect()
}

fn hash(routing_key: &str, body: &[u8]) -> u64 {
    xxh3_64(body) ^ xxh3_64(routing_key.as_bytes())
}

pub fn home_of(sim: &Sim, user: &UserId) -> usize {
    home_named(sim, user.server_str())
}

fn home_named(sim: &Sim, name: &str) -> usize {
    sim.plan.servers.iter().position(|make| make.name.as_str() == name).expect("a server of this world")
}
