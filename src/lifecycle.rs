//! Tasks and their end. One owner of shutdown: the first signal drains, the second or a time-out stops hard.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// Starts a named task: the one lawful `tokio::spawn`. Its panic is logged with the name.
#[expect(clippy::disallowed_methods, reason = "the one lawful spawn")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(tracing::info_span!("task", name)))
}
