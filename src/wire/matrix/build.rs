//! EDUs out, written straight into the bytes of a transaction.

use serde::Serialize;
use serde_json::value::RawValue;

use super::digest::{HaveObject, ReminderObject, number};
use crate::core::signal::{Have, Permission, PermissionKind, Reminder};
use crate::model::{DeviceTypes, Presence, Serial, ServerName, Status, Timestamp, UserId};

use super::MAX_INTEGER;

/// Pushes in one EDU.
pub const MAX_EDU_ENTRIES: usize = 256;
/// Bytes of one EDU.
pub const MAX_EDU_BYTES: usize = 60_000;
/// EDUs in one transaction (Matrix spec, server-server API, transactions). It is for the caller's window to keep content below
/// it; more is written nonetheless, for the peer to refuse: what is refused is owed, what is left out is lost.
pub const MAX_EDUS: usize = 100;

/// Everything that one transaction says to one peer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransactionContent {
    /// Statuses of local users; never `unknown`.
    pub pushes: Vec<(UserId, Status)>,
    /// Users of the peer to be watched from now on.
    pub polls: Vec<UserId>,
    /// Users of the peer to be watched no longer.
    pub unpolls: Vec<UserId>,
    /// Permission EDUs, in this order.
    pub permissions: Vec<Permission>,
    /// The link's number of this transaction.
    pub seq: Serial,
    /// For how long the pushes are a promise, ms.
    pub promise_ms: u64,
    /// Whether the peer is not known to speak rollcall: `busy` reads `online`.
    pub plain: bool,
    /// W5: asks for a sign of life.
    pub reminder: Option<Reminder>,
    /// Reminders of the peer's that this answers.
    pub answers: Vec<Box<str>>,
    /// What we hold of the peer's users, by bucket.
    pub have: Option<Have>,
    /// Buckets in which the peer holds something else than it was told.
    pub differ: Vec<u8>,
}

/// The body of a transaction that `origin` sends at `now`, as canonical JSON: it is signed as it stands, and whoever checks that needs no
/// tree of it. There is always an m.presence EDU (even an empty one), because it carries the `rollcall` object by which peers find each other.
pub fn build_transaction(origin: &ServerName, now: Timestamp, content: &TransactionContent) -> Box<RawValue> {
    let estimate: usize = content.pushes.iter().map(|(user, status)| entry_size(user, status)).sum();
    let mut edus = Edus { out: Vec::with_capacity(estimate + 1024), ..Edus::default() };
    put(&mut edus.out, b"{\"edus\":[");
    edus.presence(now, content);
    for permission in &content.permissions {
        edus.permission(permission);
    }
    debug_assert!(edus.count <= MAX_EDUS, "a window larger than a transaction");
    put(&mut edus.out, b"],\"origin\":");
    json(&mut edus.out, origin.as_str());
    put(&mut edus.out, b",\"origin_server_ts\":");
    json(&mut edus.out, &now.0);
    put(&mut edus.out, b",\"pdus\":[]}");
    let text = String::from_utf8(edus.out).expect("written by serde_json and from literals");
    RawValue::from_string(text).expect("every object and array is closed")
}

/// At least as many bytes as the entry of this user takes in a transaction.
pub fn entry_size(user: &UserId, status: &Status) -> usize {
    let message = status.status_msg.as_deref().map_or(0, |text| r#","status_msg":"""#.len() + escaped(text));
    let types: usize = status.device_types.iter().map(|text| escaped(text) + 3).sum();
    let active = if status.currently_active { ACTIVE.len() } else { 0 };
    ENTRY.len() + escaped(user.as_str()) + message + types + active
}

/// What only those say who are active.
const ACTIVE: &str = r#","currently_active":true"#;

/// The longest entry of anybody else, but for what differs in length without bound.
const ENTRY: &str = concat!(
    r#",{"user_id":"","presence":"unavailable","last_active_ago":9007199254740991,"#,
    r#""rollcall.device_types":[]}"#
);

/// An m.presence EDU without any entry, and with every list.
const EMPTY_EDU: &str = r#",{"content":{"poll":[],"push":[],"rollcall":,"unpoll":[]},"edu_type":"m.presence"}"#;

/// In the order of canonical JSON, as all that follow.
#[derive(Serialize)]
struct Entry<'a> {
    /// What is not said is `false`, to every server.
    #[serde(skip_serializing_if = "is_false")]
    currently_active: bool,
    last_active_ago: u64,
    presence: &'a str,
    #[serde(rename = "rollcall.device_types", skip_serializing_if = "DeviceTypes::is_empty")]
    device_types: &'a DeviceTypes,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_msg: Option<&'a str>,
    user_id: &'a str,
}

impl<'a> Entry<'a> {
    fn new(user: &'a UserId, status: &'a Status, now: Timestamp, plain: bool) -> Self {
        let presence = if plain && status.presence == Presence::Busy { Presence::Online } else { status.presence };
        Self {
            user_id: user.as_str(),
            presence: presence.as_str(),
            last_active_ago: now.since(status.last_active).min(MAX_INTEGER),
            currently_active: status.currently_active,
            status_msg: status.status_msg.as_deref(),
            device_types: &status.device_types,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Serialize)]
struct RollcallObject<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    answers: &'a [Box<str>],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    differ: &'a [u8],
    #[serde(skip_serializing_if = "Option::is_none")]
    have: Option<HaveObject>,
    promise_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reminder: Option<ReminderObject>,
    seq: (u64, u64),
    v: u8,
}

impl<'a> RollcallObject<'a> {
    fn new(content: &'a TransactionContent) -> Self {
        Self {
            answers: &content.answers,
            differ: &content.differ,
            have: content.have.as_ref().map(HaveObject::from),
            promise_ms: content.promise_ms,
            reminder: content.reminder.as_ref().map(ReminderObject::from),
            seq: number(content.seq),
            v: 1,
        }
    }
}

/// Writes EDUs one after the other, and starts a new one when the present one is full.
#[derive(Default)]
struct Edus {
    out: Vec<u8>,
    /// EDUs so far.
    count: usize,
    /// Of the present EDU.
    push: List,
    poll: List,
    unpoll: List,
    rollcall: Vec<u8>,
}

/// The members of a list, as JSON.
#[derive(Default)]
struct List {
    members: Vec<u8>,
    count: usize,
}

impl List {
    fn add(&mut self, value: &(impl Serialize + ?Sized)) {
        if self.count > 0 {
            self.members.push(b',');
        }
        self.count += 1;
        json(&mut self.members, value);
    }

    fn undo(&mut self, length: usize) {
        self.count -= 1;
        self.members.truncate(length);
    }

    /// Writes it and forgets it.
    fn write(&mut self, out: &mut Vec<u8>) {
        out.push(b'[');
        put(out, &self.members);
        out.push(b']');
        self.members.clear();
        self.count = 0;
    }
}

impl Edus {
    fn presence(&mut self, now: Timestamp, content: &TransactionContent) {
        json(&mut self.rollcall, &RollcallObject::new(content));
        for (user, status) in &content.pushes {
            debug_assert!(status.presence != Presence::Unknown, "unknown is never pushed");
            if status.presence != Presence::Unknown {
                self.add(|edus| &mut edus.push, &Entry::new(user, status, now, content.plain), MAX_EDU_ENTRIES);
            }
        }
        content.polls.iter().for_each(|user| self.add(|edus| &mut edus.poll, user.as_str(), usize::MAX));
        content.unpolls.iter().for_each(|user| self.add(|edus| &mut edus.unpoll, user.as_str(), usize::MAX));
        self.close();
    }

    /// Adds an entry to a list of the present EDU; of a new one, if it is too much for this one.
    fn add(&mut self, list: impl Fn(&mut Self) -> &mut List, value: &(impl Serialize + ?Sized), most: usize) {
        let length = list(self).members.len();
        if list(self).count < most {
            list(self).add(value);
            if self.size() <= MAX_EDU_BYTES {
                return;
            }
            list(self).undo(length);
        }
        self.close();
        list(self).add(value);
    }

    /// At least as many bytes as the present EDU will take.
    fn size(&self) -> usize {
        let lists = [&self.push, &self.poll, &self.unpoll].map(|list| list.members.len());
        EMPTY_EDU.len() + lists.iter().sum::<usize>() + self.rollcall.len()
    }

    /// Writes the present m.presence EDU.
    fn close(&mut self) {
        self.separate();
        put(&mut self.out, b"{\"content\":{");
        if self.poll.count > 0 {
            put(&mut self.out, b"\"poll\":");
            self.poll.write(&mut self.out);
            self.out.push(b',');
        }
        put(&mut self.out, b"\"push\":");
        self.push.write(&mut self.out);
        if !self.rollcall.is_empty() {
            put(&mut self.out, b",\"rollcall\":");
            self.out.append(&mut self.rollcall);
        }
        if self.unpoll.count > 0 {
            put(&mut self.out, b",\"unpoll\":");
            self.unpoll.write(&mut self.out);
        }
        put(&mut self.out, b"},\"edu_type\":\"m.presence\"}");
    }

    fn separate(&mut self) {
        if self.count > 0 {
            self.out.push(b',');
        }
        self.count += 1;
    }

    fn permission(&mut self, permission: &Permission) {
        self.separate();
        let kind = match permission.kind {
            PermissionKind::Invite => "m.presence_invite",
            PermissionKind::Accept => "m.presence_accept",
            PermissionKind::Deny => "m.presence_deny",
        };
        put(&mut self.out, b"{\"content\":{\"observed_user\":");
        json(&mut self.out, permission.observed.as_str());
        put(&mut self.out, b",\"observer_user\":");
        json(&mut self.out, permission.observer.as_str());
        put(&mut self.out, b"},\"edu_type\":");
        json(&mut self.out, kind);
        self.out.push(b'}');
    }
}

fn put(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
}

fn json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("plain structs become JSON, and a Vec takes all");
}

/// The length of a text as JSON, without its quotes.
fn escaped(text: &str) -> usize {
    let length = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.bytes().map(length).sum()
}
