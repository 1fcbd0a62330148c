//! Publishing until it is confirmed.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::bus::{Exchange, Outgoing, PublishError, SharedBus};
use crate::wire::reject::{Reject, class};

use super::pack::{ORIGIN, dead_letter};

/// Why messages are not confirmed.
#[derive(Debug)]
pub(super) enum GaveUp {
    /// The bus was shut down.
    Closed,
    /// It did not work, and the process is to end: what was not acknowledged comes again.
    Stopped,
}

/// Publishes all, again and again the same bytes in the same order, until every message is confirmed. A message that no queue
/// takes becomes a dead letter.
pub(super) async fn confirm(bus: &SharedBus, messages: Vec<Outgoing>, stop: &CancellationToken) -> Result<(), GaveUp> {
    if messages.is_empty() {
        return Ok(());
    }
    let mut backoff = Backoff::default();
    loop {
        match bus.publish(messages.clone()).await {
            Ok(()) => return Ok(()),
            Err(PublishError::Closed) => return Err(GaveUp::Closed),
            Err(PublishError::Unroutable { .. }) => return confirm_singly(bus, messages, stop).await,
            Err(error) => tracing::warn!(%error, messages = messages.len(), "ingest: publishing again"),
        }
        backoff.pause_unless_stopped(stop).await?;
    }
}

/// One of these has no queue, and the error does not tell what became of the others.
async fn confirm_singly(bus: &SharedBus, messages: Vec<Outgoing>, stop: &CancellationToken) -> Result<(), GaveUp> {
    for message in messages {
        confirm_one(bus, message, stop).await?;
    }
    Ok(())
}

async fn confirm_one(bus: &SharedBus, mut message: Outgoing, stop: &CancellationToken) -> Result<(), GaveUp> {
    let mut backoff = Backoff::default();
    loop {
        match bus.publish(vec![message.clone()]).await {
            Ok(()) => return Ok(()),
            Err(PublishError::Closed) => return Err(GaveUp::Closed),
            Err(error @ PublishError::Unroutable { .. }) if message.exchange != Exchange::Dead => {
                tracing::error!(%error, "ingest: kept as a dead letter");
                message = undeliverable(&message, &error);
                continue;
            }
            Err(error) => tracing::warn!(%error, "ingest: publishing again"),
        }
        backoff.pause_unless_stopped(stop).await?;
    }
}

fn undeliverable(message: &Outgoing, error: &PublishError) -> Outgoing {
    let reject = Reject { body: message.body.clone(), reason: error.to_string(), class: class::UNROUTABLE };
    dead_letter(reject, ORIGIN, message.headers.trace)
}

/// Growing pauses with jitter, 100 ms to 5 s.
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Duration::from_millis(100))
    }
}

impl Backoff {
    const MAX: Duration = Duration::from_secs(5);

    /// Waits, but not past `stop`.
    pub(super) async fn pause(&mut self, stop: &CancellationToken) {
        let pause = self.0.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.0 = (self.0 * 2).min(Self::MAX);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    async fn pause_unless_stopped(&mut self, stop: &CancellationToken) -> Result<(), GaveUp> {
        self.pause(stop).await;
        if stop.is_cancelled() { Err(GaveUp::Stopped) } else { Ok(()) }
    }
}
