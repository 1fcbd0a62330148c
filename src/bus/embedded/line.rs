//! One queue's place in the table, and one subscription's share of it.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::bus::topology::{Queue, Topology};
use crate::bus::{Delivery, QueueDepth};

/// Rows read at once.
pub(super) const READ_ROWS: usize = 256;
/// Bytes of bodies that wait in a subscription's inbox before more is fetched.
const INBOX_BYTES: usize = 8 << 20;

/// Before the first row, whose ID is 1, with room for a tail that lies beyond the cursor and still before that row.
pub(super) const START: i64 = -1;

/// Names a subscription.
pub(super) type SubId = u64;

/// One queue.
pub(super) struct Line {
    pub(super) queue: Queue,
    pub(super) name: Arc<str>,
    pub(super) cursor: i64,
    /// The newest row that is known to be committed. Beyond the cursor: there may be something to read.
    pub(super) tail: i64,
    /// Changes whenever a read that is under way would bring something that is no longer true.
    pub(super) moves: u64,
    pub(super) rows: u64,
    pub(super) out: u64,
    pub(super) leaving: u64,
    /// In the order of subscribing.
    pub(super) subs: Vec<SubId>,
    pub(super) turn: usize,
}

/// One subscription.
pub(super) struct Sub {
    /// Lines, and how many of each are out to it.
    pub(super) lines: Vec<(usize, usize)>,
    pub(super) prefetch: usize,
    pub(super) inbox: VecDeque<Delivery>,
    pub(super) inbox_bytes: usize,
    pub(super) turn: usize,
    pub(super) wake: Arc<Notify>,
}

/// A row that somebody has.
pub(super) struct Out {
    pub(super) line: usize,
    pub(super) sub: SubId,
    /// Whether the consumer has it, or it is still in the inbox.
    pub(super) taken: bool,
}

/// A read that a subscription should do now.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) line: usize,
    /// The queue's full name.
    pub(super) queue: Arc<str>,
    /// Read what follows this row...
    pub(super) after: i64,
    /// ...and at most so many.
    pub(super) limit: usize,
    pub(super) tail: i64,
    pub(super) moves: u64,
}

impl Line {
    pub(super) fn new(queue: Queue, topology: &Topology) -> Self {
        let name = topology.queue_name(&queue).into();
        Self {
            queue,
            name,
            cursor: START,
            tail: START + 1,
            moves: 0,
            rows: 0,
            out: 0,
            leaving: 0,
            subs: vec![],
            turn: 0,
        }
    }

    /// A partition has one consumer at a time, the one who came first.
    pub(super) fn serves(&self, id: SubId) -> bool {
        !self.queue.is_partitioned() || self.subs.first() == Some(&id)
    }

    pub(super) fn read(&self, line: usize, limit: usize) -> Read {
        let Self { cursor, tail, moves, .. } = *self;
        Read { line, queue: Arc::clone(&self.name), after: cursor, limit, tail, moves }
    }

    pub(super) fn go_back(&mut self, to: i64) {
        self.cursor = self.cursor.min(to);
        self.moves += 1;
    }

    pub(super) fn depth(&self) -> QueueDepth {
        QueueDepth {
            name: self.name.to_string(),
            ready: self.rows.saturating_sub(self.out + self.leaving),
            unacked: Some(self.out),
            consumers: self.subs.len() as u64,
            error: None,
        }
    }
}

impl Sub {
    pub(super) fn has_room(&self, line: usize) -> bool {
        let room = |(at, held): &(usize, usize)| *at == line && *held < self.prefetch;
        self.inbox_bytes < INBOX_BYTES && self.lines.iter().any(room)
    }

    pub(super) fn count(&mut self, line: usize, by: isize) {
        if let Some((_, held)) = self.lines.iter_mut().find(|(at, _)| *at == line) {
            *held = held.saturating_add_signed(by);
        }
    }
}
