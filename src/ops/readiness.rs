//! Whether the deployment is ready: what `/readyz` says, and the first thing that `rollcall status` prints.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::status::Status;

/// The check that fails if the broker does not answer.
pub const BROKER: &str = "broker";
/// The check that fails if the store does not answer.
pub const STORE: &str = "store";

/// The answer of `/readyz`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Readiness {
    pub(super) ready: bool,
    pub(super) checks: Vec<Check>,
}

/// One thing that it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is looked at.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}

impl Readiness {
    /// Judges what was seen, and whether broker and store answered.
    pub(super) fn of(status: &Status, broker: &Result<(), String>, store: &Result<(), String>) -> Self {
        let lag_max = Duration::from_millis(status.about.lag_max_ms);
        let checks = vec![reached(BROKER, broker), reached(STORE, store), owners(status), lag(status, lag_max)];
        Self { ready: checks.iter().all(|check| check.ok), checks }
    }
}

fn reached(name: &str, result: &Result<(), String>) -> Check {
    Check { name: name.into(), ok: result.is_ok(), detail: result.clone().err().unwrap_or_else(|| "answers".into()) }
}

fn owners(status: &Status) -> Check {
    let total = status.partitions.len();
    let owned = status.partitions.iter().filter(|partition| partition.owner.is_some()).count();
    Check { name: "partitions".into(), ok: owned == total, detail: format!("{owned} of {total} have an owner") }
}

fn lag(status: &Status, max: Duration) -> Check {
    let (ok, detail) = match status.lag_ms() {
        Some(ms) => (Duration::from_millis(ms) <= max, format!("{ms} ms of at most {} ms", max.as_millis())),
        None => (false, "no partition has read a beat yet".into()),
    };
    Check { name: "lag".into(), ok, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::status::{About, PartitionStatus};

    const OK: Result<(), String> = Ok(());

    fn seen(owner: Option<&str>, lag_ms: Option<u64>) -> Status {
        let partition = PartitionStatus { partition: 0, owner: owner.map(Into::into), epoch: 1, lag_ms };
        let about = About { lag_max_ms: 10_000, ..About::default() };
        Status { about, partitions: vec![partition], ..Status::default() }
    }

    fn failing(status: &Status, broker: &Result<(), String>, store: &Result<(), String>) -> Vec<String> {
        let readiness = Readiness::of(status, broker, store);
        let failing: Vec<_> =
            readiness.checks.iter().filter(|check| !check.ok).map(|check| check.name.clone()).collect();
        assert_eq!(readiness.ready, failing.is_empty());
        failing
    }

    #[test]
    fn every_check_can_fail_alone() {
        let good = seen(Some("a"), Some(10_000));
        assert_eq!(failing(&good, &OK, &OK), [""; 0]);
        assert_eq!(failing(&seen(None, Some(0)), &OK, &OK), ["partitions"]);
        assert_eq!(failing(&seen(Some("a"), Some(10_001)), &OK, &OK), ["lag"]);
        assert_eq!(failing(&seen(Some("a"), None), &OK, &OK), ["lag"]);
        let unreachable = Err("refused".to_owned());
        assert_eq!(failing(&good, &unreachable, &OK), ["broker"]);
        assert_eq!(failing(&good, &OK, &unreachable), ["store"]);
    }
}
