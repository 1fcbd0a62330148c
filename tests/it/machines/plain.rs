//! A plain Matrix peer's day (E6): it never answers, and forgets whoever is not told again within 30 minutes.

use std::collections::BTreeMap;

use rollcall::core::Settings;
use rollcall::core::signal::Outcome;
use rollcall::model::{Presence, Timestamp};

use super::pushes;
use crate::support::pair::{START, Server, defaults};

const HOUR_MS: u64 = 3_600_000;
/// What today's homeservers take for gone.
const FORGETS_MS: u64 = 30 * 60_000;
const REFRESH_MS: u64 = 25 * 60_000;

/// A server, and what a plain peer makes of what it is told.
struct Day {
    now: Timestamp,
    server: Server,
    users: usize,
    /// Whether the peer can be reached.
    is_up: bool,
    /// Of each user: when the peer was told last, and what.
    told: BTreeMap<String, (Timestamp, String)>,
    /// When each status arrived there.
    arrivals: Vec<Timestamp>,
    offline: usize,
    transactions: usize,
}

impl Day {
    /// Everybody has a contact at the peer, and is there.
    fn new(users: usize) -> Self {
        let settings = Settings { short_ms: 60_000, ..defaults() };
        let mut day = Self {
            now: START,
            server: Server::with("a.example", settings),
            users,
            is_up: true,
            told: BTreeMap::new(),
            arrivals: Vec::new(),
            offline: 0,
            transactions: 0,
        };
        for user in 0..users {
            day.server.list(START, &name(user), &[&format!("@friend{user}:plain.example")], &[]);
            day.server.set(START, &name(user), Presence::Online, None);
            day.server.session(START, &name(user), Some(30 * HOUR_MS));
        }
        // Coming, and counting as active no longer.
        day.pass(120);
        assert_eq!(day.told.len(), users);
        day.arrivals.clear();
        day.transactions = 0;
        day
    }

    /// Lets time pass, a second a step.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now.plus(1_000);
            self.server.tick(self.now);
            while let Some((transaction, body)) = self.server.sent() {
                let outcome = if self.is_up { Outcome::Delivered } else { Outcome::Failed };
                self.server.receipt(self.now, &transaction, outcome);
                if !self.is_up {
                    continue;
                }
                self.transactions += 1;
                for entry in pushes(&body) {
                    let text = |field: &str| entry[field].as_str().unwrap().to_owned();
                    self.offline += usize::from(text("presence") == "offline");
                    self.told.insert(text("user_id"), (self.now, text("presence")));
                    self.arrivals.push(self.now);
                }
            }
        }
    }

    /// How long ago the peer was told of whoever waits for it longest, of those who are there.
    fn oldest_ms(&self) -> u64 {
        let there = self.told.values().filter(|(_, presence)| presence == "online");
        there.map(|(at, _)| self.now.since(*at)).max().unwrap_or(0)
    }

    /// What one status for each user and 25 minutes would be, since `from`.
    fn least(&self, from: Timestamp) -> f64 {
        self.users as f64 * self.now.since(from) as f64 / REFRESH_MS as f64
    }
}

fn name(user: usize) -> String {
    format!("@u{user}:a.example")
}

/// All day, with nobody saying anything, everybody is online there; and nobody is told more often than it takes.
#[test]
#[expect(clippy::print_stdout, reason = "the figures of the day, with --nocapture")]
fn a_plain_peer_sees_everybody_online_all_day_for_one_status_each_25_minutes() {
    let mut day = Day::new(300);
    let from = day.now;
    let mut oldest = 0;
    for _ in 0..24 * 60 {
        day.pass(60);
        oldest = oldest.max(day.oldest_ms());
    }
    assert!(oldest < FORGETS_MS - 60_000, "somebody was not told for {oldest} ms");
    assert!(day.told.values().all(|(_, presence)| presence == "online"));
    assert_eq!(day.offline, 0);
    let (told, least) = (day.arrivals.len() as f64, day.least(from));
    println!(
        "a plain peer's day: {told} statuses in {} transactions, {:.3} × one for each user and 25 min, none later than {:.1} min",
        day.transactions,
        told / least,
        oldest as f64 / 60_000.0
    );
    assert!(told <= 1.1 * least, "{told} statuses, {least} would do");
}

/// The refresh has no peaks. A sixtieth of the users is told together, each 25 s: so the bins are of whole such times.
#[test]
#[expect(clippy::print_stdout, reason = "the figures, with --nocapture")]
fn a_plain_peer_is_told_evenly_spread() {
    let mut day = Day::new(3_000);
    day.pass(REFRESH_MS / 1_000);
    day.arrivals.clear();
    let from = day.now;
    day.pass(REFRESH_MS / 1_000);
    let mut bins = [0usize; 20];
    for at in &day.arrivals {
        bins[usize::try_from((at.since(from) - 1) / 75_000).unwrap()] += 1;
    }
    let (peak, mean) = (bins.iter().max().copied().unwrap_or(0), day.arrivals.len() as f64 / 20.0);
    println!("a plain peer's refresh: at most {peak} statuses in 75 s, {mean:.1} in the mean");
    assert!((145.0..=155.0).contains(&mean), "{mean}");
    assert!(peak as f64 <= 1.3 * mean, "{peak} in 75 s, {mean} in the mean");
}

/// Who goes is told as gone, once.
#[test]
fn a_plain_peer_is_told_once_that_somebody_went() {
    let mut day = Day::new(50);
    for user in 0..25 {
        day.server.set(day.now, &name(user), Presence::Offline, None);
        day.server.session(day.now, &name(user), None);
    }
    day.pass(3 * 3_600);
    assert_eq!(day.offline, 25, "each once");
    let gone = day.told.values().filter(|(_, presence)| presence == "offline").count();
    assert_eq!((gone, day.oldest_ms() < FORGETS_MS), (25, true));
}

/// After an hour in which it could not be reached the peer is told again of all, once, and everything goes on as before.
#[test]
fn a_plain_peer_that_was_away_is_told_of_everybody_again() {
    let mut day = Day::new(200);
    day.is_up = false;
    day.pass(3_600);
    day.is_up = true;
    // The longest back-off.
    day.pass(600 + 30);
    assert!(day.oldest_ms() < 700_000, "{} ms", day.oldest_ms());
    let from = day.now;
    day.arrivals.clear();
    day.pass(4 * 3_600);
    assert!(day.oldest_ms() < FORGETS_MS);
    assert!(day.arrivals.len() as f64 <= 1.1 * day.least(from), "{}", day.arrivals.len());
}

/// The failed one's user is gone for good, and nobody says anything: those who are there are told again all the same.
#[test]
fn a_failure_that_nothing_is_owed_for_ends_no_refresh() {
    let mut day = Day::new(20);
    day.is_up = false;
    day.server.set(day.now, &name(7), Presence::Busy, None);
    day.pass(8);
    // Nothing is owed any longer.
    day.server.list(day.now, &name(7), &[], &["@friend7:plain.example"]);
    day.is_up = true;
    day.told.remove(&name(7));
    for minute in 0..60 {
        day.pass(60);
        assert!(day.oldest_ms() < FORGETS_MS, "{} ms, after {minute} minutes", day.oldest_ms());
    }
}
