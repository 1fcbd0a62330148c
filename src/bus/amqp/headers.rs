//! Between [`Headers`] and AMQP properties. Writing is strict; reading is lenient, since foreign messages carry anything.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::bus::Headers;
use crate::model::TraceId;

const TRACEPARENT: &str = "traceparent";
const REASON: &str = "rollcall-reason";
const ORIGIN: &str = "rollcall-origin";
/// The broker's own words on why it dead-lettered a message (`rejected`, `delivery_limit`, `expired`, `maxlen`).
const FIRST_DEATH_REASON: &str = "x-first-death-reason";
const FIRST_DEATH_QUEUE: &str = "x-first-death-queue";
/// The same as a list with the newest first: at-least-once dead-lettering writes this one only in some versions.
const DEATHS: &str = "x-death";
const DELIVERY_COUNT: &str = "x-delivery-count";
/// Written to disk before it is confirmed.
const PERSISTENT: u8 = 2;
/// Kept in memory.
const TRANSIENT: u8 = 1;
/// A reason is a sentence; one that is longer is cut, so that headers stay far below a frame.
const REASON_BYTES: usize = 4096;

/// The properties of a message with these headers.
pub(super) fn properties(headers: &Headers, persistent: bool) -> BasicProperties {
    let mode = if persistent { PERSISTENT } else { TRANSIENT };
    let mut properties = BasicProperties::default().with_delivery_mode(mode);
    if let Some(address) = headers.reply_to.as_ref().and_then(|address| ShortString::try_new(address.as_str()).ok()) {
        properties = properties.with_reply_to(address);
    }
    let mut table = FieldTable::default();
    if let Some(trace) = headers.trace {
        table.insert(TRACEPARENT.into(), text(&trace.traceparent()));
    }
    if let Some(reason) = &headers.reason {
        table.insert(REASON.into(), text(&reason[..reason.floor_char_boundary(REASON_BYTES)]));
    }
    if let Some(origin) = &headers.origin {
        table.insert(ORIGIN.into(), text(&origin[..origin.floor_char_boundary(REASON_BYTES)]));
    }
    if table.inner().is_empty() { properties } else { properties.with_headers(table) }
}

/// The headers of a message that came in; `prefix` is the topology's, taken off the broker's queue names.
pub(super) fn headers(properties: &BasicProperties, prefix: &str) -> Headers {
    let reply_to = properties.reply_to().as_ref().map(ToString::to_string);
    let Some(table) = properties.headers() else {
        return Headers { reply_to, ..Headers::default() };
    };
    let bare = |queue: String| queue.strip_prefix(prefix).map(str::to_owned).unwrap_or(queue);
    Headers {
        trace: read(table, TRACEPARENT).and_then(|header| TraceId::from_traceparent(&header)),
        reason: read(table, REASON).or_else(|| read(table, FIRST_DEATH_REASON)).or_else(|| death(table, "reason")),
        origin: read(table, ORIGIN)
            .or_else(|| read(table, FIRST_DEATH_QUEUE).or_else(|| death(table, "queue")).map(bare)),
        reply_to,
    }
}

/// How often a quorum queue says that the message was delivered before.
pub(super) fn delivery_count(properties: &BasicProperties) -> u64 {
    let value = properties.headers().as_ref().and_then(|table| table.inner().get(DELIVERY_COUNT));
    let count = match value {
        Some(AMQPValue::LongLongInt(count)) => *count,
        Some(AMQPValue::LongInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortShortInt(count)) => i64::from(*count),
        Some(AMQPValue::LongUInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortUInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortShortUInt(count)) => i64::from(*count),
        _ => 0,
    };
    u64::try_from(count).unwrap_or(0)
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn read(table: &FieldTable, name: &str) -> Option<String> {
    match table.inner().get(name)? {
        AMQPValue::LongString(value) => Some(value.to_string()),
        AMQPValue::ShortString(value) => Some(value.to_string()),
        _ => None,
    }
}

fn death(table: &FieldTable, field: &str) -> Option<String> {
    match table.inner().get(DEATHS)? {
        AMQPValue::FieldArray(deaths) => match deaths.as_slice().last()? {
            AMQPValue::FieldTable(first) => read(first, field),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_survive_the_way_there_and_back() {
        let ours = Headers {
            trace: Some(TraceId(7 << 64 | 9)),
            reason: Some("field `ts`: not a number".into()),
            origin: Some("inbound".into()),
            reply_to: Some("somewhere".into()),
        };
        assert_eq!(headers(&properties(&ours, true), "presence."), ours);
        assert_eq!(headers(&properties(&Headers::default(), false), "presence."), Headers::default());
    }

    #[test]
    fn the_brokers_own_reason_stands_in_for_ours() {
        let mut table = FieldTable::default();
        table.insert(FIRST_DEATH_REASON.into(), text("delivery_limit"));
        table.insert(FIRST_DEATH_QUEUE.into(), text("presence.users.3"));
        let read = headers(&BasicProperties::default().with_headers(table), "presence.");
        assert_eq!((read.reason.as_deref(), read.origin.as_deref()), (Some("delivery_limit"), Some("users.3")));
    }

    #[test]
    fn a_list_of_deaths_will_do() {
        let mut death = FieldTable::default();
        death.insert("reason".into(), text("expired"));
        death.insert("queue".into(), text("elsewhere"));
        let mut table = FieldTable::default();
        table.insert(DEATHS.into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()));
        let read = headers(&BasicProperties::default().with_headers(table), "presence.");
        assert_eq!((read.reason.as_deref(), read.origin.as_deref()), (Some("expired"), Some("elsewhere")));
    }

    #[test]
    fn foreign_types_are_nothing() {
        let mut table = FieldTable::default();
        table.insert(TRACEPARENT.into(), AMQPValue::Boolean(true));
        table.insert(REASON.into(), AMQPValue::LongInt(3));
        table.insert(DEATHS.into(), text("none"));
        assert_eq!(headers(&BasicProperties::default().with_headers(table), ""), Headers::default());
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "é".repeat(REASON_BYTES);
        let long = Headers { reason: Some(reason.clone()), ..Headers::default() };
        let cut = headers(&properties(&long, true), "").reason.unwrap();
        assert!(cut.len() <= REASON_BYTES && reason.starts_with(&cut));
    }
}
