//! Puts the signals of requests that come together into few messages, and tells each request when its own are confirmed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::body::Held;
use super::error::MatrixError;
use crate::bus::{Outgoing, PublishError, SharedBus};
use crate::lifecycle;
use crate::pace::Tempo;
use crate::wire::contract::Routed;
use crate::wire::envelope::Packer;

/// Requests that wait for their turn, at most.
const MAX_WAITING: usize = 4_096;
/// Signals after which a pack is closed before its time.
const PACK_SIGNALS: usize = 2_000;
/// Signals that are worth no longer wait: so many callers who each wait for their answer are not held up; fewer are, until the next of
/// the process's moments.
const ENOUGH: usize = 16;
/// Publishes under way at once.
const AT_ONCE: usize = 8;
/// What a request is told to wait before it comes again.
const RETRY: Duration = Duration::from_secs(1);

/// What one request has to say.
#[derive(Debug, Default)]
pub(crate) struct Pack {
    /// For the machines.
    pub(crate) signals: Vec<Routed>,
    /// What of it is put aside. While no dead letters are taken, only requests that have some are refused.
    pub(crate) letters: Vec<Outgoing>,
    /// The body that it came in: nobody else takes its room until it is confirmed, though whoever sent it is gone.
    pub(crate) body: Option<Held>,
}

struct Job {
    pack: Pack,
    done: oneshot::Sender<Result<(), MatrixError>>,
}

/// The way to the bus for all requests. Its task ends when the last clone is gone.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    jobs: mpsc::Sender<Job>,
}

impl Publisher {
    /// Starts the task. `linger`: how long a pack waits for more after its first request, while little comes; when much does, it waits for
    /// `tempo`, because each costs a message, a run, a commit and a reply, however many it holds.
    pub(crate) fn start(bus: SharedBus, partitions: u16, linger: Duration, tempo: Tempo) -> Self {
        let (jobs, queue) = mpsc::channel(MAX_WAITING);
        // A task that panics drops the queue: every request then gets a 503, and the panic is in the log.
        drop(lifecycle::spawn("edge publisher", run(queue, bus, partitions, linger, tempo)));
        Self { jobs }
    }

    /// Returns when all of `pack` is confirmed. After an error nothing is known of it: sending it again is harmless.
    pub(crate) async fn publish(&self, pack: Pack) -> Result<(), MatrixError> {
        let answer = self.enqueue(pack)?;
        answer.await.unwrap_or_else(|_| Err(MatrixError::unavailable("the edge is stopping", RETRY)))
    }

    /// Returns once `pack` waits its turn, with whatever will become of it.
    pub(crate) fn enqueue(&self, pack: Pack) -> Result<oneshot::Receiver<Result<(), MatrixError>>, MatrixError> {
        let (done, answer) = oneshot::channel();
        self.jobs
            .try_send(Job { pack, done })
            .map_err(|_| MatrixError::busy("too many requests wait for the queues", RETRY))?;
        Ok(answer)
    }
}

async fn run(mut queue: mpsc::Receiver<Job>, bus: SharedBus, partitions: u16, linger: Duration, tempo: Tempo) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(first) = queue.recv().await {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let jobs = gather(first, &mut queue, linger, tempo.next()).await;
        tempo.note(jobs.len());
        drop(lifecycle::spawn("edge publish", publish(bus.clone(), jobs, partitions, slot)));
    }
}

/// The first job and those that come within `short`, as far as they fit; those that come by `moment`, until it is enough.
async fn gather(first: Job, queue: &mut mpsc::Receiver<Job>, short: Duration, moment: Instant) -> Vec<Job> {
    let soon = Instant::now() + short;
    let mut signals = first.pack.signals.len();
    let mut jobs = vec![first];
    while signals < PACK_SIGNALS {
        let deadline = if signals < ENOUGH { moment } else { soon.min(moment) };
        let Ok(Some(job)) = timeout_at(deadline, queue.recv()).await else { break };
        signals += job.pack.signals.len();
        jobs.push(job);
    }
    jobs
}

async fn publish(bus: SharedBus, jobs: Vec<Job>, partitions: u16, _slot: OwnedSemaphorePermit) {
    let mut packer = Packer::new(partitions);
    let mut letters = Vec::new();
    let mut waiting = Vec::with_capacity(jobs.len());
    let mut bodies = Vec::new();
    let mut reply_here = false;
    for Job { pack, done } in jobs {
        for signal in pack.signals {
            metrics::counter!("rollcall_events_total", "type" => signal.kind()).increment(1);
            reply_here |= add(&mut packer, signal);
        }
        waiting.push((done, !pack.letters.is_empty()));
        letters.extend(pack.letters);
        bodies.extend(pack.body);
    }
    let (signals, letters) = tokio::join!(confirm(&bus, packer.finish(reply_here)), confirm(&bus, letters));
    drop(bodies);
    for (done, has_letters) in waiting {
        let result = if has_letters { signals.clone().and(letters.clone()) } else { signals.clone() };
        // Who went away meanwhile does not hear it.
        let _ = done.send(result);
    }
}

async fn confirm(bus: &SharedBus, messages: Vec<Outgoing>) -> Result<(), MatrixError> {
    if messages.is_empty() {
        return Ok(());
    }
    bus.publish(messages).await.map_err(|error| refuse(&error))
}

/// Whether the signal asks for a reply.
fn add(packer: &mut Packer, signal: Routed) -> bool {
    match signal {
        Routed::User(signal) => {
            let reply = signal.reply.is_some();
            packer.user(signal);
            reply
        }
        Routed::Peer(signal) => {
            let reply = signal.reply.is_some();
            packer.peer(signal);
            reply
        }
    }
}

fn refuse(error: &PublishError) -> MatrixError {
    tracing::warn!(%error, "not confirmed");
    MatrixError::unavailable("the queues did not confirm it", RETRY)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::HeaderMap;
    use futures_util::FutureExt;

    use super::*;
    use crate::bus::Exchange;
    use crate::bus::embedded::Embedded;
    use crate::bus::through::Through;
    use crate::bus::{Bus, Topology};
    use crate::core::signal::{Addressed, MessageEdit, Stamp, UserSignal};
    use crate::edge::body::Bodies;
    use crate::model::{DeviceId, Presence, Timestamp, UserId};
    use crate::pace::Moments;
    use crate::store::sqlite::{Mode, Sqlite};

    const SHORT: Duration = Duration::from_millis(2);
    const LONG: Duration = Duration::from_millis(200);

    fn job() -> Job {
        let signal = UserSignal::Status {
            device: DeviceId::parse("PHONE").unwrap(),
            presence: Presence::Online,
            status_msg: MessageEdit::Keep,
            stamp: Stamp { ts: Timestamp(1), id: "1".into() },
        };
        let to = UserId::parse("@a:b.example").unwrap();
        let signals = vec![Routed::User(Addressed { to, at: Timestamp(1), reply: None, trace: None, signal })];
        Job { pack: Pack { signals, ..Pack::default() }, done: oneshot::channel().0 }
    }

    /// How many are gathered of so many that are here, and in what time.
    async fn gathered(waiting: usize, long: Duration) -> (usize, Duration) {
        let (jobs, mut queue) = mpsc::channel(MAX_WAITING);
        for _ in 0..waiting {
            jobs.try_send(job()).unwrap();
        }
        let (first, begun) = (queue.recv().await.unwrap(), Instant::now());
        let count = gather(first, &mut queue, SHORT, begun + long).await.len();
        (count, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn while_little_comes_nobody_waits_long() {
        assert_eq!(gathered(1, SHORT).await, (1, SHORT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_gathers_until_it_is_enough() {
        assert_eq!(gathered(ENOUGH - 1, LONG).await, (ENOUGH - 1, LONG));
        assert_eq!(gathered(ENOUGH, LONG).await, (ENOUGH, SHORT));
        assert_eq!(gathered(PACK_SIGNALS + 1, LONG).await, (PACK_SIGNALS, Duration::ZERO));
    }

    #[tokio::test]
    async fn a_body_that_waits_to_be_confirmed_keeps_its_room() {
        let bodies: Bodies = Bodies::new(4 << 10, 4 << 10, Duration::from_secs(30));
        let none = HeaderMap::new();
        let read = || bodies.read(None, &none, Body::from(vec![b'a'; 4 << 10]), 4 << 10);
        let (jobs, queue) = mpsc::channel(1);
        let answer = Publisher { jobs }.enqueue(Pack { body: Some(read().await.unwrap()), ..job().pack });
        assert!(read().await.is_err(), "there is room for one");
        drop(queue);
        assert!(answer.unwrap().await.is_err());
        assert!(read().await.is_ok());
    }

    #[tokio::test]
    async fn while_no_dead_letters_are_taken_only_who_has_some_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("rollcall.db"), Mode::Owner).await.unwrap();
        let topology = Topology { prefix: String::new(), partitions: 1 };
        let bus = Embedded::new(store, topology, Duration::from_secs(20)).shared();
        let publish = |bus: SharedBus, messages: Vec<Outgoing>| {
            let takes = messages.iter().all(|message| message.exchange != Exchange::Dead);
            let gone = PublishError::Unroutable { exchange: String::new(), routing_key: "presence.dead".into() };
            async move { if takes { bus.publish(messages).await } else { Err(gone) } }.boxed()
        };
        let bus = Arc::new(Through { bus, publish: Box::new(publish) });
        let publisher = Publisher::start(bus.clone(), 1, SHORT, Tempo::of_callers(SHORT, Moments::default()));
        let mut bad = job().pack;
        bad.letters.push(Outgoing::new(Exchange::Dead, "", "nonsense"));
        let (good, bad) = tokio::join!(publisher.publish(job().pack), publisher.publish(bad));
        assert_eq!((good.is_ok(), bad.is_err()), (true, true));
        bus.close().await;
    }
}
