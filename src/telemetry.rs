//! Logs to stderr: text for people, JSON for collectors.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogConfig;

/// What says too much: at level `trace` which frames a connection took with it when it broke, of which one may hold the broker's password;
/// at `warn` each message that the broker returned, whole.
const MUTED: [&str; 2] = ["lapin::frames=off", "lapin::returned_messages=off"];

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start logging: {0}")]
pub struct TelemetryError(String);

/// Starts logging for the whole process. Call it once.
///
/// # Errors
/// When logging was started before, or the filter does not parse (a checked configuration's does).
pub fn start(log: &LogConfig) -> Result<(), TelemetryError> {
    let builder = tracing_subscriber::fmt().with_env_filter(filter(&log.filter)?).with_writer(stderr);
    let started = if log.json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish().try_init()
    } else {
        builder.with_ansi(stderr().is_terminal()).with_target(false).finish().try_init()
    };
    started.map_err(|error| TelemetryError(error.to_string()))
}

fn filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    let filter = EnvFilter::try_new(text).map_err(|error| TelemetryError(error.to_string()))?;
    let muted = MUTED.map(|text| text.parse().expect("a directive: every start of the process reads it"));
    Ok(muted.into_iter().fold(filter, EnvFilter::add_directive))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is logged to its clones.
    #[derive(Clone, Default)]
    pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// lapin says at `warn` what came back, payload and all.
    #[test]
    fn messages_that_the_broker_returned_are_not_logged() {
        let log = Log::default();
        let writer = log.clone();
        let builder = tracing_subscriber::fmt().with_env_filter(filter("trace").unwrap()).with_ansi(false);
        tracing::subscriber::with_default(builder.with_writer(move || writer.clone()).finish(), || {
            tracing::warn!(target: "lapin::returned_messages", "what somebody said");
            tracing::trace!(target: "lapin::frames", "a password");
            tracing::warn!(target: "lapin::channel", "a fault");
        });
        let text = log.text();
        assert!(text.contains("a fault") && !text.contains("somebody") && !text.contains("password"), "{text}");
    }
}
