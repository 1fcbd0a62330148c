//! One server and many peers that speak rollcall: each watches one user, and does with reminders as the test says.

use std::collections::BTreeMap;

use rollcall::core::Settings;
use rollcall::core::signal::{Extension, Inbound, Outcome, PeerSignal};
use rollcall::model::{Serial, ServerName, Timestamp};
use serde_json::Value;

use super::pair::{START, Server, server, user};

/// What becomes of the server's transactions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// Delivered, and reminders are answered.
    Answer,
    /// Delivered, and that is all.
    Ignore,
    /// Nobody can be reached.
    Fail,
}

pub struct Herd {
    pub server: Server,
    pub now: Timestamp,
    /// Numbers of the peers' transactions.
    seq: BTreeMap<ServerName, u64>,
    /// When each reminder left, and to whom.
    pub reminders: Vec<(Timestamp, ServerName)>,
}

impl Herd {
    pub fn new(settings: Settings, peers: usize) -> Self {
        Self::of(settings, (0..peers).map(peer))
    }

    pub fn of(settings: Settings, peers: impl Iterator<Item = ServerName>) -> Self {
        let server = Server::with("a.example", settings);
        let mut herd = Self { server, now: START, seq: BTreeMap::new(), reminders: Vec::new() };
        for peer in peers {
            let poll = vec![user("@john:a.example")];
            herd.says(&peer, Inbound { poll, ..Inbound::default() });
        }
        herd
    }

    /// A peer sends a transaction, numbered.
    pub fn says(&mut self, peer: &ServerName, mut inbound: Inbound) {
        let counter = self.seq.entry(peer.clone()).or_default();
        *counter += 1;
        let seq = Serial { epoch: 1, counter: *counter };
        inbound.extension = Some(Extension { seq, ..inbound.extension.unwrap_or_default() });
        inbound.origin_server_ts = self.now;
        self.server.peer(self.now, peer, PeerSignal::Transaction(Box::new(inbound)));
    }

    /// Lets time pass, a second a step; `what` says what each peer does.
    pub fn pass(&mut self, seconds: u64, what: impl Fn(&ServerName) -> Peers) {
        for _ in 0..seconds {
            self.now = self.now.plus(1_000);
            self.server.tick(self.now);
            while let Some((transaction, body)) = self.server.sent() {
                let peer = transaction.destination.clone();
                let reminder = reminder_of(&body);
                if reminder.is_some() {
                    self.reminders.push((self.now, peer.clone()));
                }
                let does = what(&peer);
                let outcome = if does == Peers::Fail { Outcome::Failed } else { Outcome::Delivered };
                self.server.receipt(self.now, &transaction, outcome);
                if let (Some(id), Peers::Answer) = (reminder, does) {
                    let extension = Some(Extension { answers: vec![id.into()], ..Extension::default() });
                    self.says(&peer, Inbound { extension, ..Inbound::default() });
                }
            }
        }
    }

    /// The most reminders in one bin of so many seconds since `from`, and the mean of all bins until now.
    pub fn peak_and_mean(&self, from: Timestamp, bin_s: u64) -> (usize, f64) {
        let bins = usize::try_from(self.now.since(from).div_ceil(bin_s * 1_000)).unwrap();
        let mut counts = vec![0; bins];
        for (at, _) in self.reminders.iter().filter(|(at, _)| *at > from) {
            counts[usize::try_from((at.since(from) - 1) / (bin_s * 1_000)).unwrap()] += 1;
        }
        let total: usize = counts.iter().sum();
        (counts.into_iter().max().unwrap_or(0), total as f64 / bins as f64)
    }
}

pub fn peer(n: usize) -> ServerName {
    server(&format!("peer{n}.example"))
}

/// The reminder in a transaction.
pub fn reminder_of(body: &Value) -> Option<String> {
    let edus = body["edus"].as_array()?.iter();
    edus.filter_map(|edu| edu["content"]["rollcall"]["reminder"]["id"].as_str()).map(str::to_owned).next()
}
