//! Looks at what the configuration names before anything is started: files that are read, places that are written. Makes nothing, and
//! finds every mistake in one go, each by its key.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::path::Path;

use crate::config::{BusUrl, Config, ConfigError, ConfigErrors, Roles};
use crate::outbound::clients::read_roots;
use crate::outbound::keys::SigningKeys;
use crate::outbound::resolve::Configured;
use crate::{edge, pem};

/// How a SQLite database begins (SQLite's file format, section 1.3).
const SQLITE: &[u8; 16] = b"SQLite format 3\0";

/// Looks with the eyes of the user who runs it, at what a process with these roles needs.
///
/// # Errors
/// Every mistake at once.
pub fn check(config: &Config, roles: Roles) -> Result<(), ConfigErrors> {
    let mut found = Mistakes(Vec::new());
    found.note("bus.url", fit(config, roles));
    found.look_at_bus_tls(config);
    for mistake in config.edge.tls.iter().filter(|_| roles.edge).flat_map(edge::tls_mistakes) {
        found.0.push(ConfigError::of(mistake.key, mistake.reason));
    }
    found.look_at_peers(config);
    found.look_at_places(config, roles);
    found.into_result()
}

/// Whether these roles can work on the queues that are configured.
///
/// # Errors
/// That they cannot.
pub fn check_roles(config: &Config, roles: Roles) -> Result<(), ConfigErrors> {
    let mut found = Mistakes(Vec::new());
    found.note("bus.url", fit(config, roles));
    found.into_result()
}

/// Folders that the first start makes.
pub fn folders_to_make(config: &Config) -> Vec<&Path> {
    let mut folders = vec![&*config.data_dir];
    folders.extend(config.store.path.parent().filter(|folder| *folder != config.data_dir));
    folders.retain(|folder| !here(folder).exists());
    folders
}

fn fit(config: &Config, roles: Roles) -> Result<(), &'static str> {
    if matches!(config.bus.url, BusUrl::Embedded) && roles != Roles::ALL {
        return Err("\"embedded:\" keeps its queues in one process: --roles must name all roles, or bus.url a broker");
    }
    Ok(())
}

struct Mistakes(Vec<ConfigError>);

impl Mistakes {
    fn note<T>(&mut self, key: &str, result: Result<T, impl Display>) {
        self.0.extend(result.err().map(|reason| ConfigError::of(key, reason)));
    }

    fn into_result(self) -> Result<(), ConfigErrors> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigErrors(self.0)) }
    }

    fn look_at_bus_tls(&mut self, config: &Config) {
        let tls = &config.bus.tls;
        let certificates = |path: &Path| pem::read(path).and_then(|text| pem::certificates(&text, path));
        if let (Some(path), BusUrl::Amqp(_)) = (&tls.ca, &config.bus.url) {
            self.note("bus.tls.ca", certificates(path));
        }
        if let (Some((cert, key)), BusUrl::Amqp(_)) = (&tls.identity, &config.bus.url) {
            self.note("bus.tls.cert", certificates(cert));
            self.note("bus.tls.key", pem::read(key).and_then(|text| pem::private_key(&text, key)));
        }
    }

    fn look_at_peers(&mut self, config: &Config) {
        for path in &config.federation.extra_roots {
            self.note("federation.extra_roots", read_roots(path));
        }
        self.note("federation.resolve", Configured::new(&config.federation.resolve));
    }

    fn look_at_places(&mut self, config: &Config, roles: Roles) {
        let (data, store) = (&*config.data_dir, &*config.store.path);
        let key = config.signing_key_path();
        let makes_key = config.signing_key.is_none() && !key.exists();
        if !makes_key {
            self.note("signing_key", SigningKeys::load(&key));
        }
        let folder = store.parent().unwrap_or(data);
        if makes_key || roles.worker && folder == data {
            self.note("data_dir", takes_files(data));
        }
        if roles.worker && folder != data {
            self.note("store.url", takes_files(folder));
        }
        if store.exists() {
            self.note("store.url", is_database(store));
        }
    }
}

/// Whether files can be made in `folder`, which is made if need be. An unnamed file finds out about every reason why not, and is seen
/// by nobody.
fn takes_files(folder: &Path) -> Result<(), String> {
    let there = folder.ancestors().map(here).find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    match tempfile::tempfile_in(there) {
        Ok(_) => Ok(()),
        // Its own words name the file that nobody asked for.
        Err(error) => Err(format!("cannot make files in {}: {}", there.display(), error.kind())),
    }
}

/// A relative path without a folder is where the process is.
fn here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// Whether an existing file may be the store.
fn is_database(path: &Path) -> Result<(), String> {
    let failed = |error| format!("cannot open {}: {error}", path.display());
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!("{} is not a regular file", path.display()));
    }
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    let mut head = Vec::new();
    file.take(SQLITE.len() as u64).read_to_end(&mut head).map_err(failed)?;
    // An empty one becomes a database.
    if head.is_empty() || head == SQLITE { Ok(()) } else { Err(format!("{} is no SQLite database", path.display())) }
}
