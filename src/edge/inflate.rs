//! Bodies that come in gzip (RFC 9110, section 8.4.1.3).

use std::cell::Cell;
use std::io::{self, BufReader, Read};

use axum::http::{HeaderMap, HeaderValue, header};
use flate2::bufread::GzDecoder;

use super::error::MatrixError;
use crate::outbound::coding::{MAX_RATIO, is_gzip};

/// By so much what is read may be ahead of what came of it, in bytes: gzip makes nothing much longer, but there is some that never becomes
/// anything, and takes long.
const AHEAD: usize = 64 << 10;

/// The first bytes of all gzip (RFC 1952, section 2.3.1).
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// How a body is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
}

impl Coding {
    /// What a request says of its body; 415 for what is not understood here.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, MatrixError> {
        let mut named = headers.get_all(header::CONTENT_ENCODING).iter().map(HeaderValue::to_str);
        match (named.next(), named.next()) {
            (None, _) => Ok(Self::Identity),
            (Some(Ok(name)), None) if name.eq_ignore_ascii_case("identity") => Ok(Self::Identity),
            (Some(Ok(name)), None) if is_gzip(name) => Ok(Self::Gzip),
            _ => Err(MatrixError::unsupported("Content-Encoding is neither gzip nor identity")),
        }
    }
}

/// The bytes that `coded` says it becomes, if it is gzip: at most `max`, and at most a hundred times as many as it is.
///
/// # Errors
///
/// 415, for whatever cannot be taken in gzip may be sent as it is.
pub fn inflated_len(coded: &[u8], max: usize) -> Result<usize, MatrixError> {
    let length = coded.strip_prefix(&MAGIC).and_then(|rest| rest.last_chunk());
    let length = length.ok_or_else(|| MatrixError::unsupported("the body is not gzip"))?;
    match u32::from_le_bytes(*length) as usize {
        length if length > max => Err(MatrixError::unsupported(format!("the body becomes longer than {max} bytes"))),
        length if length > MAX_RATIO * coded.len() => {
            Err(MatrixError::unsupported(format!("the body becomes more than {MAX_RATIO} times as long")))
        }
        length => Ok(length),
    }
}

/// `coded` inflated: one member of gzip, of exactly so many bytes, as [`inflated_len`] allows them. Takes no more memory than those.
///
/// # Errors
///
/// 415 for what is no gzip, or becomes shorter or longer than that.
pub fn inflate(coded: &[u8], length: usize) -> Result<Vec<u8>, MatrixError> {
    read_all(coded, length).map_err(|error| MatrixError::unsupported(format!("the body is not gzip: {error}")))
}

fn read_all(coded: &[u8], length: usize) -> io::Result<Vec<u8>> {
    let (read, written) = (Cell::new(0), Cell::new(0));
    let source = Source { rest: coded, read: &read, written: &written };
    let mut decoder = GzDecoder::new(BufReader::new(source));
    let mut inflated = vec![0; length];
    while written.get() < length {
        match decoder.read(&mut inflated[written.get()..])? {
            0 => return Err(io::Error::other("it is shorter than it says")),
            more => written.set(written.get() + more),
        }
    }
    // Only at its end are its checksum and its length looked at.
    if decoder.read(&mut [0])? > 0 {
        return Err(io::Error::other("it is longer than it says"));
    }
    let mut source = decoder.into_inner();
    match source.read(&mut [0])? {
        0 => Ok(inflated),
        _ => Err(io::Error::other("something follows it")),
    }
}

/// What is still to be read, as long as it is not too far ahead.
struct Source<'a> {
    rest: &'a [u8],
    read: &'a Cell<usize>,
    written: &'a Cell<usize>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read.get() > self.written.get() + AHEAD {
            return Err(io::Error::other("too little comes of it"));
        }
        let read = self.rest.read(buffer)?;
        self.read.set(self.read.get() + read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use axum::http::StatusCode;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(body: &[u8], level: Compression) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), level);
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate_at_most(coded: &[u8], max: usize) -> Result<Vec<u8>, MatrixError> {
        inflate(coded, inflated_len(coded, max)?)
    }

    /// Whether it is 415, whose sender then sends it as it is.
    fn is_unsupported(result: Result<Vec<u8>, MatrixError>, part: &str) -> bool {
        result.is_err_and(|error| {
            error.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE && format!("{error:?}").contains(part)
        })
    }

    #[test]
    fn a_body_is_what_it_was() {
        let alike: Vec<u8> = (0..100_000_u32).flat_map(|n| (n / 7 * 13).to_le_bytes()).collect();
        let noise: Vec<u8> = (0..1 << 20).map(|_| fastrand::u8(..)).collect();
        for body in [&alike[..], &noise, b"a", b""] {
            for level in [Compression::none(), Compression::fast(), Compression::best()] {
                assert!(inflate_at_most(&gzip(body, level), body.len()).unwrap() == body, "{} bytes", body.len());
            }
        }
    }

    #[test]
    fn what_is_no_gzip_or_becomes_too_long_is_refused() {
        let zeros = gzip(&vec![0; 1 << 20], Compression::best());
        assert!(is_unsupported(inflate_at_most(&zeros, 2 << 20), "100 times"));
        let whole = gzip(b"abcd", Compression::best());
        assert!(is_unsupported(inflate_at_most(&whole, 3), "3 bytes"));
        let followed = [&whole[..], &whole].concat();
        let mut changed = whole.clone();
        changed[12] ^= 1;
        for broken in [&whole[..whole.len() - 1], &whole[..10], &followed, &changed, b"abcd\0\0\0\0", b"abcd", b""] {
            assert!(is_unsupported(inflate_at_most(broken, 1 << 30), "the body"), "{broken:?}");
        }
    }

    /// Its length stands at its end, and may be a lie.
    #[test]
    fn a_body_that_lies_of_its_length_is_not_read_further() {
        for (says, part) in [(3_u32, "longer"), (5, "not gzip")] {
            let mut coded = gzip(b"abcd", Compression::best());
            let end = coded.len() - 4;
            coded[end..].copy_from_slice(&says.to_le_bytes());
            assert!(is_unsupported(inflate_at_most(&coded, 100), part), "{says}");
        }
    }

    /// Ten megabytes of empty blocks: of each comes nothing, and all take seconds.
    #[test]
    fn much_of_which_nothing_comes_is_not_read_to_its_end() {
        let head = &gzip(b"", Compression::fast())[..10];
        let empty_blocks = [0, 0, 0, 0xff, 0xff].repeat(2 << 20);
        let coded = [head, &empty_blocks, &[0, 0, 0, 0, 9, 0, 0, 0]].concat();
        assert!(is_unsupported(inflate_at_most(&coded, 100), "too little comes of it"));
    }

    /// Whatever arrives, it is refused or as long as it says.
    #[test]
    fn every_changed_body_holds() {
        let whole = gzip(&b"cupcakes and more cupcakes".repeat(40), Compression::fast());
        for _ in 0..2_000 {
            let mut coded = whole.clone();
            for _ in 0..fastrand::usize(1..4) {
                let at = fastrand::usize(..coded.len());
                coded[at] = fastrand::u8(..);
            }
            coded.truncate(fastrand::usize(..2 * whole.len()));
            let Ok(length) = inflated_len(&coded, 1 << 20) else { continue };
            assert!(inflate(&coded, length).map_or(length, |inflated| inflated.len()) == length, "{coded:?}");
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
        assert_eq!(coding(&["x-gzip"]), Ok(Coding::Gzip));
        for names in [&["br"][..], &["gzip, gzip"], &["gzip", "gzip"]] {
            assert_eq!(coding(names).unwrap_err().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{names:?}");
        }
    }
}
