//! Headers as they stand in a row: JSON with short names, and nothing at all for the many messages without any.

use serde::{Deserialize, Serialize};

use crate::bus::Headers;
use crate::model::TraceId;

#[derive(Default, Serialize, Deserialize)]
struct Stored {
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// Encodes them; `address` stands for [`Headers::REPLY_HERE`]. `key` is the routing key, unless the queue tells it.
pub(super) fn encode(headers: &Headers, key: Option<&str>, address: &str) -> Option<String> {
    if *headers == Headers::default() && key.is_none() {
        return None;
    }
    let here = |to: &String| if to == Headers::REPLY_HERE { address.to_owned() } else { to.clone() };
    let stored = Stored {
        traceparent: headers.trace.map(TraceId::traceparent),
        reason: headers.reason.clone(),
        origin: headers.origin.clone(),
        reply_to: headers.reply_to.as_ref().map(here),
        key: key.map(Into::into),
    };
    Some(serde_json::to_string(&stored).expect("texts are JSON"))
}

/// Decodes what [`encode`] wrote. Headers that another release wrote differently cost themselves, never the message.
pub(super) fn decode(text: Option<&str>) -> (Headers, Option<String>) {
    let stored: Stored = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let headers = Headers {
        trace: stored.traceparent.as_deref().and_then(TraceId::from_traceparent),
        reason: stored.reason,
        origin: stored.origin,
        reply_to: stored.reply_to,
    };
    (headers, stored.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip() {
        let headers = Headers {
            trace: Some(TraceId(u128::MAX - 5)),
            reason: Some("no \"user_id\"".into()),
            origin: Some("presence.inbound".into()),
            reply_to: Some(Headers::REPLY_HERE.into()),
        };
        let stored = encode(&headers, Some("federation"), "local-1");
        let headers = Headers { reply_to: Some("local-1".into()), ..headers };
        assert_eq!(decode(stored.as_deref()), (headers, Some("federation".into())));
        assert_eq!(encode(&Headers::default(), None, "local-1"), None);
        assert_eq!(decode(Some("{]")), (Headers::default(), None));
    }
}
