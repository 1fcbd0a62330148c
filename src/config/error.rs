//! What is wrong with a configuration: all of it, each with key, reason and place.

use std::fmt;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The dotted key, such as `edge.listen`; empty when a file cannot be read at all.
    pub key: String,
    /// What is wrong, and what would be right.
    pub reason: String,
    /// What was given, unless it is secret.
    pub given: Option<String>,
    /// Where it was given: `file X` or `environment variable Y`.
    pub place: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)?;
        match &self.given {
            Some(given) => write!(f, " (given {given}, in {})", self.place),
            None => write!(f, " (in {})", self.place),
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
