//! The loop between `presence.outbound` and [`Courier`]: each delivery is sent, then its receipt is confirmed (with those of others), then
//! it is acknowledged. A crash in between sends it again under the same id, which every server answers from memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::bus::{Delivery, Exchange, Outgoing, PublishError, Queue, SharedBus, Subscription, SubscriptionError};
use crate::clock::SharedClock;
use crate::config::FederationConfig;
use crate::core::signal::{Addressed, PeerSignal};
use crate::model::{ServerName, TraceId};
use crate::outbound::courier::{Courier, Report};
use crate::outbound::keys::SigningKeys;
use crate::outbound::peers::Peers;
use crate::outbound::receipts::{Done, Receipt, UnderWay};
use crate::outbound::turns::held;
use crate::outbound::waits::Backoff;
use crate::policy::Policy;
use crate::wire::envelope::Packer;
use crate::wire::outbound::OutboundMessage;

/// For how long requests that are under way at a stop are waited for. `ops.drain_timeout` has to be longer.
const FINISH: Duration = Duration::from_secs(5);
/// First wait before the bus is asked again.
const BUS_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest wait before the bus is asked again.
const BUS_PAUSE_MAX: Duration = Duration::from_secs(5);

/// The role `sender`.
pub struct Sender {
    /// Where transactions come from and receipts go.
    pub bus: SharedBus,
    /// Judges `not_after`.
    pub clock: SharedClock,
    /// The way to peers.
    pub peers: Peers,
    /// Whom to send to.
    pub policy: Policy,
    /// Sign.
    pub keys: Arc<SigningKeys>,
    /// Time-outs, back-off, bounds.
    pub config: FederationConfig,
    /// In whose name.
    pub local: ServerName,
    /// How many slices the key space has.
    pub partitions: u16,
    /// A peer that has been failing for so long gets each transaction once.
    pub give_up: Duration,
}

/// How [`Work::take`] ended.
enum End {
    Stopped,
    Lost(SubscriptionError),
}

struct Work {
    bus: SharedBus,
    clock: SharedClock,
    courier: Courier,
    partitions: u16,
    prefetch: u16,
    /// What came before starts within so long, so that not all of it starts at once.
    spread: Duration,
}

impl Sender {
    /// Runs until `stop`, and then until the requests under way are answered, for a few seconds at most. What is unfinished stays
    /// unacknowledged and comes again to whoever sends next.
    /// Lost subscriptions are renewed. Fails only when the bus was shut down under it.
    pub async fn run(self, stop: CancellationToken) -> Result<(), SubscriptionError> {
        let work = self.into_work();
        let mut pause = Backoff::new(BUS_PAUSE_MIN, BUS_PAUSE_MAX);
        loop {
            let end = match stop.run_until_cancelled(work.subscribe()).await {
                None => return Ok(()),
                Some(Err(error)) => End::Lost(error),
                Some(Ok(subscription)) => {
                    pause = Backoff::new(BUS_PAUSE_MIN, BUS_PAUSE_MAX);
                    work.take(subscription, &stop).await
                }
            };
            match end {
                End::Stopped => return Ok(()),
                End::Lost(SubscriptionError::Closed) if stop.is_cancelled() => return Ok(()),
                End::Lost(SubscriptionError::Closed) => return Err(SubscriptionError::Closed),
                End::Lost(error) => tracing::warn!(%error, "subscribing to outbound again"),
            }
            if stop.run_until_cancelled(sleep(pause.next())).await.is_none() {
                return Ok(());
            }
        }
    }

    fn into_work(self) -> Work {
        // Most of what is held waits for a peer's next chance, and must not keep others from theirs.
        let prefetch = u16::try_from(held(self.config.concurrency)).unwrap_or(u16::MAX);
        let spread = self.config.backoff_min;
        let clock = self.clock.clone();
        let courier = Courier::new(clock, self.peers, self.policy, self.keys, self.config, self.local, self.give_up);
        Work { bus: self.bus, clock: self.clock, courier, partitions: self.partitions, prefetch, spread }
    }
}

impl Work {
    async fn subscribe(&self) -> Result<Box<dyn Subscription>, SubscriptionError> {
        self.bus.subscribe(&[(Queue::Outbound, self.prefetch)]).await
    }

    /// Handles deliveries, as many at once as the queue gives, until `stop` or the end of the subscription.
    async fn take(&self, mut subscription: Box<dyn Subscription>, stop: &CancellationToken) -> End {
        let mut under_way = UnderWay::new(self.partitions, |receipts| self.tell(receipts));
        let lost = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break None,
                Some(tokens) = under_way.next(), if !under_way.is_empty() => {
                    if let Err(error) = subscription.ack(tokens).await {
                        break Some(error);
                    }
                }
                delivery = subscription.next() => match delivery {
                    Ok(delivery) => under_way.push(self.handle(delivery, stop)),
                    Err(error) => break Some(error),
                },
            }
        };
        if let Some(error) = lost {
            under_way.abandon();
            return End::Lost(error);
        }
        let finish = async {
            while let Some(tokens) = under_way.next().await {
                subscription.ack(tokens).await?;
            }
            Ok(())
        };
        let finished = timeout(FINISH, finish).await;
        under_way.abandon();
        match finished {
            Ok(Err(error)) => End::Lost(error),
            Ok(Ok(())) | Err(_) => End::Stopped,
        }
    }

    /// Sees one delivery to its end, but for its receipt; `None`: the bus is closing, or `stop` came while it waited: leave it unacknowledged.
    async fn handle(&self, delivery: Delivery, stop: &CancellationToken) -> Option<Done> {
        delivery.count_redelivery();
        if delivery.redelivered {
            stop.run_until_cancelled(sleep(self.spread.mul_f64(fastrand::f64()))).await?;
        }
        let message = match decode(&delivery.body) {
            Ok(message) => message,
            Err(reason) => return self.bury(delivery, reason).await,
        };
        let trace = delivery.headers.trace;
        let span = tracing::info_span!(
            "send",
            destination = %message.destination,
            txn_id = %message.txn_id,
            trace_id = trace.map(tracing::field::display),
        );
        match self.courier.deliver_until(&message, stop).instrument(span.clone()).await {
            Ok(None) => None,
            Ok(Some(report)) => {
                let receipt = span.in_scope(|| self.receipt(message, report, trace));
                Some(Done { token: delivery.token, receipt: Some(receipt) })
            }
            Err(error) => self.bury(delivery, error.to_string()).await,
        }
    }

    fn receipt(&self, message: OutboundMessage, report: Report, trace: Option<TraceId>) -> Receipt {
        metrics::counter!("rollcall_receipts_total", "outcome" => report.as_str()).increment(1);
        tracing::debug!(outcome = report.as_str(), "receipt");
        let OutboundMessage { destination: to, txn_id, .. } = message;
        let Report { outcome, retry_after_ms, .. } = report;
        let signal = PeerSignal::Receipt { txn_id, outcome, retry_after_ms };
        Addressed { to, at: self.clock.now(), reply: None, trace, signal }
    }

    /// Tells links what became of their transactions; `false`: the bus is closed.
    fn tell(&self, receipts: Vec<Receipt>) -> impl Future<Output = bool> + Send + use<'_> {
        let mut packer = Packer::new(self.partitions);
        receipts.into_iter().for_each(|receipt| packer.peer(receipt));
        self.publish(packer.finish(false))
    }

    /// Puts what cannot be sent aside, with the reason.
    async fn bury(&self, delivery: Delivery, reason: String) -> Option<Done> {
        tracing::warn!(reason, "dead letter");
        metrics::counter!("rollcall_dead_letters_total", "origin" => "outbound", "reason" => "undecodable")
            .increment(1);
        let mut dead = Outgoing::new(Exchange::Dead, "", delivery.body);
        dead.headers.trace = delivery.headers.trace;
        dead.headers.reason = Some(reason);
        dead.headers.origin = Some(Queue::Outbound.to_string());
        self.publish(vec![dead]).await.then_some(Done { token: delivery.token, receipt: None })
    }

    /// Publishes until confirmed, the same bytes; `false`: the bus is closed.
    async fn publish(&self, messages: Vec<Outgoing>) -> bool {
        let mut pause = Backoff::new(BUS_PAUSE_MIN, BUS_PAUSE_MAX);
        loop {
            match self.bus.publish(messages.clone()).await {
                Ok(()) => return true,
                Err(PublishError::Closed) => return false,
                Err(error) => tracing::warn!(%error, "publishing again"),
            }
            sleep(pause.next()).await;
        }
    }
}

fn decode(body: &[u8]) -> Result<OutboundMessage, String> {
    let message: OutboundMessage = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if message.v != 1 {
        return Err(format!("\"v\" is {}, not 1", message.v));
    }
    ServerName::parse(message.destination.as_str()).map_err(|error| format!("\"destination\": {error}"))?;
    if !(1..=255).contains(&message.txn_id.len()) {
        return Err(format!("\"txn_id\" has {} bytes, not 1 to 255", message.txn_id.len()));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_says_why() {
        let good = r#"{"v":1,"destination":"b.example","txn_id":"1","not_after":5,"body":{"pdus":[]}}"#;
        assert_eq!(decode(good.as_bytes()).unwrap().body.get(), r#"{"pdus":[]}"#);
        for (from, to, part) in [
            ("\"v\":1", "\"v\":2", "\"v\" is 2"),
            ("b.example", "b example", "\"destination\""),
            ("\"txn_id\":\"1\"", "\"txn_id\":\"\"", "\"txn_id\""),
            ("not_after", "x", "not_after"),
            ("{", "", "line 1"),
        ] {
            let reason = decode(good.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        }
    }
}
