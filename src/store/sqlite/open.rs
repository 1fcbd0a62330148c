//! Opening the file: the lock, the options and their reasons, the schema.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Error, SqlSafeStr};

use super::Mode;
use super::bus;
use crate::store::StoreError;

/// Readers at once: they only wait for each other, never for the writer.
const READERS: u32 = 4;
/// What is made here is for its owner alone: it holds statuses, lists and permissions.
const PRIVATE_FOLDER: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;

/// Takes the lock that says "this process alone works on this file"; the operating system returns it at the process's end,
/// however that comes.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let beside = PathBuf::from(format!("{}.lock", path.display()));
    if let Some(folder) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(folder);
        made.map_err(|error| unusable(path, &error))?;
    }
    let file = private().create(true).truncate(false).open(&beside).map_err(|error| unusable(&beside, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(format!(
            "another process works on {}: a SQLite store takes one process with workers at a time",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(unusable(&beside, &error)),
    }
}

/// Opens the writer's connection and brings the schema up to date, or, as a guest, checks that there is one.
pub(super) async fn writer(path: &Path, mode: Mode) -> Result<SqliteConnection, StoreError> {
    match mode {
        Mode::Owner => make(path)?,
        Mode::Guest => find(path)?,
    }
    let options = options(path)
        .create_if_missing(mode == Mode::Owner)
        .journal_mode(SqliteJournalMode::Wal)
        // A confirm means that the disk has it.
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", "-65536")
        // 16 MiB of log between checkpoints: pages that change often are written back once.
        .pragma("wal_autocheckpoint", "4000")
        // Those of every size, and the rest.
        .statement_cache_capacity(256)
        // Enough for several of one group's statements: the writer's task never waits to hand the next one over.
        .command_buffer_size(64);
    let mut connection = options.connect().await.map_err(|error| refusal(path, &error))?;
    check_ours(path, &mut connection, mode).await?;
    if mode == Mode::Owner {
        migrator().run(&mut connection).await.map_err(|error| unusable(path, &error))?;
        begin_unclean(&mut connection).await.map_err(|error| refusal(path, &error))?;
    }
    Ok(connection)
}

/// Makes an empty database, if there is none: SQLite would let everybody read it, and gives its log the database's own mode. A file
/// that is there is not even opened, because closing it again would take the locks that SQLite holds within this process.
fn make(path: &Path) -> Result<(), StoreError> {
    match private().create_new(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(unusable(path, &error)),
        _ => Ok(()),
    }
}

fn find(path: &Path) -> Result<(), StoreError> {
    match fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing(path)),
        Err(error) => Err(unusable(path, &error)),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(PRIVATE_FILE);
    options
}

/// Connections for reading; opened when they are first needed.
pub(super) fn readers(path: &Path) -> SqlitePool {
    let options = options(path).pragma("query_only", "ON").pragma("cache_size", "-16384");
    SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(options)
}

/// Records a clean end: nothing was delivered that the rows do not know of.
pub(super) async fn mark_clean(connection: &mut SqliteConnection) -> Result<(), Error> {
    sqlx::query("INSERT OR REPLACE INTO meta (key, value) VALUES ('clean', 1)").execute(&mut *connection).await?;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(connection).await.map(drop)
}

/// SQLite's primary result code.
pub(super) fn code(error: &Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        // Nothing refers to anything: rows are opaque.
        .foreign_keys(false)
        .busy_timeout(Duration::from_secs(5))
        .pragma("temp_store", "MEMORY")
        // Every statement would be formatted for a log that nobody reads.
        .disable_statement_logging()
}

fn migrator() -> Migrator {
    let migration = |version, name: &'static str, text: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        migration(1, "store", include_str!("../migrations/0001_store.sql")),
        migration(2, "outbox", include_str!("../migrations/0002_outbox.sql")),
    ])
}

async fn check_ours(path: &Path, connection: &mut SqliteConnection, mode: Mode) -> Result<(), StoreError> {
    let tables: (u32, u32) = sqlx::query_as(
        "SELECT COUNT(*), COUNT(*) FILTER (WHERE name IN ('_sqlx_migrations', 'meta', 'partitions', 'state', 'bus'))
         FROM sqlite_master WHERE type = 'table'",
    )
    .fetch_one(connection)
    .await
    .map_err(|error| refusal(path, &error))?;
    match tables {
        (1.., 5) => Ok(()),
        // The table of migrations alone: the very first start was cut short.
        (0, _) | (1, 1) if mode == Mode::Owner => Ok(()),
        (0, _) => Err(missing(path)),
        _ => Err(unusable(path, &"this database was not made by rollcall")),
    }
}

/// Reads how the last process ended, and assumes the worst of this one until it says otherwise, in one transaction.
async fn begin_unclean(connection: &mut SqliteConnection) -> Result<(), Error> {
    let mut transaction = connection.begin().await?;
    let clean: Option<i64> =
        sqlx::query_scalar("INSERT INTO meta (key, value) VALUES ('clean', 0) ON CONFLICT DO NOTHING RETURNING 1")
            .fetch_optional(&mut *transaction)
            .await?;
    if clean.is_none() {
        let ended: i64 =
            sqlx::query_scalar("SELECT value FROM meta WHERE key = 'clean'").fetch_one(&mut *transaction).await?;
        if ended == 0 {
            bus::count_lost_deliveries(&mut transaction).await?;
        }
        sqlx::query("UPDATE meta SET value = 0 WHERE key = 'clean'").execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

/// CORRUPT, CANTOPEN and NOTADB need a person; anything else may pass.
fn refusal(path: &Path, error: &Error) -> StoreError {
    match code(error) {
        Some(14) => unusable(path, &"it cannot be opened; may this user read and write it, and its folder?"),
        Some(11 | 26) => unusable(path, error),
        _ => StoreError::Unavailable(format!("{}: {error}", path.display())),
    }
}

fn missing(path: &Path) -> StoreError {
    let question = "has `rollcall serve` run with this configuration, workers included?";
    StoreError::Unavailable(format!(
        "there is no store at {} yet: {question} (data_dir, or store.url, says where it is)",
        path.display()
    ))
}

/// A person has to act; `why` goes on after "cannot use … as the store: ".
pub(super) fn unusable(path: &Path, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unusable(format!("store.url: cannot use {} as the store: {why}", path.display()))
}
