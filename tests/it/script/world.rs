//! Servers of nothing but machines, foreign ones, and the network between them. Time jumps to the next thing that happens.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;
use rollcall::config::Config;
use rollcall::core::rows::{RemoteRow, user_key};
use rollcall::core::signal::{Addressed, Outcome, PeerSignal, UserSignal};
use rollcall::core::{Machines, Output, Settings, Transaction};
use rollcall::model::{Presence, ServerName, Timestamp, UserId};
use rollcall::store::{RowKey, RowKind};
use rollcall::wire::envelope::{decode, encode};
use rollcall::wire::matrix::parse_edus;
use serde_json::value::RawValue;

use super::parse::{Line, Make};
use super::show;

pub const START: Timestamp = Timestamp(1_795_400_000_000);
/// One way between two servers, ms.
const LATENCY_MS: u64 = 50;
const BEAT_MS: u64 = 1_000;
/// How often a sender tries again, ms.
const RETRY_MS: u64 = 5_000;

/// One server.
pub struct Host {
    make: Make,
    machines: Machines,
    /// What is committed.
    pub rows: BTreeMap<RowKey, Bytes>,
    epoch: u64,
    is_up: bool,
    next_hold: u64,
    woken_at: Option<Timestamp>,
}

enum Event {
    /// A sender tries.
    Attempt(ServerName, Transaction),
    Arrival(ServerName, Transaction),
    Receipt(ServerName, Transaction, Outcome),
    Wake(ServerName),
    Beat,
}

/// Events by time, then as they were planned.
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

pub struct World {
    pub now: Timestamp,
    pub config: Vec<(String, String)>,
    pub hosts: BTreeMap<ServerName, Host>,
    lines: BTreeMap<(ServerName, ServerName), Line>,
    events: BinaryHeap<Reverse<Planned>>,
    planned: u64,
    /// Stamps of people's events.
    pub stamps: u64,
    said: Vec<String>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            now: START,
            config: Vec::new(),
            hosts: BTreeMap::new(),
            lines: BTreeMap::new(),
            events: BinaryHeap::new(),
            planned: 0,
            stamps: 0,
            said: Vec::new(),
        }
    }
}

impl World {
    pub fn add(&mut self, name: ServerName, make: Make) {
        let machines = Machines::new(name.clone(), self.settings(&name), 1);
        let rows = BTreeMap::new();
        let host = Host { make, machines, rows, epoch: 1, is_up: true, next_hold: 0, woken_at: None };
        if self.hosts.is_empty() {
            self.plan(self.now.plus(BEAT_MS), Event::Beat);
        }
        self.hosts.insert(name, host);
    }

    pub fn settings(&self, server: &ServerName) -> Settings {
        let mut text = format!("data_dir = \"/nowhere\"\nserver_name = \"{server}\"\n");
        for (key, value) in &self.config {
            let quoted = if value.parse::<u64>().is_ok() || value == "true" || value == "false" {
                value.clone()
            } else {
                format!("{value:?}")
            };
            text += &format!("{key} = {quoted}\n");
        }
        Settings::from(&Config::from_toml(&text).unwrap_or_else(|errors| panic!("{errors}")))
    }

    pub fn say(&mut self, text: &str) {
        let ms = self.now.since(START);
        self.said.push(format!("{}.{}s {text}", ms / 1000, ms % 1000 / 100));
    }

    pub fn answer(&mut self, text: String) {
        self.said.push(text);
    }

    pub fn take_said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    pub fn advance(&mut self, ms: u64) {
        let until = self.now.plus(ms);
        while self.events.peek().is_some_and(|Reverse(Planned(at, ..))| *at <= until) {
            let Some(Reverse(Planned(at, _, event))) = self.events.pop() else { break };
            self.now = at;
            self.happen(event);
        }
        self.now = until;
    }

    pub fn set_line(&mut self, one: &ServerName, other: &ServerName, line: Line) {
        self.lines.insert((one.clone(), other.clone()), line);
        self.lines.insert((other.clone(), one.clone()), line);
    }

    pub fn tell_user(&mut self, user: UserId, signal: UserSignal) {
        let (server, now) = (user.server(), self.now);
        let host = self.hosts.get_mut(&server).expect("a server of the story");
        host.machines.handle_user(now, Addressed { to: user, at: now, reply: None, trace: None, signal });
        self.settle(&server);
    }

    pub fn tell_peer(&mut self, server: &ServerName, from: &ServerName, signal: PeerSignal) {
        let now = self.now;
        let host = self.hosts.get_mut(server).expect("a server of the story");
        if host.make == Make::Foreign || !host.is_up {
            return;
        }
        host.machines.handle_peer(now, Addressed { to: from.clone(), at: now, reply: None, trace: None, signal });
        self.settle(server);
    }

    /// The machines start anew from what is committed; nothing was lost but what was in memory.
    pub fn restart(&mut self, server: &ServerName) {
        let (settings, now) = (self.settings(server), self.now);
        let host = self.hosts.get_mut(server).expect("a server of the story");
        host.is_up = true;
        host.epoch += 1;
        host.woken_at = None;
        let horizon = host.machines.horizon();
        host.machines =
            Machines::restore(server.clone(), settings, host.epoch, horizon, host.rows.clone(), now).expect("own rows");
        self.settle(server);
    }

    /// Makes what `server` knows of `user` wrong, in the store and then in memory, where nobody notices.
    pub fn damage(&mut self, server: &ServerName, user: &UserId) {
        let host = self.hosts.get_mut(server).expect("a server of the story");
        let key = user_key(RowKind::Remote, user);
        let mut row: RemoteRow = decode(&host.rows[&key]).expect("own rows");
        row.status.presence =
            if row.status.presence == Presence::Offline { Presence::Online } else { Presence::Offline };
        host.rows.insert(key, encode(&row));
        self.restart(server);
    }

    pub fn set_up(&mut self, server: &ServerName, is_up: bool) {
        self.hosts.get_mut(server).expect("a server of the story").is_up = is_up;
    }

    fn plan(&mut self, at: Timestamp, event: Event) {
        self.planned += 1;
        self.events.push(Reverse(Planned(at, self.planned, event)));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Attempt(from, transaction) => self.attempt(from, transaction),
            Event::Arrival(from, transaction) => self.arrival(&from, &transaction),
            Event::Receipt(to, transaction, outcome) => {
                let txn_id = transaction.txn_id.clone();
                let receipt = PeerSignal::Receipt { txn_id, outcome, retry_after_ms: None };
                self.tell_peer(&to, &transaction.destination, receipt);
            }
            Event::Wake(server) => self.with(&server, |machines, now| machines.handle_timeout(now)),
            Event::Beat => {
                let servers: Vec<ServerName> = self.hosts.keys().cloned().collect();
                for server in servers {
                    self.with(&server, |machines, now| {
                        machines.handle_users_beat(now, now);
                        machines.handle_peers_beat(now, now);
                        machines.handle_timeout(now);
                    });
                }
                self.plan(self.now.plus(BEAT_MS), Event::Beat);
            }
        }
    }

    fn with(&mut self, server: &ServerName, work: impl FnOnce(&mut Machines, Timestamp)) {
        let now = self.now;
        let host = self.hosts.get_mut(server).expect("a server of the story");
        host.woken_at = None;
        if host.make == Make::Foreign || !host.is_up {
            return;
        }
        work(&mut host.machines, now);
        self.settle(server);
    }

    /// As a sender does: the same again until it is answered or too old.
    fn attempt(&mut self, from: ServerName, transaction: Transaction) {
        let to = transaction.destination.clone();
        let pair = (from.clone(), to.clone());
        let is_up = self.hosts.get(&to).is_some_and(|host| host.is_up);
        let line = self.lines.get(&pair).copied().unwrap_or(Line::Up);
        let now = self.now;
        let mut answered = |delay: u64, is_lost: bool| {
            self.plan(now.plus(delay), Event::Arrival(from.clone(), transaction.clone()));
            if !is_lost {
                let delivered = Event::Receipt(from.clone(), transaction.clone(), Outcome::Delivered);
                self.plan(now.plus(2 * delay), delivered);
            }
            !is_lost
        };
        let done = match line {
            _ if !is_up => false,
            Line::Up | Line::Drops(0) => answered(LATENCY_MS, false),
            Line::Slow(delay) => answered(delay, false),
            Line::Drops(left) => {
                answered(LATENCY_MS, true);
                self.lines.insert(pair, Line::Drops(left - 1));
                false
            }
            Line::Silent => false,
        };
        if done {
            return;
        }
        let again = now.plus(RETRY_MS);
        if again < transaction.not_after {
            self.plan(again, Event::Attempt(from, transaction));
        } else {
            self.plan(transaction.not_after, Event::Receipt(from, transaction, Outcome::Expired));
        }
    }

    fn arrival(&mut self, from: &ServerName, transaction: &Transaction) {
        #[derive(serde::Deserialize)]
        struct Body {
            origin_server_ts: u64,
            edus: Vec<Box<RawValue>>,
        }
        let to = transaction.destination.clone();
        let body: Body = serde_json::from_str(transaction.body.get()).unwrap();
        let (mut inbound, rejects) = parse_edus(from, &to, &body.edus, self.now, Timestamp(body.origin_server_ts));
        assert!(rejects.is_empty(), "{rejects:?}");
        inbound.txn_id = transaction.txn_id.clone();
        self.tell_peer(&to, from, PeerSignal::Transaction(Box::new(inbound)));
    }

    /// Commits, then carries outputs where they belong until nothing moves any longer.
    fn settle(&mut self, server: &ServerName) {
        let now = self.now;
        loop {
            let host = self.hosts.get_mut(server).expect("a server of the story");
            let effects = host.machines.take_effects();
            for row in effects.rows {
                match row.value {
                    Some(value) => host.rows.insert(row.key, value),
                    None => host.rows.remove(&row.key),
                };
            }
            if effects.outputs.is_empty() {
                break;
            }
            for output in effects.outputs {
                let host = self.hosts.get_mut(server).expect("a server of the story");
                match output {
                    Output::User(signal) => host.machines.handle_user(now, signal),
                    Output::Link(signal) => {
                        host.next_hold += 1;
                        host.machines.handle_batch(now, host.next_hold, vec![signal]);
                    }
                    Output::Transmit(transaction) => {
                        let text = show::transaction(server, &transaction, now);
                        self.say(&text);
                        self.attempt(server.clone(), transaction);
                    }
                    Output::Update(update) => {
                        let text = show::update(&update);
                        self.say(&text);
                    }
                }
            }
        }
        let host = self.hosts.get_mut(server).expect("a server of the story");
        let Some(at) = host.machines.poll_timeout().map(|at| at.max(now)) else { return };
        if host.woken_at.is_none_or(|planned| at < planned) {
            host.woken_at = Some(at);
            self.plan(at, Event::Wake(server.clone()));
        }
    }
}
