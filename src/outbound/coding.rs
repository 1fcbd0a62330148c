//! The content coding of what peers are sent (RFC 9110, section 8.4): gzip for those whose last answer said that they take it, and
//! nothing for all others, nor for those with whom gzip came to grief of late.

use std::io::Write as _;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;

use crate::model::ServerName;

/// The one coding that is known here.
pub(crate) const GZIP: &str = "gzip";
/// The longest that gzip may make a body shorter, as a factor: what would become longer than that is not taken.
pub(crate) const MAX_RATIO: usize = 100;
/// Peers that are remembered: whoever is forgotten gets one transaction as it is.
const PEERS: u64 = 10_000;
/// A shorter body fits into one packet as it is.
const WORTH_IT: usize = 1 << 10;
/// A body that is no longer is packed where it is, within a millisecond: another thread would cost more than it spares.
const AT_ONCE: usize = 64 << 10;
/// For how long a peer gets nothing in gzip after something went wrong with it. Perhaps it was nobody's fault.
const DISTRUST: Duration = Duration::from_secs(600);

/// What is known of a peer.
#[derive(Debug, Clone, Copy)]
enum Known {
    TakesGzip,
    /// Whatever it says.
    NotBefore(Instant),
}

/// Who takes gzip.
pub(super) struct Codings(Cache<ServerName, Known>);

impl Codings {
    /// Nobody has said anything yet.
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(PEERS).eviction_policy(EvictionPolicy::lru()).build())
    }

    /// `body` as `peer` would rather have it, if that is not as it is.
    pub(super) async fn for_peer(&self, peer: &ServerName, body: &Bytes) -> Option<Bytes> {
        if body.len() < WORTH_IT || !matches!(self.0.get(peer), Some(Known::TakesGzip)) {
            return None;
        }
        let whole = body.len();
        let coded = if whole <= AT_ONCE {
            gzip(body)
        } else {
            let body = body.clone();
            tokio::task::spawn_blocking(move || gzip(&body)).await.ok()?
        };
        (coded.len() < whole && whole <= MAX_RATIO * coded.len()).then_some(coded)
    }

    /// What an answer with these `headers`, to something that the peer took, says of the next request (RFC 9110, section 12.5.3).
    pub(super) fn heard(&self, peer: &ServerName, headers: &HeaderMap) {
        let offers =
            headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(offers_gzip);
        match (self.0.get(peer), offers) {
            (Some(Known::NotBefore(end)), _) if Instant::now() < end => {}
            (Some(Known::TakesGzip), true) | (None, false) => {}
            (_, true) => self.0.insert(peer.clone(), Known::TakesGzip),
            (Some(_), false) => self.0.invalidate(peer),
        }
    }

    /// Something in gzip was not taken, whyever: for a while nothing more is sent so.
    pub(super) fn distrust(&self, peer: &ServerName) {
        self.0.insert(peer.clone(), Known::NotBefore(Instant::now() + DISTRUST));
    }
}

/// Whether an `Accept-Encoding` lists gzip, and not as what is not acceptable.
fn offers_gzip(list: &str) -> bool {
    list.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        is_gzip(parts.next().unwrap_or_default())
            && parts.all(|parameter| weight(parameter).is_none_or(|weight| weight > 0.0))
    })
}

/// Whether this names gzip: by the old name, too (RFC 9110, section 8.4.1.3).
pub(crate) fn is_gzip(name: &str) -> bool {
    [GZIP, "x-gzip"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The weight that a parameter is, 0 if it cannot be read.
fn weight(parameter: &str) -> Option<f32> {
    let (name, value) = parameter.split_once('=')?;
    name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse().unwrap_or(0.0))
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

    fn accepts(list: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, list.parse().unwrap())])
    }

    /// As long as it has to be, and no more alike than it may be.
    fn body() -> Bytes {
        (0..WORTH_IT / 4).flat_map(|n| format!("{:04}", n * 7919 % 10_000).into_bytes()).collect()
    }

    #[tokio::test]
    async fn gzip_is_for_whose_last_answer_offers_it() {
        let (codings, peer) = (Codings::new(), ServerName::parse("b.example").unwrap());
        for (headers, offered) in [
            (accepts("gzip"), true),
            (HeaderMap::new(), false),
            (accepts("br, GZIP;q=0.5"), true),
            (accepts("gzip;q=0"), false),
            (accepts("x-gzip"), true),
            (accepts("gzip; Q=0.000"), false),
            (accepts("br, *"), false),
            (accepts("gzip;q=nan"), false),
        ] {
            codings.heard(&peer, &headers);
            assert_eq!(codings.for_peer(&peer, &body()).await.is_some(), offered, "{headers:?}");
        }
        codings.heard(&peer, &accepts(GZIP));
        assert!(codings.for_peer(&peer, &body().slice(1..)).await.is_none(), "it is too short");
        assert!(codings.for_peer(&ServerName::parse("c.example").unwrap(), &body()).await.is_none());
    }

    #[tokio::test]
    async fn what_gains_nothing_or_would_be_refused_is_sent_as_it_is() {
        let (codings, peer) = (Codings::new(), ServerName::parse("b.example").unwrap());
        codings.heard(&peer, &accepts(GZIP));
        assert!(codings.for_peer(&peer, &vec![b' '; 100 << 10].into()).await.is_none(), "a hundred times");
        let noise: Bytes = (0..WORTH_IT).map(|_| fastrand::u8(..)).collect();
        assert!(codings.for_peer(&peer, &noise).await.is_none());
        assert!(codings.for_peer(&peer, &body()).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_did_not_take_it_gets_none_for_ten_minutes() {
        let (codings, peer) = (Codings::new(), ServerName::parse("b.example").unwrap());
        codings.heard(&peer, &accepts(GZIP));
        codings.distrust(&peer);
        codings.heard(&peer, &accepts(GZIP));
        assert!(codings.for_peer(&peer, &body()).await.is_none());
        tokio::time::advance(DISTRUST).await;
        assert!(codings.for_peer(&peer, &body()).await.is_none(), "it has not said so since");
        codings.heard(&peer, &accepts(GZIP));
        assert!(codings.for_peer(&peer, &body()).await.is_some());
    }

    #[test]
    fn who_takes_gzip_is_remembered_up_to_a_bound() {
        let codings = Codings::new();
        for n in 0..PEERS + 100 {
            codings.heard(&ServerName::parse(&format!("{n}.example")).unwrap(), &accepts(GZIP));
        }
        codings.0.run_pending_tasks();
        assert!(codings.0.entry_count() <= PEERS);
    }
}
