//! What the machines are told of the configuration. All times in milliseconds.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{Config, ListAccept};
use crate::model::{ServerName, Timestamp};

/// The machines' constants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `batch.window`: for how long changes are gathered.
    pub window_ms: u64,
    /// Of the local server's own: shifts the moments at which its windows end, and at which what is withheld leaves.
    pub phase_ms: u64,
    /// `batch.max_entries`: a window closes at this many.
    pub max_entries: usize,
    /// `batch.max_bytes`: a window closes at this many bytes.
    pub max_bytes: usize,
    /// `batch.hold_max`: a change is held at most so long before it is committed as owed.
    pub hold_max_ms: u64,
    /// `federation.resend`: for how long a transaction may be sent.
    pub resend_ms: u64,
    /// `federation.backoff_min`.
    pub backoff_min_ms: u64,
    /// `federation.backoff_max`.
    pub backoff_max_ms: u64,
    /// `watchdog.short`: a peer unheard of for so long gets a reminder.
    pub short_ms: u64,
    /// `watchdog.long`: so does any peer after so long. Our pushes are a promise for as long.
    pub long_ms: u64,
    /// `watchdog.tries`: unanswered reminders after which a peer's users are unknown.
    pub tries: u32,
    /// `watchdog.give_up`: failing deliveries for so long do the same.
    pub give_up_ms: u64,
    /// `federation.plain_refresh`: servers that forget are pushed to again this often.
    pub plain_refresh_ms: u64,
    /// `federation.plain_promise`: what such a server pushed is good for so long.
    pub plain_promise_ms: u64,
    /// `list.accept`: who may list a local user without being let by them.
    pub accept: ListAccept,
    /// `list.symmetric`: whether listing somebody lets that somebody see oneself.
    pub symmetric: bool,
    /// `clients.window`: for how long updates for one observer are gathered.
    pub clients_window_ms: u64,
    /// `presence.idle_after`.
    pub idle_after_ms: u64,
    /// `presence.offline_after`.
    pub offline_after_ms: u64,
    /// `presence.settle`.
    pub settle_ms: u64,
    /// `presence.activity_granularity`.
    pub granularity_ms: u64,
    /// `presence.repeat_within`.
    pub repeat_ms: u64,
    /// What one entry takes of what a partition may spend on repeats, in microseconds, for `presence.repeats`.
    pub repeat_cost_us: u64,
    /// `clients.linger`.
    pub linger_ms: u64,
}

/// `list.*`: who may see a user without the user's own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// `list.accept`
    pub accept: ListAccept,
    /// `list.symmetric`
    pub symmetric: bool,
}

impl Settings {
    /// How much clocks of one deployment may differ, ms: added to `not_after` before a transaction counts as abandoned.
    pub const SKEW_MS: u64 = 5_000;
    /// For how long a device that was heard of cares about the presence list, ms.
    pub const IMPLIED_LEASE_MS: u64 = 120_000;
    /// Devices of one user: the one unheard of for longest makes room.
    pub const MAX_DEVICES: usize = 64;
    /// Entries of one presence list.
    pub const MAX_LIST: usize = 5_000;
    /// Users whom one user allowed, refused or was asked by.
    pub const MAX_GRANTS: usize = 5_000;
    /// Of them, those who wait for an answer: the oldest question makes room.
    pub const MAX_QUESTIONS: usize = 100;
    /// Questions and undelivered answers of one peer's users: the oldest makes room.
    pub const MAX_PEER_QUESTIONS: usize = 1_000;
    /// A question to a peer is asked again after this, doubling, less up to a quarter.
    pub const ASK_AGAIN_MIN_MS: u64 = 3600 * 1000;
    /// See [`Settings::ASK_AGAIN_MIN_MS`].
    pub const ASK_AGAIN_MAX_MS: u64 = 24 * 3600 * 1000;
    /// A peer that asks to be left alone is, for this long at most.
    pub const PATIENCE_MAX_MS: u64 = 3600 * 1000;
    /// Reminders of a peer's that one transaction answers.
    pub const MAX_ANSWERS: usize = 8;
    /// Users of one peer who are to be unpolled though they were never polled.
    pub const MAX_UNWANTED: usize = 10_000;
    /// Statuses in one message to an edge.
    pub const MAX_UPDATE_EVENTS: usize = 500;
    /// After a restart sessions ask for the present statuses within this time, not all at once.
    pub const REWATCH_MS: u64 = 10_000;
    /// Local users that one peer may watch.
    pub const MAX_SERVED: usize = 100_000;
    /// Users that one transaction may poll; more are not served.
    pub const MAX_POLLS: usize = 10_000;
    /// Users whose time-outs are judged at once, so that a run stays small.
    pub const MAX_EXPIRIES: usize = 5_000;
    /// Outputs, to each machine one, after which no more is done at once: bounds what one commit keeps of them.
    pub const MAX_OUTPUTS: usize = 20_000;
    /// Windows that leave at once because they are due: many end together, and what they hold is one commit.
    pub const MAX_FLUSHES: usize = 256;
    /// Removed entries are remembered for 7 days, so that what comes late changes nothing.
    pub const TOMBSTONE_MS: u64 = 7 * 24 * 3600 * 1000;
    /// What a sent transaction held is remembered for at least so long, and for the last [`Settings::SENT_KEEP`].
    pub const SENT_KEEP_MS: u64 = 10 * 60 * 1000;
    /// See [`Settings::SENT_KEEP_MS`].
    pub const SENT_KEEP: usize = 8;
    /// Twice the longest time that a promise is good for: after it a peer that could not be unpolled promises nothing any longer.
    pub const FORSAKEN_MS: u64 = 2 * 24 * 3600 * 1000;
    /// An audit looks at one in so many users at a time.
    pub const AUDIT_SLICES: u64 = 64;
    /// A peer that has not shown the `rollcall` object for a day is taken for a plain one.
    pub const SPEAKS_MS: u64 = 24 * 3600 * 1000;
    /// Windows that pass at most until a difference that was found is mended.
    const MENDING_WINDOWS: u64 = 8;
    /// An answer to "say it again" is awaited so long before it is asked again.
    pub const TELL_AGAIN_MS: u64 = 30_000;

    /// How often a peer is reminded, whatever is heard of it, if a promise is good for `promise_ms`: so much earlier that what the
    /// comparison finds is mended within that time. It passes to and fro, and a short period later at most once more, if the peer does
    /// not promise any longer what we hold.
    pub(super) fn remind_every_ms(&self, promise_ms: u64) -> u64 {
        let mending = self.short_ms + Self::MENDING_WINDOWS * self.window_ms;
        promise_ms.saturating_sub(mending).max(promise_ms / 2)
    }

    /// [`Settings::phase_ms`] is less than this: so much longer than moments are ever apart that phases are even.
    const PHASES_MS: u64 = 3600 * 1000;

    /// See [`Settings::phase_ms`].
    pub fn phase_of(server: &ServerName) -> u64 {
        xxh3_64(server.as_str().as_bytes()) % Self::PHASES_MS
    }

    /// No window ends sooner after it was opened, unless it is full.
    pub(super) fn shortest_window_ms(&self) -> u64 {
        self.window_ms - self.window_ms / 5
    }

    /// The last moment by `last` at which things that may wait leave together: there is one in each `step_ms`, at the same time for the
    /// whole deployment, so that a run, a commit and the way to the sender are paid once for all of them. Deployments do not keep step.
    pub(super) fn moment_by(&self, last: Timestamp, step_ms: u64) -> Timestamp {
        last.minus(last.plus(self.phase_ms).0 % step_ms.max(1))
    }

    /// Who may see a user without the user's own word.
    pub fn rules(&self) -> Rules {
        Rules { accept: self.accept, symmetric: self.symmetric }
    }
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            window_ms: ms(config.batch.window),
            phase_ms: Self::phase_of(&config.server_name),
            max_entries: config.batch.max_entries,
            max_bytes: config.batch.max_bytes,
            hold_max_ms: ms(config.batch.hold_max),
            resend_ms: ms(config.federation.resend),
            backoff_min_ms: ms(config.federation.backoff_min),
            backoff_max_ms: ms(config.federation.backoff_max),
            short_ms: ms(config.watchdog.short),
            long_ms: ms(config.watchdog.long),
            tries: config.watchdog.tries,
            give_up_ms: ms(config.watchdog.give_up),
            plain_refresh_ms: ms(config.federation.plain_refresh),
            plain_promise_ms: ms(config.federation.plain_promise),
            accept: config.list.accept,
            symmetric: config.list.symmetric,
            clients_window_ms: ms(config.clients.window),
            idle_after_ms: ms(config.presence.idle_after),
            offline_after_ms: ms(config.presence.offline_after),
            settle_ms: ms(config.presence.settle),
            granularity_ms: ms(config.presence.activity_granularity),
            repeat_ms: ms(config.presence.repeat_within),
            repeat_cost_us: u64::from(config.partitions) * 1_000_000 / u64::from(config.presence.repeats),
            linger_ms: ms(config.clients.linger),
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
