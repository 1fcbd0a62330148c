//! The slow path: what is wrong with an event that serde did not take, or how it can be taken after all.

use serde_json::Value;

use crate::wire::reject::{Fault, Reject};
use crate::wire::shape::{self, Field, Is};

use super::kind::Kind;
use super::{Context, Routed, event};

/// Reads an event again without the fields that its type does not have (which are nobody's business), and explains what is left.
/// Of a key that stands there twice the last counts.
pub(super) fn parse_again(text: &str, context: &Context, rejects: &mut Vec<Reject>) -> Result<Routed, Fault> {
    let mut fields = shape::object("an event", text)?;
    event::check_version(shape::typed(&fields, "v", Is::Count)?.and_then(Value::as_u64))?;
    let kind = event::check_kind(shape::typed(&fields, "type", Is::Text)?.and_then(Value::as_str), context)?;
    event::check_heard(kind, fields.get("origin").and_then(Value::as_str), context)?;
    fields.retain(|name, _| COMMON.contains(&name.as_str()) || kind.fields().contains(&name.as_str()));
    let rest = Value::Object(fields).to_string();
    event::parse_one(&rest, context, rejects).unwrap_or_else(|| Err(explain(&rest, kind)))
}

const COMMON: [&str; 4] = ["v", "type", "id", "ts"];

fn explain(text: &str, kind: Kind) -> Fault {
    let fields: Vec<Field> =
        COMMON.iter().chain(kind.fields()).map(|name| (*name, type_of(name), COMMON.contains(name))).collect();
    shape::explain("an event", text, &fields).within(format_args!("{}: ", kind.as_str()))
}

fn type_of(field: &str) -> Is {
    match field {
        "v" | "pdus" => Is::Count,
        "ts" | "origin_server_ts" | "idle_ms" | "lease_ms" | "retry_after_ms" => Is::Millis,
        "allow" => Is::Flag,
        "edus" => Is::Array,
        "add" | "remove" => Is::Texts,
        _ => Is::Text,
    }
}
