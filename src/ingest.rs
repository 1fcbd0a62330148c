//! Ingest: what foreign edges put onto `presence.inbound` becomes signals, packed into few messages a partition; what cannot be
//! understood goes to `presence.dead`, alone.
//!
//! A delivery is acknowledged only after everything that came of it is confirmed, and beats leave only after every signal that was
//! taken before them is confirmed: so a beat that a partition reads is a proof that it has read all that came earlier. While no dead
//! letters are taken, only what holds something that cannot be understood waits.

mod pack;
mod publish;

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::bus::{Delivery, Outgoing, Queue, SharedBus, Subscription, SubscriptionError, Token};
use crate::clock::SharedClock;
use crate::model::ServerName;
use crate::pace::Pace;
use crate::policy::Policy;

use pack::Aside;
pub use pack::{dead_letter, pack};
use publish::{Backoff, GaveUp};

/// Deliveries of one run. More would make a run last longer than it gains.
const RUN_DELIVERIES: usize = 1_000;
/// Bytes after which a run takes no more: 4 MiB.
const RUN_BYTES: usize = 4 << 20;
/// How long a run waits for more when much comes: every message to a partition costs the broker about the same, however many
/// signals it holds. A run that has half of the prefetch leaves at once, or the wait would bound the rate.
const LONG_LINGER: Duration = Duration::from_millis(100);
/// How often a run that waits takes what has come meanwhile.
const GLANCE: Duration = Duration::from_millis(10);
/// Runs that are being published at once.
const FLIGHTS: usize = 3;

/// The step between the foreign edges' JSON and the internal queues.
#[derive(Clone)]
pub struct Ingest {
    /// Where from and where to.
    pub bus: SharedBus,
    /// Says when things came in.
    pub clock: SharedClock,
    /// The local server.
    pub local: ServerName,
    /// Which peers are listened to.
    pub policy: Policy,
    /// How many partitions the deployment has.
    pub partitions: u16,
    /// How long a run waits for more after its first delivery.
    pub linger: Duration,
    /// Unacknowledged deliveries at most. Bounds memory together with [`crate::wire::contract::MAX_BODY`].
    pub prefetch: u16,
}

/// Why ingest ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The bus was shut down under it.
    #[error("the bus is closed")]
    BusClosed,
}

impl Ingest {
    /// Works until `stop`, then finishes what it has begun. A lost subscription is taken up again; what was not acknowledged by
    /// then comes again.
    pub async fn run(self, stop: CancellationToken) -> Result<(), IngestError> {
        let mut backoff = Backoff::default();
        while !stop.is_cancelled() {
            match self.session(&stop, &mut backoff).await {
                Ok(()) | Err(Ended::Stopped) => break,
                Err(Ended::Closed) => return Err(IngestError::BusClosed),
                Err(Ended::Lost(error)) => tracing::warn!(%error, "ingest: subscribing again"),
            }
            backoff.pause(&stop).await;
        }
        Ok(())
    }

    async fn session(&self, stop: &CancellationToken, backoff: &mut Backoff) -> Result<(), Ended> {
        // A broker that does not answer must not hold up the end.
        let inbound = [(Queue::Inbound, self.prefetch)];
        let subscribed = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Ended::Stopped),
            subscribed = self.bus.subscribe(&inbound) => subscribed?,
        };
        *backoff = Backoff::default();
        Session::new(self, stop, subscribed).run().await
    }

    /// Makes messages of a run and gets them confirmed.
    async fn fly(&self, run: Run, stop: &CancellationToken) -> Result<Landed, GaveUp> {
        let packed = pack::pack_run(self, run.deliveries).await;
        publish::confirm(&self.bus, packed.messages, stop).await?;
        Ok(Landed { tokens: packed.tokens, broadcasts: packed.broadcasts, aside: packed.aside })
    }

    /// Gets these confirmed, too, and then returns what is done with.
    async fn follow(
        &self,
        messages: Vec<Outgoing>,
        tokens: Vec<Token>,
        stop: &CancellationToken,
    ) -> Result<Vec<Token>, GaveUp> {
        publish::confirm(&self.bus, messages, stop).await?;
        Ok(tokens)
    }
}

/// Why a session ended without having been finished.
enum Ended {
    Lost(SubscriptionError),
    Closed,
    Stopped,
}

impl From<SubscriptionError> for Ended {
    fn from(error: SubscriptionError) -> Self {
        match error {
            SubscriptionError::Lost(_) => Self::Lost(error),
            SubscriptionError::Closed => Self::Closed,
        }
    }
}

impl From<GaveUp> for Ended {
    fn from(reason: GaveUp) -> Self {
        match reason {
            GaveUp::Closed => Self::Closed,
            GaveUp::Stopped => Self::Stopped,
        }
    }
}

/// Deliveries that are handled together.
#[derive(Default)]
struct Run {
    deliveries: Vec<Delivery>,
    bytes: usize,
}

impl Run {
    fn push(&mut self, delivery: Delivery) {
        self.bytes += delivery.body.len();
        self.deliveries.push(delivery);
    }

    fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    fn is_full(&self, most: usize) -> bool {
        self.deliveries.len() >= most || self.bytes >= RUN_BYTES
    }
}

/// A run whose signals are confirmed.
struct Landed {
    tokens: Vec<Token>,
    /// To be published once every earlier run has landed too.
    broadcasts: Vec<Outgoing>,
    aside: Aside,
}

/// One subscription and what became of its deliveries so far.
struct Session<'i> {
    ingest: &'i Ingest,
    stop: &'i CancellationToken,
    subscription: Box<dyn Subscription>,
    gathering: Run,
    pace: Pace,
    /// When the gathering run leaves, full or not.
    due: Instant,
    /// When it is looked at again.
    glance: Instant,
    /// Whether the last look found anything. If not, the subscription is asked: the embedded bus reads a backlog only then.
    flows: bool,
    /// Ordered: a run lands after all that were taken before it.
    flights: FuturesOrdered<BoxFuture<'i, Result<Landed, GaveUp>>>,
    broadcasts: FuturesUnordered<BoxFuture<'i, Result<Vec<Token>, GaveUp>>>,
    /// Dead letters. Nothing else waits for them; the prefetch bounds them.
    asides: FuturesUnordered<BoxFuture<'i, Result<Vec<Token>, GaveUp>>>,
}

impl<'i> Session<'i> {
    fn new(ingest: &'i Ingest, stop: &'i CancellationToken, subscription: Box<dyn Subscription>) -> Self {
        Self {
            ingest,
            stop,
            subscription,
            gathering: Run::default(),
            pace: Pace::new(ingest.linger, LONG_LINGER),
            due: Instant::now(),
            glance: Instant::now(),
            flows: true,
            flights: FuturesOrdered::new(),
            broadcasts: FuturesUnordered::new(),
            asides: FuturesUnordered::new(),
        }
    }

    async fn run(mut self) -> Result<(), Ended> {
        while !self.stop.is_cancelled() {
            let room = self.in_flight() < FLIGHTS;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                Some(landed) = self.flights.next() => self.land(landed?).await?,
                Some(tokens) = self.broadcasts.next() => self.subscription.ack(tokens?).await?,
                Some(tokens) = self.asides.next() => self.put_aside(tokens).await?,
                () = sleep_until(self.glance), if room && !self.gathering.is_empty() => self.wake(),
                delivery = self.subscription.next(), if room && !self.sleeps() => self.take(delivery?),
            }
        }
        self.finish().await
    }

    /// Takes no more, and ends when everything taken is acknowledged.
    async fn finish(mut self) -> Result<(), Ended> {
        self.launch_gathered();
        while self.in_flight() + self.asides.len() > 0 {
            tokio::select! {
                biased;
                Some(landed) = self.flights.next() => self.land(landed?).await?,
                Some(tokens) = self.broadcasts.next() => self.subscription.ack(tokens?).await?,
                Some(tokens) = self.asides.next() => self.put_aside(tokens).await?,
            }
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.flights.len() + self.broadcasts.len()
    }

    /// Whether the gathering run is left to fill by itself until the next glance: being woken for each message costs more than the
    /// message.
    fn sleeps(&self) -> bool {
        self.pace.is_busy() && self.flows && !self.gathering.is_empty()
    }

    /// Takes what has come meanwhile, and lets the gathering run leave if it is due.
    fn wake(&mut self) {
        let first = self.subscription.try_next();
        self.flows = first.is_some();
        if let Some(first) = first {
            self.take(first);
        }
        if Instant::now() >= self.due {
            self.launch_gathered();
        } else {
            self.glance = self.due.min(Instant::now() + GLANCE);
        }
    }

    /// Gathers `first` and what else is here already.
    fn take(&mut self, first: Delivery) {
        self.flows = true;
        let mut next = Some(first);
        while let Some(delivery) = next {
            delivery.count_redelivery();
            if delivery.is_suspect() {
                return self.take_alone(delivery);
            }
            if self.gathering.is_empty() {
                self.due = Instant::now() + self.pace.linger();
                self.glance = self.due.min(Instant::now() + GLANCE);
            }
            self.gathering.push(delivery);
            if self.gathering.is_full(self.run_deliveries()) {
                return self.launch_gathered();
            }
            next = self.subscription.try_next();
        }
    }

    /// What was delivered before may be what ended the process: it takes no neighbour with it.
    fn take_alone(&mut self, delivery: Delivery) {
        self.launch_gathered();
        self.gathering.push(delivery);
        self.launch_gathered();
    }

    /// The other half of the prefetch comes while this one is on its way.
    fn run_deliveries(&self) -> usize {
        RUN_DELIVERIES.min(usize::from(self.ingest.prefetch / 2).max(1))
    }

    fn launch_gathered(&mut self) {
        if self.gathering.is_empty() {
            return;
        }
        let run = std::mem::take(&mut self.gathering);
        self.pace.note(run.deliveries.len());
        self.flights.push_back(Box::pin(self.ingest.fly(run, self.stop)));
    }

    /// What is not put aside by the end comes again, and must not keep the rest from being finished.
    async fn put_aside(&mut self, tokens: Result<Vec<Token>, GaveUp>) -> Result<(), Ended> {
        match tokens {
            Err(GaveUp::Stopped) => Ok(()),
            tokens => Ok(self.subscription.ack(tokens?).await?),
        }
    }

    async fn land(&mut self, landed: Landed) -> Result<(), SubscriptionError> {
        let Landed { tokens, broadcasts, aside } = landed;
        if !aside.letters.is_empty() {
            self.asides.push(Box::pin(self.ingest.follow(aside.letters, aside.tokens, self.stop)));
        }
        if broadcasts.is_empty() {
            return if tokens.is_empty() { Ok(()) } else { self.subscription.ack(tokens).await };
        }
        self.broadcasts.push(Box::pin(self.ingest.follow(broadcasts, tokens, self.stop)));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
