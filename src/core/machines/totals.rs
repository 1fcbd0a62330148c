//! How much there is, for whoever looks.

use super::{Hour, JobTotals, Machines};

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
            hours: self.day.hours(),
        }
    }
}
