//! What kind of world a seed makes: how many servers of which make, which faults, how often. Most worlds have some faults only, so
//! that none hides behind another.

use std::sync::LazyLock;

use rollcall::config::{Config, ListAccept};
use rollcall::model::ServerName;

/// How far a server's clock may be off.
const FAR_MS: i64 = 3_600_000;
/// How long the faults last, ms.
const STORMS_MS: std::ops::RangeInclusive<u64> = 25_000..=60_000;
pub const SHORT_MS: u64 = 20_000;
pub const LONG_MS: u64 = 60_000;
pub const WINDOW_MS: u64 = 1_000;
/// For so long a change may wait for its window.
pub const HOLD_MAX_MS: u64 = 2_000;
pub const LINGER_MS: u64 = 3_000;
pub const OFFLINE_AFTER_MS: u64 = 6_000;
/// For so long what changes again may be withheld.
pub const REPEAT_MS: u64 = 4_000;

/// See the module.
#[derive(Debug, Clone)]
pub struct Plan {
    pub servers: Vec<Make>,
    pub storm_ms: u64,
    /// Chances of a thousand for each operation.
    pub faults: Faults,
    /// Chances of a thousand at each step of the storm.
    pub blows: Blows,
    /// Queue and store are one, and a successor needs not wait for the lease of the dead.
    pub embedded: bool,
    /// What returns to a queue returns in any order.
    pub reorders: bool,
    /// After the storm what servers know of each other is damaged.
    pub damages: bool,
}

/// One server.
#[derive(Debug, Clone)]
pub struct Make {
    pub name: ServerName,
    /// Without rollcall: pushes, and that is all.
    pub plain: bool,
    pub accept: ListAccept,
    pub symmetric: bool,
    pub partitions: u16,
    pub processes: usize,
    /// How many of the processes have an ingest.
    pub ingests: usize,
    pub users: usize,
    /// Its clocks against true time, ms.
    pub offset_ms: i64,
    /// Its processes' clocks differ and step.
    pub shaky: bool,
}

/// Each strikes so many times of a thousand operations.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub commit_unknown: u32,
    pub commit_refused: u32,
    pub commit_slow: u32,
    pub publish_unconfirmed: u32,
    pub publish_slow: u32,
    pub subscription_lost: u32,
    pub request_lost: u32,
    pub answer_lost: u32,
    pub request_doubled: u32,
    pub request_refused: u32,
    pub request_slow: u32,
    /// Messages between machines that come late, where queues are in no order.
    pub strays: u32,
    /// And those that come once more, late.
    pub echoes: u32,
    /// At any point between two effects of a process.
    pub sudden_death: u32,
}

/// Each falls so many times of a thousand steps.
#[derive(Debug, Clone, Copy, Default)]
pub struct Blows {
    pub crash: u32,
    pub restart: u32,
    pub pause: u32,
    pub partition: u32,
    pub unroutable: u32,
    pub clock_step: u32,
    pub restore: u32,
    pub job: u32,
    pub poison: u32,
}

impl Plan {
    pub fn draw(rng: &mut fastrand::Rng) -> Self {
        let count = match rng.u32(..100) {
            0..3 => rng.usize(12..=20),
            3..20 => rng.usize(6..=11),
            _ => rng.usize(3..=5),
        };
        let mut some = |most: u32| if rng.bool() { rng.u32(1..=most) } else { 0 };
        let faults = Faults {
            commit_unknown: some(20),
            commit_refused: some(15),
            commit_slow: some(15),
            publish_unconfirmed: some(20),
            publish_slow: some(30),
            subscription_lost: some(6),
            request_lost: some(250),
            answer_lost: some(200),
            request_doubled: some(150),
            request_refused: some(30),
            request_slow: some(200),
            strays: some(60),
            echoes: some(60),
            sudden_death: some(2),
        };
        let blows = Blows {
            crash: some(40),
            restart: some(30),
            pause: some(40),
            partition: some(40),
            unroutable: some(20),
            clock_step: some(30),
            restore: some(6),
            job: some(40),
            poison: some(20),
        };
        let plain_worlds = rng.u32(..3) == 0;
        let shaky_worlds = blows.clock_step > 0 && rng.u32(..3) == 0;
        let damages = count <= 5 && rng.u32(..3) == 0;
        let mut servers: Vec<Make> =
            (0..count).map(|n| Make::draw(rng, n, count, plain_worlds, shaky_worlds)).collect();
        if damages {
            servers.iter_mut().for_each(|make| make.users = make.users.max(2));
        }
        let storm_ms = rng.u64(STORMS_MS);
        Self { servers, storm_ms, faults, blows, embedded: rng.bool(), reorders: rng.bool(), damages }
    }
}

impl Make {
    fn draw(rng: &mut fastrand::Rng, n: usize, count: usize, plain_worlds: bool, shaky_worlds: bool) -> Self {
        let accepts = [ListAccept::Reciprocal, ListAccept::Ask, ListAccept::Everyone];
        let processes = if count > 11 { 1 } else { rng.usize(1..=2) };
        Self {
            name: ServerName::parse(&format!("s{n}.example")).unwrap(),
            // The first two always speak rollcall to each other.
            plain: plain_worlds && n >= 2 && rng.u32(..3) == 0,
            accept: accepts[rng.usize(..3)],
            symmetric: rng.u32(..4) > 0,
            partitions: if count > 5 { 1 } else { rng.u16(1..=2) },
            processes,
            ingests: rng.usize(1..=processes),
            users: rng.usize(1..=3),
            offset_ms: if rng.bool() { 0 } else { rng.i64(-FAR_MS..=FAR_MS) },
            shaky: shaky_worlds && rng.bool(),
        }
    }

    pub fn config(&self) -> Config {
        let mut config = CONFIG.clone();
        config.server_name = self.name.clone();
        config.partitions = self.partitions;
        config.list.accept = self.accept;
        config.list.symmetric = self.symmetric;
        config
    }
}

/// Short times, so that much happens in a minute. Read once: it takes longer than a server's minute.
static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = format!(
        r#"
server_name = "s.example"
data_dir = "/nowhere"
batch.window = "{WINDOW_MS}ms"
batch.hold_max = "{HOLD_MAX_MS}ms"
federation.resend = "8s"
federation.backoff_min = "500ms"
federation.backoff_max = "4s"
watchdog.short = "{SHORT_MS}ms"
watchdog.long = "{LONG_MS}ms"
watchdog.give_up = "30s"
presence.idle_after = "10s"
presence.offline_after = "{OFFLINE_AFTER_MS}ms"
presence.settle = "1s"
presence.activity_granularity = "10s"
presence.repeat_within = "{REPEAT_MS}ms"
presence.repeats = 1
clients.window = "500ms"
clients.linger = "{LINGER_MS}ms"
worker.lease = "6s"
worker.run_linger = "2ms"
"#
    );
    Config::from_toml(&text).unwrap_or_else(|errors| panic!("{errors}"))
});
