//! From one bus to another, so that nothing is left behind when a deployment goes from embedded queues to a broker.

use std::time::Duration;

use tokio::time::timeout;

use super::{BusError, Delivery, Exchange, Outgoing, PublishError, Queue, SharedBus, Subscription, SubscriptionError};
use super::{Token, Topology};

/// Messages on their way at once.
const CHUNK: u16 = 500;
/// How long a queue that has messages may take to give one, before it is asked whether it still has any.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why not everything was taken over. What was not is where it was; some of it may be at both.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The former bus does not say what it has.
    #[error("what waits in the former queues is not known")]
    Depths(#[from] BusError),
    /// Or does not give it.
    #[error("the former queue {queue} cannot be read")]
    Read {
        /// Which.
        queue: Queue,
        /// Why.
        source: SubscriptionError,
    },
    /// The new one does not take it.
    #[error("what waits in the former queue {queue} was not taken over")]
    Publish {
        /// Which.
        queue: Queue,
        /// Why.
        source: PublishError,
    },
}

/// Moves all messages of the deployment's queues, in the order of each queue; nobody else may take from `from`. Returns how many.
///
/// # Errors
/// See [`TransferError`].
pub async fn transfer(from: &SharedBus, to: &SharedBus, topology: &Topology) -> Result<u64, TransferError> {
    from.declare().await?;
    let mut moved = 0;
    for queue in topology.queues() {
        match transfer_queue(from, to, topology, &queue).await {
            // Dead letters may be out of reach for a time, and everything else goes on without them.
            Err(TransferError::Publish { queue: Queue::Dead, source }) => {
                tracing::warn!(error = %source, "the dead letters of the former queues stay there until the next start");
            }
            count => moved += count?,
        }
    }
    Ok(moved)
}

async fn transfer_queue(
    from: &SharedBus,
    to: &SharedBus,
    topology: &Topology,
    queue: &Queue,
) -> Result<u64, TransferError> {
    let name = topology.queue_name(queue);
    let lost = |source| TransferError::Read { queue: queue.clone(), source };
    let mut subscription: Option<Box<dyn Subscription>> = None;
    let mut moved = 0;
    while has_any(from, &name).await? {
        let subscription = match &mut subscription {
            Some(subscription) => subscription,
            none => none.insert(from.subscribe(&[(queue.clone(), CHUNK)]).await.map_err(lost)?),
        };
        let Ok(first) = timeout(PATIENCE, subscription.next()).await else { continue };
        let rest = std::iter::from_fn(|| subscription.try_next()).take(usize::from(CHUNK));
        let deliveries = std::iter::once(first.map_err(lost)?).chain(rest);
        let (messages, tokens): (Vec<Outgoing>, Vec<Token>) = deliveries.map(again).unzip();
        let count = tokens.len() as u64;
        to.publish(messages).await.map_err(|source| TransferError::Publish { queue: queue.clone(), source })?;
        subscription.ack(tokens).await.map_err(lost)?;
        moved += count;
    }
    Ok(moved)
}

async fn has_any(bus: &SharedBus, name: &str) -> Result<bool, BusError> {
    let depths = bus.depths().await?;
    Ok(depths.iter().any(|depth| depth.name == name && depth.ready + depth.unacked.unwrap_or(0) > 0))
}

/// The same message, but that nobody waits for a reply any longer.
fn again(delivery: Delivery) -> (Outgoing, Token) {
    let Delivery { queue, routing_key, body, mut headers, token, .. } = delivery;
    headers.reply_to = None;
    let exchange = queue.exchange();
    let routing_key = if exchange == Exchange::Dead { String::new() } else { routing_key.to_string() };
    (Outgoing { exchange, routing_key, body, headers }, token)
}
