//! Logs to stderr: text for people, JSON for collectors.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogConfig;

/// At level `trace` it says which frames a connection took with it when it broke: one of them may hold the broker's password.
const MUTED: &str = "lapin::frames=off";

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start logging: {0}")]
pub struct TelemetryError(String);

/// Starts logging for the whole process. Call it once.
///
/// # Errors
/// When logging was started before, or the filter does not parse (a checked configuration's does).
pub fn start(log: &LogConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|error| TelemetryError(error.to_string()))?;
    let filter = filter.add_directive(MUTED.parse().expect("a directive: every start of the process reads it"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let started = if log.json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish().try_init()
    } else {
        builder.with_ansi(stderr().is_terminal()).with_target(false).finish().try_init()
    };
    started.map_err(|error| TelemetryError(error.to_string()))
}
