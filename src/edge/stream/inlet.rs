//! From the bus to the streams.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::registry::Streams;
use crate::bus::{Delivery, Queue, SharedBus, Subscription, SubscriptionError};
use crate::clock::SharedClock;
use crate::wire::update::UpdateMessage;

/// Updates that may wait in this process's memory; the rest waits in the queue, which has a bound.
const PREFETCH: u16 = 1_000;
/// Updates that are acknowledged together.
const AT_ONCE: usize = 500;
/// Updates after which streams get to write: half of what a stream's buffer holds by default, and enough that a busy runtime, which
/// comes back to this only after all others, does not let the queue overflow.
const BEFORE_WRITING: usize = 8;
/// Before a lost subscription is made anew, ms.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 200..=1_000;

/// Takes this edge's updates until `stop`, or the end of the bus. After every loss all streams get their lists again.
pub(crate) async fn listen(bus: SharedBus, clock: SharedClock, streams: Arc<Streams>, stop: CancellationToken) {
    loop {
        let listening = async {
            let queue = Queue::Updates(streams.name.clone());
            let mut subscription = bus.subscribe(&[(queue, PREFETCH)]).await?;
            streams.relist();
            take(&mut *subscription, &clock, &streams).await
        };
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = listening => ended,
        };
        match ended {
            Ok(()) | Err(SubscriptionError::Closed) => return,
            Err(SubscriptionError::Lost(reason)) => tracing::warn!(edge = %streams.name, reason, "updates were lost"),
        }
        sleep(Duration::from_millis(fastrand::u64(PAUSE_MS))).await;
    }
}

async fn take(
    subscription: &mut dyn Subscription,
    clock: &SharedClock,
    streams: &Streams,
) -> Result<(), SubscriptionError> {
    loop {
        let mut deliveries = vec![subscription.next().await?];
        deliveries.extend(std::iter::from_fn(|| subscription.try_next()).take(AT_ONCE - 1));
        counter!("rollcall_updates_received_total").increment(deliveries.len() as u64);
        for few in deliveries.chunks(BEFORE_WRITING) {
            few.iter().for_each(|delivery| deliver(delivery, clock, streams));
            // A stream writes before more comes: a burst is no reason to read its list again.
            yield_now().await;
        }
        subscription.ack(deliveries.into_iter().map(|delivery| delivery.token).collect()).await?;
    }
}

fn deliver(delivery: &Delivery, clock: &SharedClock, streams: &Streams) {
    match UpdateMessage::decode(&delivery.body, clock.now()) {
        Ok((observer, events)) => streams.deliver(&observer, &events),
        Err(error) => {
            tracing::warn!(%error, "an update that is none");
            counter!("rollcall_updates_dropped_total", "reason" => "unreadable").increment(1);
        }
    }
}
