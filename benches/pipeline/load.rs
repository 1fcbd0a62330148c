//! Who changes, who watches, and what has arrived.

use std::time::{Duration, Instant};

/// Users that one poll asks for.
const POLL: usize = 1_000;

/// Distinct users, each of whom changes once.
pub(crate) struct Load {
    pub(crate) users: usize,
    /// Peers that watch: every user is watched by one of them.
    pub(crate) peers: usize,
    /// Events of one body.
    pub(crate) array: usize,
}

impl Load {
    pub(crate) fn new(users: usize, peers: usize, array: usize) -> Self {
        Self { users, peers, array }
    }

    /// The bodies to publish, in order; every event is some 190 bytes.
    pub(crate) fn bodies(&self, local: &str, now_ms: u64) -> Vec<Vec<u8>> {
        let numbers: Vec<usize> = (0..self.users).collect();
        numbers
            .chunks(self.array)
            .map(|chunk| {
                let events: Vec<String> = chunk.iter().map(|n| event(*n, local, now_ms)).collect();
                if self.array == 1 {
                    events.concat().into_bytes()
                } else {
                    format!("[{}]", events.join(",")).into_bytes()
                }
            })
            .collect()
    }

    /// The events by which the peers come to watch.
    pub(crate) fn polls(&self, local: &str, now_ms: u64) -> Vec<Vec<u8>> {
        let peers = (0..self.peers).flat_map(|peer| {
            let watched: Vec<usize> = (peer..self.users).step_by(self.peers).collect();
            watched.chunks(POLL).map(|chunk| (peer, chunk.to_vec())).collect::<Vec<_>>()
        });
        peers.enumerate().map(|(n, (peer, users))| poll(n, peer, &users, local, now_ms)).collect()
    }
}

/// `peer3.example`.
pub(crate) fn peer_name(peer: usize) -> String {
    format!("peer{peer}.example")
}

pub(crate) fn event(n: usize, local: &str, now_ms: u64) -> String {
    format!(
        r#"{{"v":1,"type":"client.status","id":"01J{n:023}","ts":{now_ms},"user_id":"@user{n:07}:{local}","device_id":"PHONE","presence":"online","status_msg":"cupcakes"}}"#
    )
}

fn poll(n: usize, peer: usize, users: &[usize], local: &str, now_ms: u64) -> Vec<u8> {
    let ids: Vec<String> = users.iter().map(|user| format!(r#""@user{user:07}:{local}""#)).collect();
    format!(
        r#"{{"v":1,"type":"federation.transaction","id":"p{n}","ts":{now_ms},"origin":"{}","txn_id":"p{n}","origin_server_ts":{now_ms},"pdus":0,"edus":[{{"edu_type":"m.presence","content":{{"push":[],"poll":[{}]}}}}]}}"#,
        peer_name(peer),
        ids.join(",")
    )
    .into_bytes()
}

/// Which users have been in a transaction, and when. Cheap, for it takes time from what it measures.
pub(crate) struct Seen {
    online: Vec<bool>,
    known: Vec<bool>,
    /// Users whose change has been in a transaction.
    pub(crate) changed: usize,
    /// Users who have been in a transaction at all: the answers to polls.
    pub(crate) answered: usize,
    peers: Vec<bool>,
    /// When the last of the peers got its first window, and how many users had changed by then.
    first_windows: Option<(Instant, usize)>,
    ended: Option<Instant>,
}

impl Seen {
    pub(crate) fn new(load: &Load) -> Self {
        let users = load.users;
        Self {
            online: vec![false; users],
            known: vec![false; users],
            changed: 0,
            answered: 0,
            peers: vec![false; load.peers],
            first_windows: None,
            ended: None,
        }
    }

    /// A transaction for `destination` left.
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    pub(crate) fn transaction(&mut self, destination: &str, body: &str) {
        let before = self.changed;
        for (at, marker) in body.match_indices(r#""user_id":"@user"#) {
            self.entry(&body[at + marker.len()..]);
        }
        if self.changed == before {
            return;
        }
        let now = Instant::now();
        if let Some(peer) = (0..self.peers.len()).find(|peer| peer_name(*peer) == destination) {
            self.peers[peer] = true;
        }
        if self.first_windows.is_none() && self.peers.iter().all(|seen| *seen) {
            self.first_windows = Some((now, self.changed));
        }
        if self.changed == self.online.len() {
            self.ended.get_or_insert(now);
        }
    }

    fn entry(&mut self, rest: &str) {
        let number: usize = rest[..7].parse().expect("seven digits");
        let presence = rest.split_once(r#""presence":""#).expect("an entry has a presence").1;
        if !std::mem::replace(&mut self.known[number], true) {
            self.answered += 1;
        }
        if presence.starts_with("online") && !std::mem::replace(&mut self.online[number], true) {
            self.changed += 1;
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.ended.is_some()
    }

    /// Events a second between the end of the first windows and the last user.
    pub(crate) fn rate(&self) -> f64 {
        let (began, changed) = self.first_windows.expect("every peer got something");
        let ended = self.ended.expect("complete");
        (self.online.len() - changed) as f64 / (ended - began).max(Duration::from_millis(1)).as_secs_f64()
    }
}
