//! Publishing with confirms.
//!
//! All callers share one confirm-mode channel and its window of unconfirmed messages. A caller's messages are written in order
//! without waiting for each other's confirms; what is unconfirmed when the channel dies, or refused, is sent again in order until
//! the deadline.
//!
//! A message that no queue takes comes back, and fails its caller alone ([`confirms`](super::confirms)). What the topology itself has
//! no queue for is refused before it is sent, so only queues that somebody deleted depend on returns.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer};
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::confirms::{Confirms, Fate, Letter};
use super::line::{Line, Live};
use crate::bus::{Exchange, Headers, Outgoing, PublishError, Reply, Topology, count_published};
use crate::config::BusConfig;
use crate::lifecycle;

/// What every reply address begins with. Replies to anything else are not sent: an address comes from outside and must not name a
/// queue of ours.
const REPLY_ADDRESSES: &str = "amq.rabbitmq.reply-to.";
/// How long a reply may wait while somebody opens a channel. Its reader waits no longer than `edge.apply_wait` for all of it.
const REPLY_PATIENCE: Duration = Duration::from_millis(250);
/// How long a caller that gives up waits for a look at the channel, which others take at every publish.
const LOOK_PATIENCE: Duration = Duration::from_millis(250);
/// Before what was refused or lost is sent again, in milliseconds; random, so that callers do not come back in step.
const RETRY_MS: std::ops::RangeInclusive<u64> = 50..=200;

/// See the module.
pub(super) struct Publisher {
    line: Line,
    open: Mutex<Option<Arc<Open>>>,
    topology: Topology,
    exchanges: [ShortString; Exchange::ALL.len()],
    window: u32,
    patience: Duration,
    replies: mpsc::Sender<Reply>,
    own_address: OwnAddress,
    closed: CancellationToken,
}

/// Where replies come to this process, or came last; empty until one has. The broker makes it up for each channel, and a reply tells.
type OwnAddress = Arc<std::sync::Mutex<String>>;

/// The channels of one connection.
struct Open {
    live: Arc<Live>,
    confirmed: Channel,
    /// Of the same channel.
    confirms: Confirms,
    /// Takes what is replied on the same channel, which would not close as long as it does.
    _replied: AbortOnDropHandle<()>,
    /// Apart, because a reply's confirm would interest nobody, and lapin keeps confirms that nobody awaits.
    replies: Channel,
}

/// What a caller waits on, and since when in vain.
struct Used {
    open: Arc<Open>,
    since: Instant,
}

/// Why an attempt did not confirm everything.
enum Setback {
    /// What is unconfirmed may be sent again.
    Again(String),
    Final(PublishError),
}

impl Publisher {
    pub(super) fn new(
        line: Line,
        topology: Topology,
        config: &BusConfig,
        replies: mpsc::Sender<Reply>,
        closed: CancellationToken,
    ) -> Self {
        let window = u32::try_from(config.confirm_window).unwrap_or(u32::MAX).clamp(1, u32::from(u16::MAX));
        Self {
            line,
            open: Mutex::default(),
            exchanges: exchange_names(&topology),
            topology,
            window,
            patience: config.confirm_timeout,
            replies,
            own_address: OwnAddress::default(),
            closed,
        }
    }

    /// See [`crate::bus::Bus::publish`].
    pub(super) async fn publish(&self, messages: &[Outgoing]) -> Result<(), PublishError> {
        self.check_routes(messages)?;
        let deadline = Instant::now() + self.patience;
        let mut confirmed = vec![false; messages.len()];
        let mut reason = String::from("no confirm came");
        let mut used = None;
        loop {
            let attempt = self.attempt(messages, &mut confirmed, &mut used);
            let outcome = tokio::select! {
                biased;
                () = self.closed.cancelled() => return Err(PublishError::Closed),
                outcome = timeout_at(deadline, attempt) => outcome,
            };
            match outcome {
                Ok(Ok(())) => {
                    count_published(messages);
                    return Ok(());
                }
                Ok(Err(Setback::Final(error))) => return Err(error),
                Ok(Err(Setback::Again(setback))) => reason = setback,
                Err(_) => return Err(self.give_up(used.as_ref(), reason).await),
            }
            tracing::debug!(%reason, "sending unconfirmed messages again");
            sleep(Duration::from_millis(fastrand::u64(RETRY_MS))).await;
        }
    }

    /// Opens its channels before anybody needs them: replies are sent on what is open.
    pub(super) async fn prepare(&self) {
        if let Ok(Err(error)) = timeout(self.patience, self.open()).await {
            tracing::debug!(%error, "no channel to publish on yet");
        }
    }

    /// Sends a reply, or drops it when the broker does not take it at once. One to this process goes by no broker.
    pub(super) async fn reply(&self, address: &str, body: Bytes) {
        if self.closed.is_cancelled() || !address.starts_with(REPLY_ADDRESSES) {
            return;
        }
        if *lock(&self.own_address) == address {
            return pass_on(&self.replies, body);
        }
        let Ok(key) = ShortString::try_new(address) else { return };
        // A connection is not begun for it: the patience would break it off.
        let Ok(open) = timeout(REPLY_PATIENCE, self.open.lock()).await else { return };
        let Some(open) = open.clone().filter(|open| open.is_usable() && !open.live.is_blocked()) else { return };
        let options = BasicPublishOptions::default();
        // The first poll puts the frames into lapin's queue; when they are written interests nobody.
        let _ = open.replies.basic_publish("".into(), key, options, &body, BasicProperties::default()).now_or_never();
    }

    /// Waits until nothing is unconfirmed, at most `patience`.
    pub(super) async fn drain(&self, patience: Duration) {
        let settled = async {
            let open = self.open.lock().await.clone();
            if let Some(open) = open {
                open.confirms.settled().await;
            }
        };
        let _ = timeout(patience, settled).await;
    }

    pub(super) async fn close(&self) {
        // Its channels go after the connection: lapin calls it an error if they want to close while it does.
        let open = self.open.lock().await.take();
        self.line.close().await;
        drop(open);
    }

    fn check_routes(&self, messages: &[Outgoing]) -> Result<(), PublishError> {
        let nowhere =
            messages.iter().find(|message| self.topology.route(message.exchange, &message.routing_key).is_none());
        nowhere.map_or(Ok(()), |message| Err(self.unroutable(message)))
    }

    /// Sends whatever is not confirmed, once, and waits for the confirms.
    async fn attempt(
        &self,
        messages: &[Outgoing],
        confirmed: &mut [bool],
        used: &mut Option<Used>,
    ) -> Result<(), Setback> {
        let open = self.open().await.map_err(|error| Setback::Again(error.to_string()))?;
        if !used.as_ref().is_some_and(|used| Arc::ptr_eq(&used.open, &open)) {
            *used = Some(Used { open: Arc::clone(&open), since: Instant::now() });
        }
        // Time in which nothing could be confirmed does not count against it, nor does any before its last word.
        let mut heard = || {
            if let Some(used) = used {
                used.since = Instant::now();
            }
        };
        if open.live.is_blocked() {
            open.live.unblocked().await;
            heard();
        }
        let unconfirmed: Vec<usize> = (0..messages.len()).filter(|index| !confirmed[*index]).collect();
        let mut waiting = unconfirmed.into_iter();
        let mut sent = FuturesUnordered::new();
        let mut verdict = Ok(());
        loop {
            tokio::select! {
                biased;
                permit = open.confirms.room(), if verdict.is_ok() && waiting.len() > 0 => {
                    let Some(index) = waiting.next() else { continue };
                    match self.letter(&messages[index], permit) {
                        Ok(letter) => sent.push(open.confirms.send(letter).map(move |fate| (index, fate))),
                        Err(setback) => verdict = worse(verdict, setback),
                    }
                }
                Some((index, fate)) = sent.next() => {
                    heard();
                    match fate {
                        Fate::Taken => confirmed[index] = true,
                        Fate::Again(reason) => verdict = worse(verdict, Setback::Again(reason)),
                        Fate::Unroutable => verdict = worse(verdict, Setback::Final(self.unroutable(&messages[index]))),
                    }
                }
                else => return verdict,
            }
        }
    }

    fn letter(&self, message: &Outgoing, permit: OwnedSemaphorePermit) -> Result<Letter, Setback> {
        let key =
            ShortString::try_new(message.routing_key.as_str()).map_err(|_| Setback::Final(self.unroutable(message)))?;
        let exchange = self.exchanges[message.exchange as usize].clone();
        Ok(Letter { exchange, key, message: message.clone(), permit })
    }

    fn unroutable(&self, message: &Outgoing) -> PublishError {
        let exchange = self.exchanges[message.exchange as usize].to_string();
        PublishError::Unroutable { exchange, routing_key: message.routing_key.clone() }
    }

    /// A channel that left confirms out is not trusted any more. A blocked connection is: it owes the confirms, and could not even
    /// say farewell. Nothing more is written to it until it is unblocked, so what it holds stays within the window. One that took
    /// its place since is not to blame, nor one that had only the end of the time: with a queue that confirms nothing, each of many
    /// callers would close the connection of all others.
    async fn give_up(&self, used: Option<&Used>, reason: String) -> PublishError {
        let is_to_blame = |open: &Arc<Open>| {
            used.is_some_and(|used| Arc::ptr_eq(&used.open, open) && used.since.elapsed() >= self.patience * 9 / 10)
        };
        // Somebody who holds the lock for longer is building a channel anew already.
        if let Ok(mut current) = timeout(LOOK_PATIENCE, self.open.lock()).await
            && let Some(open) = current.take_if(|open| is_to_blame(open) && !open.live.is_blocked())
        {
            self.line.condemn(&open.live);
            // Its channels go after the connection.
            drop(lifecycle::spawn("farewell to a connection", async move { open.live.close().await }));
        }
        PublishError::Unconfirmed(self.patience, reason)
    }

    /// The live channels; makes them anew if they are dead. Callers share one attempt. Cancel-safe.
    async fn open(&self) -> Result<Arc<Open>, lapin::Error> {
        let mut current = self.open.lock().await;
        if let Some(open) = current.as_ref().filter(|open| open.is_usable()) {
            return Ok(Arc::clone(open));
        }
        *current = None;
        let live = self.line.live().await;
        let open = Arc::new(Open::new(live, self.window, self.replies.clone(), self.own_address.clone()).await?);
        *current = Some(Arc::clone(&open));
        Ok(open)
    }
}

impl Open {
    async fn new(
        live: Arc<Live>,
        window: u32,
        sink: mpsc::Sender<Reply>,
        own_address: OwnAddress,
    ) -> Result<Self, lapin::Error> {
        let confirmed = live.connection().create_channel().await?;
        confirmed.confirm_select(ConfirmSelectOptions::default()).await?;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let address = Headers::REPLY_HERE.into();
        // Direct reply-to works only on the channel that the requests are published on.
        let consumer = confirmed.basic_consume(address, "replies".into(), options, FieldTable::default()).await?;
        let passing = pass_replies_on(consumer, own_address, sink);
        let replied = AbortOnDropHandle::new(lifecycle::spawn("broker replies", passing));
        let replies = live.connection().create_channel().await?;
        let confirms = Confirms::new(confirmed.clone(), window);
        Ok(Self { live, confirmed, confirms, _replied: replied, replies })
    }

    fn is_usable(&self) -> bool {
        self.confirmed.status().connected() && self.replies.status().connected()
    }
}

/// Ends with the channel.
async fn pass_replies_on(mut consumer: Consumer, own_address: OwnAddress, sink: mpsc::Sender<Reply>) {
    while let Some(Ok(delivery)) = consumer.next().await {
        delivery.routing_key.as_str().clone_into(&mut lock(&own_address));
        pass_on(&sink, Bytes::from(delivery.data));
    }
}

fn lock(own_address: &OwnAddress) -> MutexGuard<'_, String> {
    own_address.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pass_on(sink: &mpsc::Sender<Reply>, body: Bytes) {
    if sink.try_send(Reply { body }).is_err() {
        metrics::counter!("rollcall_replies_dropped_total").increment(1);
    }
}

/// `Exchange as usize` indexes this.
fn exchange_names(topology: &Topology) -> [ShortString; Exchange::ALL.len()] {
    let mut names = [const { None }; Exchange::ALL.len()];
    for exchange in Exchange::ALL {
        names[exchange as usize] = ShortString::try_new(topology.exchange_name(exchange)).ok();
    }
    names.map(Option::unwrap_or_default)
}

/// What is final outweighs what may be tried again; otherwise the first reason tells most.
fn worse(verdict: Result<(), Setback>, setback: Setback) -> Result<(), Setback> {
    match (verdict, setback) {
        (Err(Setback::Final(error)), _) | (_, Setback::Final(error)) => Err(Setback::Final(error)),
        (Err(first), _) => Err(first),
        (Ok(()), setback) => Err(setback),
    }
}
