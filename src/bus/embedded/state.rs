//! What is out, to whom, and where reading goes on. No I/O, no clock: every method is quick and runs under one lock.
//!
//! A queue is a cursor into the table. Every row up to it is out, leaving or gone; rows beyond it are in the database only. So going
//! back is always safe (what is out or leaving is passed by), and a backlog costs no memory. Only when a queue is *caught up* are
//! fresh rows handed over without being read.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::headers;
use super::line::{Line, Out, READ_ROWS, Read, START, Sub, SubId};
use crate::bus::topology::{Queue, Topology};
use crate::bus::{Delivery, Headers, QueueDepth, Token};
use crate::store::sqlite::bus::{BusRow, StoredRow};

/// See the module.
pub(super) struct State {
    lines: Vec<Line>,
    names: HashMap<Arc<str>, usize>,
    subs: HashMap<SubId, Sub>,
    next_sub: SubId,
    /// In an inbox or delivered, not acknowledged: at most the sum of all prefetches.
    out: HashMap<i64, Out>,
    /// Acknowledged or buried; the line that each is in until its row is gone.
    leaving: HashMap<i64, usize>,
    /// How often a row came back in the life of this process, beyond what its row says.
    returned: HashMap<i64, u32>,
    chores: Chores,
    closed: bool,
}

/// Rows to be changed in the background.
#[derive(Default)]
pub(super) struct Chores {
    /// To be deleted.
    pub(super) deletes: Vec<i64>,
    /// To become dead letters.
    pub(super) burials: Vec<(i64, BusRow)>,
}

impl Chores {
    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.deletes.is_empty() && self.burials.is_empty()
    }
}

/// What a subscription should do next.
pub(super) enum Step {
    /// Here is one.
    Deliver(Delivery),
    /// Read, then [`State::accept`].
    Read(Read),
    /// Wait to be woken.
    Wait,
    /// The bus was closed.
    Closed,
}

impl State {
    /// Knows nothing yet: every queue has to be looked at once.
    pub(super) fn new(topology: &Topology) -> Self {
        let lines: Vec<_> = topology.queues().into_iter().map(|queue| Line::new(queue, topology)).collect();
        let names = lines.iter().enumerate().map(|(line, it)| (Arc::clone(&it.name), line)).collect();
        Self {
            lines,
            names,
            subs: HashMap::new(),
            next_sub: 0,
            out: HashMap::new(),
            leaving: HashMap::new(),
            returned: HashMap::new(),
            chores: Chores::default(),
            closed: false,
        }
    }

    /// A new subscription, and what wakes it.
    pub(super) fn subscribe(&mut self, queues: &[Arc<str>], prefetch: usize) -> (SubId, Arc<Notify>) {
        let id = self.next_sub;
        self.next_sub += 1;
        let mut lines: Vec<usize> = queues.iter().filter_map(|name| self.names.get(name).copied()).collect();
        lines.sort_unstable();
        lines.dedup();
        for line in &lines {
            self.lines[*line].subs.push(id);
        }
        let wake = Arc::new(Notify::new());
        let lines = lines.into_iter().map(|line| (line, 0)).collect();
        let inbox = VecDeque::new();
        self.subs.insert(id, Sub { lines, prefetch, inbox, inbox_bytes: 0, turn: 0, wake: Arc::clone(&wake) });
        (id, wake)
    }

    /// Ends a subscription: what it held comes again, in order, to whoever is next.
    pub(super) fn unsubscribe(&mut self, id: SubId) {
        let Some(sub) = self.subs.remove(&id) else { return };
        for (line, _) in &sub.lines {
            self.lines[*line].subs.retain(|other| *other != id);
        }
        let held: Vec<i64> = self.out.iter().filter(|(_, out)| out.sub == id).map(|(row, _)| *row).collect();
        for row in held {
            self.put_back(row);
        }
        for (line, _) in &sub.lines {
            self.wake(*line);
        }
    }

    fn put_back(&mut self, row: i64) {
        let Some(out) = self.out.remove(&row) else { return };
        if out.taken {
            *self.returned.entry(row).or_default() += 1;
        }
        let line = &mut self.lines[out.line];
        line.out -= 1;
        line.go_back(row - 1);
    }

    /// What the subscription should do next.
    pub(super) fn step(&mut self, id: SubId) -> Step {
        if self.closed {
            return Step::Closed;
        }
        if let Some(delivery) = self.take(id) {
            return Step::Deliver(delivery);
        }
        self.plan(id).map_or(Step::Wait, Step::Read)
    }

    /// A delivery that is already in the inbox.
    pub(super) fn take(&mut self, id: SubId) -> Option<Delivery> {
        let sub = self.subs.get_mut(&id)?;
        while let Some(delivery) = sub.inbox.pop_front() {
            sub.inbox_bytes -= delivery.body.len();
            // What was dropped from the dead letters meanwhile is out no longer.
            if let Some(out) = self.out.get_mut(&row_of(&delivery.token)) {
                out.taken = true;
                return Some(delivery);
            }
        }
        None
    }

    /// Looks for a queue that lags behind, taking turns so that a long one starves none.
    fn plan(&mut self, id: SubId) -> Option<Read> {
        let sub = self.subs.get_mut(&id)?;
        let count = sub.lines.len();
        for step in 0..count {
            let at = (sub.turn + step) % count;
            let (line, held) = sub.lines[at];
            let it = &self.lines[line];
            let room = sub.prefetch.saturating_sub(held);
            if room > 0 && it.cursor < it.tail && it.serves(id) {
                sub.turn = at + 1;
                return Some(it.read(line, room.min(READ_ROWS)));
            }
        }
        None
    }

    /// What a read brought. Of no effect if things have moved meanwhile: the next [`State::step`] reads again.
    pub(super) fn accept(&mut self, id: SubId, read: &Read, rows: Vec<StoredRow>) {
        let line = &self.lines[read.line];
        if line.moves != read.moves || !line.serves(id) || self.closed {
            return;
        }
        let complete = rows.len() < read.limit;
        let last = rows.last().map_or(read.after, |row| row.id);
        for row in rows {
            if !self.out.contains_key(&row.id) && !self.leaving.contains_key(&row.id) {
                self.offer(id, read.line, row);
            }
        }
        let line = &mut self.lines[read.line];
        line.cursor = if complete { last.max(read.tail) } else { last };
        // A full read may have left something behind, whoever wrote it.
        line.tail = line.tail.max(if complete { last } else { last + 1 });
        line.moves += 1;
    }

    fn offer(&mut self, id: SubId, line: usize, row: StoredRow) {
        let deliveries = row.deliveries.saturating_add(self.returned.get(&row.id).copied().unwrap_or(0));
        let (headers, key) = headers::decode(row.headers.as_deref());
        let dead = self.lines[line].queue == Queue::Dead;
        if i64::from(deliveries) > Topology::DELIVERY_LIMIT && !dead {
            self.bury(line, row.id, row.body, headers);
        } else {
            self.give(id, line, row.id, row.body, (headers, key), deliveries);
        }
    }

    /// A message that keeps coming back becomes a dead letter.
    fn bury(&mut self, line: usize, id: i64, body: Bytes, mut headers: Headers) {
        let Some(dead) = self.lines.iter().find(|line| line.queue == Queue::Dead) else { return };
        headers.reason = Some(format!("delivery limit of {} exceeded", Topology::DELIVERY_LIMIT));
        headers.origin = Some(self.lines[line].name.to_string());
        let row = BusRow { queue: Arc::clone(&dead.name), body, headers: headers::encode(&headers, None, "") };
        self.chores.burials.push((id, row));
        self.leave(line, id);
    }

    fn give(
        &mut self,
        sub: SubId,
        line: usize,
        id: i64,
        body: Bytes,
        (headers, key): (Headers, Option<String>),
        returns: u32,
    ) {
        let Some(to) = self.subs.get_mut(&sub) else { return };
        to.inbox_bytes += body.len();
        to.count(line, 1);
        let queue = self.lines[line].queue.clone();
        let routing_key = key.unwrap_or_else(|| queue.binding_keys().swap_remove(0)).into();
        let token = Token(id.unsigned_abs());
        to.inbox.push_back(Delivery { queue, routing_key, body, headers, redelivered: returns > 0, returns, token });
        to.wake.notify_one();
        self.lines[line].out += 1;
        self.out.insert(id, Out { line, sub, taken: false });
    }

    /// Takes acknowledgements. Of what the subscription does not hold (any longer) they are without effect.
    pub(super) fn acknowledge(&mut self, id: SubId, tokens: &[Token]) {
        for token in tokens {
            let row = row_of(token);
            if self.out.get(&row).is_some_and(|out| out.sub == id) {
                self.discard(row);
            }
        }
    }

    /// Drops rows of a queue, whoever has them.
    pub(super) fn discard_rows(&mut self, queue: &str, rows: &[i64]) {
        let Some(line) = self.names.get(queue).copied() else { return };
        for row in rows {
            if self.out.contains_key(row) {
                self.discard(*row);
            } else if !self.leaving.contains_key(row) {
                self.chores.deletes.push(*row);
                self.leave(line, *row);
            }
        }
        self.lines[line].moves += 1;
    }

    fn discard(&mut self, row: i64) {
        let Some(out) = self.out.remove(&row) else { return };
        self.lines[out.line].out -= 1;
        if let Some(sub) = self.subs.get_mut(&out.sub) {
            sub.count(out.line, -1);
        }
        self.chores.deletes.push(row);
        self.leave(out.line, row);
    }

    fn leave(&mut self, line: usize, row: i64) {
        self.returned.remove(&row);
        self.leaving.insert(row, line);
        self.lines[line].leaving += 1;
    }

    /// Rows on their way out; they are the store's to delete.
    pub(super) fn leaving(&self) -> usize {
        self.leaving.len()
    }

    /// Takes what there is to do in the background, at most `limit` deletions.
    pub(super) fn take_chores(&mut self, limit: usize) -> Chores {
        let rest = self.chores.deletes.split_off(limit.min(self.chores.deletes.len()));
        let deletes = std::mem::replace(&mut self.chores.deletes, rest);
        Chores { deletes, burials: std::mem::take(&mut self.chores.burials) }
    }

    /// Puts back what could not be done.
    pub(super) fn return_chores(&mut self, mut chores: Chores) {
        self.chores.deletes.append(&mut chores.deletes);
        self.chores.burials.append(&mut chores.burials);
    }

    /// A row was committed: hands it over if its queue is caught up and somebody has room.
    pub(super) fn inserted(&mut self, id: i64, row: &BusRow) {
        let Some(line) = self.names.get(&row.queue).copied() else { return };
        self.lines[line].rows += 1;
        if self.lines[line].cursor < self.lines[line].tail {
            self.lines[line].tail = id;
            return self.wake(line);
        }
        self.lines[line].tail = id;
        if let Some(sub) = self.ready(line) {
            self.lines[line].cursor = id;
            self.lines[line].moves += 1;
            self.give(sub, line, id, row.body.clone(), headers::decode(row.headers.as_deref()), 0);
        }
    }

    /// Somebody who may take from the queue and has room, in turns.
    fn ready(&mut self, line: usize) -> Option<SubId> {
        let it = &mut self.lines[line];
        let count = if it.queue.is_partitioned() { it.subs.len().min(1) } else { it.subs.len() };
        for step in 0..count {
            let at = (it.turn + step) % count;
            if self.subs.get(&it.subs[at]).is_some_and(|sub| sub.has_room(line)) {
                it.turn = at + 1;
                return Some(it.subs[at]);
            }
        }
        None
    }

    /// A row is gone for good.
    pub(super) fn deleted(&mut self, id: i64) {
        let Some(line) = self.leaving.remove(&id) else { return };
        let line = &mut self.lines[line];
        line.leaving -= 1;
        line.rows = line.rows.saturating_sub(1);
        if id > line.cursor {
            // A read under way may still bring it.
            line.moves += 1;
        }
    }

    /// The number of rows of every queue; whatever is there has to be looked at again.
    pub(super) fn counted(&mut self, census: &[(String, u64)]) {
        let census: HashMap<&str, u64> = census.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
        for line in 0..self.lines.len() {
            let it = &mut self.lines[line];
            it.rows = census.get(&*it.name).copied().unwrap_or(0);
            it.moves += 1;
            it.cursor = if it.rows == 0 { it.tail } else { START };
            if it.rows > 0 {
                self.wake(line);
            }
        }
    }

    /// Ends everything; everybody is woken.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for sub in self.subs.values() {
            sub.wake.notify_one();
        }
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Rows that were delivered and not acknowledged, in the life of this process.
    pub(super) fn unfinished(&self) -> Vec<i64> {
        let taken = self.out.iter().filter(|(_, out)| out.taken).map(|(row, _)| *row);
        let mut rows: Vec<i64> = taken.chain(self.returned.keys().copied()).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// Every queue's depth.
    pub(super) fn depths(&self) -> Vec<QueueDepth> {
        self.lines.iter().map(Line::depth).collect()
    }

    /// Bodies in memory.
    pub(super) fn buffered(&self) -> usize {
        self.subs.values().map(|sub| sub.inbox.len()).sum()
    }

    fn wake(&self, line: usize) {
        for sub in &self.lines[line].subs {
            if let Some(sub) = self.subs.get(sub) {
                sub.wake.notify_one();
            }
        }
    }
}

fn row_of(token: &Token) -> i64 {
    i64::try_from(token.0).unwrap_or(i64::MAX)
}
