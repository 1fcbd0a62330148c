//! How much traffic presence makes between servers: whole working days, through the real machines and codecs, in simulated time.
//!
//! A [`Scenario`] has users on one server with contacts on others; [`run`] lets them have one working day of eight hours and
//! counts what crosses the wire. [`models`] holds what others published for the same day; [`targets`] says what the day is held to
//! beside them; [`plot`] draws both.

mod count;
mod day;
mod domain;
pub mod models;
pub mod plot;
pub mod targets;
mod world;

use std::ops::AddAssign;

use crate::config::Config;
use crate::core::Settings;

use self::models::Case;

/// One working day.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// What it is called in tables.
    pub name: String,
    /// Users of the local server, and as many on the peers together; 2 to 1,000,000.
    pub users: usize,
    /// Contacts of each user, all on the other side, all mutual; less than `users`.
    pub contacts: usize,
    /// Status changes of each user an hour.
    pub changes_per_hour: u32,
    /// The servers that the contacts are on, 1 to 1,000.
    pub peers: usize,
    /// `batch.window`, ms.
    pub window_ms: u64,
    /// The same seed gives the same day.
    pub seed: u64,
}

impl Scenario {
    /// The cases of draft-ietf-simple-interdomain-scaling-analysis that one machine can hold.
    pub fn published(window_ms: u64, seed: u64) -> [Self; 3] {
        [("Basic", 20_000, 4), ("Wide", 20_000, 20), ("60k", 60_000, 10)].map(|(name, users, contacts)| Self {
            name: name.into(),
            users,
            contacts,
            changes_per_hour: 3,
            peers: 1,
            window_ms,
            seed,
        })
    }

    /// The same as the models are asked about.
    pub fn case(&self) -> Case {
        Case {
            users: self.users as f64,
            contacts: self.contacts as f64,
            changes_per_hour: f64::from(self.changes_per_hour),
        }
    }

    /// The machines' constants: the defaults but for the window, and that every change counts, as in the models.
    fn settings(&self) -> Settings {
        let config = Config::from_toml("data_dir = \"/nowhere\"").expect("the defaults are valid");
        let mut settings = Settings::from(&config);
        settings.window_ms = self.window_ms;
        settings.hold_max_ms = settings.hold_max_ms.max(self.window_ms);
        settings.repeat_ms = 0;
        settings
    }
}

/// Requests and their answers, in all directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Transactions.
    pub transactions: u64,
    /// Statuses in them.
    pub entries: u64,
    /// User IDs in polls and unpolls.
    pub ids: u64,
    /// Bytes of bodies.
    pub body_bytes: u64,
    /// Bytes of request heads and of whole answers.
    pub head_bytes: u64,
}

impl Traffic {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.body_bytes + self.head_bytes
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.transactions += other.transactions;
        self.entries += other.entries;
        self.ids += other.ids;
        self.body_bytes += other.body_bytes;
        self.head_bytes += other.head_bytes;
    }
}

/// What one day came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// What is said of users, without what reminders add to its transactions.
    pub presence: Traffic,
    /// Reminders and answers to them: whole transactions that hold nothing else, and their bytes in others.
    pub watchdogs: Traffic,
    /// Reminders among them.
    pub reminders: u64,
    /// Bytes of the `rollcall` objects of [`Outcome::presence`].
    pub extension_bytes: u64,
    /// Status changes that users made, signing on and off included.
    pub changes: u64,
}

impl Outcome {
    /// Everything that crossed the wire.
    pub fn total(&self) -> Traffic {
        let mut total = self.presence;
        total += self.watchdogs;
        total
    }

    /// Bytes of the `rollcall` object in a transaction that says something of users, in the mean.
    pub fn extension_mean(&self) -> f64 {
        self.extension_bytes as f64 / self.presence.transactions.max(1) as f64
    }
}

/// Lets everybody have their day.
pub fn run(scenario: &Scenario) -> Outcome {
    let mut world = world::World::new(scenario);
    day::befriend(&mut world, scenario);
    day::work(&mut world, scenario)
}

#[cfg(test)]
mod tests;
