//! `Authorization: X-Matrix …` (Matrix spec, server-server API, request authentication): who a request says that it is from, as far as that
//! can be judged without the origin's keys.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderValue, header};
use ruma::api::federation::authentication::XMatrix;

use super::error::MatrixError;
use crate::model::ServerName;

/// Signatures of one request that are looked at: one for each of its origin's keys.
const MAX_SIGNATURES: usize = 4;

/// What the request says of its origin, once for each signature. All name the same origin; there is none only if there is no
/// `Authorization` at all.
pub(super) fn schemes(local: &ServerName, headers: &HeaderMap) -> Result<Vec<XMatrix>, MatrixError> {
    let mut chosen: Vec<&HeaderValue> = headers.get_all(header::AUTHORIZATION).iter().collect();
    if chosen.iter().any(|header| is_signature(header)) {
        chosen.retain(|header| is_signature(header));
    }
    // Who sends no signature is told that the first of what they send is none.
    let schemes = chosen.into_iter().take(MAX_SIGNATURES).map(|header| scheme(local, header));
    let schemes = schemes.collect::<Result<Vec<_>, _>>()?;
    match schemes.iter().find(|scheme| scheme.origin != schemes[0].origin) {
        Some(other) => {
            let (one, other) = (&schemes[0].origin, &other.origin);
            Err(MatrixError::unauthorized(format!("\"origin\" is {one} and {other}: a request has one")))
        }
        None => Ok(schemes),
    }
}

fn is_signature(header: &HeaderValue) -> bool {
    let name = header.as_bytes().split(|byte| byte.is_ascii_whitespace()).next();
    name.is_some_and(|name| name.eq_ignore_ascii_case(XMatrix::AUTH_SCHEME.as_bytes()))
}

fn scheme(local: &ServerName, header: &HeaderValue) -> Result<XMatrix, MatrixError> {
    let scheme = parse(header)?;
    match &scheme.destination {
        Some(destination) if destination.as_str() != local.as_str() => {
            Err(MatrixError::unauthorized(format!("\"destination\" is {destination}, not {local}")))
        }
        _ => Ok(scheme),
    }
}

/// Reads one header. Values may stand without quotes also where RFC 9110 wants some: colons, which the specification asks to let pass, and
/// what else is no token.
///
/// # Errors
/// What the peer is answered; it says what is wrong.
pub fn parse(header: &HeaderValue) -> Result<XMatrix, MatrixError> {
    let quoted = quoted(header.as_bytes());
    let header = HeaderValue::from_bytes(&quoted).map_err(|error| refused(&error))?;
    XMatrix::try_from(&header).map_err(|error| refused(&error))
}

fn refused(error: &dyn std::fmt::Display) -> MatrixError {
    MatrixError::unauthorized(format!("Authorization is no X-Matrix: {error}"))
}

/// The same with quotes around every value that has none.
fn quoted(header: &[u8]) -> Cow<'_, [u8]> {
    let mut all = Vec::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(begin) = find(header, at, |byte| byte == b'=').map(|equals| equals + 1) {
        let begin = find(header, begin, |byte| !byte.is_ascii_whitespace()).unwrap_or(header.len());
        if header.get(begin) == Some(&b'"') {
            at = end_of_quoted(header, begin + 1);
            continue;
        }
        at = find(header, begin, |byte| byte == b',' || byte.is_ascii_whitespace()).unwrap_or(header.len());
        for part in [&header[copied..begin], b"\"", &header[begin..at], b"\""] {
            all.extend_from_slice(part);
        }
        copied = at;
    }
    if copied == 0 {
        return header.into();
    }
    all.extend_from_slice(&header[copied..]);
    all.into()
}

fn find(bytes: &[u8], from: usize, what: impl Fn(u8) -> bool) -> Option<usize> {
    bytes.get(from..)?.iter().position(|byte| what(*byte)).map(|at| from + at)
}

/// What follows the quote at the end of what begins at `at`.
fn end_of_quoted(header: &[u8], mut at: usize) -> usize {
    loop {
        match header.get(at) {
            None | Some(b'"') => return header.len().min(at + 1),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(header: &str) -> Option<[String; 4]> {
        let scheme = parse(&header.parse().unwrap()).ok()?;
        let destination = scheme.destination.map(String::from).unwrap_or_default();
        Some([scheme.origin.into(), destination, scheme.key.to_string(), scheme.sig.encode()])
    }

    #[test]
    fn values_need_no_quotes() {
        let expected = ["b.example:8448", "a.example", "ed25519:1", "ab/+"].map(String::from);
        for header in [
            r#"X-Matrix origin="b.example:8448",destination="a.example",key="ed25519:1",sig="ab/+""#,
            r#"X-Matrix origin=b.example:8448,destination=a.example,key=ed25519:1,sig=ab/+"#,
            r#"X-Matrix origin=b.example:8448,key="ed25519:1",sig="ab/+",destination=a.example"#,
            r#"x-matrix origin="b.example:8448" , destination=a.example , key=ed25519:1, sig=ab/+"#,
            r#"X-Matrix origin="b\.example:8448",destination=a.example,key=ed25519:1,sig=ab/+"#,
        ] {
            assert_eq!(parts(header).as_ref(), Some(&expected), "{header}");
        }
    }

    #[test]
    fn what_is_no_value_stays_none() {
        for header in [
            r#"X-Matrix origin="b.example,key=ed25519:1,sig=ab/+"#,
            r#"X-Matrix origin=b"x,key=ed25519:1,sig=ab/+"#,
            r#"X-Matrix origin=,key=ed25519:1,sig=ab/+"#,
            "X-Matrix origin=",
            r#"X-Matrix origin="\"#,
        ] {
            assert_eq!(parts(header), None, "{header}");
        }
    }
}
