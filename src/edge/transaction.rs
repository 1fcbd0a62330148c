//! The outer shape of a federation transaction (Matrix spec, server-server API, transactions).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::error::MatrixError;

/// EDUs in one transaction (Matrix spec, server-server API, transactions).
const MAX_EDUS: usize = 100;
/// PDUs in one transaction (as above).
const MAX_PDUS: usize = 50;

/// What of a transaction matters here. PDUs are counted and left alone.
#[derive(Debug)]
pub struct Transaction<'a> {
    /// The server that it says it is from.
    pub origin: Option<Cow<'a, str>>,
    /// That server's clock, ms since the Unix epoch.
    pub origin_server_ts: u64,
    /// At most 100, none of them looked at yet.
    pub edus: Vec<&'a RawValue>,
}

impl<'a> Transaction<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// What the peer is answered; it names the field.
    pub fn parse(body: &'a [u8]) -> Result<Self, MatrixError> {
        let fields: BTreeMap<Cow<'a, str>, &'a RawValue> =
            serde_json::from_slice(body).map_err(|error| match serde_json::from_slice::<IgnoredAny>(body) {
                Ok(_) => MatrixError::bad_json(format!("the body is not an object: {error}")),
                Err(error) => MatrixError::not_json(&error),
            })?;
        field::<AtMost<MAX_PDUS, IgnoredAny>>(&fields, "pdus")?;
        Ok(Self {
            origin: field(&fields, "origin")?,
            origin_server_ts: field(&fields, "origin_server_ts")?
                .ok_or_else(|| MatrixError::bad_json("\"origin_server_ts\" is missing"))?,
            edus: field::<AtMost<MAX_EDUS, &RawValue>>(&fields, "edus")?.map(|edus| edus.0).unwrap_or_default(),
        })
    }
}

fn field<'a, T: Deserialize<'a>>(
    fields: &BTreeMap<Cow<'a, str>, &'a RawValue>,
    name: &str,
) -> Result<Option<T>, MatrixError> {
    let Some(raw) = fields.get(name) else { return Ok(None) };
    serde_json::from_str(raw.get()).map(Some).map_err(|error| MatrixError::bad_json(format!("{name:?}: {error}")))
}

/// An array of at most `N`: a longer one is refused before it fills memory.
struct AtMost<const N: usize, T>(Vec<T>);

impl<'de, const N: usize, T: Deserialize<'de>> Deserialize<'de> for AtMost<N, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(AtMostVisitor(PhantomData))
    }
}

struct AtMostVisitor<const N: usize, T>(PhantomData<T>);

impl<'de, const N: usize, T: Deserialize<'de>> Visitor<'de> for AtMostVisitor<N, T> {
    type Value = AtMost<N, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {N}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(next) = seq.next_element()? {
            if all.len() == N {
                return Err(serde::de::Error::invalid_length(N + 1, &self));
            }
            all.push(next);
        }
        Ok(AtMost(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_shape_is_read_leniently() {
        let body = br#"{"origin":"b.example","origin_server_ts":5,"edus":[{"edu_type":"x"}],"y":1}"#;
        let transaction = Transaction::parse(body).unwrap();
        assert_eq!((transaction.origin_server_ts, transaction.edus.len()), (5, 1));
        assert!(Transaction::parse(br#"{"origin_server_ts":5,"pdus":[]}"#).unwrap().edus.is_empty());
    }

    #[test]
    fn errors_name_the_field() {
        let many = |name: &str, n| format!(r#"{{"origin_server_ts":5,"{name}":[{}]}}"#, vec!["{}"; n].join(","));
        assert!(Transaction::parse(many("edus", 100).as_bytes()).is_ok());
        assert!(Transaction::parse(many("pdus", 50).as_bytes()).is_ok());
        for (body, errcode, part) in [
            ("nonsense".into(), "M_NOT_JSON", "not JSON"),
            ("[]".into(), "M_BAD_JSON", "not an object"),
            ("{}".into(), "M_BAD_JSON", "origin_server_ts"),
            (r#"{"origin_server_ts":"5"}"#.into(), "M_BAD_JSON", "origin_server_ts"),
            (r#"{"origin_server_ts":5,"edus":{}}"#.into(), "M_BAD_JSON", "edus"),
            (many("edus", 101), "M_BAD_JSON", "edus"),
            (many("pdus", 51), "M_BAD_JSON", "pdus"),
        ] {
            let error = format!("{:?}", Transaction::parse(body.as_bytes()).unwrap_err());
            assert!(error.contains(errcode) && error.contains(part), "{error}");
        }
    }
}
