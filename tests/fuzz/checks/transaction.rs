//! `PUT /_matrix/federation/v1/send/{txnId}`: a peer's transaction, its EDUs and the `rollcall` object in them.

use std::collections::HashSet;

use rollcall::core::Settings;
use rollcall::core::digest::BUCKETS;
use rollcall::core::signal::{Addressed, Extension, Inbound, PeerSignal, Permission, PermissionKind};
use rollcall::edge::transaction::Transaction;
use rollcall::model::{Presence, Status, Timestamp};
use rollcall::wire::envelope::{Packet, encode};
use rollcall::wire::matrix::{MAX_EDU_BYTES, MAX_REJECTS, TransactionContent, build_transaction, parse_edus};
use rollcall::wire::reject::Reject;

use super::{NOW, REASON_MAX, envelope, local, peer};

/// What has more is not built again: it may not fit into one transaction.
const REBUILT_MAX: usize = 256 << 10;

pub fn check(data: &[u8]) {
    let Some((inbound, rejects)) = read(data) else { return };
    in_bounds(&inbound);
    assert!(rejects.len() <= MAX_REJECTS);
    assert!(rejects.iter().all(|reject| reject.reason.len() <= REASON_MAX));
    let aside: usize = rejects.iter().map(|reject| reject.body.len()).sum();
    assert!(aside <= data.len(), "no byte is put aside twice");
    if data.len() <= REBUILT_MAX && inbound.permissions.len() <= 50 {
        says_the_same_again(&inbound);
    }
    packs_and_unpacks(inbound);
}

fn read(data: &[u8]) -> Option<(Inbound, Vec<Reject>)> {
    let transaction = Transaction::parse(data).ok()?;
    assert!(transaction.edus.len() <= 100);
    let sent = Timestamp(transaction.origin_server_ts);
    Some(parse_edus(&peer(), &local(), &transaction.edus, NOW, sent))
}

fn in_bounds(inbound: &Inbound) {
    assert!(inbound.origin_server_ts <= NOW);
    let pushed: HashSet<_> = inbound.push.iter().map(|(user, _)| user).collect();
    assert_eq!(pushed.len(), inbound.push.len(), "nobody is pushed twice");
    assert!(pushed.iter().all(|user| user.belongs_to(&peer())));
    inbound.push.iter().for_each(|(_, status)| status_in_bounds(status));
    assert!(inbound.poll.iter().chain(&inbound.unpoll).all(|user| user.belongs_to(&local())));
    inbound.permissions.iter().for_each(permission_in_bounds);
    inbound.extension.iter().for_each(extension_in_bounds);
}

fn status_in_bounds(status: &Status) {
    assert!(status.presence != Presence::Unknown && status.last_active <= NOW);
    assert!(status.status_msg.as_ref().is_none_or(|text| text.len() <= 1 << 10));
    assert!(status.device_types.len() <= 8);
    assert!(status.device_types.iter().all(|text| (1..=32).contains(&text.len())));
}

fn permission_in_bounds(permission: &Permission) {
    let (asked, asking) = match permission.kind {
        PermissionKind::Invite => (local(), peer()),
        PermissionKind::Accept | PermissionKind::Deny => (peer(), local()),
    };
    assert!(permission.observed.belongs_to(&asked) && permission.observer.belongs_to(&asking));
}

fn extension_in_bounds(extension: &Extension) {
    assert!(extension.answers.len() <= Settings::MAX_ANSWERS);
    let reminder = extension.reminder.iter().map(|reminder| &reminder.id);
    assert!(extension.answers.iter().chain(reminder).all(|id| (1..=64).contains(&id.len())));
    assert!(extension.query.len() <= Settings::MAX_POLLS);
    assert!(extension.query.iter().all(|user| user.belongs_to(&local())));
    assert!(extension.have.as_ref().is_none_or(|have| have.buckets.len() == BUCKETS));
    assert!(extension.differ.is_sorted_by(|a, b| a < b), "each bucket once");
    assert!(extension.promise_ms.is_none_or(|ms| ms < 1 << 53));
}

/// If the peer were we, it would say this: what is then read is the same.
fn says_the_same_again(inbound: &Inbound) {
    let extension = inbound.extension.clone().unwrap_or_default();
    let content = TransactionContent {
        pushes: inbound.push.clone(),
        polls: inbound.poll.clone(),
        unpolls: inbound.unpoll.clone(),
        permissions: inbound.permissions.clone(),
        seq: extension.seq,
        promise_ms: extension.promise_ms.unwrap_or_default(),
        plain: false,
        reminder: extension.reminder.clone(),
        answers: extension.answers.clone(),
        have: extension.have.clone(),
        differ: extension.differ.clone(),
    };
    let body = build_transaction(&peer(), NOW, &content);
    let transaction = Transaction::parse(body.get().as_bytes()).expect("what we write is read");
    assert!(transaction.edus.iter().all(|edu| edu.get().len() <= MAX_EDU_BYTES));
    let (again, rejects) = parse_edus(&peer(), &local(), &transaction.edus, NOW, inbound.origin_server_ts);
    assert_eq!(rejects, []);
    let promise_ms = Some(extension.promise_ms.unwrap_or_default());
    let expected = Extension { promise_ms, full: false, query: Vec::new(), ..extension };
    assert_eq!(again, Inbound { extension: Some(expected), ..inbound.clone() });
}

fn packs_and_unpacks(inbound: Inbound) {
    let signal = PeerSignal::Transaction(Box::new(inbound));
    let packet = Packet::Peers(vec![Addressed { to: peer(), at: NOW, reply: None, trace: None, signal }]);
    assert_eq!(envelope::same_again(&encode(&packet)), Some(packet));
}
