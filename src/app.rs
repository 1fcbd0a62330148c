//! Puts the parts together: what `serve` runs.

use anyhow::{Result, bail};

use crate::config::{Config, Roles};

/// Runs the pipeline's stages until a signal.
///
/// # Errors
/// What keeps it from starting, or the first failure of a stage.
pub async fn serve(config: Config, roles: Roles) -> Result<()> {
    bail!("cannot run {roles} for {}: the stages are not wired up in this build", config.server_name)
}
