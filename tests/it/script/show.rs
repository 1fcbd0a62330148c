//! What leaves a server, in a line.

use rollcall::core::signal::{Extension, Inbound, PermissionKind};
use rollcall::core::{Transaction, Update};
use rollcall::model::{Presence, ServerName, Status, Timestamp, UserId};
use rollcall::wire::matrix::parse_edus;
use serde_json::value::RawValue;

/// `a → b: push @john:a online; poll @alice:b`
pub fn transaction(from: &ServerName, transaction: &Transaction, now: Timestamp) -> String {
    #[derive(serde::Deserialize)]
    struct Body {
        edus: Vec<Box<RawValue>>,
    }
    let to = &transaction.destination;
    let body: Body = serde_json::from_str(transaction.body.get()).unwrap();
    let (inbound, rejects) = parse_edus(from, to, &body.edus, now, now);
    assert!(rejects.is_empty(), "{rejects:?}");
    let Inbound { push, poll, unpoll, permissions, extension, .. } = inbound;
    let mut parts: Vec<String> = Vec::new();
    parts.extend(list("push", push.iter().map(|(user, known)| format!("{} {}", short(user), status(known, now)))));
    parts.extend(list("poll", poll.iter().map(short)));
    parts.extend(list("unpoll", unpoll.iter().map(short)));
    for permission in &permissions {
        let (observed, observer) = (short(&permission.observed), short(&permission.observer));
        parts.push(match permission.kind {
            PermissionKind::Invite => format!("invite {observer} for {observed}"),
            PermissionKind::Accept => format!("accept {observer} by {observed}"),
            PermissionKind::Deny => format!("deny {observer} by {observed}"),
        });
    }
    parts.extend(extension.iter().flat_map(say_extension));
    if parts.is_empty() {
        parts.push("nothing".into());
    }
    format!("{} → {}: {}", short_server(from), short_server(to), parts.join("; "))
}

/// `to @john:a: @alice:b online`
pub fn update(update: &Update) -> String {
    let events = update.events.iter().map(|(user, known, _)| format!("{} {}", short(user), status(known, update.at)));
    format!("to {}: {}", short(&update.observer), events.collect::<Vec<_>>().join(", "))
}

/// `online active "cupcakes" on mobile`; how long ago the last activity was, where that counts.
pub fn status(status: &Status, now: Timestamp) -> String {
    let mut text = status.presence.to_string();
    if status.currently_active {
        text += " active";
    } else if status.last_active > Timestamp(0) && status.presence != Presence::Unknown {
        text += &format!(" since {}s", now.since(status.last_active) / 1000);
    }
    if let Some(message) = &status.status_msg {
        text += &format!(" {message:?}");
    }
    if !status.device_types.is_empty() {
        let types: Vec<&str> = status.device_types.iter().map(|kind| &**kind).collect();
        text += &format!(" on {}", types.join("+"));
    }
    text
}

/// `@john:a` for `@john:a.example`.
pub fn short(user: &UserId) -> String {
    user.as_str().trim_end_matches(".example").to_owned()
}

fn short_server(server: &ServerName) -> &str {
    server.as_str().trim_end_matches(".example")
}

fn list(name: &str, items: impl Iterator<Item = String>) -> Option<String> {
    let items: Vec<String> = items.collect();
    (!items.is_empty()).then(|| format!("{name} {}", items.join(", ")))
}

/// Numbers and IDs differ from run to run; that they are there is what counts.
fn say_extension(extension: &Extension) -> Vec<String> {
    let mut parts = Vec::new();
    if extension.full {
        parts.push("full".into());
    }
    if let Some(reminder) = &extension.reminder {
        let side = |name, side: Option<rollcall::core::signal::Summary>| {
            side.map(|side| format!("{name} {}", side.count)).unwrap_or_default()
        };
        let sides = [side("mine", reminder.mine), side("yours", reminder.yours)];
        let sides: Vec<String> = sides.into_iter().filter(|side| !side.is_empty()).collect();
        parts.push(format!("reminder ({})", sides.join(", ")));
    }
    if !extension.answers.is_empty() {
        parts.push("answer".into());
    }
    if extension.have.is_some() {
        parts.push("have".into());
    }
    parts.extend(list("differ in", extension.differ.iter().map(ToString::to_string)));
    parts.extend(list("query", extension.query.iter().map(short)));
    parts
}
