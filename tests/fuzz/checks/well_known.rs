//! `GET /.well-known/matrix/server`: who stands in for a host. The bytes are header lines, an empty line and the document.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use rollcall::outbound::well_known::{MAX_LIFETIME, MIN_LIFETIME, delegate, lifetime};
use serde_json::json;

use super::NOW;

pub fn check(data: &[u8]) {
    let end = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, document) = end.map_or((&[][..], data), |end| (&data[..end], &data[end + 2..]));
    let lifetime: Duration = lifetime(&headers(head), NOW);
    assert!((MIN_LIFETIME..=MAX_LIFETIME).contains(&lifetime));
    if let Some(name) = delegate(document) {
        assert!((1..=255).contains(&name.as_str().len()));
        let again = json!({ "m.server": name.as_str() });
        assert_eq!(delegate(again.to_string().as_bytes()), Some(name));
    }
}

fn headers(head: &[u8]) -> HeaderMap {
    let lines = head.split(|byte| *byte == b'\n');
    lines.filter_map(header).collect()
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
}
