//! Puts the parts together: what `serve` runs and what the tools open.

use anyhow::{Result, bail};

use crate::bus::SharedBus;
use crate::config::{Config, Roles};

/// Runs the pipeline's stages until a signal.
///
/// # Errors
/// What keeps it from starting, or the first failure of a stage.
pub async fn serve(config: Config, roles: Roles) -> Result<()> {
    bail!("cannot run {roles} for {}: the stages are not wired up in this build", config.server_name)
}

/// Opens the bus beside a running deployment: for tools, which own no partition.
///
/// # Errors
/// When the broker or the store cannot be reached.
pub async fn open_bus(config: &Config) -> Result<SharedBus> {
    bail!("cannot open {:?}: no bus is wired up in this build", config.bus.url)
}
