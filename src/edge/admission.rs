//! Whether there is room for more: past a bound of lag or depth, writes are refused while the backlog drains.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::MatrixError;
use crate::bus::SharedBus;
use crate::clock::SharedClock;
use crate::reader::Reader;

/// How long one look at the backlog is good for.
const FRESH: Duration = Duration::from_secs(1);
/// What a refused request is told to wait.
const RETRY: Duration = Duration::from_secs(5);

/// Lets writes in, or not.
pub(crate) struct Admission {
    pub(crate) reader: Reader,
    pub(crate) bus: SharedBus,
    pub(crate) clock: SharedClock,
    pub(crate) lag_max: Duration,
    /// Waiting messages, over all queues; `None`: unbounded, the broker has bounds of its own.
    pub(crate) depth_max: Option<u64>,
    pub(crate) last: Mutex<Option<(Instant, Result<(), MatrixError>)>>,
}

impl Admission {
    /// 503 while there is too much to do. Looks at most once a second.
    pub(crate) async fn admit(&self) -> Result<(), MatrixError> {
        let mut last = self.last.lock().await;
        if let Some((at, verdict)) = &*last
            && at.elapsed() < FRESH
        {
            return verdict.clone();
        }
        let verdict = self.look().await;
        *last = Some((Instant::now(), verdict.clone()));
        verdict
    }

    async fn look(&self) -> Result<(), MatrixError> {
        let lag = self.reader.lag_ms(self.clock.now()).await.map_err(|error| away("store", &error))?;
        if Duration::from_millis(lag) > self.lag_max {
            tracing::warn!(lag_ms = lag, "refusing writes: workers lag");
            return Err(MatrixError::busy(format!("workers lag {lag} ms behind"), RETRY));
        }
        let Some(max) = self.depth_max else { return Ok(()) };
        let depths = self.bus.depths().await.map_err(|error| away("bus", &error))?;
        let waiting: u64 = depths.iter().filter(|queue| !queue.name.ends_with("dead")).map(|queue| queue.ready).sum();
        if waiting > max {
            tracing::warn!(waiting, "refusing writes: queues are full");
            return Err(MatrixError::busy(format!("{waiting} messages wait, at most {max} may"), RETRY));
        }
        Ok(())
    }
}

fn away(what: &str, error: &dyn std::fmt::Display) -> MatrixError {
    tracing::warn!(%error, "cannot look at the backlog");
    MatrixError::unavailable(format!("the {what} does not answer"), RETRY)
}
