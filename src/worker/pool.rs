//! What the runs of this process's partitions say to other machines, on its way together. (What they answer edges: see `replies.rs`.)
//!
//! A message costs the broker the same however much it holds, and a run of one partition has a word for each of many others. So
//! the packets of all partitions are gathered for a moment, and those for one queue leave as one message. Nothing is at risk
//! meanwhile: a packet comes here committed, stays in its owner's outbox until it is confirmed, and what caused it stays
//! unacknowledged as long.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use tokio::join;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::outbox::Haste;
use super::replies::Replies;
use super::settle::PUBLISH_PAUSE;
use crate::bus::{Exchange, Outgoing, PublishError, SharedBus};
use crate::pace::{Phase, Tempo};
use crate::wire::envelope::join;

/// Bytes after which nothing more is waited for: bounds one departure.
const GROUP_BYTES: usize = 8 << 20;
/// Bytes that are worth no longer wait than for the runs of one moment.
const PATIENT_BYTES: usize = 64 << 10;
/// What is in no hurry waits for this part of `batch.window`, …
const PATIENT_PART: u32 = 8;
/// … and for no longer than this, until the next moment.
const PATIENCE: Duration = Duration::from_secs(1);
/// Runs that may wait for the next departure; beyond that owners wait.
const LOADS: usize = 256;

/// The way in. The gathering task ends, after all that was handed in, when the last of these is dropped.
#[derive(Clone)]
pub(super) struct Pool {
    loads: mpsc::Sender<Load>,
    replies: Replies,
}

/// One run's packets.
struct Load {
    messages: Vec<Outgoing>,
    haste: Haste,
    confirmed: oneshot::Sender<()>,
}

impl Pool {
    /// The way in, and the task to be run behind it.
    pub(super) fn new(bus: SharedBus, tempo: &Tempo, window: Duration) -> (Self, impl Future<Output = ()> + use<>) {
        let (loads, inbox) = mpsc::channel(LOADS);
        let (replies, answering) = Replies::new(bus.clone());
        let gatherer = Gatherer { bus, inbox, tempo: tempo.at(Phase::Leave), patience: patience(window) };
        let task = async {
            join!(gatherer.run(), answering);
        };
        (Self { loads, replies }, task)
    }

    /// Tells requests that what they said is committed: their numbers, by the edges' addresses.
    pub(super) fn answer(&self, requests: BTreeMap<String, Vec<u64>>) {
        self.replies.hand_in(requests);
    }

    /// Hands packets in: committed ones. What is returned hears when all are confirmed, or that they never will be because the bus
    /// was closed. An urgent load makes everything leave that is here.
    pub(super) async fn hand_in(&self, messages: Vec<Outgoing>, haste: Haste) -> oneshot::Receiver<()> {
        let (confirmed, confirmation) = oneshot::channel();
        // If the gatherer is gone, the sender is dropped here, and that is heard.
        let _gone = self.loads.send(Load { messages, haste, confirmed }).await;
        confirmation
    }

    /// Makes everything leave that is here, unless so much waits that it leaves soon.
    pub(super) fn hurry(&self) {
        let _full =
            self.loads.try_send(Load { messages: Vec::new(), haste: Haste::Urgent, confirmed: oneshot::channel().0 });
    }
}

struct Gatherer {
    bus: SharedBus,
    inbox: mpsc::Receiver<Load>,
    tempo: Tempo,
    /// Of changes, which wait in a window anyway.
    patience: Duration,
}

impl Gatherer {
    async fn run(mut self) {
        while let Some(first) = self.inbox.recv().await {
            let loads = self.gather(first).await;
            self.depart(loads).await;
        }
    }

    /// The first and, while much comes, what comes until runs have ended everywhere; what is in no hurry is gathered of several runs.
    async fn gather(&mut self, first: Load) -> Vec<Load> {
        let mut bytes = size(&first);
        let mut deadline = self.deadline(first.haste, bytes);
        let mut loads = vec![first];
        // Owners whose runs were committed together hand in one after the other.
        yield_now().await;
        while bytes < GROUP_BYTES {
            let next = match self.inbox.try_recv() {
                Ok(load) => Some(load),
                Err(_) => match deadline {
                    None => break,
                    Some(deadline) => timeout_at(deadline, self.inbox.recv()).await.ok().flatten(),
                },
            };
            let Some(load) = next else { break };
            bytes += size(&load);
            deadline = deadline.min(self.deadline(load.haste, bytes));
            loads.push(load);
        }
        loads
    }

    /// Until when to gather, with this load and so many bytes; `None`: what is here already, and no longer.
    fn deadline(&self, haste: Haste, bytes: usize) -> Option<Instant> {
        match haste {
            Haste::Urgent => None,
            Haste::Patient if bytes < PATIENT_BYTES => Some(self.tempo.next_after(self.patience)),
            Haste::Patient | Haste::Soon => Some(self.tempo.next()),
        }
    }

    /// Publishes until it is confirmed: what is committed must leave. What an owner left that is gone by now is its successor's to
    /// publish, out of the outbox: here it would come ever later.
    async fn depart(&self, mut loads: Vec<Load>) {
        let mut done = BTreeSet::new();
        loop {
            loads.retain(|load| !load.confirmed.is_closed());
            match self.bus.publish(merged(&loads, &done).into_values().flatten().collect()).await {
                Ok(()) => break,
                Err(PublishError::Closed) => return,
                Err(error) => tracing::warn!(%error, "publishing again, queue by queue"),
            }
            sleep(PUBLISH_PAUSE).await;
            // What one queue refuses must not be said to the others over and over.
            self.depart_singly(&loads, &mut done).await;
        }
        for load in loads {
            let _gone = load.confirmed.send(());
        }
    }

    /// Publishes to each queue by itself, and notes those that have what they are to have.
    async fn depart_singly(&self, loads: &[Load], done: &mut BTreeSet<Destination>) {
        let publishes = merged(loads, done).into_iter().map(|(queue, messages)| async move {
            let is_confirmed = self.bus.publish(messages).await.is_ok();
            is_confirmed.then_some(queue)
        });
        done.extend(join_all(publishes).await.into_iter().flatten());
    }
}

/// How long changes are gathered that wait in such a window anyway.
fn patience(window: Duration) -> Duration {
    PATIENCE.min(window / PATIENT_PART)
}

fn size(load: &Load) -> usize {
    load.messages.iter().map(|message| message.body.len()).sum()
}

/// An exchange and a routing key.
type Destination = (Exchange, String);

/// Packets for one queue as one message, or as few as the bound on a packet allows; in order. Without the queues that are `done`.
fn merged(loads: &[Load], done: &BTreeSet<Destination>) -> BTreeMap<Destination, Vec<Outgoing>> {
    let mut queues: BTreeMap<Destination, Vec<Outgoing>> = BTreeMap::new();
    for message in loads.iter().flat_map(|load| &load.messages) {
        queues.entry((message.exchange, message.routing_key.clone())).or_default().push(message.clone());
    }
    let left = queues.into_iter().filter(|(queue, _)| !done.contains(queue));
    left.map(|(queue, messages)| (queue, join(messages))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use futures_util::FutureExt;
    use tempfile::TempDir;
    use tokio::time::sleep_until;

    use super::*;
    use crate::bus::embedded::Embedded;
    use crate::bus::through::Through;
    use crate::bus::{Queue, Topology};
    use crate::core::signal::{LinkSignal, Multicast};
    use crate::model::{Partition, Serial, ServerName, Timestamp, UserId};
    use crate::pace::Moments;
    use crate::store::sqlite::{Mode, Sqlite};
    use crate::wire::envelope::{Packer, Packet, decode};

    async fn bus() -> (TempDir, SharedBus) {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("rollcall.db"), Mode::Owner).await.unwrap();
        let topology = Topology { prefix: String::new(), partitions: 1 };
        (folder, Embedded::new(store, topology, Duration::from_secs(20)).shared())
    }

    const WINDOW: Duration = Duration::from_secs(5);

    /// Nobody waits.
    fn tempo() -> Tempo {
        Tempo::of_runs(Duration::ZERO, Moments::default())
    }

    /// A run that hides the user called `name` from a peer.
    fn run(name: &str) -> Vec<Outgoing> {
        let (user, serial) = (UserId::parse(&format!("@{name}:a.example")).unwrap(), Serial::default());
        let to = vec![ServerName::parse("b.example").unwrap()];
        let signal = LinkSignal::Hide { user, serial };
        let mut packer = Packer::new(1);
        packer.links(Multicast { to, at: Timestamp(1), trace: None, signal });
        packer.finish(false)
    }

    fn hidden(body: &[u8]) -> Vec<String> {
        let Ok(Packet::Links(signals)) = decode(body) else { panic!("a packet of changes") };
        let name = |signal: Multicast| match signal.signal {
            LinkSignal::Hide { user, .. } => user.localpart().to_owned(),
            other => panic!("{other:?}"),
        };
        signals.into_iter().map(name).collect()
    }

    /// How many of these loads leave together, and after which time: each is of so many bytes and handed in so many ms after the first.
    async fn gathered(bus: &SharedBus, tempo: &Tempo, loads: &[(u64, Haste, usize)]) -> (usize, Duration) {
        let (sender, mut inbox) = mpsc::channel(LOADS);
        let begun = Instant::now();
        let handing_in = async {
            for (ms, haste, bytes) in loads {
                sleep_until(begun + Duration::from_millis(*ms)).await;
                let messages = vec![Outgoing::new(Exchange::Batch, "0", vec![0; *bytes])];
                let load = Load { messages, haste: *haste, confirmed: oneshot::channel().0 };
                let _left_already = sender.send(load).await;
            }
            std::future::pending::<()>().await;
        };
        let gathering = async {
            let first = inbox.recv().await.unwrap();
            let mut gatherer =
                Gatherer { bus: bus.clone(), inbox, tempo: tempo.at(Phase::Leave), patience: patience(WINDOW) };
            let count = gatherer.gather(first).await.len();
            (count, begun.elapsed())
        };
        tokio::select! {
            gathered = gathering => gathered,
            () = handing_in => unreachable!("it waits for ever"),
        }
    }

    #[tokio::test]
    async fn changes_are_gathered_of_several_runs_and_leave_with_whatever_does() {
        use Haste::{Patient, Soon, Urgent};
        let (_folder, bus) = bus().await;
        tokio::time::pause();
        let ms = Duration::from_millis;
        let tempo = tempo();
        // Timers are good to a millisecond.
        let about = |expected: (usize, u64), (count, after): (usize, Duration)| {
            assert!(count == expected.0 && (ms(expected.1)..ms(expected.1 + 5)).contains(&after), "{count} {after:?}");
        };
        about((1, 0), gathered(&bus, &tempo, &[(0, Patient, 1), (9, Patient, 1)]).await);
        // So much that runs end together, until just before the next moment at which something leaves.
        let begun = Instant::now();
        while begun.elapsed() < ms(2_000) {
            tokio::time::advance(ms(20)).await;
            tempo.note(1);
        }
        let leaving = tempo.at(Phase::Leave).next() - Instant::now();
        tokio::time::advance(leaving + ms(150)).await;
        let runs: Vec<_> = (0..6).map(|run| (200 * run, Patient, 1)).collect();
        for (loads, expected) in [
            (&runs[..], (4, 650)),
            (&[(0, Patient, 1), (200, Soon, 1), (400, Patient, 1)], (2, 250)),
            (&[(0, Patient, 1), (200, Urgent, 1), (400, Patient, 1)], (2, 200)),
            (&[(0, Patient, PATIENT_BYTES / 2), (200, Patient, PATIENT_BYTES / 2), (400, Patient, 1)], (2, 250)),
            (&[(0, Urgent, 1), (0, Patient, 1)], (2, 0)),
        ] {
            let left = gathered(&bus, &tempo, loads).await;
            about(expected, left);
            // To the same part of the time between two moments.
            tokio::time::advance(ms(1_000) - left.1).await;
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_all_makes_them_leave() {
        let (_folder, bus) = bus().await;
        let tempo = Tempo::of_runs(Duration::from_secs(3_600), Moments::default());
        let (pool, gathering) = Pool::new(bus, &tempo, WINDOW);
        tokio::join!(gathering, async {
            let confirmation = pool.hand_in(run("waits"), Haste::Patient).await;
            pool.hurry();
            tokio::time::timeout(Duration::from_secs(60), confirmation).await.expect("long before its time").unwrap();
            drop(pool);
        });
    }

    #[test]
    fn patience_is_a_part_of_the_window_and_bounded() {
        let patience = |window| patience(Duration::from_millis(window)).as_millis();
        assert_eq!([10, 5_000, 600_000].map(patience), [1, 625, 1_000]);
    }

    #[tokio::test]
    async fn runs_that_wait_together_leave_as_one_message() {
        let (_folder, bus) = bus().await;
        let mut batches = bus.subscribe(&[(Queue::Batch(Partition(0)), 10)]).await.unwrap();
        let (pool, gathering) = Pool::new(bus.clone(), &tempo(), WINDOW);
        let first = pool.hand_in(run("first"), Haste::Soon).await;
        let second = pool.hand_in(run("second"), Haste::Soon).await;
        tokio::join!(gathering, async {
            first.await.unwrap();
            second.await.unwrap();
            drop(pool);
        });
        assert_eq!(hidden(&batches.next().await.unwrap().body), ["first", "second"]);
        assert!(batches.try_next().is_none());
    }

    #[tokio::test]
    async fn what_a_lost_owner_left_is_left_to_the_outbox() {
        let (_folder, bus) = bus().await;
        let mut batches = bus.subscribe(&[(Queue::Batch(Partition(0)), 10)]).await.unwrap();
        let (pool, gathering) = Pool::new(bus.clone(), &tempo(), WINDOW);
        drop(pool.hand_in(run("lost"), Haste::Soon).await);
        let confirmation = pool.hand_in(run("owned"), Haste::Urgent).await;
        drop(pool);
        gathering.await;
        confirmation.await.unwrap();
        assert_eq!(hidden(&batches.next().await.unwrap().body), ["owned"]);
    }

    /// A bus on which one queue is gone for as long as `refusals` last. It counts what the `others` get.
    fn partly(bus: SharedBus, refusals: Arc<AtomicUsize>, others: Arc<AtomicUsize>) -> Through {
        let publish = move |bus: SharedBus, messages: Vec<Outgoing>| {
            let (refusals, counted) = (refusals.clone(), others.clone());
            let publishing = async move {
                let (gone, others): (Vec<_>, Vec<_>) =
                    messages.into_iter().partition(|message| message.exchange == Exchange::Peers);
                counted.fetch_add(others.len(), Relaxed);
                bus.publish(others).await?;
                let is_refused = |left: usize| left.checked_sub(1);
                if !gone.is_empty() && refusals.fetch_update(Relaxed, Relaxed, is_refused).is_ok() {
                    return Err(PublishError::Unroutable {
                        exchange: "presence.peers".into(),
                        routing_key: "0".into(),
                    });
                }
                bus.publish(gone).await
            };
            publishing.boxed()
        };
        Through { bus, publish: Box::new(publish) }
    }

    #[tokio::test]
    async fn what_one_queue_refuses_is_not_said_to_the_others_over_and_over() {
        let (_folder, bus) = bus().await;
        let (refusals, others) = (Arc::new(AtomicUsize::new(3)), Arc::new(AtomicUsize::new(0)));
        let partly = Arc::new(partly(bus, refusals.clone(), others.clone()));
        let (pool, gathering) = Pool::new(partly, &tempo(), WINDOW);
        let mut messages = run("both");
        messages.push(Outgoing::new(Exchange::Peers, "0", messages[0].body.clone()));
        let confirmation = pool.hand_in(messages, Haste::Urgent).await;
        drop(pool);
        gathering.await;
        confirmation.await.unwrap();
        assert_eq!(refusals.load(Relaxed), 0);
        assert_eq!(others.load(Relaxed), 2, "with the rest, and then once by itself");
    }

    #[tokio::test]
    async fn nobody_is_told_of_a_confirm_that_will_never_come() {
        let (_folder, bus) = bus().await;
        let (pool, gathering) = Pool::new(bus.clone(), &tempo(), WINDOW);
        bus.close().await;
        let confirmation = pool.hand_in(run("late"), Haste::Soon).await;
        drop(pool);
        gathering.await;
        confirmation.await.unwrap_err();
    }
}
