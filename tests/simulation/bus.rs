//! A bus as a process knows it: confirms that are late or never come, subscriptions that break, queues that are not there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use rollcall::bus::Queue;
use rollcall::bus::{
    Bus, BusError, Delivery, Exchange, Outgoing, PublishError, QueueDepth, Reply, Subscription, SubscriptionError,
    Token,
};
use rollcall::lifecycle::spawn;
use rollcall::wire::envelope::{Packet, decode};
use tokio::sync::{Notify, mpsc};
use tokio::time::Duration;

use super::bounds;
use super::broker::{Broker, Done};
use super::life::Life;
use super::watch;

/// After so long a publisher gives up waiting for its confirms.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The worker, which commits before it says anything.
    Worker,
    /// Edges, ingest, senders.
    Other,
}

/// One process's way to its broker.
#[derive(Clone)]
pub struct SimBus {
    pub life: Arc<Life>,
    pub broker: Arc<Mutex<Broker>>,
    pub role: Role,
}

impl SimBus {
    fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap()
    }

    fn enqueue(&self, message: Outgoing) {
        let sim = &self.life.sim;
        if self.role == Role::Worker {
            watch::published(sim, self.life.server, &message);
        }
        if message.exchange == Exchange::Updates {
            return watch::shown(sim, self.life.server, &*self.life, &message.body);
        }
        let mut broker = self.broker();
        if let Some(queue) = broker.route(&message) {
            sim.note(message.body.len() as u64, || {
                let what = decode::<Packet>(&message.body).map(|packet| format!("{packet:?}"));
                format!("{:?} puts {} bytes on {queue}: {}", self.life, message.body.len(), what.unwrap_or_default())
            });
            if sim.plan.reorders && queue.is_partitioned() {
                if sim.strikes(sim.plan.faults.strays) {
                    return self.lead_astray(broker, &queue, message);
                }
                if sim.strikes(sim.plan.faults.echoes) {
                    self.lead_astray(broker, &queue, message.clone());
                    broker = self.broker();
                }
            }
            let overtaken = if sim.plan.reorders && sim.strikes(300) { sim.rng().usize(1..=4) } else { 0 };
            broker.put_before(&queue, message, overtaken);
        }
    }

    /// For longer than much else takes, but not for longer than the storm.
    fn lead_astray(&self, mut broker: MutexGuard<'_, Broker>, queue: &Queue, message: Outgoing) {
        let sim = self.life.sim.clone();
        let id = broker.lead_astray(queue.clone(), message);
        sim.note(15, || format!("the message {id} on {queue} of s{} goes astray", self.life.server));
        drop(broker);
        let broker = self.broker.clone();
        spawn("a stray", async move {
            sim.pause(100, 12_000).await;
            sim.note(18, || format!("the message {id} that went astray is there"));
            broker.lock().unwrap().bring_back(id);
        });
    }

    /// No queue takes this, for the moment.
    fn unroutable(&self, messages: &[Outgoing]) -> Option<PublishError> {
        let broker = self.broker();
        let lost = messages.iter().find(|it| it.exchange != Exchange::Updates && broker.route(it).is_none())?;
        let (exchange, routing_key) = (lost.exchange.name().into(), lost.routing_key.clone());
        Some(PublishError::Unroutable { exchange, routing_key })
    }

    /// Ends a subscription. What it held comes again in its order, or in none.
    fn end(&self, id: u64) {
        end_subscription(&self.broker, &self.life, id);
    }
}

/// See [`SimBus::end`].
pub fn end_subscription(broker: &Mutex<Broker>, life: &Life, id: u64) {
    let sim = &life.sim;
    let mut place = |len: usize| if sim.plan.reorders { sim.rng().usize(0..=len) } else { 0 };
    broker.lock().unwrap().unsubscribe(id, &mut place);
}

#[async_trait]
impl Bus for SimBus {
    async fn declare(&self) -> Result<(), BusError> {
        Ok(())
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Result<(), PublishError> {
        let sim = &self.life.sim;
        let faults = sim.plan.faults;
        self.life.pass().await;
        if sim.strikes(faults.publish_slow) {
            sim.pause(1, 1_500).await;
            self.life.pass().await;
        }
        let unconfirmed = sim.strikes(faults.publish_unconfirmed);
        let unroutable = self.unroutable(&messages);
        for message in messages {
            if !unconfirmed || sim.strikes(500) {
                self.enqueue(message);
            }
            if sim.plan.faults.sudden_death > 0 {
                // It may die between any two of them.
                self.life.pass().await;
            }
        }
        if unconfirmed {
            tokio::time::sleep(CONFIRM_TIMEOUT).await;
        }
        self.life.pass().await;
        match unroutable {
            _ if unconfirmed => Err(PublishError::Unconfirmed(CONFIRM_TIMEOUT, "the connection broke".into())),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    async fn reply(&self, _: &str, body: Bytes) {
        if self.life.runs() {
            watch::applied(&self.life.sim, &body);
        }
    }

    fn replies(&self) -> mpsc::Receiver<Reply> {
        mpsc::channel(1).1
    }

    async fn subscribe(&self, queues: &[(Queue, u16)]) -> Result<Box<dyn Subscription>, SubscriptionError> {
        self.life.pass().await;
        let mut broker = self.broker();
        let names: BTreeSet<&Queue> = queues.iter().map(|(queue, _)| queue).collect();
        if names.iter().any(|queue| broker.missing.contains(*queue)) {
            return Err(SubscriptionError::Lost("no such queue".into()));
        }
        let (id, wake) = broker.subscribe(self.life.id, queues);
        drop(broker);
        Ok(Box::new(SimSubscription { bus: self.clone(), id, wake }))
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, BusError> {
        Ok(Vec::new())
    }

    async fn close(&self) {}
}

/// See [`SimBus`].
struct SimSubscription {
    bus: SimBus,
    id: u64,
    wake: Arc<Notify>,
}

impl SimSubscription {
    fn lost() -> SubscriptionError {
        SubscriptionError::Lost("the channel broke".into())
    }

    fn breaks(&self) -> bool {
        let sim = &self.bus.life.sim;
        let breaks = sim.strikes(sim.plan.faults.subscription_lost);
        if breaks {
            sim.note(8, || format!("{:?} loses a subscription", self.bus.life));
            self.bus.end(self.id);
        }
        breaks
    }
}

/// Its end is the connection's: what it held comes again.
impl Drop for SimSubscription {
    fn drop(&mut self) {
        self.bus.end(self.id);
    }
}

#[async_trait]
impl Subscription for SimSubscription {
    async fn next(&mut self) -> Result<Delivery, SubscriptionError> {
        loop {
            self.bus.life.pass().await;
            let taken = self.bus.broker().take(self.id).map_err(|()| Self::lost())?;
            if let Some(delivery) = taken {
                return Ok(delivery);
            }
            self.wake.notified().await;
        }
    }

    fn try_next(&mut self) -> Option<Delivery> {
        if !self.bus.life.runs() {
            return None;
        }
        self.bus.broker().take(self.id).ok().flatten()
    }

    async fn ack(&mut self, tokens: Vec<Token>) -> Result<(), SubscriptionError> {
        self.bus.life.pass().await;
        if self.breaks() {
            return Err(Self::lost());
        }
        let done = self.bus.broker().acknowledge(self.id, &tokens).map_err(|()| Self::lost())?;
        let life = &self.bus.life;
        for Done { queue, message, held } in done {
            bounds::held(&life.sim, life.server, &queue, held);
            watch::acknowledged(&life.sim, life.server, &message.body);
        }
        Ok(())
    }
}
