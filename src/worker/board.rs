//! What this worker owns, for the operations listener to read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::{counter, gauge};

use crate::core::{JobTotals, Machines, PassedOver, Totals};
use crate::model::{Partition, Timestamp};
use crate::store::Lease;

/// One entry an owned partition.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<Partition, Standing>>);

/// How one owned partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The fence.
    pub epoch: u64,
    /// Up to when all was read.
    pub horizon: Timestamp,
    /// How much there is.
    pub totals: Totals,
}

impl Board {
    /// Every owned partition.
    pub fn standings(&self) -> BTreeMap<Partition, Standing> {
        self.lock().clone()
    }

    pub(super) fn update(&self, lease: Lease, machines: &Machines) {
        let standing = Standing { epoch: lease.epoch, horizon: machines.horizon(), totals: machines.totals() };
        let mut standings = self.lock();
        let before = standings.insert(lease.partition, standing);
        let before = before.map(|before| before.totals).unwrap_or_default();
        count_jobs(before.jobs, standing.totals.jobs);
        count_passed_over(before.passed_over, standing.totals.passed_over);
        let withheld = standing.totals.withheld.saturating_sub(before.withheld);
        counter!("rollcall_changes_withheld_total").increment(withheld);
        measure(&standings);
    }

    pub(super) fn remove(&self, partition: Partition) {
        let mut standings = self.lock();
        standings.remove(&partition);
        measure(&standings);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Partition, Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Machines count from the beginning of an ownership.
fn count_jobs(before: JobTotals, now: JobTotals) {
    let found = [
        ("expire", before.expired, now.expired),
        ("audit", before.repaired, now.repaired),
        ("probe", before.probed, now.probed),
    ];
    for (job, before, now) in found {
        counter!("rollcall_job_findings_total", "job" => job).increment(now.saturating_sub(before));
    }
}

fn count_passed_over(before: PassedOver, now: PassedOver) {
    let bounds =
        [("list", before.list, now.list), ("served", before.served, now.served), ("polls", before.polls, now.polls)];
    for (bound, before, now) in bounds {
        counter!("rollcall_passed_over_total", "bound" => bound).increment(now.saturating_sub(before));
    }
}

fn measure(standings: &BTreeMap<Partition, Standing>) {
    gauge!("rollcall_partitions_owned").set(standings.len() as f64);
    let links = |state: &'static str, count: fn(&Totals) -> usize| {
        let links: usize = standings.values().map(|standing| count(&standing.totals)).sum();
        gauge!("rollcall_links", "state" => state).set(links as f64);
    };
    links("all", |totals| totals.links);
    links("unknown", |totals| totals.lapsed);
    links("owed", |totals| totals.owing);
}
