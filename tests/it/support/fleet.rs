//! A server and its peers, all of nothing but machines, with a line to each peer that a test bends; counts what a storm costs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rollcall::core::signal::{Outcome, UserSignal};
use rollcall::core::{Settings, Transaction};
use rollcall::model::{Presence, Timestamp};

use super::pair::{START, Server, defaults, device, lines, receive};

const DAY_MS: u64 = 24 * 3_600_000;
/// A sender that reaches nobody tries again after this.
const RETRY_MS: u64 = 5_000;
/// A sender waits for an answer no longer.
const PATIENCE_MS: u64 = 30_000;

/// What becomes of requests between the hub and one peer, both ways.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Up,
    /// Nobody can be reached.
    Down,
    /// Whoever is asked takes so many ms to answer.
    Late(u64),
}

/// What was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    pub transactions: u64,
    /// Statuses in them.
    pub entries: u64,
    /// Users asked for in them.
    pub polls: u64,
}

/// A request on its way, tried again with the same bytes until it is answered or too late.
struct Flight {
    at: Timestamp,
    from: End,
    transaction: Transaction,
    is_answered: bool,
}

/// The hub or a peer, which is always at the other end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Hub(usize),
    Peer(usize),
}

/// The server `hub.example`, and peers each of whose users lists one of the hub's, and is listed by them.
pub struct Fleet {
    pub now: Timestamp,
    pub hub: Server,
    pub peers: Vec<Server>,
    pub lines: Vec<Line>,
    /// How many users the hub has.
    users: usize,
    flights: Vec<Flight>,
    /// What watchers of the hub's users noticed, or would have.
    pub changes: u64,
    /// What the hub made.
    pub made: Count,
    /// What of it reached a peer, each transaction once: a second try has the same bytes, and edges answer it as the first.
    pub arrived: Count,
    /// What peers made.
    pub heard: Count,
}

impl Fleet {
    /// Everybody is acquainted, and the peers' users are there to see.
    pub fn new(peers: usize, users: usize) -> Self {
        let settings = Settings { short_ms: 60_000, ..defaults() };
        let server = |name: &str| Server::with(name, settings.clone());
        let names: Vec<String> = (0..peers).map(|peer| format!("p{peer}.example")).collect();
        let mut fleet = Self {
            now: START,
            hub: server("hub.example"),
            peers: names.iter().map(|name| server(name)).collect(),
            lines: vec![Line::Up; peers],
            users,
            flights: Vec::new(),
            changes: 0,
            made: Count::default(),
            arrived: Count::default(),
            heard: Count::default(),
        };
        fleet.befriend();
        fleet
    }

    fn befriend(&mut self) {
        for user in 0..self.users {
            let theirs: Vec<String> = self.peers.iter().map(|peer| format!("@u{user}:{}", peer.name)).collect();
            let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
            self.hub.list(self.now, &ours(user), &theirs, &[]);
            for (peer, name) in self.peers.iter_mut().zip(theirs) {
                peer.list(self.now, name, &[&ours(user)], &[]);
                peer.session(self.now, name, Some(DAY_MS));
            }
        }
        self.pass(60);
        self.forget();
    }

    /// Counts from here on.
    pub fn forget(&mut self) {
        (self.changes, self.made, self.arrived, self.heard) = (0, Count::default(), Count::default(), Count::default());
    }

    /// A user of the hub's says this; coming back online is noticed twice: a minute later they count as active no longer.
    pub fn set(&mut self, user: usize, presence: Presence) {
        self.changes += if presence == Presence::Online { 2 } else { 1 };
        self.hub.set(self.now, &ours(user), presence, None);
    }

    /// A user who is there anyway says so, after a time in which they were not heard: that they acted is all that is noticed.
    pub fn act(&mut self, user: usize) {
        self.changes += 1;
        self.hub.set(self.now, &ours(user), Presence::Online, None);
    }

    /// Another text: one change.
    pub fn say(&mut self, user: usize, text: &str) {
        self.changes += 1;
        self.hub.set(self.now, &ours(user), Presence::Unavailable, Some(text));
    }

    /// The device of a user of the hub's has been idle for so long, or is no more: then they count as active for a minute, too.
    pub fn idle(&mut self, user: usize, idle_ms: Option<u64>) {
        self.changes += if idle_ms.is_some() { 1 } else { 2 };
        let stamp = self.hub.stamp(self.now);
        self.hub.tell(self.now, &ours(user), UserSignal::Idle { device: device("PHONE"), idle_ms, stamp });
    }

    /// A user of the hub's looks at their list, for a day.
    pub fn open(&mut self, user: usize) {
        self.hub.session(self.now, &ours(user), Some(DAY_MS));
    }

    /// Lets time pass, a second a step.
    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now.plus(1_000);
            self.hub.tick(self.now);
            self.peers.iter_mut().for_each(|peer| peer.tick(self.now));
            self.depart();
            self.fly();
        }
    }

    /// Lets time pass while the hub's host sleeps.
    pub fn sleep(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now.plus(1_000);
            self.peers.iter_mut().for_each(|peer| peer.tick(self.now));
            while self.peers.iter_mut().any(|peer| peer.sent().is_some()) {}
        }
    }

    /// What left since the last look is on its way.
    fn depart(&mut self) {
        let at = self.now;
        let numbers: BTreeMap<_, _> = self.peers.iter().enumerate().map(|(n, peer)| (peer.name.clone(), n)).collect();
        while let Some((transaction, body)) = self.hub.sent() {
            self.made.add(&lines(&body));
            let from = End::Hub(numbers[&transaction.destination]);
            self.flights.push(Flight { at, from, transaction, is_answered: false });
        }
        for (n, peer) in self.peers.iter_mut().enumerate() {
            while let Some((transaction, body)) = peer.sent() {
                self.heard.add(&lines(&body));
                self.flights.push(Flight { at, from: End::Peer(n), transaction, is_answered: false });
            }
        }
    }

    /// Requests that are due: each is delivered, tried again, or given up.
    fn fly(&mut self) {
        while let Some(next) = self.flights.iter().position(|flight| flight.at <= self.now) {
            let flight = self.flights.remove(next);
            self.attempt(flight);
            self.depart();
        }
    }

    fn attempt(&mut self, mut flight: Flight) {
        let (End::Hub(peer) | End::Peer(peer)) = flight.from;
        let late = match self.lines[peer] {
            Line::Late(ms) if !flight.is_answered => {
                // It is taken in any case; whether somebody still waits is another question.
                flight.at = self.now.plus(ms);
                flight.is_answered = true;
                return self.flights.push(flight);
            }
            Line::Late(ms) => ms,
            Line::Up => 0,
            Line::Down if self.now.plus(RETRY_MS) < flight.transaction.not_after => {
                flight.at = self.now.plus(RETRY_MS);
                return self.flights.push(flight);
            }
            Line::Down => return self.receipt(&flight, Outcome::Expired),
        };
        self.arrive(&flight);
        let outcome = if late > PATIENCE_MS { Outcome::Expired } else { Outcome::Delivered };
        self.receipt(&flight, outcome);
    }

    fn arrive(&mut self, flight: &Flight) {
        match flight.from {
            End::Hub(peer) => {
                let body = serde_json::from_str(flight.transaction.body.get()).unwrap();
                self.arrived.add(&lines(&body));
                receive(self.now, &self.hub.name, &flight.transaction, &mut self.peers[peer]);
            }
            End::Peer(peer) => receive(self.now, &self.peers[peer].name, &flight.transaction, &mut self.hub),
        }
    }

    fn receipt(&mut self, flight: &Flight, outcome: Outcome) {
        match flight.from {
            End::Hub(_) => self.hub.receipt(self.now, &flight.transaction, outcome),
            End::Peer(peer) => self.peers[peer].receipt(self.now, &flight.transaction, outcome),
        }
    }

    /// What the storm cost: statuses that reached peers for each change at the hub and each status that it was asked for.
    pub fn amplification(&self) -> f64 {
        self.arrived.entries as f64 / (self.changes + self.heard.polls) as f64
    }

    /// Says what the storm cost, and holds it to one status a change and peer.
    #[expect(clippy::print_stdout, reason = "the figures of a storm, with --nocapture")]
    pub fn judge(&self, storm: &str) {
        let mut words = String::new();
        let Self { changes, made, arrived, heard, .. } = self;
        let _ = write!(
            words,
            "{storm}: {changes} changes and {} polls in; out {} statuses in {} transactions ({} with those that reached nobody): \
             {:.2} each, {} peers watch",
            heard.polls,
            arrived.entries,
            arrived.transactions,
            made.entries,
            self.amplification(),
            self.peers.len()
        );
        println!("{words}");
        assert!(self.amplification() <= self.peers.len() as f64, "{words}");
    }
}

impl Count {
    fn add(&mut self, lines: &[String]) {
        let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count() as u64;
        self.transactions += 1;
        self.entries += count("push ");
        self.polls += count("poll ");
    }
}

/// A user of the hub's.
pub fn ours(user: usize) -> String {
    format!("@u{user}:hub.example")
}
