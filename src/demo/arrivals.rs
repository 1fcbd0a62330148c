//! Whether the last words arrived: what a user reads of a contact on the other server, against what the contact's own says.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use reqwest::Client;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::crowd::Person;
use super::{NAMES, Side};
use crate::outbound::http::read_answer;

/// Users of each server whose presence lists are read.
const READERS: usize = 10;
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// Beside two windows: for what is inferred, settled and committed on the way.
const GRACE: Duration = Duration::from_secs(15);

/// What one server knows of the other's users, in a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrived {
    /// Entries that were read.
    pub read: usize,
    /// Those that say what the user's own server says.
    pub newest: usize,
}

/// What watchers see of a status.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Seen {
    presence: String,
    status_msg: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    user_id: String,
    #[serde(flatten)]
    seen: Seen,
}

/// Looks until both servers know the newest of each other's users, or for as long as that may take; in the order of the senders.
pub(super) async fn settle(sides: &[Side; 2], client: &Client, window: Duration) -> Result<[Arrived; 2]> {
    let deadline = Instant::now() + window * 2 + GRACE;
    loop {
        let arrived = [look(&sides[0], &sides[1], client).await?, look(&sides[1], &sides[0], client).await?];
        if arrived.iter().all(|arrived| arrived.newest == arrived.read) || Instant::now() >= deadline {
            return Ok(arrived);
        }
        sleep(PAUSE).await;
    }
}

/// What the users of `to` see of those of `from`.
async fn look(from: &Side, to: &Side, client: &Client) -> Result<Arrived> {
    let mut arrived = Arrived::default();
    let mut own = BTreeMap::new();
    for Person { id, .. } in to.people.iter().take(READERS) {
        let list: Vec<Entry> = read(client, &format!("{}/_matrix/client/v3/presence/list/{id}", to.edge), id).await?;
        for Entry { user_id, seen } in list {
            if !own.contains_key(&user_id) {
                let url = format!("{}/_matrix/client/v3/presence/{user_id}/status", from.edge);
                let status: Seen = read(client, &url, &user_id).await?;
                own.insert(user_id.clone(), status);
            }
            arrived.read += 1;
            arrived.newest += usize::from(own.get(&user_id) == Some(&seen));
        }
    }
    Ok(arrived)
}

async fn read<T: serde::de::DeserializeOwned>(client: &Client, url: &str, user: &str) -> Result<T> {
    let answer = client.get(url).bearer_auth(format!("{user}|PHONE")).send().await?;
    let status = answer.status();
    let body = read_answer(answer).await?;
    if !status.is_success() {
        bail!("a simulated user of {} cannot read: {status}: {}", NAMES.join(" or "), String::from_utf8_lossy(&body));
    }
    Ok(serde_json::from_slice(&body)?)
}
