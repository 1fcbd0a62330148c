//! Which stages of the pipeline a process runs.

use std::fmt;
use std::str::FromStr;

/// The stages that one process runs; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// HTTP in.
    pub edge: bool,
    /// Foreign edges' JSON in.
    pub ingest: bool,
    /// The machines.
    pub worker: bool,
    /// Transactions out.
    pub sender: bool,
}

impl Roles {
    /// Every role: what `serve` runs unless told otherwise.
    pub const ALL: Self = Self { edge: true, ingest: true, worker: true, sender: true };

    const NONE: Self = Self { edge: false, ingest: false, worker: false, sender: false };

    fn named(&self) -> [(&'static str, bool); 4] {
        [("edge", self.edge), ("ingest", self.ingest), ("worker", self.worker), ("sender", self.sender)]
    }
}

/// Why a text does not name roles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role: edge, ingest, worker and sender are, separated by commas")]
pub struct InvalidRoles(String);

impl FromStr for Roles {
    type Err = InvalidRoles;

    fn from_str(text: &str) -> Result<Self, InvalidRoles> {
        let mut roles = Self::NONE;
        for name in text.split(',') {
            match name.trim() {
                "edge" => roles.edge = true,
                "ingest" => roles.ingest = true,
                "worker" => roles.worker = true,
                "sender" => roles.sender = true,
                other => return Err(InvalidRoles(other.into())),
            }
        }
        Ok(roles)
    }
}

/// The names, separated by commas, as they are parsed.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.named().into_iter().filter_map(|(name, on)| on.then_some(name)).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_read_what_they_print() {
        let some: Roles = "worker, edge".parse().unwrap();
        assert_eq!(some.to_string(), "edge,worker");
        assert_eq!(Roles::ALL.to_string().parse(), Ok(Roles::ALL));
        assert_eq!("".parse::<Roles>(), Err(InvalidRoles(String::new())));
        assert_eq!("edge,wroker".parse::<Roles>(), Err(InvalidRoles("wroker".into())));
    }
}
