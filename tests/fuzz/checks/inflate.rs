//! A body in gzip. The bytes are one, and then what a peer puts into one.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use rollcall::edge::inflate::{inflate, inflated_len};

/// Of a body that is inflated, in bytes.
const MAX: usize = 64 << 10;
/// So many times longer than it comes a body may become.
const MAX_RATIO: usize = 100;

pub fn check(data: &[u8]) {
    if let Ok(length) = inflated_len(data, MAX) {
        assert!(length <= MAX && length <= MAX_RATIO * data.len());
        if let Ok(inflated) = inflate(data, length) {
            assert_eq!(inflated.len(), length);
            same_again(&inflated);
        }
    }
    same_again(data);
}

/// What is put into gzip comes out of it, and out of nothing else.
fn same_again(body: &[u8]) {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes everything");
    let mut coded = encoder.finish().expect("memory takes everything");
    match inflated_len(&coded, MAX) {
        Ok(length) => {
            assert_eq!(inflate(&coded, length).as_deref(), Ok(body));
            coded.push(0);
            assert!(inflate(&coded, length).is_err(), "something follows it");
        }
        Err(_) => assert!(body.len() > MAX || body.len() > MAX_RATIO * coded.len()),
    }
}
