//! How much there is, for whoever looks.

use super::{Hour, JobTotals, Machines};

/// What a bound left no room for, since the partition has had this owner. Nobody is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PassedOver {
    /// Entries past [`crate::core::Settings::MAX_LIST`] of a presence list.
    pub list: u64,
    /// Polls of local users past the [`crate::core::Settings::MAX_SERVED`] that one peer may watch, and promises of them.
    pub served: u64,
    /// Polls and unpolls past [`crate::core::Settings::MAX_POLLS`] of one transaction.
    pub polls: u64,
}

/// What `rollcall status` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Local users known.
    pub users: usize,
    /// Links.
    pub links: usize,
    /// Links whose peer was given up: its users are unknown.
    pub lapsed: usize,
    /// Links that owe their peer something.
    pub owing: usize,
    /// Statuses that peers are owed.
    pub owed: usize,
    /// Users of peers known.
    pub remotes: usize,
    /// What periodic jobs found to do, since the partition has had this owner.
    pub jobs: JobTotals,
    /// What a bound left no room for.
    pub passed_over: PassedOver,
    /// Changes that peers are told of later, because their users change again and again, since the partition has had this owner.
    pub withheld: u64,
    /// The last day by hour, in no order.
    pub hours: [Hour; 24],
}

impl Machines {
    /// How much there is.
    pub fn totals(&self) -> Totals {
        Totals {
            users: self.users.len(),
            links: self.links.len(),
            lapsed: self.links.iter().filter(|(_, link)| link.is_lapsed()).count(),
            owing: self.links.iter().filter(|(_, link)| link.owed() > 0).count(),
            owed: self.links.iter().map(|(_, link)| link.owed()).sum(),
            remotes: self.links.iter().map(|(_, link)| link.remotes()).sum(),
            jobs: self.chores.totals(),
            passed_over: self.passed_over,
            withheld: self.allowance.withheld(),
            hours: self.day.hours(),
        }
    }
}
