//! Servers and the network between them. Time jumps to the next thing that happens.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::count::{Body, Meter};
use super::domain::Domain;
use super::{Outcome, Scenario};
use crate::core::Transaction;
use crate::core::signal::{Inbound, Outcome as Receipt, PeerSignal, UserSignal};
use crate::model::{ServerName, Timestamp, UserId};
use crate::wire::matrix::parse_edus;

/// When every simulation starts: as good as any other moment.
const START: Timestamp = Timestamp(1_795_400_000_000);
/// One way between two servers, ms.
const LATENCY_MS: u64 = 50;
const BEAT_MS: u64 = 1_000;

/// What happens at some moment.
enum Event {
    /// A transaction arrives.
    Arrival { from: usize, to: usize, transaction: Transaction },
    /// Its answer does.
    Answer { from: usize, to: usize, txn_id: Box<str> },
    /// A machine of this server wants to be looked at.
    Wake(usize),
    /// All servers hear their own beats.
    Beat,
}

/// The order of events: by time, then as they were planned.
struct Planned(Timestamp, u64, Event);

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Server 0 is the local one, the others are its peers.
pub(super) struct World {
    pub(super) now: Timestamp,
    domains: Vec<Domain>,
    /// For each server: when its machines are woken next.
    wakes: Vec<Option<Timestamp>>,
    events: BinaryHeap<Reverse<Planned>>,
    planned: u64,
    /// Events that are no beats or wakes: without any, nothing is on its way.
    under_way: usize,
    meter: Meter,
    pub(super) outcome: Outcome,
}

impl World {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let names = (0..=scenario.peers).map(|n| if n == 0 { "a.example".into() } else { format!("b{n}.example") });
        let domains: Vec<Domain> = names
            .map(|name| Domain::new(ServerName::parse(&name).expect("a server name"), &scenario.settings()))
            .collect();
        let mut world = Self {
            now: START,
            wakes: vec![None; domains.len()],
            meter: Meter::between(&domains[0].name, &domains[1].name),
            domains,
            events: BinaryHeap::new(),
            planned: 0,
            under_way: 0,
            outcome: Outcome::default(),
        };
        world.plan(START.plus(BEAT_MS), Event::Beat);
        world
    }

    /// How many servers the contacts are on.
    pub(super) fn peers(&self) -> usize {
        self.domains.len() - 1
    }

    /// User `n` of the server of this number.
    pub(super) fn user(&self, server: usize, n: usize) -> UserId {
        UserId::from_parts(&format!("user{n:06}"), &self.domains[server].name)
    }

    /// Lets somebody do something now.
    pub(super) fn act(&mut self, server: usize, user: UserId, signal: UserSignal) {
        self.domains[server].user(self.now, user, signal);
        self.after(server);
    }

    /// Goes on until `until`.
    pub(super) fn run_until(&mut self, until: Timestamp) {
        while self.events.peek().is_some_and(|Reverse(Planned(at, ..))| *at <= until) {
            self.step();
        }
        self.now = until;
    }

    /// Goes on until nothing has been said for `quiet_ms`.
    pub(super) fn run_until_quiet(&mut self, quiet_ms: u64) {
        let mut last = self.now;
        while self.now.since(last) < quiet_ms {
            self.step();
            if self.under_way > 0 {
                last = self.now;
            }
        }
    }

    fn plan(&mut self, at: Timestamp, event: Event) {
        self.planned += 1;
        self.under_way += usize::from(!matches!(event, Event::Wake(_) | Event::Beat));
        self.events.push(Reverse(Planned(at, self.planned, event)));
    }

    fn step(&mut self) {
        let Some(Reverse(Planned(at, _, event))) = self.events.pop() else { return };
        self.now = at;
        self.under_way -= usize::from(!matches!(event, Event::Wake(_) | Event::Beat));
        match event {
            Event::Arrival { from, to, transaction } => {
                let txn_id = transaction.txn_id.clone();
                let inbound = self.receive(from, to, transaction);
                let origin = self.domains[from].name.clone();
                self.domains[to].peer(at, origin, PeerSignal::Transaction(Box::new(inbound)));
                self.after(to);
                self.plan(at.plus(LATENCY_MS), Event::Answer { from: to, to: from, txn_id });
            }
            Event::Answer { from, to, txn_id } => {
                let peer = self.domains[from].name.clone();
                let receipt = PeerSignal::Receipt { txn_id, outcome: Receipt::Delivered, retry_after_ms: None };
                self.domains[to].peer(at, peer, receipt);
                self.after(to);
            }
            Event::Wake(server) => {
                self.wakes[server] = self.wakes[server].filter(|next| *next > at);
                self.domains[server].wake(at);
                self.after(server);
            }
            Event::Beat => {
                for server in 0..self.domains.len() {
                    self.domains[server].beat(at);
                    self.after(server);
                }
                self.plan(at.plus(BEAT_MS), Event::Beat);
            }
        }
    }

    /// Sends what a server said, and sees to it that it is woken in time.
    fn after(&mut self, server: usize) {
        for transaction in self.domains[server].take_sent() {
            let to = self.domains.iter().position(|domain| domain.name == transaction.destination);
            let Some(to) = to else { continue };
            self.plan(self.now.plus(LATENCY_MS), Event::Arrival { from: server, to, transaction });
        }
        let Some(at) = self.domains[server].next_wake().map(|at| at.max(self.now)) else { return };
        if self.wakes[server].is_none_or(|planned| at < planned) {
            self.wakes[server] = Some(at);
            self.plan(at, Event::Wake(server));
        }
    }

    /// What an edge makes of a request, counted.
    fn receive(&mut self, from: usize, to: usize, transaction: Transaction) -> Inbound {
        let body = Body::read(&transaction);
        let (origin, local) = (&self.domains[from].name, &self.domains[to].name);
        let (mut inbound, rejects) = parse_edus(origin, local, &body.edus, self.now, body.sent_at);
        assert!(rejects.is_empty(), "our own transaction is refused: {rejects:?}");
        self.meter.count(&transaction, &body, &inbound, &mut self.outcome);
        inbound.txn_id = transaction.txn_id;
        inbound
    }
}
