//! The network between servers, and the senders that use it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rollcall::bus::{Delivery, Queue, SharedBus, Subscription, Token};
use rollcall::clock::Clock as _;
use rollcall::core::signal::{Addressed, Outcome, PeerSignal};
use rollcall::lifecycle::spawn;
use rollcall::wire::envelope::Packer;
use rollcall::wire::outbound::OutboundMessage;
use serde_json::value::RawValue;
use tokio::time::{Duration, sleep};

use super::damage::{Garbled, garble};
use super::host::Host;
use super::life::Life;
use super::plain::Plain;
use super::sim::Sim;
use super::watch;

/// A server of the world.
pub enum Site {
    Rollcall(Arc<Host>),
    Plain(Arc<Plain>),
}

/// See the module.
pub struct Net {
    pub sim: Arc<Sim>,
    pub sites: Vec<Site>,
    /// Who cannot reach whom.
    pub cut: Mutex<BTreeSet<(usize, usize)>>,
    pub garbled: Mutex<Garbled>,
}

/// What became of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    Done(Outcome),
    Unanswered,
}

impl Net {
    pub fn host(&self, index: usize) -> Option<&Arc<Host>> {
        match &self.sites[index] {
            Site::Rollcall(host) => Some(host),
            Site::Plain(_) => None,
        }
    }

    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        (0..self.sites.len()).filter_map(|index| self.host(index))
    }

    pub fn index_of(&self, name: &str) -> usize {
        let names = self.sim.plan.servers.iter();
        names.map(|make| make.name.as_str()).position(|known| known == name).expect("a server of this world")
    }

    /// One request: there and back.
    pub async fn request(self: &Arc<Self>, from: usize, to: usize, txn_id: &str, body: &RawValue) -> Attempt {
        let faults = self.sim.plan.faults;
        if self.cut.lock().unwrap().contains(&(from, to)) || self.sim.strikes(faults.request_lost) {
            self.sim.pause(50, 1_000).await;
            return Attempt::Unanswered;
        }
        let slow = self.sim.strikes(faults.request_slow);
        self.sim.pause(5, if slow { 2_000 } else { 60 }).await;
        if self.sim.strikes(faults.request_refused) {
            return Attempt::Done(if self.sim.strikes(300) { Outcome::TooLarge } else { Outcome::Failed });
        }
        // A plain server sends the next transaction only once this one is answered: its own repetitions are doubles enough.
        if self.host(from).is_some() && self.sim.strikes(faults.request_doubled) {
            spawn("a double", again(self.clone(), from, to, txn_id.to_owned(), body.to_owned()));
        }
        let arrived = self.arrive(from, to, txn_id, body).await;
        let lost = self.sim.strikes(faults.answer_lost) || self.cut.lock().unwrap().contains(&(to, from));
        self.sim.pause(5, if slow { 2_000 } else { 60 }).await;
        if arrived && !lost { Attempt::Done(Outcome::Delivered) } else { Attempt::Unanswered }
    }

    async fn arrive(&self, from: usize, to: usize, txn_id: &str, body: &RawValue) -> bool {
        let origin = &self.sim.plan.servers[from].name;
        self.sim.note(to as u64, || format!("s{from} -> s{to} {txn_id} {}", body.get()));
        match &self.sites[to] {
            Site::Rollcall(host) => {
                let direct = self.sim.rng().bool();
                let other = garble(&self.sim, &mut self.garbled.lock().unwrap(), to, body);
                let taken = host.receive(origin, txn_id, other.as_deref().unwrap_or(body), direct).await;
                if taken {
                    watch::arrived(&self.sim, from, to, txn_id);
                }
                taken
            }
            Site::Plain(plain) => {
                plain.receive(from, txn_id, body);
                watch::arrived(&self.sim, from, to, txn_id);
                true
            }
        }
    }
}

async fn again(net: Arc<Net>, from: usize, to: usize, txn_id: String, body: Box<RawValue>) {
    net.sim.pause(1, 4_000).await;
    net.arrive(from, to, &txn_id, &body).await;
}

/// The role `sender` of one process: as the real one, but for the HTTP.
pub struct Sender {
    pub net: Arc<Net>,
    pub host: Arc<Host>,
    pub life: Arc<Life>,
    pub bus: SharedBus,
}

impl Sender {
    pub async fn run(self) {
        while !self.life.stop.is_cancelled() {
            if let Ok(subscription) = self.bus.subscribe(&[(Queue::Outbound, 64)]).await {
                self.take(subscription).await;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn take(&self, mut subscription: Box<dyn Subscription>) {
        let mut under_way: FuturesUnordered<BoxFuture<'_, Token>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = self.life.stop.cancelled() => return,
                Some(done) = under_way.next(), if !under_way.is_empty() => {
                    if subscription.ack(vec![done]).await.is_err() {
                        return;
                    }
                }
                delivery = subscription.next() => match delivery {
                    Ok(delivery) => under_way.push(self.handle(delivery).boxed()),
                    Err(_) => return,
                },
            }
        }
    }

    async fn handle(&self, delivery: Delivery) -> Token {
        let message: OutboundMessage = serde_json::from_slice(&delivery.body).expect("what the worker wrote");
        let to = self.net.index_of(message.destination.as_str());
        let outcome = self.deliver(to, &message).await;
        self.life.pass().await;
        watch::receipted(&self.net.sim, self.host.index, to, &message.txn_id, outcome);
        let mut packer = Packer::new(self.host.config.partitions);
        let signal = PeerSignal::Receipt { txn_id: message.txn_id.clone(), outcome, retry_after_ms: None };
        let (to, at) = (message.destination.clone(), self.life.now());
        packer.peer(Addressed { to, at, reply: None, trace: None, signal });
        let receipt = packer.finish(false);
        while self.bus.publish(receipt.clone()).await.is_err() {
            sleep(Duration::from_millis(200)).await;
        }
        delivery.token
    }

    async fn deliver(&self, to: usize, message: &OutboundMessage) -> Outcome {
        let mut wait = self.host.config.federation.backoff_min;
        loop {
            self.life.pass().await;
            let left = Duration::from_millis(message.not_after.since(self.life.now()));
            if left.is_zero() {
                return Outcome::Expired;
            }
            watch::attempted(&self.net.sim, self.host.index, to, message);
            if let Attempt::Done(outcome) = self.net.request(self.host.index, to, &message.txn_id, &message.body).await
            {
                return outcome;
            }
            if wait >= Duration::from_millis(message.not_after.since(self.life.now())) {
                return Outcome::Expired;
            }
            sleep(wait).await;
            wait = (wait * 2).min(self.host.config.federation.backoff_max);
        }
    }
}
