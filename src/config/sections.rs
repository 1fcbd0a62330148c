//! From keys to [`Config`]: bounds of every key, then what must hold between keys.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::value::Value;

use super::federation::federation;
use super::layers::{self, Environment};
use super::reader::{self, Reader};
use super::values::{self, check_cron, cover_password};
use super::{
    BatchConfig, BusConfig, BusTls, BusUrl, ClientsConfig, Config, ConfigError, ConfigErrors, FederationVia,
    ListAccept, ListConfig, ListShared, LogConfig, OpsConfig, PresenceConfig, ScheduleConfig, StoreConfig,
    WatchdogConfig, WorkerConfig, edge,
};
use crate::model::ServerName;

/// What one transaction can carry: 100 EDUs of 256 entries.
const ENTRIES_MAX: usize = 25_600;

impl Config {
    /// Reads `file` (if any) over the defaults, and the environment over both.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigErrors> {
        let environment = Environment::of_process();
        let text = file.map(layers::read).transpose()?;
        let name = file.map(|path| path.display().to_string());
        let config = build(name.as_deref().zip(text.as_deref()), &environment)?;
        Ok(Self { file: file.map(Into::into), ..config })
    }

    /// Reads `text` as a file over the defaults, without looking at the environment; so it must set `data_dir`.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn from_toml(text: &str) -> Result<Self, ConfigErrors> {
        build(Some(("given as text", text)), &Environment::default())
    }
}

pub(super) fn build(file: Option<(&str, &str)>, environment: &Environment) -> Result<Config, ConfigErrors> {
    let mut errors = Vec::new();
    let figment = layers::stack(file, environment, &mut errors);
    let config = read(figment, environment, &mut errors);
    if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
}

fn read(figment: Figment, environment: &Environment, errors: &mut Vec<ConfigError>) -> Config {
    let mut reader = Reader::new(figment, errors);
    let config = config(&mut reader, environment);
    check_combinations(&mut reader, &config);
    config
}

pub(super) fn config(r: &mut Reader<'_>, environment: &Environment) -> Config {
    let data_dir = data_dir(r, environment);
    Config {
        server_name: r.parsed("server_name", |text| {
            ServerName::parse(text).map_err(|error| format!("is no server name: {}", error.reason))
        }),
        signing_key: r.path("signing_key"),
        partitions: r.number("partitions", 1..=1024),
        bus: bus(r),
        store: store(r, &data_dir),
        edge: edge::edge(r),
        homeserver: edge::homeserver(r),
        federation: federation(r),
        batch: batch(r),
        presence: presence(r),
        watchdog: watchdog(r),
        list: list(r),
        clients: ClientsConfig {
            window: r.duration("clients.window", ("10ms", "1m")),
            linger: r.duration("clients.linger", ("0ms", "1h")),
        },
        worker: worker(r),
        ops: OpsConfig {
            listen: r.listener("ops.listen"),
            drain_timeout: r.duration("ops.drain_timeout", ("1s", "10m")),
        },
        schedule: ScheduleConfig {
            beat: cron(r, "schedule.beat"),
            compact: cron(r, "schedule.compact"),
            expire: cron(r, "schedule.expire"),
            audit: cron(r, "schedule.audit"),
            probe: cron(r, "schedule.probe"),
            statistics: cron(r, "schedule.statistics"),
        },
        log: LogConfig { json: r.choice("log.format", &[("text", false), ("json", true)]), filter: filter(r) },
        file: None,
        data_dir,
    }
}

fn data_dir(r: &mut Reader<'_>, environment: &Environment) -> PathBuf {
    let home = environment.data_home.as_ref().map(|home| home.join("rollcall"));
    match r.path("data_dir").or(home) {
        Some(path) => path,
        None => {
            r.conflict("data_dir", "must be set, because neither XDG_DATA_HOME nor HOME is");
            PathBuf::new()
        }
    }
}

fn bus(r: &mut Reader<'_>) -> BusConfig {
    BusConfig {
        url: r.value_or_file(
            ("bus.url", "bus.url_file"),
            |value| values::bus_url(reader::as_texts(value)?),
            show_bus_url,
        ),
        tls: bus_tls(r),
        prefix: r.parsed("bus.prefix", check_prefix),
        confirm_timeout: r.duration("bus.confirm_timeout", ("100ms", "5m")),
        confirm_window: r.number("bus.confirm_window", 1..=10_000),
        prefetch: r.number("bus.prefetch", 2..=2000),
    }
}

fn bus_tls(r: &mut Reader<'_>) -> BusTls {
    let (ca, cert, key) = (r.path("bus.tls.ca"), r.path("bus.tls.cert"), r.path("bus.tls.key"));
    if cert.is_some() != key.is_some() {
        r.conflict("bus.tls.cert", "must be set together with bus.tls.key");
    }
    BusTls { ca, identity: cert.zip(key) }
}

fn show_bus_url(value: &Value) -> String {
    let covered: Vec<_> = reader::as_texts(value).unwrap_or_default().iter().map(|url| cover_password(url)).collect();
    format!("{:?}", covered.join(", "))
}

fn check_prefix(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.len() > 64 || !text.chars().all(plain) {
        return Err("must be at most 64 of the characters a-z A-Z 0-9 . _ -".into());
    }
    if text.starts_with("amq.") {
        return Err("must not start with \"amq.\", which the broker keeps for itself".into());
    }
    Ok(text.into())
}

fn store(r: &mut Reader<'_>, data_dir: &Path) -> StoreConfig {
    let path = r.value_shown(
        "store.url",
        |value| sqlite_path(reader::as_text(value)?),
        |value| format!("{:?}", value.as_str().map(cover_store).unwrap_or_default()),
    );
    StoreConfig { path: path.unwrap_or_else(|| data_dir.join("rollcall.db")) }
}

fn cover_store(url: &str) -> String {
    if url.starts_with("sqlite:") { url.into() } else { cover_password(url) }
}

/// The file; `None`: the usual one.
fn sqlite_path(url: &str) -> Result<Option<PathBuf>, String> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Err("PostgreSQL is not supported in this version: use \"sqlite:<file>\"".into());
    }
    let path = url.strip_prefix("sqlite:").ok_or("must be \"sqlite:<file>\"")?;
    match path.strip_prefix("//").unwrap_or(path) {
        "" => Ok(None),
        ":memory:" => Err("must be a file: what is confirmed has to survive the process".into()),
        path => Ok(Some(path.into())),
    }
}

/// Checks an `http(s)://host[:port]` without anything that a path could be confused with; a trailing slash is cut.
pub(super) fn base_url(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let url: reqwest::Url = text.parse().map_err(|error| format!("is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("is not an http:// or https:// address".into());
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err("must be scheme, host, port and path only".into());
    }
    Ok(text.into())
}

fn batch(r: &mut Reader<'_>) -> BatchConfig {
    BatchConfig {
        window: r.duration("batch.window", ("10ms", "10m")),
        max_entries: r.number("batch.max_entries", 1..=ENTRIES_MAX),
        max_bytes: r.size("batch.max_bytes", 1 << 10..=5 << 20),
        hold_max: r.duration("batch.hold_max", ("10ms", "10m")),
    }
}

fn watchdog(r: &mut Reader<'_>) -> WatchdogConfig {
    WatchdogConfig {
        short: r.duration("watchdog.short", ("100ms", "1h")),
        long: r.duration("watchdog.long", ("200ms", "24h")),
        tries: r.number("watchdog.tries", 1..=100),
        give_up: r.duration("watchdog.give_up", ("1s", "24h")),
    }
}

fn list(r: &mut Reader<'_>) -> ListConfig {
    let accept = [("ask", ListAccept::Ask), ("reciprocal", ListAccept::Reciprocal), ("everyone", ListAccept::Everyone)];
    ListConfig {
        accept: r.choice("list.accept", &accept),
        symmetric: r.flag("list.symmetric"),
        shared: r.choice("list.shared", &[("nobody", ListShared::Nobody), ("local", ListShared::Local)]),
    }
}

fn presence(r: &mut Reader<'_>) -> PresenceConfig {
    PresenceConfig {
        idle_after: r.duration("presence.idle_after", ("100ms", "24h")),
        offline_after: r.duration("presence.offline_after", ("100ms", "24h")),
        settle: r.duration("presence.settle", ("0ms", "10m")),
        activity_granularity: r.duration("presence.activity_granularity", ("10ms", "1h")),
        repeat_within: r.duration("presence.repeat_within", ("0ms", "1m")),
        repeats: r.number("presence.repeats", 1..=1_000_000),
    }
}

fn worker(r: &mut Reader<'_>) -> WorkerConfig {
    WorkerConfig {
        lease: r.duration("worker.lease", ("1s", "10m")),
        run_max: r.number("worker.run_max", 1..=100_000),
        run_linger: r.duration("worker.run_linger", ("0ms", "1s")),
        pack_linger: r.duration("worker.pack_linger", ("0ms", "1s")),
    }
}

fn cron(r: &mut Reader<'_>, key: &'static str) -> String {
    r.parsed(key, |text| check_cron(text).map(|()| text.into()))
}

fn filter(r: &mut Reader<'_>) -> String {
    r.parsed("log.filter", |text| {
        tracing_subscriber::EnvFilter::try_new(text)
            .map(|_| text.into())
            .map_err(|error| format!("is not a tracing filter: {error}"))
    })
}

fn check_combinations(r: &mut Reader<'_>, config: &Config) {
    let batch = &config.batch;
    edge::check(r, config);
    if config.edge.listen == config.ops.listen && config.edge.listen.port() != 0 {
        r.conflict("ops.listen", "must differ from edge.listen");
    }
    if config.federation.backoff_max < config.federation.backoff_min {
        r.conflict("federation.backoff_max", "must not be below federation.backoff_min");
    }
    if config.federation.via == FederationVia::Edge && matches!(config.bus.url, BusUrl::Embedded) {
        r.conflict(
            "federation.via",
            "must be \"http\" while bus.url is \"embedded:\": nobody else can take what lies there",
        );
    }
    if batch.hold_max < batch.window {
        r.conflict("batch.hold_max", "must not be below batch.window");
    }
    if config.watchdog.long < config.watchdog.short * 2 {
        r.conflict("watchdog.long", "must be at least twice watchdog.short");
    }
}
