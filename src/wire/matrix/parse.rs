//! EDUs in. An EDU is read in one pass; only if something is wrong is it read again, entry by entry, so that a bad entry costs
//! itself alone.

use std::borrow::Borrow;
use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::core::Settings;
use crate::core::signal::{Extension, Inbound, Permission, PermissionKind};
use crate::model::{DeviceTypes, Presence, ServerName, Status, Timestamp, UserId};
use crate::wire::json::{Object, Text};
use crate::wire::reject::{Fault, Reject, class, cut};

use super::digest::{is_id, serial};
use super::edu::{Content, Edu, LooseContent, PermissionContent, Push, RollcallObject, RollcallVersion, read};
use super::{DEVICE_TYPE_BYTES, DEVICE_TYPES_MAX, MAX_INTEGER, MESSAGE_MAX};

/// So many bad parts of one transaction are put aside one by one; of the rest only the number is told.
pub const MAX_REJECTS: usize = 100;

/// Nobody was active so early.
const YEAR_AFTER_1970: Timestamp = Timestamp(365 * 24 * 3_600_000);
const PRESENCES: &str = "one of online, unavailable, busy, offline";

/// Reads the presence part of a transaction that `origin` sent to `local` and that arrived at `now`. EDUs of other types are
/// passed over in silence. [`Inbound::txn_id`] is left empty.
///
/// Of a user that is pushed more than once the last push counts. The `rollcall` object counts on the first m.presence EDU alone,
/// and only in version 1.
pub fn parse_edus<E: Borrow<RawValue>>(
    origin: &ServerName,
    local: &ServerName,
    edus: &[E],
    now: Timestamp,
    origin_server_ts: Timestamp,
) -> (Inbound, Vec<Reject>) {
    let mut reader = Reader { origin, local, now, inbound: Inbound::default(), rejects: Rejects::default() };
    reader.inbound.origin_server_ts = origin_server_ts.min(now);
    let mut first = true;
    for (index, edu) in edus.iter().enumerate() {
        reader.edu(index, edu.borrow(), &mut first);
    }
    reader.inbound.push = keep_last(reader.inbound.push);
    (reader.inbound, reader.rejects.finish())
}

/// What one m.presence EDU holds, checked.
#[derive(Default)]
struct Part {
    push: Vec<(UserId, Status)>,
    poll: Vec<UserId>,
    unpoll: Vec<UserId>,
    extension: Option<Extension>,
}

struct Reader<'r> {
    origin: &'r ServerName,
    local: &'r ServerName,
    now: Timestamp,
    inbound: Inbound,
    rejects: Rejects,
}

impl Reader<'_> {
    fn edu(&mut self, index: usize, raw: &RawValue, first: &mut bool) {
        let place = format!("edus[{index}]");
        let edu = match read::<Edu<'_>>(raw) {
            Ok(edu) => edu,
            Err(fault) => return self.rejects.add(raw, fault, &place),
        };
        let kind = match &*edu.edu_type {
            "m.presence" => None,
            "m.presence_invite" => Some(PermissionKind::Invite),
            "m.presence_accept" => Some(PermissionKind::Accept),
            "m.presence_deny" => Some(PermissionKind::Deny),
            _ => return,
        };
        let Some(content) = edu.content else {
            return self.rejects.add(raw, Fault::missing("content"), &place);
        };
        match kind {
            None => self.presence(content, &place, std::mem::take(first)),
            Some(kind) => match self.permission(kind, content) {
                Ok(permission) => self.inbound.permissions.push(permission),
                Err(fault) => self.rejects.add(raw, fault, &place),
            },
        }
    }

    fn presence(&mut self, content: &RawValue, place: &str, first: bool) {
        let part = self.whole(content).unwrap_or_else(|| self.piecemeal(content, place));
        self.inbound.push.extend(part.push);
        self.inbound.poll.extend(part.poll);
        self.inbound.unpoll.extend(part.unpoll);
        if first {
            self.inbound.extension = part.extension;
        }
    }

    /// `None`: something is wrong with it.
    fn whole(&self, content: &RawValue) -> Option<Part> {
        let Object(content) = serde_json::from_str::<Object<Content<'_>>>(content.get()).ok()?;
        let users = |texts: &[Text<'_>]| -> Option<Vec<UserId>> {
            texts.iter().map(|text| user_of("poll", text, self.local).ok()).collect()
        };
        Some(Part {
            push: content.push.into_iter().map(|Object(entry)| self.push(entry).ok()).collect::<Option<_>>()?,
            poll: users(&content.poll)?,
            unpoll: users(&content.unpoll)?,
            extension: match content.rollcall {
                Some(Object(object)) if object.v == 1 => {
                    let (extension, faults) = extension(&object, self.local);
                    faults.is_empty().then_some(Some(extension))?
                }
                // A version that we do not know says nothing to us.
                _ => None,
            },
        })
    }

    fn piecemeal(&mut self, raw: &RawValue, place: &str) -> Part {
        let content = match read::<LooseContent<'_>>(raw) {
            Ok(content) => content,
            Err(fault) => {
                self.rejects.add(raw, fault, &format!("{place}.content"));
                return Part::default();
            }
        };
        let place = |field: &str| format!("{place}.content.{field}");
        Part {
            push: self.each(content.push, &place("push"), |reader, entry| reader.push(read(entry)?)),
            poll: self.each(content.poll, &place("poll"), |reader, id| local_user("poll", id, reader.local)),
            unpoll: self.each(content.unpoll, &place("unpoll"), |reader, id| local_user("unpoll", id, reader.local)),
            extension: self.loose_extension(content.rollcall, &place("rollcall")),
        }
    }

    /// Every good entry of a list.
    fn each<T>(
        &mut self,
        list: Option<&RawValue>,
        place: &str,
        entry: impl Fn(&Self, &RawValue) -> Result<T, Fault>,
    ) -> Vec<T> {
        let Some(list) = list.filter(|list| list.get() != "null") else { return Vec::new() };
        let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(list.get()) else {
            let fault = Fault::new(class::FIELD, format!("must be an array, not {}", cut(list.get())));
            self.rejects.add(list, fault, place);
            return Vec::new();
        };
        let mut good = Vec::with_capacity(entries.len());
        for (index, raw) in entries.into_iter().enumerate() {
            match entry(self, raw) {
                Ok(value) => good.push(value),
                Err(fault) => self.rejects.add(raw, fault, &format!("{place}[{index}]")),
            }
        }
        good
    }

    fn loose_extension(&mut self, raw: Option<&RawValue>, place: &str) -> Option<Extension> {
        let raw = raw.filter(|raw| raw.get() != "null")?;
        let object = read::<RollcallVersion>(raw).and_then(|version| match version.v {
            1 => read(raw).map(|object| Some(extension(&object, self.local))),
            _ => Ok(None),
        });
        let (extension, faults) = match object {
            Ok(Some((extension, faults))) => (Some(extension), faults),
            Ok(None) => (None, Vec::new()),
            Err(fault) => (None, vec![fault]),
        };
        // Put aside once, whatever is wrong with it: no byte of a transaction is kept twice.
        let more = faults.len().saturating_sub(1);
        for mut fault in faults.into_iter().take(1) {
            if more > 0 {
                fault.text += &format!(" (and {more} more in it)");
            }
            self.rejects.add(raw, fault, place);
        }
        extension
    }

    fn push(&self, entry: Push<'_>) -> Result<(UserId, Status), Fault> {
        let user = user_of("user_id", &entry.user_id, self.origin)?;
        let currently_active = entry.currently_active.unwrap_or(false);
        let status = Status {
            presence: presence(&entry.presence)?,
            status_msg: entry.status_msg.map(|text| truncated(&text).into()),
            last_active: match entry.last_active_ago {
                Some(age) => active(self.now, age.0),
                None if currently_active => self.now,
                None => Timestamp(0),
            },
            currently_active,
            device_types: device_types(entry.device_types.unwrap_or_default()),
        };
        Ok((user, status))
    }

    fn permission(&self, kind: PermissionKind, content: &RawValue) -> Result<Permission, Fault> {
        let content = read::<PermissionContent<'_>>(content)?;
        // An invite goes to the observed user's server; its answers go to the observer's.
        let (observed_at, observer_at) = match kind {
            PermissionKind::Invite => (self.local, self.origin),
            PermissionKind::Accept | PermissionKind::Deny => (self.origin, self.local),
        };
        let observed = user_of("observed_user", &content.observed_user, observed_at)?;
        let observer = user_of("observer_user", &content.observer_user, observer_at)?;
        Ok(Permission { kind, observed, observer })
    }
}

/// What is put aside, at most [`MAX_REJECTS`] of it.
#[derive(Default)]
struct Rejects {
    kept: Vec<Reject>,
    more: usize,
}

impl Rejects {
    fn add(&mut self, raw: &RawValue, fault: Fault, place: &str) {
        if self.kept.len() < MAX_REJECTS {
            self.kept.push(Reject::new(raw.get(), fault.within(format_args!("{place}: "))));
        } else {
            self.more += 1;
        }
    }

    fn finish(mut self) -> Vec<Reject> {
        if let Some(last) = self.kept.last_mut().filter(|_| self.more > 0) {
            last.reason += &format!(" (and {} more bad parts of the same transaction)", self.more);
        }
        self.kept
    }
}

fn local_user(field: &str, raw: &RawValue, server: &ServerName) -> Result<UserId, Fault> {
    let text: Text<'_> =
        serde_json::from_str(raw.get()).map_err(|_| Fault::must(field, "a user ID", cut(raw.get())))?;
    user_of(field, &text, server)
}

fn user_of(field: &str, text: &str, server: &ServerName) -> Result<UserId, Fault> {
    let user = UserId::parse(text).map_err(|error| Fault::invalid_id(field, &error))?;
    if user.belongs_to(server) {
        return Ok(user);
    }
    Err(Fault::foreign(field, user.as_str(), user.server_str(), server))
}

/// When a user was active `age` ms before `now`. Who never was is said to have been in 1970, by one clock or another, or not at all.
fn active(now: Timestamp, age: u64) -> Timestamp {
    let moment = now.minus(age);
    if moment < YEAR_AFTER_1970 { Timestamp(0) } else { moment }
}

fn presence(text: &str) -> Result<Presence, Fault> {
    // MSC3026 is written under its unstable name by today's servers.
    let text = if text == "org.matrix.msc3026.busy" { "busy" } else { text };
    Presence::parse(text).ok_or_else(|| Fault::must_text("presence", PRESENCES, text))
}

fn truncated(text: &str) -> &str {
    &text[..text.floor_char_boundary(MESSAGE_MAX)]
}

fn device_types(texts: Vec<Text<'_>>) -> DeviceTypes {
    let fitting = texts.into_iter().filter(|text| (1..=DEVICE_TYPE_BYTES).contains(&text.len()));
    fitting.take(DEVICE_TYPES_MAX).map(|text| (*text).into()).collect()
}

/// What the `rollcall` object says, without the parts of it that are wrong.
fn extension(object: &RollcallObject, local: &ServerName) -> (Extension, Vec<Fault>) {
    let mut faults = Vec::new();
    let reminder = object.reminder.as_ref().and_then(|reminder| {
        let read = reminder.read();
        let rule = "an id of 1 to 64 bytes with digests of 32 hexadecimal digits";
        faults.extend(read.is_none().then(|| Fault::must("reminder", rule, "something else")));
        read
    });
    let have = object.have.as_ref().and_then(|have| {
        let read = have.read();
        let rule = "256 numbers of 8 bytes as unpadded base64";
        faults.extend(read.is_none().then(|| Fault::must("have.buckets", rule, "something else")));
        read
    });
    let mut query = Vec::new();
    for text in object.query.iter().take(Settings::MAX_POLLS) {
        match user_of("query", text, local) {
            Ok(user) => query.push(user),
            Err(fault) => faults.push(fault),
        }
    }
    let answers = object.answers.iter().filter(|id| is_id(id)).take(Settings::MAX_ANSWERS).cloned().collect();
    let mut differ = object.differ.clone();
    differ.sort_unstable();
    differ.dedup();
    let extension = Extension {
        seq: serial(object.seq),
        promise_ms: object.promise_ms.map(|ms| ms.min(MAX_INTEGER)),
        full: object.full.unwrap_or(false),
        reminder,
        answers,
        have,
        differ,
        query,
    };
    (extension, faults)
}

/// The last push of each user, in the place of the first.
fn keep_last(pushes: Vec<(UserId, Status)>) -> Vec<(UserId, Status)> {
    let mut places: HashMap<UserId, usize> = HashMap::with_capacity(pushes.len());
    let mut kept: Vec<(UserId, Status)> = Vec::with_capacity(pushes.len());
    for (user, status) in pushes {
        match places.get(&user) {
            Some(place) => kept[*place].1 = status,
            None => {
                places.insert(user.clone(), kept.len());
                kept.push((user, status));
            }
        }
    }
    kept
}
