//! What becomes of input that cannot be used: the part itself, and a sentence that says why.

use std::fmt;

use bytes::Bytes;

use crate::model::{InvalidId, ServerName};

/// The origin of dead letters that were part of a peer's HTTP request: there is no queue that they came from.
pub const FEDERATION: &str = "federation";

/// One part of an input (an event, an EDU, an entry) that was put aside while the rest counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// That part alone, as JSON; the whole body if it is not JSON or too large to be looked at.
    pub body: Bytes,
    /// A sentence that names the field and the value (cut to 100 characters).
    pub reason: String,
    /// The kind of reason, for metrics: one of the constants of [`class`].
    pub class: &'static str,
}

impl Reject {
    pub(crate) fn new(body: &str, fault: Fault) -> Self {
        Self { body: Bytes::copy_from_slice(body.as_bytes()), reason: fault.text, class: fault.class }
    }
}

/// The kinds of reason: few and fixed, because they are metric labels.
pub mod class {
    /// Not JSON.
    pub const JSON: &str = "json";
    /// A field is missing, or its value is not allowed.
    pub const FIELD: &str = "field";
    /// The type of the event is unknown, or not allowed under its routing key.
    pub const TYPE: &str = "type";
    /// Too large, or too many.
    pub const SIZE: &str = "size";
    /// A user of a server that the sender may not speak for.
    pub const FOREIGN_USER: &str = "foreign_user";
    /// The parser itself failed.
    pub const PANIC: &str = "panic";
    /// No queue takes it.
    pub const UNROUTABLE: &str = "unroutable";
    /// What a server says that is not listened to: dropped, so that it fills nothing.
    pub const DENIED: &str = "denied";

    /// All that dead letters have.
    pub const ALL: [&str; 7] = [JSON, FIELD, TYPE, SIZE, FOREIGN_USER, PANIC, UNROUTABLE];
}

/// Why a part is rejected, before it is joined with the part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) class: &'static str,
    pub(crate) text: String,
}

impl Fault {
    pub(crate) fn new(class: &'static str, text: impl Into<String>) -> Self {
        Self { class, text: text.into() }
    }

    pub(crate) fn missing(field: impl fmt::Display) -> Self {
        Self::new(class::FIELD, format!("\"{field}\" is missing"))
    }

    /// `value` is what was found, in JSON or in words.
    pub(crate) fn must(field: impl fmt::Display, rule: impl fmt::Display, value: impl fmt::Display) -> Self {
        Self::new(class::FIELD, format!("\"{field}\" must be {rule}, not {value}"))
    }

    pub(crate) fn must_text(field: impl fmt::Display, rule: impl fmt::Display, value: &str) -> Self {
        Self::must(field, rule, quoted(value))
    }

    pub(crate) fn invalid_id(field: impl fmt::Display, error: &InvalidId) -> Self {
        let InvalidId { kind, text, reason } = error;
        Self::new(class::FIELD, format!("\"{field}\": {} is not a {kind}: {reason}", quoted(text)))
    }

    pub(crate) fn foreign(field: impl fmt::Display, user: &str, server: &str, wanted: impl fmt::Display) -> Self {
        let (user, server) = (cut(user), cut(server));
        Self::new(class::FOREIGN_USER, format!("\"{field}\": {user} belongs to {server}, not to {wanted}"))
    }

    /// Says where it was found.
    pub(crate) fn within(mut self, place: impl fmt::Display) -> Self {
        self.text = format!("{place}{}", self.text);
        self
    }
}

/// What is said of a server that `federation.inbound` keeps out.
pub(crate) fn not_heard(server: &ServerName) -> String {
    format!("{server} is not listened to here")
}

/// The first 100 characters.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// In quotes and escaped, at most 100 characters of it.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", cut(text))
}
