//! Request bodies: bounded one by one, in sum and in time.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::MatrixError;
use super::inflate::{inflate, inflated_len};
use super::json::Fields;
use super::shares::Shares;

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

/// Where bodies are held, in shares by address or by user.
pub(crate) struct Bodies<K = IpAddr> {
    budget: Budget,
    /// What each may have of it.
    shares: Shares<K>,
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

    /// A share of `bytes`, or all there is if that is less, as soon as it is free.
    pub(crate) async fn wait(&self, bytes: usize) -> OwnedSemaphorePermit {
        self.units.clone().acquire_many_owned(self.cost(bytes)).await.expect("the semaphore is never closed")
    }

    /// So many bytes, if they are free.
    pub(crate) fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.units.clone().try_acquire_many_owned(self.cost(bytes)).ok()
    }

    fn cost(&self, bytes: usize) -> u32 {
        units(bytes).min(u32::try_from(self.all).unwrap_or(u32::MAX))
    }
}

/// As how many units so many bytes count.
pub(crate) fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// A body, and its room for as long as it is held.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    room: Room,
}

impl Held {
    /// What a client's body says. Body and tree are gone with the answer of `read`: what comes after may take its time.
    pub(crate) fn take_apart<T>(self, read: impl FnOnce(&Fields) -> Result<T, MatrixError>) -> Result<T, MatrixError> {
        read(&Fields::parse(&self.bytes)?)
    }

    /// The same of a body that may be empty.
    pub(crate) fn take_apart_if_any<T>(
        self,
        read: impl FnOnce(&Fields) -> Result<T, MatrixError>,
    ) -> Result<T, MatrixError> {
        read(&Fields::parse_optional(&self.bytes)?)
    }

    /// The same body without its gzip, at most `max` bytes of it, once one of `turns` is free. Whoever goes away meanwhile frees neither
    /// room nor turn before the work is done.
    pub(crate) async fn inflate(self, max: usize, turns: &Arc<Semaphore>) -> Result<Self, MatrixError> {
        let Self { bytes, mut room } = self;
        let length = inflated_len(&bytes, max)?;
        let turn = turns.clone().acquire_owned().await.expect("the semaphore is never closed");
        if !room.widen(bytes.len() + length) {
            return Err(full());
        }
        let work = move || {
            let _turn = turn;
            let inflated = inflate(&bytes, length)?.into();
            drop(bytes);
            room.narrow(length);
            Ok(Self { bytes: inflated, room })
        };
        let failed = |_| Err(MatrixError::unsupported("the body cannot be inflated"));
        tokio::task::spawn_blocking(work).await.unwrap_or_else(failed)
    }
}

fn full() -> MatrixError {
    MatrixError::busy("too much at once", RETRY)
}

/// What one body has of the budget, and of the share of whoever sends it.
#[derive(Debug)]
struct Room {
    units: OwnedSemaphorePermit,
    of_share: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Makes it room for `bytes`, and for what may come with the next reads. Whether so much is left.
    fn widen(&mut self, bytes: usize) -> bool {
        let units = bytes.div_ceil(UNIT);
        self.of_share.as_mut().is_none_or(|share| widen(share, units)) && widen(&mut self.units, units)
    }

    /// Gives back what more than `bytes` need.
    fn narrow(&mut self, bytes: usize) {
        let units = bytes.div_ceil(UNIT);
        for permit in self.of_share.iter_mut().chain([&mut self.units]) {
            drop(permit.split(permit.num_permits().saturating_sub(units)));
        }
    }
}

fn nothing(of: Arc<Semaphore>) -> OwnedSemaphorePermit {
    of.try_acquire_many_owned(0).expect("nothing is always there")
}

/// Makes `permit` one for `units`, and for up to [`STEP`] more if they are there.
fn widen(permit: &mut OwnedSemaphorePermit, units: usize) -> bool {
    let missing = units.saturating_sub(permit.num_permits());
    if missing == 0 {
        return true;
    }
    let all = permit.semaphore().clone();
    let more = [missing.next_multiple_of(STEP), missing].into_iter().find_map(|units| {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        all.clone().try_acquire_many_owned(units).ok()
    });
    more.map(|more| permit.merge(more)).is_some()
}

impl<K: Hash + Eq> Bodies<K> {
    /// So many bytes at once, of which each may have `each`. Every body has `timeout` to arrive.
    pub(crate) fn new(bytes: usize, each: usize, timeout: Duration) -> Self {
        Self { budget: Budget::new(bytes), shares: Shares::new(each.div_ceil(UNIT)), timeout }
    }

    /// Reads a body of at most `max` bytes, as long as there is room for what has arrived. It counts against the share of `from`, unless
    /// that is `None`.
    pub(crate) async fn read(
        &self,
        from: Option<K>,
        headers: &HeaderMap,
        body: Body,
        max: usize,
    ) -> Result<Held, MatrixError> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let expected: usize = announced.unwrap_or(max);
        let mut chunks = body.into_data_stream();
        if expected > max {
            discard(&mut chunks).await;
            return Err(MatrixError::too_large(max));
        }
        let room = Room {
            units: nothing(self.budget.units.clone()),
            of_share: from.map(|from| nothing(self.shares.of_owner(from))),
        };
        timeout(self.timeout, collect(room, &mut chunks, expected))
            .await
            .map_err(|_| MatrixError::timed_out("the body did not arrive in time"))?
    }
}

async fn collect(mut room: Room, chunks: &mut BodyDataStream, max: usize) -> Result<Held, MatrixError> {
    let mut all = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| MatrixError::bad_json(format!("the body broke off: {error}")))?;
        let length = all.len() + chunk.len();
        if length > max {
            discard(chunks).await;
            return Err(MatrixError::too_large(max));
        }
        if !room.widen(length) {
            drop((room, all));
            discard(chunks).await;
            return Err(full());
        }
        all.extend_from_slice(&chunk);
    }
    Ok(Held { bytes: all.freeze(), room })
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
    use axum::http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn a_body_beyond_its_bound_or_the_budget_is_refused() {
        let bodies: Bodies = Bodies::new(4 << 10, 4 << 10, Duration::from_secs(30));
        let none = HeaderMap::new();
        let held = bodies.read(None, &none, Body::from("abc"), 3).await.unwrap();
        assert_eq!(held.bytes, "abc");
        let error = bodies.read(None, &none, Body::from("abcd"), 3).await.unwrap_err();
        assert_eq!(error, MatrixError::too_large(3));
        let whole = || Body::from(vec![b'a'; 4 << 10]);
        let error = bodies.read(None, &none, whole(), 4 << 10).await.unwrap_err();
        assert_eq!(error, MatrixError::busy("too much at once", RETRY));
        drop(held);
        assert!(bodies.read(None, &none, whole(), 4 << 10).await.is_ok());
    }

    /// Whoever only announces a body, or is slow to send it, keeps nobody else out.
    #[tokio::test]
    async fn what_is_announced_and_does_not_arrive_takes_no_room() {
        let bodies: Bodies = Bodies::new(64 << 10, 64 << 10, Duration::from_secs(30));
        let announced = HeaderMap::from_iter([(header::CONTENT_LENGTH, "65536".parse().unwrap())]);
        let mut slow: Vec<_> = (0..3)
            .map(|_| {
                let first = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]);
                let body = Body::from_stream(first.chain(futures_util::stream::pending()));
                Box::pin(bodies.read(None, &announced, body, 64 << 10))
            })
            .collect();
        for reading in &mut slow {
            assert!(futures_util::poll!(reading).is_pending());
        }
        let prompt = bodies.read(None, &HeaderMap::new(), Body::from(vec![b'a'; 16 << 10]), 64 << 10).await.unwrap();
        assert_eq!(prompt.bytes.len(), 16 << 10);
    }

    /// It has room for what came and for what comes of it, and then for that alone.
    #[tokio::test]
    async fn what_is_inflated_takes_room_as_well() {
        let bodies: Bodies = Bodies::new(64 << 10, 48 << 10, Duration::from_secs(30));
        let (from, turns) = (Some("192.0.2.1".parse().unwrap()), Arc::new(Semaphore::new(1)));
        let text: String = (0..8 << 10).map(|n| format!("{:04}", n * 7919 % 10_000)).collect();
        let read = async || {
            let coded = Body::from(crate::outbound::coding::gzip(text.as_bytes()));
            bodies.read(from, &HeaderMap::new(), coded, 64 << 10).await.unwrap()
        };
        let units = || bodies.budget.units.available_permits();
        let (first, second) = (read().await, read().await);
        assert_eq!(
            first.inflate(text.len() - 1, &turns).await.unwrap_err().status(),
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        );
        let inflated = second.inflate(64 << 10, &turns).await.unwrap();
        assert_eq!((inflated.bytes.len(), units()), (32 << 10, 32));
        assert_eq!(read().await.inflate(64 << 10, &turns).await.unwrap_err(), full(), "of its address's share");
        drop(inflated);
        assert!(read().await.inflate(64 << 10, &turns).await.is_ok());
        assert_eq!((units(), turns.available_permits()), (64, 1));
    }

    #[tokio::test]
    async fn one_address_does_not_fill_the_memory() {
        let bodies: Bodies = Bodies::new(64 << 10, 32 << 10, Duration::from_secs(30));
        let read = async |from: &str, size| {
            let from = from.parse().unwrap();
            bodies.read(Some(from), &HeaderMap::new(), Body::from(vec![b'a'; size]), 64 << 10).await
        };
        let held = (read("192.0.2.1", 16 << 10).await.unwrap(), read("192.0.2.1", 16 << 10).await.unwrap());
        assert_eq!(read("192.0.2.1", 1).await.unwrap_err(), MatrixError::busy("too much at once", RETRY));
        let others = (read("192.0.2.2", 16 << 10).await.unwrap(), read("192.0.2.3", 8 << 10).await.unwrap());
        drop(held.0);
        assert!(read("192.0.2.1", 16 << 10).await.is_ok());
        drop((held.1, others));
    }
}
