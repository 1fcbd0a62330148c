//! What a server holds for its open windows, asked of its own operations listener.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Client;
use tokio_util::sync::CancellationToken;

use crate::ops::status::Status;
use crate::outbound::http::read_answer;

/// Servers look at their queues once a second: asking more often tells no more.
const PERIOD: Duration = Duration::from_secs(1);

/// The messages on the batching exchange's queues.
pub(super) struct Held {
    client: Client,
    url: String,
    latest: AtomicU64,
}

impl Held {
    /// By the server whose operations listener is `ops`.
    pub(super) fn new(client: Client, ops: SocketAddr) -> Self {
        Self { client, url: format!("http://{ops}/status"), latest: AtomicU64::new(0) }
    }

    /// As of the last look.
    pub(super) fn latest(&self) -> u64 {
        self.latest.load(Ordering::Relaxed)
    }

    /// Looks until `stop`. A look that fails leaves the last one.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) -> Result<(), Infallible> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(PERIOD) => {}
            }
            match self.look().await {
                Ok(held) => self.latest.store(held, Ordering::Relaxed),
                Err(error) => tracing::debug!(%error, "cannot look at the queues"),
            }
        }
    }

    async fn look(&self) -> anyhow::Result<u64> {
        let answer = self.client.get(&self.url).send().await?;
        let status: Status = serde_json::from_slice(&read_answer(answer).await?)?;
        let batches = status.queues.iter().filter(|queue| queue.name.contains(".batch."));
        Ok(batches.map(|queue| queue.ready + queue.unacked.unwrap_or(0)).sum())
    }
}
