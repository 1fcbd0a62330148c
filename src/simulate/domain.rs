//! One server: its machines, and the bus between them, where everything arrives at once.

use crate::core::signal::{Addressed, PeerSignal, UserSignal};
use crate::core::{Machines, Output, Settings, Transaction};
use crate::model::{ServerName, Timestamp, UserId};

pub(super) struct Domain {
    pub(super) name: ServerName,
    machines: Machines,
    next_hold: u64,
    /// What left since it was last taken.
    sent: Vec<Transaction>,
}

impl Domain {
    pub(super) fn new(name: ServerName, settings: &Settings) -> Self {
        let settings = Settings { phase_ms: Settings::phase_of(&name), ..settings.clone() };
        Self { machines: Machines::new(name.clone(), settings, 1), name, next_hold: 0, sent: Vec::new() }
    }

    pub(super) fn user(&mut self, now: Timestamp, to: UserId, signal: UserSignal) {
        self.machines.handle_user(now, Addressed { to, at: now, reply: None, trace: None, signal });
        self.settle(now);
    }

    pub(super) fn peer(&mut self, now: Timestamp, from: ServerName, signal: PeerSignal) {
        self.machines.handle_peer(now, Addressed { to: from, at: now, reply: None, trace: None, signal });
        self.settle(now);
    }

    /// All that was sent so far has been read.
    pub(super) fn beat(&mut self, now: Timestamp) {
        self.machines.handle_users_beat(now, now);
        self.machines.handle_peers_beat(now, now);
        self.wake(now);
    }

    pub(super) fn wake(&mut self, now: Timestamp) {
        self.machines.handle_timeout(now);
        self.settle(now);
    }

    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.machines.poll_timeout()
    }

    pub(super) fn take_sent(&mut self) -> Vec<Transaction> {
        std::mem::take(&mut self.sent)
    }

    fn settle(&mut self, now: Timestamp) {
        loop {
            let effects = self.machines.take_effects();
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
                    Output::Transmit(transaction) => self.sent.push(transaction),
                    Output::Update(_) => {}
                }
            }
        }
    }
}
