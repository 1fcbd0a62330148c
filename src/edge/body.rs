//! Request bodies: bounded one by one, in sum and in time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::MatrixError;

/// Of a body that is too long so many bytes more are read and thrown away: whoever is still sending when the connection is closed
/// gets an error of the network instead of the answer.
const DISCARD_MAX: usize = 16 << 20;
/// And for so long.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// What is answered when memory is short.
const RETRY: Duration = Duration::from_secs(1);
/// The unit in which bytes are counted.
const UNIT: usize = 1 << 10;
/// So many units are reserved at a time, as bytes arrive: who announces much and sends nothing takes no room.
const STEP: usize = 16;

/// Where bodies are held.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    budget: Budget,
    timeout: Duration,
}

/// So many bytes, shared by all who ask.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    all: usize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let all = bytes.div_ceil(UNIT);
        Self { units: Arc::new(Semaphore::new(all)), all }
    }

    /// Nothing yet, to be made larger.
    fn nothing(&self) -> OwnedSemaphorePermit {
        self.units.clone().try_acquire_many_owned(0).expect("nothing is always there")
    }

    /// Makes `share` one for `bytes`, and for what may come with the next reads. Whether so much is left.
    fn widen(&self, share: &mut OwnedSemaphorePermit, bytes: usize) -> bool {
        let missing = bytes.div_ceil(UNIT).saturating_sub(share.num_permits());
        if missing == 0 {
            return true;
        }
        let stepped = u32::try_from(missing.next_multiple_of(STEP)).unwrap_or(u32::MAX);
        let exactly = u32::try_from(missing).unwrap_or(u32::MAX);
        let more =
            [stepped, exactly].into_iter().find_map(|units| self.units.clone().try_acquire_many_owned(units).ok());
        more.map(|more| share.merge(more)).is_some()
    }

    /// A share of `bytes`, or all there is if that is less, as soon as it is free.
    pub(crate) async fn wait(&self, bytes: usize) -> OwnedSemaphorePermit {
        self.units.clone().acquire_many_owned(self.cost(bytes)).await.expect("the semaphore is never closed")
    }

    fn cost(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT).min(self.all)).unwrap_or(u32::MAX)
    }
}

/// A body, and its share of the budget for as long as it is held.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl Bodies {
    /// So many bytes at once, each body of which has `timeout` to arrive.
    pub(crate) fn new(bytes: usize, timeout: Duration) -> Self {
        Self { budget: Budget::new(bytes), timeout }
    }

    /// Reads a body of at most `max` bytes, as long as there is room for what has arrived.
    pub(crate) async fn read(&self, headers: &HeaderMap, body: Body, max: usize) -> Result<Held, MatrixError> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let expected: usize = announced.unwrap_or(max);
        let mut chunks = body.into_data_stream();
        if expected > max {
            discard(&mut chunks).await;
            return Err(MatrixError::too_large(max));
        }
        timeout(self.timeout, self.collect(&mut chunks, expected))
            .await
            .map_err(|_| MatrixError::bad_json("the body did not arrive in time"))?
    }

    async fn collect(&self, chunks: &mut BodyDataStream, max: usize) -> Result<Held, MatrixError> {
        let mut share = self.budget.nothing();
        let mut all = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| MatrixError::bad_json(format!("the body broke off: {error}")))?;
            let length = all.len() + chunk.len();
            if length > max {
                discard(chunks).await;
                return Err(MatrixError::too_large(max));
            }
            if !self.budget.widen(&mut share, length) {
                drop((share, all));
                discard(chunks).await;
                return Err(MatrixError::busy("too much at once", RETRY));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(Held { bytes: all.freeze(), _share: share })
    }
}

/// Lets the rest go by, within bounds.
async fn discard(chunks: &mut BodyDataStream) {
    let going_by = async {
        let mut left = DISCARD_MAX;
        while let Some(Ok(chunk)) = chunks.next().await {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _out_of_time = timeout(DISCARD_TIMEOUT, going_by).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_beyond_its_bound_or_the_budget_is_refused() {
        let bodies = Bodies::new(4 << 10, Duration::from_secs(30));
        let none = HeaderMap::new();
        let held = bodies.read(&none, Body::from("abc"), 3).await.unwrap();
        assert_eq!(held.bytes, "abc");
        let error = bodies.read(&none, Body::from("abcd"), 3).await.unwrap_err();
        assert_eq!(error, MatrixError::too_large(3));
        let whole = || Body::from(vec![b'a'; 4 << 10]);
        let error = bodies.read(&none, whole(), 4 << 10).await.unwrap_err();
        assert_eq!(error, MatrixError::busy("too much at once", RETRY));
        drop(held);
        assert!(bodies.read(&none, whole(), 4 << 10).await.is_ok());
    }

    /// Whoever only announces a body, or is slow to send it, keeps nobody else out.
    #[tokio::test]
    async fn what_is_announced_and_does_not_arrive_takes_no_room() {
        let bodies = Bodies::new(64 << 10, Duration::from_secs(30));
        let announced = HeaderMap::from_iter([(header::CONTENT_LENGTH, "65536".parse().unwrap())]);
        let mut slow: Vec<_> = (0..3)
            .map(|_| {
                let first = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]);
                let body = Body::from_stream(first.chain(futures_util::stream::pending()));
                Box::pin(bodies.read(&announced, body, 64 << 10))
            })
            .collect();
        for reading in &mut slow {
            assert!(futures_util::poll!(reading).is_pending());
        }
        let prompt = bodies.read(&HeaderMap::new(), Body::from(vec![b'a'; 16 << 10]), 64 << 10).await.unwrap();
        assert_eq!(prompt.bytes.len(), 16 << 10);
    }
}
