//! Servers made of nothing but machines: no bus, no store, no clock of their own. What one sends, the test hands to the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use rollcall::config::ListAccept;
use rollcall::core::signal::{Addressed, MessageEdit, Outcome, PeerSignal, SessionAction, Stamp, UserSignal};
use rollcall::core::{FlushReason, HoldId, Lapse, Machines, Output, Settings, Transaction, Update};
use rollcall::model::{DeviceId, Presence, ServerName, Timestamp, UserId};
use rollcall::reader::{Known, Reader};
use rollcall::store::RowKey;
use rollcall::wire::envelope::Job;
use rollcall::wire::matrix::parse_edus;
use serde_json::Value;
use serde_json::value::RawValue;

use super::rows::Rows;

pub const START: Timestamp = Timestamp(1_795_400_000_000);

/// The configuration's own: whoever is listed in turn is accepted, and listing shares.
pub fn defaults() -> Settings {
    Settings { accept: ListAccept::Reciprocal, symmetric: true, ..settings() }
}

/// Everybody may see everybody and shows nothing unasked: for what is not about permission. Watchdogs are out of the way.
pub fn settings() -> Settings {
    Settings {
        phase_ms: 0,
        window_ms: 5_000,
        max_entries: 5_000,
        max_bytes: 512 << 10,
        hold_max_ms: 15_000,
        resend_ms: 60_000,
        backoff_min_ms: 1_000,
        backoff_max_ms: 600_000,
        short_ms: 1_800_000,
        long_ms: 3_600_000,
        tries: 3,
        give_up_ms: 600_000,
        plain_refresh_ms: 1_500_000,
        plain_promise_ms: 1_800_000,
        accept: ListAccept::Everyone,
        symmetric: false,
        clients_window_ms: 1_000,
        idle_after_ms: 300_000,
        offline_after_ms: 60_000,
        settle_ms: 5_000,
        granularity_ms: 60_000,
        repeat_ms: 0,
        repeat_cost_us: 0,
        linger_ms: 30_000,
    }
}

pub fn user(text: &str) -> UserId {
    UserId::parse(text).unwrap()
}

pub fn server(text: &str) -> ServerName {
    ServerName::parse(text).unwrap()
}

/// One server: its machines, its committed rows, and what has left.
pub struct Server {
    pub name: ServerName,
    pub settings: Settings,
    pub machines: Machines,
    pub rows: BTreeMap<RowKey, Bytes>,
    /// Transactions that left, in order.
    pub out: VecDeque<Transaction>,
    /// What edges were told.
    pub updates: Vec<Update>,
    /// Held deliveries that were let go.
    pub released: Vec<HoldId>,
    /// Peers that were given up, and that came back.
    pub lapses: Vec<Lapse>,
    epoch: u64,
    next_hold: HoldId,
    events: u64,
}

impl Server {
    pub fn new(name: &str) -> Self {
        Self::with(name, settings())
    }

    pub fn with(name: &str, settings: Settings) -> Self {
        let machines = Machines::new(server(name), settings.clone(), 1);
        Self {
            name: server(name),
            settings,
            machines,
            rows: BTreeMap::new(),
            out: VecDeque::new(),
            updates: Vec::new(),
            released: Vec::new(),
            lapses: Vec::new(),
            epoch: 1,
            next_hold: 0,
            events: 0,
        }
    }

    /// Throws away what is in memory, as a crash does, and starts from the committed rows.
    pub fn restart(&mut self, now: Timestamp) {
        self.epoch += 1;
        let rows = self.rows.clone();
        self.machines =
            Machines::restore(self.name.clone(), self.settings.clone(), self.epoch, self.machines.horizon(), rows, now)
                .expect("own rows");
    }

    pub fn stamp(&mut self, now: Timestamp) -> Stamp {
        self.events += 1;
        Stamp { ts: now, id: format!("{:08}", self.events).into() }
    }

    pub fn tell(&mut self, now: Timestamp, who: &str, signal: UserSignal) {
        self.machines.handle_user(now, Addressed { to: user(who), at: now, reply: None, trace: None, signal });
        self.settle(now);
    }

    pub fn set(&mut self, now: Timestamp, who: &str, presence: Presence, message: Option<&str>) {
        let status_msg = message.map_or(MessageEdit::Keep, |text| MessageEdit::Set(text.into()));
        let stamp = self.stamp(now);
        self.tell(now, who, UserSignal::Status { device: device("PHONE"), presence, status_msg, stamp });
    }

    pub fn list(&mut self, now: Timestamp, who: &str, add: &[&str], remove: &[&str]) {
        let ids = |list: &[&str]| list.iter().map(|id| user(id)).collect();
        let stamp = self.stamp(now);
        self.tell(now, who, UserSignal::List { add: ids(add), remove: ids(remove), stamp });
    }

    pub fn session(&mut self, now: Timestamp, who: &str, lease_ms: Option<u64>) {
        let action = lease_ms.map_or(SessionAction::Stop, |lease_ms| SessionAction::Start { lease_ms, edge: None });
        let stamp = self.stamp(now);
        self.tell(now, who, UserSignal::Session { device: device("PHONE"), action, stamp });
    }

    /// A session of an hour whose updates go to `edge`.
    pub fn stream(&mut self, now: Timestamp, who: &str, edge: &str) {
        let action = SessionAction::Start { lease_ms: 3_600_000, edge: Some(edge.into()) };
        let stamp = self.stamp(now);
        self.tell(now, who, UserSignal::Session { device: device(edge), action, stamp });
    }

    /// What `who` says to `observer`'s wish to see them.
    pub fn answer(&mut self, now: Timestamp, who: &str, observer: &str, allow: bool) {
        let stamp = self.stamp(now);
        self.tell(now, who, UserSignal::Answer { observer: user(observer), allow, stamp });
    }

    fn reader(&self) -> Reader {
        Reader::new(Arc::new(Rows::new(self.rows.clone())), self.name.clone(), 1, self.settings.rules())
    }

    /// What `who` gets to see of `other`; `None`: refused.
    pub fn sees(&self, now: Timestamp, who: &str, other: &str) -> Option<Known> {
        let (who, other) = (user(who), user(other));
        self.reader().status(&who, &other, now).now_or_never().expect("rows do not wait").unwrap()
    }

    /// The list of `who`: whom, whether accepted, and what is shown.
    pub fn list_of(&self, now: Timestamp, who: &str) -> Vec<(String, bool, Presence)> {
        let list = self.reader().list(&user(who), now).now_or_never().expect("rows do not wait").unwrap();
        list.into_iter().map(|(id, accepted, known)| (id.to_string(), accepted, known.status.presence)).collect()
    }

    /// Who waits for an answer of `who`.
    pub fn questions(&self, who: &str) -> Vec<String> {
        let questions = self.reader().questions(&user(who)).now_or_never().expect("rows do not wait").unwrap();
        questions.into_iter().map(|(observer, _)| observer.to_string()).collect()
    }

    /// What edges were told since the last call: `observer: user presence`, in order.
    pub fn updated(&mut self) -> Vec<String> {
        let line = |update: Update| {
            let events = update.events.into_iter();
            events.map(move |(of, status, _)| format!("{}: {of} {}", update.observer, status.presence))
        };
        self.updates.drain(..).flat_map(line).collect()
    }

    pub fn peer(&mut self, now: Timestamp, from: &ServerName, signal: PeerSignal) {
        self.machines.handle_peer(now, Addressed { to: from.clone(), at: now, reply: None, trace: None, signal });
        self.settle(now);
    }

    /// A transaction of a server that is not one of ours.
    pub fn foreign(&mut self, now: Timestamp, from: &str, edus: &Value) {
        let edus: Vec<Box<RawValue>> = serde_json::from_value(edus.clone()).unwrap();
        let from = server(from);
        let (inbound, rejects) = parse_edus(&from, &self.name, &edus, now, now);
        assert!(rejects.is_empty(), "{rejects:?}");
        self.peer(now, &from, PeerSignal::Transaction(Box::new(inbound)));
    }

    /// A beat comes back, and what is due by the clock is done.
    pub fn tick(&mut self, now: Timestamp) {
        self.machines.handle_users_beat(now, now);
        self.machines.handle_peers_beat(now, now);
        self.machines.handle_timeout(now);
        while self.machines.poll_timeout().is_some_and(|due| due <= now) {
            self.machines.handle_timeout(now);
        }
        self.settle(now);
    }

    /// A periodic job is due, everywhere.
    pub fn job(&mut self, now: Timestamp, job: Job) {
        self.machines.handle_users_job(now, job);
        self.settle(now);
        self.machines.handle_peers_job(now, job);
        self.settle(now);
    }

    pub fn relieve(&mut self, now: Timestamp, reason: FlushReason) {
        self.machines.relieve(now, reason);
        self.settle(now);
    }

    /// What the peer would have been sent, without the peer: takes a transaction's JSON off.
    pub fn sent(&mut self) -> Option<(Transaction, Value)> {
        let transaction = self.out.pop_front()?;
        let body = serde_json::from_str(transaction.body.get()).unwrap();
        Some((transaction, body))
    }

    pub fn receipt(&mut self, now: Timestamp, transaction: &Transaction, outcome: Outcome) {
        let signal = PeerSignal::Receipt { txn_id: transaction.txn_id.clone(), outcome, retry_after_ms: None };
        self.peer(now, &transaction.destination.clone(), signal);
    }

    /// Commits, then carries outputs to the server's own machines until nothing moves any longer.
    fn settle(&mut self, now: Timestamp) {
        loop {
            let effects = self.machines.take_effects();
            for row in effects.rows {
                match row.value {
                    Some(value) => self.rows.insert(row.key, value),
                    None => self.rows.remove(&row.key),
                };
            }
            self.released.extend(effects.released);
            self.lapses.extend(effects.lapses);
            if effects.outputs.is_empty() {
                return;
            }
            for output in effects.outputs {
                match output {
                    Output::User(signal) => self.machines.handle_user(now, signal),
                    Output::Link(signal) => {
                        self.next_hold += 1;
                        self.machines.handle_batch(now, self.next_hold, vec![signal]);
                    }
                    Output::Transmit(transaction) => self.out.push_back(transaction),
                    Output::Update(update) => self.updates.push(update),
                }
            }
        }
    }
}

pub fn device(id: &str) -> DeviceId {
    DeviceId::parse(id).unwrap()
}

/// Hands everything that `from` has sent to `to`, with receipts; returns the bodies.
pub fn deliver(now: Timestamp, from: &mut Server, to: &mut Server) -> Vec<Value> {
    let mut bodies = Vec::new();
    while let Some((transaction, body)) = from.sent() {
        assert_eq!(transaction.destination, to.name);
        receive(now, &from.name, &transaction, to);
        from.receipt(now, &transaction, Outcome::Delivered);
        bodies.push(body);
    }
    bodies
}

/// Hands one transaction to `to`, as its edge does.
pub fn receive(now: Timestamp, origin: &ServerName, transaction: &Transaction, to: &mut Server) {
    #[derive(serde::Deserialize)]
    struct Body {
        origin_server_ts: u64,
        edus: Vec<Box<RawValue>>,
    }
    let body: Body = serde_json::from_str(transaction.body.get()).unwrap();
    let (mut inbound, rejects) = parse_edus(origin, &to.name, &body.edus, now, Timestamp(body.origin_server_ts));
    assert!(rejects.is_empty(), "{rejects:?}");
    inbound.txn_id = transaction.txn_id.clone();
    to.peer(now, origin, PeerSignal::Transaction(Box::new(inbound)));
}

/// Lets time pass for both, a second a step, with everything delivered.
pub fn pass(now: &mut Timestamp, seconds: u64, a: &mut Server, b: &mut Server) -> Vec<(ServerName, Value)> {
    let mut seen = Vec::new();
    for _ in 0..seconds {
        *now = now.plus(1_000);
        a.tick(*now);
        b.tick(*now);
        seen.extend(deliver(*now, a, b).into_iter().map(|body| (a.name.clone(), body)));
        seen.extend(deliver(*now, b, a).into_iter().map(|body| (b.name.clone(), body)));
    }
    seen
}

/// What the transactions say, a line each thing, in order: `a.example: push @alice:a.example online`.
pub fn said(seen: &[(ServerName, Value)]) -> Vec<String> {
    seen.iter().flat_map(|(from, body)| lines(body).into_iter().map(move |line| format!("{from}: {line}"))).collect()
}

/// What one transaction says, a line each thing, in order.
pub fn lines(body: &Value) -> Vec<String> {
    body["edus"].as_array().unwrap().iter().flat_map(edu_lines).collect()
}

fn edu_lines(edu: &Value) -> Vec<String> {
    let content = &edu["content"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let kind = text(&edu["edu_type"]);
    if let Some(kind) = kind.strip_prefix("m.presence_") {
        return vec![format!("{kind} {} to see {}", text(&content["observer_user"]), text(&content["observed_user"]))];
    }
    let entries = |list: &str| content[list].as_array().cloned().unwrap_or_default();
    let push = |entry: Value| format!("push {} {}", text(&entry["user_id"]), text(&entry["presence"]));
    let mut lines: Vec<String> = entries("push").into_iter().map(push).collect();
    for list in ["poll", "unpoll"] {
        lines.extend(entries(list).iter().map(|id| format!("{list} {}", text(id))));
    }
    lines
}
