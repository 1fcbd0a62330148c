//! Bodies that come in gzip (RFC 9110, section 8.4.1.3).

use std::io::Read as _;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use flate2::read::MultiGzDecoder;

use super::error::MatrixError;
use crate::outbound::coding::GZIP;

/// A body may become so many times as long as it came: transactions become ten to thirty times as long, and who wants to fill memory with
/// little effort a thousand times.
const MAX_RATIO: usize = 100;
/// Bytes inflated at a time.
const STEP: usize = 16 << 10;

/// How a body is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
}

impl Coding {
    /// What a request says of its body; 415 for what is not understood here.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, MatrixError> {
        let mut named = headers.get_all(header::CONTENT_ENCODING).iter();
        match (named.next().map(HeaderValue::as_bytes), named.next()) {
            (None, _) => Ok(Self::Identity),
            (Some(name), None) if name.eq_ignore_ascii_case(b"identity") => Ok(Self::Identity),
            (Some(name), None) if name.eq_ignore_ascii_case(GZIP.as_bytes()) => Ok(Self::Gzip),
            _ => Err(MatrixError::unsupported("Content-Encoding is neither gzip nor identity")),
        }
    }
}

/// Tells with an answer that the next request may come in gzip (RFC 9110, section 12.5.3).
pub(crate) async fn offer_gzip(mut response: Response) -> Response {
    response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static(GZIP));
    response
}

/// `coded` inflated, to at most `max` bytes and as long as there is `room` for so many.
pub(crate) fn inflate(
    coded: &[u8],
    max: usize,
    mut room: impl FnMut(usize) -> Result<(), MatrixError>,
) -> Result<Vec<u8>, MatrixError> {
    let (mut decoder, mut all, mut step) = (MultiGzDecoder::new(coded), Vec::new(), vec![0; STEP]);
    loop {
        let more =
            decoder.read(&mut step).map_err(|error| MatrixError::bad_json(format!("the body is not gzip: {error}")))?;
        if more == 0 {
            return Ok(all);
        }
        let length = all.len() + more;
        if length > max {
            return Err(MatrixError::too_large(max));
        }
        if length > MAX_RATIO * coded.len() {
            return Err(MatrixError::unsupported(format!("the body becomes more than {MAX_RATIO} times as long")));
        }
        room(length)?;
        all.extend_from_slice(&step[..more]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use axum::http::StatusCode;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_body_is_what_it_was() {
        let body: Vec<u8> = (0..100_000_u32).flat_map(|n| (n / 7 * 13).to_le_bytes()).collect();
        let (mut coded, mut asked) = (gzip(&body[..300_000]), 0);
        coded.extend(gzip(&body[300_000..]));
        let inflated = inflate(&coded, body.len(), |length| {
            asked = length;
            Ok(())
        });
        assert!(inflated.unwrap() == body);
        assert_eq!(asked, body.len(), "room was asked for all of it");
    }

    #[test]
    fn what_is_no_gzip_or_becomes_too_long_is_refused() {
        let anything = |_| Ok(());
        let zeros = gzip(&vec![0; 1 << 20]);
        let error = inflate(&zeros, 2 << 20, anything).unwrap_err();
        assert_eq!(error.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(inflate(&gzip(b"abcd"), 3, anything).unwrap_err(), MatrixError::too_large(3));
        assert!(inflate(&gzip(b"abcd"), 4, |_| Err(MatrixError::too_large(1))).is_err(), "there is no room");
        let whole = gzip(b"abcd");
        let followed = [&whole[..], b"more"].concat();
        for broken in [&whole[..whole.len() - 1], &followed, b"abcd", b""] {
            let error = inflate(broken, 100, anything).unwrap_err();
            assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{broken:?}");
        }
    }

    #[test]
    fn codings_that_are_not_known_are_named() {
        let coding = |names: &[&str]| {
            let named = names.iter().map(|name| (header::CONTENT_ENCODING, name.parse().unwrap()));
            Coding::of(&named.collect())
        };
        assert_eq!(coding(&[]), Ok(Coding::Identity));
        assert_eq!(coding(&["identity"]), Ok(Coding::Identity));
        assert_eq!(coding(&["GZIP"]), Ok(Coding::Gzip));
        for names in [&["br"][..], &["gzip, gzip"], &["gzip", "gzip"]] {
            assert_eq!(coding(names).unwrap_err().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{names:?}");
        }
    }
}
