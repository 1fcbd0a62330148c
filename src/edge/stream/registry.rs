//! Which streams are open, and for whom. Bounded in all and for each user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::buffer::{Buffer, Next, Put};
use crate::config::StreamConfig;
use crate::edge::auth::Caller;
use crate::edge::error::MatrixError;
use crate::model::{DeviceId, EdgeName, UserId};
use crate::wire::update::Shown;

/// Pages of lists that are read at once, over all streams: after a loss everybody's list is read anew.
const READS_AT_ONCE: usize = 16;
/// What those who are one too many are told to wait.
const RETRY: Duration = Duration::from_secs(5);

/// All streams of this edge.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(super) name: EdgeName,
    pub(super) config: StreamConfig,
    pub(super) reads: Semaphore,
    /// Those who hold sessions.
    pub(super) sessions: TaskTracker,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    by_user: HashMap<UserId, Vec<Arc<Stream>>>,
    open: usize,
    closed: bool,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) device: DeviceId,
    /// There may be something to send.
    pub(super) wake: Notify,
    /// Over, for whatever reason.
    pub(super) end: CancellationToken,
    buffer: Mutex<Buffer>,
}

/// A stream's place; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) user: UserId,
    streams: Arc<Streams>,
    stream: Arc<Stream>,
}

impl Streams {
    /// None yet. `name` is what updates for them are addressed to.
    pub(crate) fn new(name: EdgeName, config: StreamConfig) -> Arc<Self> {
        Arc::new(Self {
            name,
            config,
            reads: Semaphore::new(READS_AT_ONCE),
            sessions: TaskTracker::new(),
            all: Mutex::default(),
        })
    }

    /// A place for one more. From now on updates are kept for it.
    pub(super) fn open(self: &Arc<Self>, caller: &Caller) -> Result<Open, MatrixError> {
        let mut all = self.lock();
        if all.closed {
            return Err(MatrixError::unavailable("the edge is stopping", RETRY));
        }
        if all.open >= self.config.max {
            return Err(MatrixError::busy("too many streams are open here", RETRY));
        }
        let own = all.by_user.entry(caller.user.clone()).or_default();
        if own.len() >= self.config.per_user {
            return Err(MatrixError::too_many("too many streams of this user are open here", RETRY));
        }
        let stream = Arc::new(Stream {
            device: caller.device.clone(),
            wake: Notify::new(),
            end: CancellationToken::new(),
            buffer: Mutex::new(Buffer::new(self.config.buffer)),
        });
        own.push(stream.clone());
        all.count(1);
        Ok(Open { user: caller.user.clone(), streams: self.clone(), stream })
    }

    /// Keeps updates for every stream of `user`.
    pub(super) fn deliver(&self, user: &UserId, events: &[(UserId, Shown)]) {
        let streams = self.lock().by_user.get(user).cloned().unwrap_or_default();
        if streams.is_empty() {
            counter!("rollcall_updates_dropped_total", "reason" => "nobody").increment(1);
        }
        for stream in streams {
            stream.put(events);
        }
    }

    /// Updates may have been missed: everybody gets their list again.
    pub(super) fn relist(&self) {
        let streams: Vec<_> = self.lock().by_user.values().flatten().cloned().collect();
        for stream in streams {
            stream.buffer().relist();
            stream.wake.notify_one();
        }
    }

    /// Ends the streams of one device.
    pub(crate) fn end(&self, user: &UserId, device: &DeviceId) {
        let all = self.lock();
        let own = all.by_user.get(user).into_iter().flatten();
        own.filter(|stream| stream.device == *device).for_each(|stream| stream.end.cancel());
    }

    /// Ends all streams, and lets nobody open one any more.
    pub(crate) fn close(&self) {
        let mut all = self.lock();
        all.closed = true;
        all.by_user.values().flatten().for_each(|stream| stream.end.cancel());
        self.sessions.close();
    }

    /// Returns when, after [`Streams::close`], the end of every session is confirmed or could not be.
    pub(crate) async fn settled(&self) {
        self.sessions.wait().await;
    }

    /// Whether a device has a stream that goes on.
    pub(super) fn goes_on(&self, user: &UserId, device: &DeviceId) -> bool {
        let all = self.lock();
        let mut own = all.by_user.get(user).into_iter().flatten();
        own.any(|stream| stream.device == *device && !stream.end.is_cancelled())
    }

    /// Bytes that wait for clients, over all streams.
    pub(crate) fn buffered(&self) -> usize {
        self.lock().by_user.values().flatten().map(|stream| stream.buffer().bytes()).sum()
    }

    fn close_one(&self, user: &UserId, stream: &Arc<Stream>) {
        let mut all = self.lock();
        if let Some(own) = all.by_user.get_mut(user) {
            own.retain(|other| !Arc::ptr_eq(other, stream));
            if own.is_empty() {
                all.by_user.remove(user);
            }
        }
        all.count(-1);
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        // Nothing that holds this lock leaves the maps half changed.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn count(&mut self, by: isize) {
        self.open = self.open.saturating_add_signed(by);
        gauge!("rollcall_streams").set(self.open as f64);
    }
}

impl Stream {
    /// What the client is to get next.
    pub(super) fn next(&self) -> Next {
        self.buffer().next()
    }

    /// See [`Buffer::page`].
    pub(super) fn page(&self, read: Vec<(UserId, Shown)>, is_last: bool) -> Vec<(UserId, Shown)> {
        self.buffer().page(read, is_last)
    }

    fn put(&self, events: &[(UserId, Shown)]) {
        let mut buffer = self.buffer();
        for (of, shown) in events {
            match buffer.put(of, shown.clone()) {
                Put::Kept => {}
                Put::Coalesced => counter!("rollcall_updates_coalesced_total").increment(1),
                Put::Overflowed => counter!("rollcall_stream_overflows_total").increment(1),
            }
        }
        drop(buffer);
        self.wake.notify_one();
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// The stream itself.
    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stream.end.cancel();
        self.streams.close_one(&self.user, &self.stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(user: &str, device: &str) -> Caller {
        Caller { user: UserId::parse(user).unwrap(), device: DeviceId::parse(device).unwrap() }
    }

    fn streams(max: usize, per_user: usize) -> Arc<Streams> {
        let (heartbeat, stall_max) = (Duration::from_secs(30), Duration::from_secs(60));
        let config = StreamConfig { max, per_user, buffer: 10_000, heartbeat, stall_max };
        Streams::new(EdgeName::parse("edge-1").unwrap(), config)
    }

    #[tokio::test]
    async fn places_are_bounded_and_given_back() {
        let streams = streams(3, 2);
        let (john, jane) = (caller("@john:a.example", "A"), caller("@jane:a.example", "B"));
        let first = streams.open(&john).unwrap();
        let _second = streams.open(&john).unwrap();
        assert!(format!("{:?}", streams.open(&john).unwrap_err()).contains("429"));
        let _third = streams.open(&jane).unwrap();
        assert!(format!("{:?}", streams.open(&caller("@jim:a.example", "C")).unwrap_err()).contains("503"));
        drop(first);
        assert!(streams.open(&john).is_ok());
        streams.close();
        assert!(streams.open(&john).is_err());
        streams.settled().await;
    }

    #[test]
    fn a_device_goes_on_while_one_of_its_streams_does() {
        let streams = streams(10, 10);
        let phone = caller("@john:a.example", "PHONE");
        let (old, new) = (streams.open(&phone).unwrap(), streams.open(&phone).unwrap());
        drop(old);
        assert!(streams.goes_on(&phone.user, &phone.device));
        streams.end(&phone.user, &caller("@john:a.example", "WEB").device);
        assert!(!new.stream().end.is_cancelled());
        streams.end(&phone.user, &phone.device);
        assert!(new.stream().end.is_cancelled() && !streams.goes_on(&phone.user, &phone.device));
    }
}
