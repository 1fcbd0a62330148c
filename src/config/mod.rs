//! Configuration: one TOML file over the compiled-in `config/default.toml` (the manual of every key), environment on top.
//!
//! [`Config::load`] collects every mistake before it fails ([`ConfigErrors`]); what it returns is checked and is not checked again.

mod edge;
mod error;
mod federation;
mod files;
mod layers;
mod reader;
mod roles;
mod secret;
mod sections;
mod stream;
#[cfg(test)]
mod tests;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bus::Topology;
use crate::model::ServerName;

pub use edge::{
    ConnectionsConfig, EdgeAuth, EdgeConfig, EdgeFederation, HomeserverConfig, LimitsConfig, Rate, TlsConfig,
};
pub use error::{ConfigError, ConfigErrors};
pub use federation::{FederationConfig, FederationVia, ServerLists, ServerRules};
pub use layers::DEFAULTS;
pub use roles::{InvalidRoles, Roles};
pub use secret::Secret;
pub use stream::StreamConfig;
pub use values::{check_cron, duration};

/// Everything that is configured, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The Matrix server that this deployment speaks for. Fixed for the life of a store.
    pub server_name: ServerName,
    /// Where what is made at the first start lives: signing key, embedded store.
    pub data_dir: PathBuf,
    /// The signing key's file, which must be there; unset: [`Config::signing_key_path`], made at the first start.
    pub signing_key: Option<PathBuf>,
    /// How many slices the key space has, 1 to 1,024. Fixed for the life of a store.
    pub partitions: u16,
    /// `bus.*`
    pub bus: BusConfig,
    /// `store.*`
    pub store: StoreConfig,
    /// `edge.*`
    pub edge: EdgeConfig,
    /// `homeserver.*`
    pub homeserver: HomeserverConfig,
    /// `federation.*`
    pub federation: FederationConfig,
    /// `batch.*`
    pub batch: BatchConfig,
    /// `presence.*`
    pub presence: PresenceConfig,
    /// `watchdog.*`
    pub watchdog: WatchdogConfig,
    /// `list.*`
    pub list: ListConfig,
    /// `clients.*`
    pub clients: ClientsConfig,
    /// `worker.*`
    pub worker: WorkerConfig,
    /// `ops.*`
    pub ops: OpsConfig,
    /// `schedule.*`
    pub schedule: ScheduleConfig,
    /// `log.*`
    pub log: LogConfig,
    /// The file that this was read from, if there is one: to be read again on SIGHUP.
    pub file: Option<PathBuf>,
}

/// `bus.*`: the queues.
#[derive(Debug, Clone)]
pub struct BusConfig {
    /// `embedded:` or AMQP addresses, tried in turn.
    pub url: BusUrl,
    /// `bus.tls.*`: for `amqps://` addresses.
    pub tls: BusTls,
    /// In front of every exchange and queue name.
    pub prefix: String,
    /// How long a publish may go unconfirmed before it is sent again, and a call before it gives up.
    pub confirm_timeout: Duration,
    /// How many messages may be unconfirmed at once.
    pub confirm_window: usize,
    /// Unacknowledged messages per queue of a consumer, at most 2,000 (a limit of some quorum queues).
    pub prefetch: u16,
}

/// `bus.tls.*`: PEM files, read at each connecting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BusTls {
    /// Roots to believe beside the system's.
    pub ca: Option<PathBuf>,
    /// What this side proves itself by: certificate chain and private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Where the queues are.
#[derive(Clone)]
pub enum BusUrl {
    /// Rows in the store.
    Embedded,
    /// AMQP URIs, at least one. They hold passwords.
    Amqp(Vec<Secret>),
}

impl std::fmt::Debug for BusUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded:"),
            Self::Amqp(urls) => write!(f, "amqp ({} addresses)", urls.len()),
        }
    }
}

/// `store.*`: where state is kept.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The SQLite file.
    pub path: PathBuf,
}

/// `watchdog.*`: the two timers of each peer (W3).
#[derive(Debug, Clone)]
pub struct WatchdogConfig {
    /// A peer unheard of for so long gets a reminder.
    pub short: Duration,
    /// So does any peer after so long, at the latest.
    pub long: Duration,
    /// Unanswered reminders after which the peer's users are unknown.
    pub tries: u32,
    /// Failing deliveries for so long do the same.
    pub give_up: Duration,
}

/// `list.*`: presence lists and permission.
#[derive(Debug, Clone)]
pub struct ListConfig {
    /// Who may list a local user without being let by them.
    pub accept: ListAccept,
    /// Whether listing somebody lets that somebody see oneself (E2).
    pub symmetric: bool,
    /// Whose status may be read by whom without being on any list.
    pub shared: ListShared,
}

/// Who may read statuses though no list and no answer says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListShared {
    /// Nobody.
    Nobody,
    /// Local users those of local users, but of whom they were refused by.
    Local,
}

/// Who may put a local user on a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListAccept {
    /// Whom the user allows.
    Ask,
    /// Whom the user lists, too.
    Reciprocal,
    /// Anybody.
    Everyone,
}

/// `batch.*`: windows.
#[derive(Debug, Clone)]
pub struct BatchConfig {
    /// For how long changes are gathered, or up to a fifth shorter: windows end five times in it.
    pub window: Duration,
    /// A window closes at this many entries.
    pub max_entries: usize,
    /// A window closes at this many bytes of transaction.
    pub max_bytes: usize,
    /// A change is held at most so long before it is committed as owed.
    pub hold_max: Duration,
}

/// `presence.*`: users and their devices.
#[derive(Debug, Clone)]
pub struct PresenceConfig {
    /// An online device idle for this long counts as unavailable.
    pub idle_after: Duration,
    /// A device unheard of for this long past its last activity or lease counts as offline.
    pub offline_after: Duration,
    /// Going down by inference waits this long.
    pub settle: Duration,
    /// Mere activity is told not more often than this; also how long an activity counts as "currently".
    pub activity_granularity: Duration,
    /// A change of a user of whom peers were told within this time is a repeat; 0: none is.
    pub repeat_within: Duration,
    /// So many entries a second may be spent on repeats at once; what is beyond that waits.
    pub repeats: u32,
}

/// `clients.*`: sessions.
#[derive(Debug, Clone)]
pub struct ClientsConfig {
    /// For how long updates for one observer are gathered.
    pub window: Duration,
    /// How long after its last session a user's peers stay polled.
    pub linger: Duration,
}

/// `worker.*`: the loop around the machines.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// For how long an ownership holds without renewal.
    pub lease: Duration,
    /// Signals in one run at most.
    pub run_max: usize,
    /// How long a run waits for more after its first message.
    pub run_linger: Duration,
    /// How long ingest and edges wait for more after a pack's first event.
    pub pack_linger: Duration,
}

/// `ops.*`: the operations listener.
#[derive(Debug, Clone)]
pub struct OpsConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How long the first signal's drain may take before a hard stop.
    pub drain_timeout: Duration,
}

/// `schedule.*`: cron expressions with seconds.
#[derive(Debug, Clone)]
pub struct ScheduleConfig {
    /// Beats: the horizon's clock.
    pub beat: String,
    /// Drop what was remembered of old transactions.
    pub compact: String,
    /// Forget peers' users whom nobody wants to know of any longer.
    pub expire: String,
    /// Compare what users' machines and links believe of each other.
    pub audit: String,
    /// Try peers that were given up.
    pub probe: String,
    /// Write down what happened within the hour.
    pub statistics: String,
}

/// `log.*`.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `text` or `json`.
    pub json: bool,
    /// A tracing-subscriber filter, such as `info,rollcall=debug`.
    pub filter: String,
}

impl Config {
    /// What the broker holds for this deployment.
    pub fn topology(&self) -> Topology {
        Topology { prefix: self.bus.prefix.clone(), partitions: self.partitions }
    }

    /// Where the signing key is: `signing_key`, else `signing.key` under `data_dir`.
    pub fn signing_key_path(&self) -> PathBuf {
        self.signing_key.clone().unwrap_or_else(|| self.data_dir.join("signing.key"))
    }
}
