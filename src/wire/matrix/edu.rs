//! EDUs as serde reads them.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::digest::{HaveObject, ReminderObject};
use crate::wire::json::{Age, Object, Text};
use crate::wire::reject::Fault;
use crate::wire::shape::{self, Field, Is};

#[derive(Deserialize)]
pub(super) struct Edu<'a> {
    #[serde(borrow)]
    pub(super) edu_type: Text<'a>,
    #[serde(borrow)]
    pub(super) content: Option<&'a RawValue>,
}

/// A whole m.presence content, as it should be.
#[derive(Deserialize)]
pub(super) struct Content<'a> {
    #[serde(borrow, default)]
    pub(super) push: Vec<Object<Push<'a>>>,
    #[serde(borrow, default)]
    pub(super) poll: Vec<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) unpoll: Vec<Text<'a>>,
    pub(super) rollcall: Option<Object<RollcallObject>>,
}

/// The same, of which something is wrong.
#[derive(Deserialize)]
pub(super) struct LooseContent<'a> {
    #[serde(borrow)]
    pub(super) push: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) poll: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) unpoll: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) rollcall: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Push<'a> {
    #[serde(borrow)]
    pub(super) user_id: Text<'a>,
    #[serde(borrow)]
    pub(super) presence: Text<'a>,
    pub(super) last_active_ago: Option<Age>,
    pub(super) currently_active: Option<bool>,
    #[serde(borrow)]
    pub(super) status_msg: Option<Text<'a>>,
    #[serde(borrow, rename = "rollcall.device_types")]
    pub(super) device_types: Option<Vec<Text<'a>>>,
}

/// Later versions may have another idea of the rest.
#[derive(Deserialize)]
pub(super) struct RollcallVersion {
    pub(super) v: u64,
}

#[derive(Deserialize)]
pub(super) struct RollcallObject {
    pub(super) v: u64,
    pub(super) seq: (u64, u64),
    pub(super) promise_ms: Option<u64>,
    pub(super) full: Option<bool>,
    pub(super) reminder: Option<ReminderObject>,
    #[serde(default)]
    pub(super) answers: Vec<Box<str>>,
    pub(super) have: Option<HaveObject>,
    #[serde(default)]
    pub(super) differ: Vec<u8>,
    #[serde(default)]
    pub(super) query: Vec<Box<str>>,
}

#[derive(Deserialize)]
pub(super) struct PermissionContent<'a> {
    #[serde(borrow)]
    pub(super) observed_user: Text<'a>,
    #[serde(borrow)]
    pub(super) observer_user: Text<'a>,
}

/// What is read from an object, and what that object has to hold.
pub(super) trait Shape {
    const FIELDS: &'static [Field];
}

impl Shape for Edu<'_> {
    const FIELDS: &'static [Field] = &[("edu_type", Is::Text, true)];
}

impl Shape for LooseContent<'_> {
    const FIELDS: &'static [Field] = &[];
}

impl Shape for Push<'_> {
    const FIELDS: &'static [Field] = &[
        ("user_id", Is::Text, true),
        ("presence", Is::Text, true),
        ("last_active_ago", Is::Number, false),
        ("currently_active", Is::Flag, false),
        ("status_msg", Is::Text, false),
        ("rollcall.device_types", Is::Texts, false),
    ];
}

impl Shape for RollcallObject {
    const FIELDS: &'static [Field] = &[
        ("v", Is::Count, true),
        ("seq", Is::CountPair, true),
        ("promise_ms", Is::Millis, false),
        ("full", Is::Flag, false),
        ("reminder", Is::Object, false),
        ("answers", Is::Texts, false),
        ("have", Is::Object, false),
        ("differ", Is::Array, false),
        ("query", Is::Texts, false),
    ];
}

impl Shape for RollcallVersion {
    const FIELDS: &'static [Field] = &[("v", Is::Count, true)];
}

impl Shape for PermissionContent<'_> {
    const FIELDS: &'static [Field] = &[("observed_user", Is::Text, true), ("observer_user", Is::Text, true)];
}

/// Reads an object; a fault says what is wrong with it.
pub(super) fn read<'a, T: Deserialize<'a> + Shape>(raw: &'a RawValue) -> Result<T, Fault> {
    let read = serde_json::from_str::<Object<T>>(raw.get());
    read.map(|Object(value)| value).map_err(|_| shape::explain("it", raw.get(), T::FIELDS))
}
