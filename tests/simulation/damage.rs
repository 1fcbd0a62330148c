//! What nobody notices when it happens: what a server believes of somebody elsewhere, or believes to have told, is no longer what
//! was said. Nothing fails, no message is missing; only a comparison can find it (E7).

use std::collections::BTreeSet;
use std::sync::Arc;

use rollcall::core::rows::{RemoteRow, ServedRow};
use rollcall::model::{Partition, Presence, UserId};
use rollcall::store::{RowKey, RowKind};
use rollcall::wire::envelope::{decode, encode};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{Duration, sleep};

use super::host::Host;
use super::people::{People, Person};
use super::plan::{LONG_MS, WINDOW_MS};
use super::sim::Sim;
use super::storm::start;

/// So often somebody at each server says something, that no link is ever silent.
const CHAT_MS: u64 = 7_000;
/// Until what is said once has had all its consequences: somebody who acted is no longer active, a device without a lease is gone.
const GARBLED_MS: u64 = 16_000;
/// What is on its way at the end arrives.
const QUIET_MS: u64 = 4 * WINDOW_MS;

/// Those who went away are back so long before all is looked at: they are to be told of everybody anew.
const BACK_MS: u64 = 4 * WINDOW_MS;

/// At which servers whose statuses become others on their way in.
#[derive(Default)]
pub struct Garbled {
    of: BTreeSet<(usize, UserId)>,
    /// When the last did, ms.
    last: u64,
}

/// See the module.
pub struct Damage {
    pub people: Arc<People>,
}

impl Damage {
    fn sim(&self) -> &Arc<Sim> {
        &self.people.net.sim
    }

    /// Befalls the world in calm, and goes on until all of it must have been found.
    pub async fn befall(&self) {
        let away = self.send_away();
        self.garble();
        self.talk_for(GARBLED_MS).await;
        let Garbled { last, .. } = std::mem::take(&mut *self.people.net.garbled.lock().unwrap());
        let spoiled = self.people.net.hosts().filter(|_| self.sim().between(0, 3) == 0);
        let is_spoiled = spoiled.map(|host| self.spoil(host)).count() > 0;
        let since = if is_spoiled || last == 0 { self.sim().elapsed() } else { last };
        self.talk_until(since + LONG_MS - QUIET_MS - BACK_MS).await;
        self.call_back(&away);
        self.talk_for(BACK_MS).await;
        sleep(Duration::from_millis(QUIET_MS)).await;
    }

    /// Some of those who are not talkative end their sessions: for them nobody is polled meanwhile. What plain servers push is not kept
    /// then, and they cannot be asked.
    fn send_away(&self) -> Vec<Person> {
        if self.sim().plan.servers.iter().any(|make| make.plain) {
            return Vec::new();
        }
        let goes = |person: &&Person| !is_talkative(person) && self.sim().rng().bool();
        let away: Vec<Person> = self.people.all.iter().filter(goes).cloned().collect();
        for person in &away {
            self.people.close_sessions(person, self.host(person));
        }
        away
    }

    /// They see by their lists what they missed.
    fn call_back(&self, away: &[Person]) {
        for person in away {
            self.sim().ledger().shown.retain(|(observer, _), _| *observer != person.id);
            self.people.open_session(person, self.host(person), 600_000);
        }
    }

    fn host(&self, person: &Person) -> &Arc<Host> {
        self.people.net.host(person.server).expect("no server is a plain one")
    }

    /// Those who are not talkative say something once more, and some servers understand something else.
    fn garble(&self) {
        let hosts: Vec<usize> = self.people.net.hosts().map(|host| host.index).collect();
        for person in self.people.all.iter().filter(|person| !is_talkative(person)) {
            let Some(host) = self.people.net.host(person.server) else { continue };
            for at in hosts.iter().filter(|at| **at != person.server) {
                if self.sim().rng().bool() {
                    self.damaged(*at, &person.id);
                    self.people.net.garbled.lock().unwrap().of.insert((*at, person.id.clone()));
                }
            }
            self.people.set_status(person, host);
        }
    }

    /// Somebody at each server says something, and nobody else does.
    async fn talk_for(&self, ms: u64) {
        self.talk_until(self.sim().elapsed() + ms).await;
    }

    async fn talk_until(&self, end: u64) {
        while self.sim().elapsed() < end {
            for person in self.people.all.iter().filter(|person| is_talkative(person)) {
                if let Some(host) = self.people.net.host(person.server) {
                    self.people.set_status(person, host);
                }
            }
            sleep(Duration::from_millis(CHAT_MS.min(end - self.sim().elapsed()))).await;
        }
    }

    /// Ends all processes of a server, and what they find when they begin again is damaged.
    fn spoil(&self, host: &Arc<Host>) {
        (0..host.lives().len()).for_each(|slot| host.kill(slot));
        host.bury_the_dead();
        let mut tables = host.tables.lock().unwrap();
        tables.forget_leases();
        let rows = tables.rows.clone();
        for ((partition, key), value) in rows {
            if self.sim().rng().bool() {
                continue;
            }
            let damaged = match key.kind {
                RowKind::Remote | RowKind::Served if self.is_of_a_plain_peer(&key) => continue,
                RowKind::Remote => self.spoil_remote(host.index, &key, &value),
                RowKind::Served => self.spoil_served(&value),
                _ => continue,
            };
            self.put(&mut tables.rows, (partition, key), damaged);
        }
        drop(tables);
        host.vacant().into_iter().for_each(|slot| start(&self.people.net, host, slot));
    }

    /// A server that knows no promises answers nothing, so that nothing can be compared with it.
    fn is_of_a_plain_peer(&self, key: &RowKey) -> bool {
        let (peer, _) =
            key.key.split_once('\0').or(key.key.split_once(':').map(|(user, peer)| (peer, user))).expect("a peer");
        let servers = &self.sim().plan.servers;
        servers.iter().any(|make| make.plain && make.name.as_str() == peer)
    }

    fn put(&self, rows: &mut super::store::Rows, key: (Partition, RowKey), value: Option<bytes::Bytes>) {
        self.sim().note(16, || format!("{:?} {:?} is spoiled", key.1.kind, key.1.key));
        match value {
            Some(value) => drop(rows.insert(key, value)),
            None => drop(rows.remove(&key)),
        }
    }

    /// What is known of somebody.
    fn spoil_remote(&self, server: usize, key: &RowKey, value: &[u8]) -> Option<bytes::Bytes> {
        let mut row: RemoteRow = decode(value).expect("a remote's row");
        let user = UserId::parse(&key.key).expect("a user's key");
        row.status.presence = if self.sim().rng().bool() { Presence::Unavailable } else { Presence::Unknown };
        row.status.status_msg = self.sim().ledger().truth.oldest_message(&user).map(Into::into);
        self.damaged(server, &user);
        Some(encode(&row))
    }

    /// What somebody was told, or that they are told at all.
    fn spoil_served(&self, value: &[u8]) -> Option<bytes::Bytes> {
        let row: ServedRow = decode(value).expect("a row of ours");
        self.sim().rng().bool().then(|| encode(&ServedRow { told: row.told ^ 1, ..row }))
    }

    fn damaged(&self, server: usize, user: &UserId) {
        self.sim().ledger().damaged.insert((server, user.clone()));
    }
}

fn is_talkative(person: &Person) -> bool {
    person.id.localpart() == "u0"
}

/// A transaction as `to` understands it: some of what is pushed is an older status, or nothing.
pub fn garble(sim: &Sim, garbled: &mut Garbled, to: usize, body: &RawValue) -> Option<Box<RawValue>> {
    if garbled.of.is_empty() {
        return None;
    }
    let mut body: Value = serde_json::from_str(body.get()).expect("a transaction");
    let mut is_garbled = false;
    for edu in body["edus"].as_array_mut().into_iter().flatten().filter(|edu| edu["edu_type"] == "m.presence") {
        let Some(pushes) = edu["content"]["push"].as_array_mut() else { continue };
        pushes.retain_mut(|push| {
            let user = UserId::parse(push["user_id"].as_str().expect("an id")).expect("a user id");
            if !garbled.of.contains(&(to, user.clone())) {
                return true;
            }
            sim.note(17, || format!("s{to} misunderstands what it is told of {user}"));
            is_garbled = true;
            garbled.last = sim.elapsed();
            push["presence"] = "unavailable".into();
            push["status_msg"] = sim.ledger().truth.oldest_message(&user).into();
            sim.rng().bool()
        });
    }
    is_garbled.then(|| RawValue::from_string(body.to_string()).expect("JSON"))
}
