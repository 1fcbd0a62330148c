//! A Matrix server without rollcall: it pushes what changes to whom it shares rooms with, answers nothing, and believes what it is
//! told, in the order in which it hears it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rollcall::core::signal::Outcome;
use rollcall::model::UserId;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Duration, sleep};

use super::net::{Attempt, Net};
use super::sim::Sim;

/// See the module.
pub struct Plain {
    pub sim: Arc<Sim>,
    pub index: usize,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// Its own users: presence and message.
    own: BTreeMap<UserId, (String, String)>,
    /// What others must yet be told.
    unsent: BTreeMap<usize, BTreeSet<UserId>>,
    /// What it was told of others.
    known: BTreeMap<UserId, Value>,
    /// Transactions are answered from memory when they come again.
    seen: BTreeSet<(usize, String)>,
    sent: u64,
}

impl Plain {
    pub fn new(sim: Arc<Sim>, index: usize) -> Self {
        Self { sim, index, state: Mutex::default(), wake: Notify::new() }
    }

    pub fn set(&self, user: &UserId, presence: &str, message: &str, to: impl IntoIterator<Item = usize>) {
        let mut state = self.state.lock().unwrap();
        state.own.insert(user.clone(), (presence.into(), message.into()));
        for server in to {
            state.unsent.entry(server).or_default().insert(user.clone());
        }
        drop(state);
        self.wake.notify_one();
    }

    /// What it knows of a user elsewhere.
    pub fn known(&self, user: &UserId) -> Option<Value> {
        self.state.lock().unwrap().known.get(user).cloned()
    }

    pub fn receive(&self, from: usize, txn_id: &str, body: &RawValue) {
        let mut state = self.state.lock().unwrap();
        if !state.seen.insert((from, txn_id.to_owned())) {
            return;
        }
        let body: Value = serde_json::from_str(body.get()).expect("a transaction");
        for edu in body["edus"].as_array().into_iter().flatten().filter(|edu| edu["edu_type"] == "m.presence") {
            for push in edu["content"]["push"].as_array().into_iter().flatten() {
                let user = UserId::parse(push["user_id"].as_str().expect("an id")).expect("a user id");
                state.known.insert(user, push.clone());
            }
        }
    }

    /// Tells one server after the other what changed, each transaction until it is taken.
    pub async fn run(self: Arc<Self>, net: Arc<Net>) {
        loop {
            let Some((to, txn_id, body)) = self.next_transaction() else {
                self.wake.notified().await;
                continue;
            };
            while net.request(self.index, to, &txn_id, &body).await != Attempt::Done(Outcome::Delivered) {
                sleep(Duration::from_millis(700)).await;
            }
        }
    }

    fn next_transaction(&self) -> Option<(usize, String, Box<RawValue>)> {
        let mut state = self.state.lock().unwrap();
        let (to, users) = state.unsent.pop_first()?;
        state.sent += 1;
        let push: Vec<Value> = users
            .iter()
            .filter_map(|user| {
                let (presence, message) = state.own.get(user)?;
                Some(json!({"user_id": user.as_str(), "presence": presence, "status_msg": message, "last_active_ago": 10}))
            })
            .collect();
        let name = self.sim.plan.servers[self.index].name.as_str();
        let body = json!({
            "origin": name, "origin_server_ts": self.sim.now().0, "pdus": [],
            "edus": [{"edu_type": "m.presence", "content": {"push": push}}],
        });
        let body = RawValue::from_string(body.to_string()).expect("JSON");
        Some((to, format!("plain-{}", state.sent), body))
    }
}
