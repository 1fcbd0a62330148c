//! What is shown: counts, and the price of the alternative.

use std::time::Duration;

use super::NAMES;
use crate::model::{Presence, Serial, ServerName, Status, Timestamp, UserId};
use crate::wire::matrix::{TransactionContent, build_transaction};

/// What users do, in the order of [`Figures::acts`].
pub const ACTS: [&str; 5] = ["status", "activity", "idle", "poll", "list"];

/// What passed in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Requests, repeats included.
    pub transactions: u64,
    /// Statuses in them.
    pub entries: u64,
    /// Users asked for in them.
    pub polls: u64,
    /// Bytes of request lines and headers.
    pub head_bytes: u64,
    /// Bytes of bodies.
    pub body_bytes: u64,
}

/// Everything counted since the start.
///
/// The alternative is one transaction for each change and watching server. Its count is that of the status changes that edges
/// confirmed, of users whom somebody on the other server lists, since that server first asked. Left out, though they would cost,
/// too: changes by inference (idle, time-outs), requests for statuses and the first answers. Its size is the mean head measured
/// on the hop and the body that rollcall itself writes for one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Since the start.
    pub elapsed: Duration,
    /// Events that edges confirmed, by [`ACTS`].
    pub acts: [u64; ACTS.len()],
    /// Those that change what another server's users see.
    pub changes: u64,
    /// Messages that each server holds for its open window.
    pub held: [u64; 2],
    /// What each server sent to the other.
    pub sent: [Traffic; 2],
    /// Bytes of a transaction with one entry.
    pub one_entry_body: u64,
}

impl Figures {
    /// Events that edges confirmed.
    pub fn events(&self) -> u64 {
        self.acts.iter().sum()
    }

    /// Transactions, both ways.
    pub fn transactions(&self) -> u64 {
        self.sent.iter().map(|sent| sent.transactions).sum()
    }

    /// Bytes of requests, both ways.
    pub fn bytes(&self) -> u64 {
        self.sent.iter().map(|sent| sent.head_bytes + sent.body_bytes).sum()
    }

    /// Bytes of a request that carries one change; `None` until a head was measured.
    pub fn one_entry_request(&self) -> Option<u64> {
        let heads: u64 = self.sent.iter().map(|sent| sent.head_bytes).sum();
        Some(heads.checked_div(self.transactions())? + self.one_entry_body)
    }

    /// How many times fewer messages than one for each change; `None` while nothing was sent, or no change counted.
    pub fn saved_messages(&self) -> Option<f64> {
        ratio(self.changes, self.transactions())
    }

    /// How many times fewer bytes; `None` likewise.
    pub fn saved_bytes(&self) -> Option<f64> {
        ratio(self.changes * self.one_entry_request()?, self.bytes())
    }
}

fn ratio(instead: u64, sent: u64) -> Option<f64> {
    (sent > 0 && instead > 0).then(|| instead as f64 / sent as f64)
}

/// Bytes of the transaction that rollcall would send for one change of one of the crowd.
pub(super) fn one_entry_body() -> u64 {
    let local = ServerName::parse(NAMES[0]).expect("the demo's names are server names");
    let user = UserId::from_parts("user100", &local);
    let status = Status {
        presence: Presence::Online,
        status_msg: Some("task 1000".into()),
        last_active: Timestamp(1_795_399_999_000),
        ..Status::default()
    };
    let content = TransactionContent {
        pushes: vec![(user, status)],
        seq: Serial { epoch: 1_795_400_000, counter: 1000 },
        promise_ms: 3_600_000,
        ..TransactionContent::default()
    };
    build_transaction(&local, Timestamp(1_795_400_000_000), &content).get().len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_sent_is_no_saving() {
        let sent = [Traffic::default(); 2];
        let none =
            Figures { elapsed: Duration::ZERO, acts: [0; 5], changes: 9, held: [0; 2], sent, one_entry_body: 300 };
        assert_eq!((none.saved_messages(), none.saved_bytes(), none.one_entry_request()), (None, None, None));
    }

    #[test]
    fn the_alternative_is_one_request_for_each_change() {
        let sent = Traffic { transactions: 1, entries: 8, polls: 0, head_bytes: 500, body_bytes: 1500 };
        let figures = Figures {
            elapsed: Duration::from_secs(1),
            acts: [20, 0, 0, 1, 1],
            changes: 20,
            held: [0; 2],
            sent: [sent, sent],
            one_entry_body: 300,
        };
        assert_eq!(figures.events(), 22);
        assert_eq!(figures.one_entry_request(), Some(800));
        assert_eq!(figures.saved_messages(), Some(10.0));
        assert_eq!(figures.saved_bytes(), Some(4.0));
    }

    #[test]
    fn one_entry_is_written_as_it_would_be_sent() {
        assert!((200..600).contains(&one_entry_body()), "{}", one_entry_body());
    }
}
