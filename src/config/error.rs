//! What is wrong with a configuration, or with what it names: all of it, each with key, reason and place.

use std::fmt;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The dotted key, such as `edge.listen`; empty when the configuration's file itself is of no use.
    pub key: String,
    /// What is wrong, and what would be right.
    pub reason: String,
    /// What was given, unless it is secret.
    pub given: Option<String>,
    /// Where it was given: `file X` or `environment variable Y`; the file alone, if there is no key; empty, if that is not the point.
    pub place: String,
}

impl ConfigError {
    /// A mistake in what `key` names, rather than in what is written there.
    pub fn of(key: &str, reason: impl fmt::Display) -> Self {
        Self { key: key.into(), reason: reason.to_string(), given: None, place: String::new() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, reason, given, place } = self;
        match given {
            _ if key.is_empty() => write!(f, "{place}: {reason}"),
            Some(given) => write!(f, "{key}: {reason} (given {given}, in {place})"),
            None if place.is_empty() => write!(f, "{key}: {reason}"),
            None => write!(f, "{key}: {reason} (in {place})"),
        }
    }
}

/// Every mistake of a configuration, one a line. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}
