//! Texts that are never printed.

use std::fmt;

use serde::{Serialize, Serializer};
use subtle::ConstantTimeEq as _;

/// What stands where a secret would.
pub(super) const COVER: &str = "***";

/// A token, or an address with a password. `Debug`, `Display` and `Serialize` show that there is one, and nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes `text` in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever hands it on to where it belongs.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether somebody who gives `given` knows it. Takes a time that does not tell how far they agree.
    pub fn is(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(COVER)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(COVER)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(COVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_in_no_way() {
        let secret = Secret::new("sesame");
        let json = serde_json::to_string(&[&secret]).unwrap();
        assert_eq!(
            (format!("{secret:?}"), format!("{secret}"), json.as_str()),
            (COVER.into(), COVER.into(), r#"["***"]"#)
        );
    }

    #[test]
    fn it_is_compared_whole() {
        let secret = Secret::new("abc");
        assert!(secret.is(b"abc"));
        assert!(!secret.is(b"abd") && !secret.is(b"ab") && !secret.is(b"abcd") && !secret.is(b""));
    }
}
