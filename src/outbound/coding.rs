//! The content coding of what peers are sent (RFC 9110, section 8.4): gzip for those whose last answer said that they take it, and
//! nothing for all others.

use std::io::Write as _;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::model::ServerName;

/// The one coding that is known here.
pub(crate) const GZIP: &str = "gzip";
/// Peers that are remembered: whoever is forgotten gets one transaction as it is.
const PEERS: u64 = 10_000;
/// A shorter body fits into one packet as it is.
const WORTH_IT: usize = 1 << 10;

/// Who takes gzip.
pub(super) struct Codings(Cache<ServerName, ()>);

impl Codings {
    /// Nobody has said anything yet.
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(PEERS).eviction_policy(EvictionPolicy::lru()).build())
    }

    /// `body` as `peer` would rather have it, if that is not as it is.
    pub(super) fn for_peer(&self, peer: &ServerName, body: &[u8]) -> Option<Bytes> {
        (body.len() >= WORTH_IT && self.takes_gzip(peer)).then(|| gzip(body))
    }

    /// Whether the last answer said so.
    pub(super) fn takes_gzip(&self, peer: &ServerName) -> bool {
        self.0.contains_key(peer)
    }

    /// What an answer with these `headers` says of the next request (RFC 9110, section 12.5.3).
    pub(super) fn heard(&self, peer: &ServerName, headers: &HeaderMap) {
        match headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(offers_gzip) {
            true if !self.takes_gzip(peer) => self.0.insert(peer.clone(), ()),
            true => {}
            false => self.forget(peer),
        }
    }

    /// From now on things are sent as they are.
    pub(super) fn forget(&self, peer: &ServerName) {
        self.0.invalidate(peer);
    }
}

/// Whether an `Accept-Encoding` lists gzip, and not as what is not acceptable.
fn offers_gzip(list: &str) -> bool {
    list.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(GZIP));
        is_gzip && !parts.filter_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).any(|weight| weight <= 0.0)
    })
}

/// Fast rather than small: entries are so much alike that trying harder gains a tenth.
pub(crate) fn gzip(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).expect("memory takes all");
    encoder.finish().expect("memory takes all").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_whose_last_answer_offers_it() {
        let (codings, peer) = (Codings::new(), ServerName::parse("b.example").unwrap());
        let body = vec![b'a'; WORTH_IT];
        for (list, offered) in [
            (Some("gzip"), true),
            (None, false),
            (Some("br, GZIP;q=0.5"), true),
            (Some("gzip;q=0"), false),
            (Some("x-gzip, *"), false),
        ] {
            let headers = list.map(|list| (header::ACCEPT_ENCODING, list.parse().unwrap()));
            codings.heard(&peer, &HeaderMap::from_iter(headers));
            assert_eq!(codings.for_peer(&peer, &body).is_some(), offered, "{list:?}");
        }
        codings.heard(&peer, &HeaderMap::from_iter([(header::ACCEPT_ENCODING, GZIP.parse().unwrap())]));
        assert!(codings.for_peer(&peer, &body[1..]).is_none(), "it is too short");
        assert!(codings.for_peer(&ServerName::parse("c.example").unwrap(), &body).is_none());
        codings.forget(&peer);
        assert!(codings.for_peer(&peer, &body).is_none());
    }
}
