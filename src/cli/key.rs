//! `rollcall key`: signing keys in Synapse's format.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use clap::Subcommand;
use rollcall::config::Config;

use super::out;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a signing key; an existing file is never overwritten
    Generate {
        /// Where to; by default where `serve` looks for it
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

pub(super) fn run(command: &Command, config: &Config) -> Result<()> {
    let Command::Generate { file } = command;
    let path = file.clone().unwrap_or_else(|| config.signing_key_path());
    let version = write(&path)?;
    out::line(&format!("ed25519:{version} is in {}", path.display()))
}

/// Writes a new key for its owner's eyes only, and returns its version.
fn write(path: &Path) -> Result<String> {
    let mut random = [0; 34];
    let provider = rustls::crypto::ring::default_provider();
    provider.secure_random.fill(&mut random).map_err(|_| anyhow!("the system has no randomness to give"))?;
    let (seed, suffix) = random.split_at(32);
    let version = format!("a_{:02x}{:02x}", suffix[0], suffix[1]);
    let line = format!("ed25519 {version} {}\n", STANDARD_NO_PAD.encode(seed));
    create(path, line.as_bytes()).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(version)
}

fn create(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    Ok(file.sync_all()?)
}
