//! An edge under load that remembers what was confirmed to it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use rollcall::clock::{Clock as _, SystemClock};
use rollcall::outbound::http::client;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::history::Ledger;

/// Events said together, each of another user.
const ROUND: usize = 20;
/// How often a round is said: 200 events a second.
const EVERY: Duration = Duration::from_millis(100);
/// How long a confirm may take. Past it the edge goes on, and does not know what became of the event.
const PATIENCE: Duration = Duration::from_secs(10);

/// One status of one user, on its way.
struct Event {
    user: String,
    number: u64,
    json: Value,
}

/// Whoever holds it speaks; the load takes it for each round.
pub(super) type Gate = tokio::sync::Mutex<()>;

/// Says newer and newer statuses of its users.
pub(super) struct Load {
    pub(super) edge: Edge,
    pub(super) users: Vec<String>,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) rng: fastrand::Rng,
    pub(super) gate: Arc<Gate>,
}

impl Load {
    /// Goes on until `stop`; returns how many were confirmed.
    pub(super) async fn run(mut self, stop: CancellationToken) -> usize {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut total = 0;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            total += self.round().await;
        }
        total
    }

    async fn round(&mut self) -> usize {
        let _turn = self.gate.lock().await;
        let chosen = self.rng.choose_multiple(&self.users, ROUND);
        let events: Vec<Event> = chosen.into_iter().map(|user| event(user, &self.ledger)).collect();
        let confirmed = self.edge.say(&events).await;
        let mut ledger = self.ledger.lock().unwrap();
        let confirmed = events.iter().zip(confirmed).filter(|(_, confirmed)| *confirmed);
        confirmed.inspect(|(event, _)| ledger.confirm(&event.user, event.number)).count()
    }
}

fn event(user: &str, ledger: &Mutex<Ledger>) -> Event {
    let number = ledger.lock().unwrap().attempt(user);
    // Of two events within one millisecond the greater id is the newer.
    let json = json!({
        "v": 1, "type": "client.status", "id": format!("{number:012}"), "ts": SystemClock.now().0,
        "user_id": user, "device_id": "PHONE", "presence": "online", "status_msg": number.to_string(),
    });
    Event { user: user.to_owned(), number, json }
}

/// How events get in.
pub(super) enum Edge {
    /// Straight into RabbitMQ: what is confirmed there was never in a process of ours.
    Amqp { url: String, exchange: String, open: Option<Box<(Connection, Channel)>> },
    /// `POST /_rollcall/v1/events`.
    Http { url: String, client: reqwest::Client },
}

impl Edge {
    pub(super) fn amqp(url: String, prefix: &str) -> Self {
        Self::Amqp { url, exchange: format!("{prefix}inbound"), open: None }
    }

    pub(super) fn http(base: &str) -> Self {
        let client = client(PATIENCE).unwrap();
        Self::Http { url: format!("{base}/_rollcall/v1/events"), client }
    }

    /// Which of `events` are confirmed. Of the others nothing is known, and they are not said again.
    async fn say(&mut self, events: &[Event]) -> Vec<bool> {
        match self {
            Self::Http { url, client } => vec![post(client, url, events).await; events.len()],
            Self::Amqp { url, exchange, open } => {
                let saying = timeout(PATIENCE, publish(url, exchange, open, events)).await;
                let confirmed = saying.unwrap_or_default();
                if !confirmed.iter().all(|confirmed| *confirmed) || confirmed.len() < events.len() {
                    // The next round begins with a connection of its own.
                    *open = None;
                }
                confirmed
            }
        }
    }
}

async fn post(client: &reqwest::Client, url: &str, events: &[Event]) -> bool {
    let body = Value::from_iter(events.iter().map(|event| event.json.clone())).to_string();
    let Ok(answer) = client.post(url).header("content-type", "application/json").body(body).send().await else {
        return false;
    };
    let success = answer.status().is_success();
    let Ok(answer) = answer.bytes().await else { return false };
    if !success {
        return false;
    }
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer, json!({ "accepted": events.len(), "rejected": [] }));
    true
}

/// Each event in a message of its own, all at once; fewer answers than events: the connection could not be had.
async fn publish(
    url: &str,
    exchange: &str,
    open: &mut Option<Box<(Connection, Channel)>>,
    events: &[Event],
) -> Vec<bool> {
    if open.is_none() {
        *open = connect(url).await.ok().map(Box::new);
    }
    let Some((_, channel)) = open.as_deref() else { return Vec::new() };
    join_all(events.iter().map(|event| publish_one(channel, exchange, event))).await
}

async fn connect(url: &str) -> Result<(Connection, Channel), lapin::Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

async fn publish_one(channel: &Channel, exchange: &str, event: &Event) -> bool {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let properties = BasicProperties::default().with_delivery_mode(2);
    let body = event.json.to_string();
    let written = channel.basic_publish(exchange.into(), "client".into(), options, body.as_bytes(), properties).await;
    match written {
        Ok(confirm) => matches!(confirm.await, Ok(Confirmation::Ack(None))),
        Err(_) => false,
    }
}
