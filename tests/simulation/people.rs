//! People, and what they do. An edge that could not take something is asked again, with the same bytes: what it confirmed counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rollcall::clock::Clock as _;
use rollcall::lifecycle::spawn;
use rollcall::model::{Presence, Status, Timestamp, UserId};
use serde_json::{Value, json};
use tokio::time::{Duration, sleep};

use super::host::Host;
use super::net::{Net, Site};
use super::sim::Sim;
use super::truth::{self, Sees};

const DEVICES: [&str; 2] = ["PHONE", "WEB"];
pub const EDGE: &str = "edge";

/// Somebody at a server of the world.
#[derive(Debug, Clone)]
pub struct Person {
    pub id: UserId,
    pub server: usize,
}

/// See the module.
pub struct People {
    pub net: Arc<Net>,
    pub all: Vec<Person>,
    events: AtomicU64,
    /// Confirmed by no edge yet.
    open: Arc<AtomicU64>,
}

impl People {
    pub fn new(net: Arc<Net>) -> Self {
        let servers = net.sim.plan.servers.clone();
        let all = servers.iter().enumerate().flat_map(|(server, make)| {
            (0..make.users).map(move |n| Person { id: UserId::parse(&format!("@u{n}:{}", make.name)).unwrap(), server })
        });
        Self { all: all.collect(), net, events: AtomicU64::new(0), open: Arc::default() }
    }

    fn sim(&self) -> &Sim {
        &self.net.sim
    }

    /// How many events no edge has confirmed yet.
    pub fn unconfirmed(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub fn any(&self) -> Person {
        self.all[self.sim().rng().usize(..self.all.len())].clone()
    }

    /// Those at a server that speaks rollcall.
    pub fn any_of_ours(&self) -> (Person, Arc<Host>) {
        loop {
            let person = self.any();
            if let Some(host) = self.net.host(person.server) {
                return (person, host.clone());
            }
        }
    }

    /// One of them does one thing.
    pub fn act(self: &Arc<Self>) {
        let (person, host) = self.any_of_ours();
        let die = self.sim().between(0, 99);
        match die {
            0..25 => self.set_status(&person, &host),
            25..40 => self.list(&person, &host, &self.any(), die < 36),
            40..43 => drop(spawn("a quarrel", self.clone().fall_out(person, host))),
            43..52 => self.answer(&person, &host, &self.any(), die < 47),
            52..66 => self.open_session(&person, &host, 5_000 + 500 * die),
            66..71 => self.close_sessions(&person, &host),
            71..80 => self.with_device(&person, &host, "client.activity", &json!({})),
            80..84 if !self.is_steady(&person) => {
                self.with_device(&person, &host, "client.idle", &json!({"idle_ms": die * 100}));
            }
            84..88 if !self.is_steady(&person) => {
                let kind = if die < 87 { json!("mobile") } else { Value::Null };
                self.with_device(&person, &host, "client.device", &json!({"device_type": kind}));
            }
            _ => self.act_elsewhere(),
        }
    }

    /// Refuses somebody who sees them, right after they said something: what of that comes late must not bring back what ends.
    async fn fall_out(self: Arc<Self>, person: Person, host: Arc<Host>) {
        self.set_status(&person, &host);
        self.sim().pause(0, 300).await;
        let observers: Vec<&Person> = self.all.iter().filter(|other| self.is_seen(&person, other)).collect();
        if !observers.is_empty() {
            let observer = observers[self.sim().rng().usize(..observers.len())];
            self.answer(&person, &host, observer, false);
        }
    }

    fn is_seen(&self, person: &Person, observer: &Person) -> bool {
        let ledger = self.sim().ledger();
        let lists = ledger.truth.lists(&observer.id, &person.id);
        lists && ledger.truth.sees(&observer.id, &person.id, person.server) == Sees::Yes
    }

    /// Somebody at a plain server does something, if there is one.
    pub fn act_elsewhere(&self) {
        let plain: Vec<&Person> = self.all.iter().filter(|person| self.net.host(person.server).is_none()).collect();
        if !plain.is_empty() {
            let person = plain[self.sim().rng().usize(..plain.len())].clone();
            self.set_elsewhere(&person);
        }
    }

    pub fn set_elsewhere(&self, person: &Person) {
        let Site::Plain(plain) = &self.net.sites[person.server] else { return };
        let presence = ["online", "unavailable", "offline"][self.sim().rng().usize(..3)];
        let now = self.sim().elapsed();
        let mut ledger = self.sim().ledger();
        let message = truth::message(ledger.truth.new_token(&person.id, now));
        let status_msg = Some(message.as_str().into());
        let status = Status { presence: Presence::parse(presence).unwrap(), status_msg, ..Status::default() };
        ledger.tells(&person.id, status, false, now);
        drop(ledger);
        let to = self.net.hosts().map(|host| host.index);
        plain.set(&person.id, presence, &message, to);
    }

    pub fn is_steady(&self, person: &Person) -> bool {
        self.sim().ledger().steady.contains(&person.id)
    }

    pub fn set_status(&self, person: &Person, host: &Arc<Host>) {
        let choices: &[&str] =
            if self.is_steady(person) { &["online", "busy"] } else { &["online", "busy", "unavailable", "offline"] };
        let presence = choices[self.sim().rng().usize(..choices.len())];
        let now = self.sim().elapsed();
        let token = self.sim().ledger().truth.new_token(&person.id, now);
        let mut event = self.event(host, person, "client.status");
        event["device_id"] = json!(self.device(person));
        event["presence"] = json!(presence);
        event["status_msg"] = json!(truth::message(token));
        self.sim().ledger().truth.status_set(&person.id, token, order(&event));
        self.submit(host, event, None);
    }

    pub fn list(&self, person: &Person, host: &Arc<Host>, target: &Person, on: bool) {
        if target.id == person.id {
            return;
        }
        let mut event = self.event(host, person, "client.list");
        event[if on { "add" } else { "remove" }] = json!([target.id.as_str()]);
        let now = self.sim().elapsed();
        self.sim().ledger().truth.listed(&person.id, &target.id, on, order(&event), now);
        self.submit(host, event, None);
    }

    pub fn answer(&self, person: &Person, host: &Arc<Host>, observer: &Person, allow: bool) {
        if observer.id == person.id {
            return;
        }
        let mut event = self.event(host, person, "client.answer");
        event["observer"] = json!(observer.id.as_str());
        event["allow"] = json!(allow);
        let (now, reply) = (self.sim().elapsed(), self.events.load(Ordering::Relaxed));
        self.sim().ledger().truth.answered(&person.id, &observer.id, allow, order(&event), now, Some(reply));
        self.submit(host, event, Some(reply));
    }

    pub fn open_session(&self, person: &Person, host: &Arc<Host>, lease_ms: u64) {
        let (device, until) = (self.device(person), self.sim().elapsed() + lease_ms);
        self.sim().ledger().sessions.begun(&person.id, device, until);
        let mut event = self.event(host, person, "client.poll");
        event["device_id"] = json!(device);
        event["action"] = json!("start");
        event["lease_ms"] = json!(lease_ms);
        event["edge"] = json!(EDGE);
        self.submit(host, event, None);
    }

    pub fn close_sessions(&self, person: &Person, host: &Arc<Host>) {
        for device in DEVICES {
            let mut event = self.event(host, person, "client.poll");
            event["device_id"] = json!(device);
            event["action"] = json!("stop");
            self.sim().ledger().sessions.stopped(&person.id, device, self.sim().elapsed());
            self.submit(host, event, None);
        }
    }

    /// Says that somebody steady is there, by an edge that never fails.
    pub fn keep_steady(&self, person: &Person, host: &Host) {
        let mut event = self.event(host, person, "client.activity");
        event["ts"] = json!(self.server_time(host).0);
        event["device_id"] = json!(DEVICES[0]);
        self.sim().ledger().sessions.heard(&person.id, DEVICES[0], self.sim().elapsed());
        host.steady_event(&event);
    }

    fn with_device(&self, person: &Person, host: &Arc<Host>, kind: &str, fields: &Value) {
        let (device, now) = (self.device(person), self.sim().elapsed());
        if kind == "client.activity" {
            self.sim().ledger().sessions.heard(&person.id, device, now);
        }
        let mut event = self.event(host, person, kind);
        event["device_id"] = json!(device);
        event.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
        self.submit(host, event, None);
    }

    fn device(&self, person: &Person) -> &'static str {
        if self.is_steady(person) { DEVICES[0] } else { DEVICES[self.sim().rng().usize(..2)] }
    }

    fn server_time(&self, host: &Host) -> Timestamp {
        let offset = self.sim().plan.servers[host.index].offset_ms;
        Timestamp(self.sim().now().0.checked_add_signed(offset).unwrap())
    }

    fn event(&self, host: &Host, person: &Person, kind: &str) -> Value {
        let number = self.events.fetch_add(1, Ordering::Relaxed) + 1;
        // Whichever process' edge it comes to: its clock is what the event bears.
        let lives = host.lives();
        let now = lives[self.sim().rng().usize(..lives.len())].now();
        json!({"v": 1, "type": kind, "id": format!("{number:08}"), "ts": now.0, "user_id": person.id.as_str()})
    }

    fn submit(&self, host: &Arc<Host>, event: Value, reply: Option<u64>) {
        let direct = reply.is_some() || self.sim().rng().bool();
        self.sim().note(0, || format!("s{} <- {event}", host.index));
        self.open.fetch_add(1, Ordering::Relaxed);
        let (host, open) = (host.clone(), self.open.clone());
        spawn("a client", async move {
            while !host.client_event(&event, reply, direct).await {
                sleep(Duration::from_millis(300)).await;
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn order(event: &Value) -> truth::Order {
    (Timestamp(event["ts"].as_u64().unwrap()), event["id"].as_str().unwrap().to_owned())
}
