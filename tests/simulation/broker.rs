//! One server's queues, which outlive its processes: in order while nothing fails, flagged when they come again, one consumer at a
//! time for what is a partition's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rollcall::bus::{Delivery, Exchange, Headers, Outgoing, Queue, Token, Topology};
use rollcall::model::ServerName;
use rollcall::wire::outbound::OutboundMessage;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

/// A message on a queue.
#[derive(Clone)]
pub struct Message {
    id: u64,
    routing_key: Box<str>,
    pub body: Bytes,
    pub headers: Headers,
    returns: u32,
}

struct Sub {
    process: u64,
    /// With the prefetch and what is held of each.
    queues: Vec<(Queue, u16, u16)>,
    /// Since when each is.
    held: BTreeMap<u64, (Queue, Message, Instant)>,
    turn: usize,
    wake: Arc<Notify>,
}

/// A message that was done with.
pub struct Done {
    pub queue: Queue,
    pub message: Message,
    pub held: Duration,
}

/// See the module.
pub struct Broker {
    topology: Topology,
    queues: BTreeMap<Queue, VecDeque<Message>>,
    subs: BTreeMap<u64, Sub>,
    /// With consumers that hang: they come again late, or once more though they were acknowledged.
    astray: BTreeMap<u64, (Queue, Message)>,
    next: u64,
    /// Queues that are not there for the moment.
    pub missing: BTreeSet<Queue>,
}

impl Broker {
    pub fn new(partitions: u16) -> Self {
        let topology = Topology { prefix: "presence.".into(), partitions };
        let queues = topology.queues().into_iter().map(|queue| (queue, VecDeque::new())).collect();
        Self { topology, queues, subs: BTreeMap::new(), astray: BTreeMap::new(), next: 0, missing: BTreeSet::new() }
    }

    pub fn route(&self, message: &Outgoing) -> Option<Queue> {
        let queue = self.topology.route(message.exchange, &message.routing_key);
        queue.filter(|queue| !self.missing.contains(queue))
    }

    /// Puts one in.
    pub fn put(&mut self, queue: &Queue, message: Outgoing) {
        self.put_before(queue, message, 0);
    }

    /// Puts one in, in front of the last so many: nobody may rely on the order of a queue.
    pub fn put_before(&mut self, queue: &Queue, message: Outgoing, last: usize) {
        let message = self.message(message);
        if let Some(waiting) = self.queues.get_mut(queue) {
            waiting.insert(waiting.len().saturating_sub(last), message);
            self.wake(queue);
        }
    }

    /// Leads one astray; what it is found again by.
    pub fn lead_astray(&mut self, queue: Queue, message: Outgoing) -> u64 {
        let mut message = self.message(message);
        message.returns = 1;
        let id = message.id;
        self.astray.insert(id, (queue, message));
        id
    }

    /// One that went astray comes back, behind all that came meanwhile.
    pub fn bring_back(&mut self, id: u64) {
        let Some((queue, message)) = self.astray.remove(&id) else { return };
        if let Some(waiting) = self.queues.get_mut(&queue) {
            waiting.push_back(message);
            self.wake(&queue);
        }
    }

    /// All of them do.
    pub fn bring_all_back(&mut self) {
        while let Some(id) = self.astray.keys().next().copied() {
            self.bring_back(id);
        }
    }

    fn message(&mut self, message: Outgoing) -> Message {
        let Outgoing { routing_key, body, headers, .. } = message;
        Message { id: self.number(), routing_key: routing_key.into(), body, headers, returns: 0 }
    }

    pub fn subscribe(&mut self, process: u64, queues: &[(Queue, u16)]) -> (u64, Arc<Notify>) {
        let (id, wake) = (self.number(), Arc::new(Notify::new()));
        let queues = queues.iter().map(|(queue, prefetch)| (queue.clone(), *prefetch, 0)).collect();
        self.subs.insert(id, Sub { process, queues, held: BTreeMap::new(), turn: 0, wake: wake.clone() });
        (id, wake)
    }

    /// What it held comes again. `order`: where in the queue each does, 0 for its own place.
    pub fn unsubscribe(&mut self, id: u64, mut place: impl FnMut(usize) -> usize) {
        let Some(sub) = self.subs.remove(&id) else { return };
        sub.wake.notify_one();
        for (_, (queue, mut message, _)) in sub.held.into_iter().rev() {
            message.returns += 1;
            let Some(waiting) = self.queues.get_mut(&queue) else { continue };
            let at = place(waiting.len());
            waiting.insert(at, message);
        }
        for (queue, ..) in &sub.queues {
            self.wake(queue);
        }
    }

    /// The subscriptions of a process.
    pub fn of_process(&self, process: u64) -> Vec<u64> {
        self.subs.iter().filter(|(_, sub)| sub.process == process).map(|(id, _)| *id).collect()
    }

    /// `Err`: there is no such subscription any longer.
    pub fn take(&mut self, id: u64) -> Result<Option<Delivery>, ()> {
        let count = self.subs.get(&id).ok_or(())?.queues.len();
        for step in 0..count {
            let Some(sub) = self.subs.get(&id) else { return Err(()) };
            let at = (sub.turn + step) % count;
            let (queue, prefetch, held) = sub.queues[at].clone();
            if held < prefetch
                && self.serves(&queue, id)
                && let Some(message) = self.queues.get_mut(&queue).and_then(VecDeque::pop_front)
            {
                return Ok(self.hand_over(id, at, queue, message));
            }
        }
        Ok(None)
    }

    fn hand_over(&mut self, id: u64, at: usize, queue: Queue, message: Message) -> Option<Delivery> {
        let sub = self.subs.get_mut(&id)?;
        sub.queues[at].2 += 1;
        sub.turn = at + 1;
        let delivery = Delivery {
            queue: queue.clone(),
            routing_key: message.routing_key.clone(),
            body: message.body.clone(),
            headers: message.headers.clone(),
            redelivered: message.returns > 0,
            returns: message.returns,
            token: Token::new(message.id),
        };
        sub.held.insert(message.id, (queue, message, Instant::now()));
        Some(delivery)
    }

    /// What is done with; `Err`: there is no such subscription any longer.
    pub fn acknowledge(&mut self, id: u64, tokens: &[Token]) -> Result<Vec<Done>, ()> {
        let sub = self.subs.get_mut(&id).ok_or(())?;
        let mut done = Vec::new();
        for token in tokens {
            let Some((queue, message, since)) = sub.held.remove(&token.number()) else { continue };
            sub.queues.iter_mut().filter(|(of, ..)| *of == queue).for_each(|(_, _, held)| *held -= 1);
            done.push(Done { queue, message, held: since.elapsed() });
        }
        sub.wake.notify_one();
        Ok(done)
    }

    /// What waits on each queue and is held from it, where it is not nothing.
    pub fn depths(&self) -> Vec<(Queue, usize)> {
        let held = |queue: &Queue| {
            let subs = self.subs.values().flat_map(|sub| &sub.queues);
            subs.filter(|(of, ..)| of == queue).map(|(_, _, held)| usize::from(*held)).sum::<usize>()
        };
        let depths = self.queues.iter().map(|(queue, waiting)| (queue.clone(), waiting.len() + held(queue)));
        depths.filter(|(_, depth)| *depth > 0).collect()
    }

    /// What is held now, and for how long.
    pub fn held(&self) -> impl Iterator<Item = (&Queue, Duration)> {
        let held = self.subs.values().flat_map(|sub| sub.held.values());
        held.map(|(queue, _, since)| (queue, since.elapsed()))
    }

    /// Where what waits for a sender, or is held by one, is to go.
    pub fn destinations(&self) -> BTreeSet<ServerName> {
        let waiting = self.queues.get(&Queue::Outbound).into_iter().flatten();
        let held = self.subs.values().flat_map(|sub| sub.held.values());
        let held = held.filter(|(queue, ..)| *queue == Queue::Outbound).map(|(_, message, _)| message);
        let read = |message: &Message| serde_json::from_slice::<OutboundMessage>(&message.body).expect("a transaction");
        waiting.chain(held).map(|message| read(message).destination).collect()
    }

    pub fn dead(&self) -> impl Iterator<Item = &Message> {
        self.queues.get(&Queue::Dead).into_iter().flatten()
    }

    /// All messages, as a backup of the queues holds them; what is held counts as waiting.
    pub fn snapshot(&self) -> BTreeMap<Queue, VecDeque<Message>> {
        let mut queues = self.queues.clone();
        let held = self.subs.values().flat_map(|sub| sub.held.values()).map(|(queue, message, _)| (queue, message));
        for (queue, message) in held.chain(self.astray.values().map(|(queue, message)| (queue, message))) {
            queues.entry(queue.clone()).or_default().push_back(message.clone());
        }
        queues
    }

    pub fn restore(&mut self, queues: BTreeMap<Queue, VecDeque<Message>>) {
        self.subs.clear();
        self.astray.clear();
        let dead = self.queues.remove(&Queue::Dead).unwrap_or_default();
        self.queues = queues;
        self.queues.insert(Queue::Dead, dead);
    }

    /// A partition has one consumer: the first that came.
    fn serves(&self, queue: &Queue, id: u64) -> bool {
        let mut takers = self.subs.iter().filter(|(_, sub)| sub.queues.iter().any(|(of, ..)| of == queue));
        !queue.is_partitioned() || takers.next().is_some_and(|(first, _)| *first == id)
    }

    fn wake(&self, queue: &Queue) {
        for sub in self.subs.values().filter(|sub| sub.queues.iter().any(|(of, ..)| of == queue)) {
            sub.wake.notify_one();
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// Whether a worker may only say this once it is committed.
pub fn is_committed_first(exchange: Exchange) -> bool {
    matches!(exchange, Exchange::Users | Exchange::Peers | Exchange::Batch | Exchange::Outbound)
}
