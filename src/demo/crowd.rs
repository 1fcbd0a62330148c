//! Simulated users of one server: what they do is posted to its edge in small batches, as a homeserver's edge would.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::hop::Hop;
use super::{ACTS, NAMES, Side};
use crate::clock::{Clock, SystemClock};
use crate::outbound::http::read_answer;

/// Contacts of each user on the other server, at most.
const CONTACTS: usize = 10;
/// Events of each user in a second, on average.
const RATE: f64 = 1.0;
/// How often a batch is posted.
const TICK: Duration = Duration::from_millis(100);
/// Events in one request, at most.
const BATCH: usize = 200;
/// How long a crowd waits when the edge has too much to do.
const HELD_OFF: Duration = Duration::from_secs(1);
/// The longest lease there is, ms: a demo that runs for longer renews it by `poll` events.
const LEASE_MS: u64 = 3_600_000;

/// A simulated user.
pub(super) struct Person {
    pub(super) id: String,
    pub(super) contacts: Vec<String>,
    /// Somebody on the other server lists this one.
    watched: bool,
}

/// What edges confirmed.
#[derive(Default)]
pub(super) struct Tally {
    acts: [AtomicU64; ACTS.len()],
    changes: AtomicU64,
}

/// What a user does, in the order of [`ACTS`].
#[derive(Clone, Copy)]
enum Act {
    Status,
    Activity,
    Idle,
    Poll,
    List,
}

/// The users of one server.
pub(super) struct Crowd {
    client: Client,
    url: String,
    people: Arc<[Person]>,
    tally: Arc<Tally>,
    /// What reaches the server from the other.
    inward: Arc<Hop>,
    /// Events so far.
    number: u64,
}

struct Event {
    act: Act,
    is_change: bool,
    json: Value,
}

/// `users` people, half of them on each server, each with contacts on the other.
pub(super) fn people(users: u16) -> [Vec<Person>; 2] {
    let count = usize::from(users / 2).max(1);
    let mut sides = [0, 1].map(|side| (0..count).map(|number| person(side, number, count)).collect::<Vec<_>>());
    for side in [0, 1] {
        let listed: BTreeSet<String> = sides[1 - side].iter().flat_map(|person| person.contacts.clone()).collect();
        sides[side].iter_mut().for_each(|person| person.watched = listed.contains(&person.id));
    }
    sides
}

fn person(side: usize, number: usize, count: usize) -> Person {
    let mut chosen = BTreeSet::new();
    while chosen.len() < CONTACTS.min(count) {
        chosen.insert(fastrand::usize(..count));
    }
    let contacts = chosen.into_iter().map(|number| name(1 - side, number)).collect();
    Person { id: name(side, number), contacts, watched: false }
}

fn name(side: usize, number: usize) -> String {
    format!("@user{number}:{}", NAMES[side])
}

impl Tally {
    /// Events by [`ACTS`].
    pub(super) fn acts(&self) -> [u64; ACTS.len()] {
        std::array::from_fn(|act| self.acts[act].load(Ordering::Relaxed))
    }

    /// Status changes of watched users.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    fn note(&self, events: &[Event], other_asked: bool) {
        for event in events {
            self.acts[event.act as usize].fetch_add(1, Ordering::Relaxed);
            self.changes.fetch_add(u64::from(event.is_change && other_asked), Ordering::Relaxed);
        }
    }
}

impl Crowd {
    /// The users of `side`.
    pub(super) fn new(client: Client, side: &Side) -> Self {
        Self {
            client,
            url: format!("{}/_rollcall/v1/events", side.edge),
            people: side.people.clone(),
            tally: side.tally.clone(),
            inward: side.inward.clone(),
            number: 0,
        }
    }

    /// Everybody lists contacts.
    ///
    /// # Errors
    /// When the edge refuses an event or cannot be reached.
    pub(super) async fn introduce(&mut self) -> Result<()> {
        let people = self.people.clone();
        let lists = people.iter().map(|person| self.event(person, Act::List)).collect();
        self.post(lists, &CancellationToken::new()).await
    }

    /// Everybody comes online, then all do something now and then, until `stop`.
    ///
    /// # Errors
    /// When the edge refuses an event or cannot be reached.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<()> {
        self.appear(&stop).await?;
        let mut ticker = interval(TICK);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = 0.0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticker.tick() => due += self.people.len() as f64 * RATE * TICK.as_secs_f64(),
            }
            let events: Vec<Event> = (0..due as usize).map(|_| self.something()).collect();
            due -= events.len() as f64;
            self.post(events, &stop).await?;
        }
    }

    async fn appear(&mut self, stop: &CancellationToken) -> Result<()> {
        let people = self.people.clone();
        let mut events = Vec::new();
        for act in [Act::Poll, Act::Status] {
            events.extend(people.iter().map(|person| self.event(person, act)));
        }
        self.post(events, stop).await
    }

    /// Somebody does something: mostly, statuses change.
    fn something(&mut self) -> Event {
        let people = self.people.clone();
        let act = match fastrand::u8(..100) {
            0..50 => Act::Status,
            50..75 => Act::Activity,
            75..90 => Act::Idle,
            _ => Act::Poll,
        };
        self.event(&people[fastrand::usize(..people.len())], act)
    }

    fn event(&mut self, person: &Person, act: Act) -> Event {
        self.number += 1;
        let mut json = self.details(person, act);
        json["v"] = 1.into();
        json["type"] = format!("client.{}", ACTS[act as usize]).into();
        json["id"] = format!("demo-{:012}", self.number).into();
        json["ts"] = SystemClock.now().0.into();
        json["user_id"] = person.id.as_str().into();
        // Every status carries a new message: watchers would notice each.
        Event { act, is_change: matches!(act, Act::Status) && person.watched, json }
    }

    fn details(&self, person: &Person, act: Act) -> Value {
        match act {
            Act::Status => {
                let presence = ["online", "online", "busy", "unavailable"][fastrand::usize(..4)];
                json!({ "device_id": "PHONE", "presence": presence, "status_msg": format!("task {}", self.number) })
            }
            Act::Activity => json!({ "device_id": "PHONE" }),
            Act::Idle => {
                let idle_ms = fastrand::bool().then_some(600_000);
                json!({ "device_id": "PHONE", "idle_ms": idle_ms })
            }
            Act::Poll => json!({ "device_id": "PHONE", "action": "start", "lease_ms": LEASE_MS }),
            Act::List => json!({ "add": person.contacts }),
        }
    }

    async fn post(&self, mut events: Vec<Event>, stop: &CancellationToken) -> Result<()> {
        while !events.is_empty() {
            let other_asked = self.inward.traffic().polls > 0;
            let rest = events.split_off(BATCH.min(events.len()));
            let body: Vec<&Value> = events.iter().map(|event| &event.json).collect();
            let body = serde_json::to_vec(&body)?;
            if !self.deliver(body, stop).await? {
                return Ok(());
            }
            self.tally.note(&events, other_asked);
            events = rest;
        }
        Ok(())
    }

    /// Posts until the edge has confirmed; `false`: the demo ended before it had.
    async fn deliver(&self, body: Vec<u8>, stop: &CancellationToken) -> Result<bool> {
        while !stop.is_cancelled() {
            let answer = self.client.post(&self.url).body(body.clone()).send().await?;
            let status = answer.status();
            let answer = String::from_utf8_lossy(&read_answer(answer).await?).into_owned();
            match status {
                StatusCode::OK if answer.contains(r#""rejected":[]"#) => return Ok(true),
                // Repeating is safe: every event may be applied twice.
                StatusCode::SERVICE_UNAVAILABLE => sleep(HELD_OFF).await,
                _ => bail!("the edge refused events of simulated users: {status}: {answer}"),
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_on_the_other_server_and_know_that_they_are_watched() {
        let [a, b] = people(60);
        assert_eq!((a.len(), b.len()), (30, 30));
        assert!(a.iter().all(|person| person.contacts.len() == CONTACTS && person.id.ends_with(":a.example")));
        assert!(a.iter().flat_map(|person| &person.contacts).all(|contact| contact.ends_with(":b.example")));
        for person in &b {
            assert_eq!(person.watched, a.iter().any(|other| other.contacts.contains(&person.id)), "{}", person.id);
        }
    }

    #[test]
    fn two_people_are_a_crowd() {
        let [a, b] = people(2);
        assert_eq!((&a[0].contacts, &b[0].contacts), (&vec![b[0].id.clone()], &vec![a[0].id.clone()]));
    }
}
