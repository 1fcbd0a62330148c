//! What was committed, said, sent, heard and shown in a world: kept to notice at once what must never happen.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use rollcall::core::signal::Outcome;
use rollcall::model::{Presence, Serial, Status, Timestamp, UserId};

use super::plan::{Plan, REPEAT_MS, WINDOW_MS};
use super::sessions::Sessions;
use super::truth::{Truth, token};

/// See the module.
pub struct Ledger {
    pub truth: Truth,
    pub sessions: Sessions,
    processes: u64,
    shaky: Vec<bool>,
    names: Vec<String>,
    /// Servers that were restored from a backup, and when, ms: what came between they know no longer.
    pub restored: BTreeMap<usize, u64>,
    /// What servers know of users elsewhere was damaged, and may be old or worse until it is found.
    pub damaged: BTreeSet<(usize, UserId)>,
    /// What workers committed to say and have not said yet, by hash: when, oldest first.
    unsaid: BTreeMap<(usize, u64), VecDeque<u64>>,
    /// All that workers ever committed to say.
    committed: BTreeSet<(usize, u64)>,
    serials: HashMap<(usize, Serial, UserId), u64>,
    pub pairs: BTreeMap<(usize, usize), Pair>,
    pub told: BTreeMap<UserId, Told>,
    /// How new what a server shows of a user elsewhere is.
    seen: BTreeMap<(usize, UserId), usize>,
    /// The last update of each observer on each user: when, and what.
    pub shown: BTreeMap<(UserId, UserId), (u64, Status)>,
    /// Users who never stop saying that they are there.
    pub steady: BTreeSet<UserId>,
}

/// From one server to another.
#[derive(Default)]
pub struct Pair {
    pub sent: Vec<Sent>,
    /// How many of them the sender knows no longer.
    forgotten: usize,
    by_id: BTreeMap<String, usize>,
    /// Whether a 413 has made windows small.
    pub capped: bool,
    /// The newest that the one told the other of each of its users.
    newest: HashMap<UserId, Serial>,
    /// As of when the one is not to tell the other of a user any longer.
    hidden: HashMap<UserId, Serial>,
    /// Whom the one asked the other to push, as the other heard it last.
    polled: BTreeMap<UserId, (usize, bool)>,
}

/// One transaction.
pub struct Sent {
    pub txn_id: String,
    pub seq: Serial,
    pub made: Timestamp,
    pub not_after: Timestamp,
    pub body: u64,
    pub is_over: bool,
    pub arrived: bool,
    pub polls: Vec<(UserId, bool)>,
}

/// What a user's machine says of the user.
#[derive(Default)]
pub struct Told {
    pub status: Status,
    /// Since when, ms.
    since: u64,
    /// Since when peers are not told, ms.
    withheld: Option<u64>,
    /// When they were told what had been withheld, ms.
    let_go: u64,
    /// The order in which it said its messages.
    order: HashMap<usize, usize>,
    /// What it said before it was restored from a backup: others may know that, in no order.
    before: BTreeSet<usize>,
}

impl Told {
    /// Whether what was said last may still be on its way to those who are to be told: at peers, or here.
    pub fn is_on_its_way(&self, now: u64, to_peers: bool) -> bool {
        let lately = |at: u64| now < at + 3 * WINDOW_MS;
        let withheld = self.withheld.is_some_and(|since| lately(since + REPEAT_MS));
        lately(self.since) || to_peers && (withheld || lately(self.let_go))
    }
}

impl Ledger {
    pub fn new(plan: &Plan) -> Self {
        Self {
            truth: Truth::new(plan),
            sessions: Sessions::default(),
            processes: 0,
            shaky: plan.servers.iter().map(|make| make.shaky).collect(),
            names: plan.servers.iter().map(|make| make.name.as_str().to_owned()).collect(),
            restored: BTreeMap::new(),
            damaged: BTreeSet::new(),
            unsaid: BTreeMap::new(),
            committed: BTreeSet::new(),
            serials: HashMap::new(),
            pairs: BTreeMap::new(),
            told: BTreeMap::new(),
            seen: BTreeMap::new(),
            shown: BTreeMap::new(),
            steady: BTreeSet::new(),
        }
    }

    pub fn next_process(&mut self) -> u64 {
        self.processes += 1;
        self.processes
    }

    /// Clocks that are shaken are no fault of the machines.
    pub fn is_shaky(&self, server: usize) -> bool {
        self.shaky[server]
    }

    /// Whether a server still knows what it was told at that time, ms.
    pub fn remembers(&self, server: usize, since: u64) -> bool {
        self.restored.get(&server).is_none_or(|restored| *restored < since)
    }

    /// A server is as it was at some earlier time; its users say `statuses` again. What it said meanwhile others may have heard, and
    /// it may say something else now.
    pub fn restored(&mut self, server: usize, statuses: Vec<(UserId, Status)>, now: u64) {
        self.restored.insert(server, now);
        self.unsaid.retain(|(of, _), _| *of != server);
        self.truth.forgotten(server);
        let name = self.names[server].clone();
        self.sessions.forgotten(|user| user.server_str() == name);
        self.seen.retain(|(at, _), _| *at != server);
        for ((from, to), pair) in &mut self.pairs {
            if *from == server {
                pair.forgotten = pair.sent.len();
                pair.newest.clear();
                pair.hidden.clear();
            }
            if *to == server {
                pair.polled.clear();
            }
        }
        for (user, status) in statuses {
            self.seen.retain(|(_, of), _| *of != user);
            let told = self.told.entry(user).or_default();
            told.before.extend(told.order.drain().map(|(token, _)| token));
            (told.status, told.since) = (status, now);
            told.withheld = None;
        }
    }

    pub fn owes_word(&mut self, server: usize, message: u64, now: u64) {
        self.unsaid.entry((server, message)).or_default().push_back(now);
        self.committed.insert((server, message));
    }

    /// `false`: it was never committed.
    pub fn said(&mut self, server: usize, message: u64) -> bool {
        if let Some(times) = self.unsaid.get_mut(&(server, message)) {
            times.pop_front();
            if times.is_empty() {
                self.unsaid.remove(&(server, message));
            }
        }
        self.committed.contains(&(server, message))
    }

    /// How many messages `server` committed to say by `before` and has not said.
    pub fn unsaid(&self, server: usize, before: u64) -> usize {
        let of_server = self.unsaid.iter().filter(|((of, _), _)| *of == server);
        of_server.flat_map(|(_, times)| times).filter(|at| **at <= before).count()
    }

    /// `false`: the serial was used for something else.
    pub fn numbered(&mut self, server: usize, serial: Serial, user: &UserId, content: u64) -> bool {
        *self.serials.entry((server, serial, user.clone())).or_insert(content) == content
    }

    /// A transaction is committed; what is wrong with that.
    pub fn transmitted(
        &mut self,
        (from, to): (usize, usize),
        sent: Sent,
        now: Timestamp,
        drains: bool,
        window_ms: u64,
    ) -> Option<String> {
        let shaky = self.is_shaky(from);
        let pair = self.pairs.entry((from, to)).or_default();
        let (id, seq) = (sent.txn_id.clone(), sent.seq);
        let mut wrong = None;
        if let Some(last) = pair.sent[pair.forgotten..].last().filter(|_| !shaky) {
            let too_soon = sent.made.since(last.made) < window_ms * 8 / 10 - 1;
            if last.seq.epoch == seq.epoch && too_soon && !drains && !pair.capped {
                wrong = Some(format!("{id} leaves {} ms after {}", sent.made.since(last.made), last.txn_id));
            }
            if !last.is_over && now < last.not_after {
                wrong = Some(format!("{id} leaves while {} may still be sent", last.txn_id));
            }
        }
        if pair.by_id.contains_key(&id) || pair.sent.iter().any(|other| other.seq == seq) {
            wrong = Some(format!("{id} ({seq:?}) is used a second time"));
        }
        pair.by_id.insert(id, pair.sent.len());
        pair.sent.push(sent);
        wrong
    }

    /// A transaction holds a status of `user`; what is wrong with that.
    pub fn pushes(&mut self, (from, to): (usize, usize), user: &UserId, serial: Serial) -> Option<String> {
        let shaky = self.is_shaky(from);
        let pair = self.pairs.entry((from, to)).or_default();
        let hidden = pair.hidden.get(user).is_some_and(|hidden| serial < *hidden);
        let newest = pair.newest.entry(user.clone()).or_default();
        let back = serial < *newest;
        *newest = serial.max(*newest);
        let wrong = match (back, hidden) {
            _ if shaky => return None,
            (true, _) => "an older status",
            (_, true) => "a status of before it was told to say no more",
            _ => return None,
        };
        Some(format!("s{from} tells s{to} {wrong} of {user}"))
    }

    /// A link was told to say no more of `user`, as of then, and did as it was told.
    pub fn hides(&mut self, pair: (usize, usize), user: UserId, serial: Serial) {
        let hidden = self.pairs.entry(pair).or_default().hidden.entry(user).or_default();
        *hidden = serial.max(*hidden);
    }

    /// A sender says what became of a transaction.
    pub fn receipted(&mut self, pair: (usize, usize), txn_id: &str, outcome: Outcome) {
        let Some(pair) = self.pairs.get_mut(&pair) else { return };
        pair.capped |= outcome == Outcome::TooLarge;
        let Some(at) = pair.by_id.get(txn_id) else { return };
        pair.sent[*at].is_over |= outcome != Outcome::Expired;
    }

    /// How many transactions `server` ever committed.
    pub fn transactions(&self, server: usize) -> usize {
        let of_server = self.pairs.iter().filter(|((from, _), _)| *from == server);
        of_server.map(|(_, pair)| pair.sent.len()).sum()
    }

    pub fn sent(&self, pair: (usize, usize), txn_id: &str) -> Option<&Sent> {
        let pair = self.pairs.get(&pair)?;
        pair.by_id.get(txn_id).map(|at| &pair.sent[*at])
    }

    /// The users of the other whom the one polls, as the other heard it last, and whether that was before the one was restored from a
    /// backup, so that it may know nothing of it.
    pub fn polls(&self) -> impl Iterator<Item = (&(usize, usize), &UserId, bool)> {
        self.pairs.iter().flat_map(|(servers, pair)| {
            let on = pair.polled.iter().filter(|(_, (_, on))| *on);
            on.map(move |(user, (at, _))| (servers, user, *at < pair.forgotten))
        })
    }

    /// A transaction arrived; `false`: a later one did before, though this one may still be sent.
    pub fn arrived(&mut self, (from, to): (usize, usize), txn_id: &str, now: Timestamp) -> bool {
        let shaky = self.is_shaky(from);
        let Some(pair) = self.pairs.get_mut(&(from, to)) else { return true };
        let Some(at) = pair.by_id.get(txn_id).copied() else { return true };
        let overtaken = pair.sent[at + 1..].iter().any(|later| later.arrived);
        let sent = &mut pair.sent[at];
        // One that was refused is over; that a sender who died before it noted so may try it again is known.
        let in_order =
            sent.arrived || !overtaken || now > sent.not_after || sent.is_over || at < pair.forgotten || shaky;
        sent.arrived = true;
        for (user, on) in std::mem::take(&mut sent.polls) {
            let known = pair.polled.entry(user).or_insert((at, on));
            if known.0 <= at {
                *known = (at, on);
            }
        }
        in_order
    }

    /// A user's machine committed to say this of the user.
    pub fn says(&mut self, user: &UserId, status: &Status) {
        let Some(token) = status.status_msg.as_deref().and_then(token) else { return };
        let order = &mut self.told.entry(user.clone()).or_default().order;
        let next = order.len();
        order.entry(token).or_insert(next);
    }

    /// A user's machine committed what it says, and whether peers are told later; whether a steady user went offline by that.
    pub fn tells(&mut self, user: &UserId, status: Status, is_withheld: bool, now: u64) -> bool {
        self.says(user, &status);
        let told = self.told.entry(user.clone()).or_default();
        let was_there = told.status.presence > Presence::Offline;
        let left = was_there && status.presence == Presence::Offline;
        if told.status != status {
            (told.status, told.since) = (status, now);
        }
        if !is_withheld && told.withheld.take().is_some() {
            told.let_go = now;
        } else if is_withheld {
            told.withheld.get_or_insert(now);
        }
        left && self.steady.contains(user)
    }

    /// A server committed what it knows of a user elsewhere; what is wrong with that.
    pub fn knows(&mut self, server: usize, home: usize, user: &UserId, status: &Status) -> Option<String> {
        let token = status.status_msg.as_deref().and_then(token)?;
        let told = self.told.get(user);
        let place = told.and_then(|told| told.order.get(&token)).copied();
        let damaged = self.damaged.contains(&(server, user.clone()));
        let excused = damaged || self.is_shaky(server) || self.is_shaky(home);
        let Some(place) = place else {
            let excused = excused || told.is_some_and(|told| told.before.contains(&token));
            return (!excused).then(|| format!("s{server} shows #{token} of {user}, which nobody said"));
        };
        let known = self.seen.insert((server, user.clone()), place);
        let back = known.is_some_and(|known| known > place) && !excused;
        back.then(|| format!("s{server} goes back to #{token} of {user}"))
    }
}
