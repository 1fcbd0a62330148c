//! Stories: real servers as processes, over a real broker, with real HTTP and real signatures between them.

mod bad_input;
mod federation;
mod foreign_edge;
mod graceful;
mod homeserver;
mod log;
mod permission;
mod strangers;

use std::collections::BTreeMap;

use rollcall::clock::{Clock as _, SystemClock};
use rollcall::model::Timestamp;
use serde_json::{Value, json};

use crate::support::person::Person;
use crate::support::process::{Place, Process};
use crate::support::tap::{Seen, Tap};

/// Two servers, each other's peer. What either says passes a [`Tap`].
struct Pair {
    at_a: Process,
    at_b: Process,
    a: Place,
    b: Place,
    /// In front of `a`: what `b` says.
    to_a: Tap,
    /// In front of `b`: what `a` says.
    to_b: Tap,
}

impl Pair {
    /// Starts both on `bus`; `extra` is more configuration for `a`. At `b` sessions linger for a second. Everybody may see
    /// everybody, and shows nothing unasked.
    async fn start(bus: &str, extra: &str) -> Self {
        let open = "list.accept = \"everyone\"\nlist.symmetric = false";
        Self::start_with(bus, &format!("{open}\n{extra}"), open).await
    }

    /// The same, with more configuration for both.
    async fn start_with(bus: &str, at_a: &str, at_b: &str) -> Self {
        let (a, b) = (Place::new(&server("a"), bus, ""), Place::new(&server("b"), bus, ""));
        let (to_a, to_b) = (Tap::start(&a.url()).await, Tap::start(&b.url()).await);
        a.configure(bus, &format!("{}\n{at_a}", resolve(&[(&b.name, &to_b.url)])));
        b.configure(bus, &format!("{}\nclients.linger = \"1s\"\n{at_b}", resolve(&[(&a.name, &to_a.url)])));
        let (at_a, at_b) = tokio::join!(a.serve(), b.serve());
        Self { at_a, at_b, a, b, to_a, to_b }
    }

    /// Both leave in good order.
    async fn stop(self) {
        let (a, b) = tokio::join!(self.at_a.terminate(), self.at_b.terminate());
        assert!(a.success() && b.success(), "{a}, {b}");
    }

    fn alice(&self) -> Person {
        user("alice", &self.a)
    }

    fn bob(&self) -> Person {
        user("bob", &self.b)
    }

    /// Bob lists `users`, who accept, and has a session; returns when the poll and the answer have passed. What passed before is
    /// forgotten.
    async fn watch(&self, users: &[&str]) {
        let bob = self.bob();
        bob.list(users).await;
        self.to_b.wait_until(|seen| count(seen, "m.presence_accept") == users.len()).await;
        self.to_a.wait_until(|seen| count(seen, "m.presence_invite") == users.len()).await;
        self.to_a.forget();
        self.to_b.forget();
        bob.poll().await;
        self.to_a.wait_for(1).await;
        self.to_b.wait_for(1).await;
    }

    /// What `a` sent besides its answer to the poll: one transaction, which is returned.
    fn the_change(&self) -> Seen {
        let mut seen = self.to_b.transactions();
        assert_eq!(seen.len(), 2, "the answer, the change: {seen:?}");
        assert_eq!(self.to_a.transactions().len(), 1, "the poll");
        seen.swap_remove(1)
    }
}

/// How many EDUs of a type passed.
fn count(seen: &[Seen], edu_type: &str) -> usize {
    let edus = seen.iter().flat_map(|seen| seen.body["edus"].as_array().unwrap());
    edus.filter(|edu| edu["edu_type"] == edu_type).count()
}

/// A name that no other test uses.
fn server(role: &str) -> String {
    format!("{role}-{:08x}.example", fastrand::u32(..))
}

fn user(name: &str, place: &Place) -> Person {
    Person::new(&format!("@{name}:{}", place.name), &place.url())
}

fn resolve(peers: &[(&str, &str)]) -> String {
    let peers: BTreeMap<_, _> = peers.iter().map(|(name, url)| (format!("\"{name}\""), format!("\"{url}\""))).collect();
    let entries: Vec<_> = peers.into_iter().map(|(name, url)| format!("{name} = {url}")).collect();
    format!("federation.resolve = {{ {} }}", entries.join(", "))
}

fn now() -> Timestamp {
    SystemClock.now()
}

/// Asserts that a transaction went from one to the other, was taken, and is exactly this: of its first EDU `content` is all but the
/// `rollcall` object.
fn assert_exact(seen: &Seen, from: &Place, to: &Place, mut content: Value) {
    let sent_at = seen.body["origin_server_ts"].as_u64().unwrap();
    assert!(now().since(Timestamp(sent_at)) < 60_000, "{sent_at}");
    let seq = &seen.body["edus"][0]["content"]["rollcall"]["seq"];
    assert!(seq.as_array().is_some_and(|seq| seq.len() == 2 && seq.iter().all(Value::is_u64)), "{seq}");
    content["rollcall"] = json!({ "v": 1, "seq": seq, "promise_ms": 3_600_000 });
    assert_eq!(
        seen.body,
        json!({
            "origin": from.name, "origin_server_ts": sent_at, "pdus": [],
            "edus": [{ "edu_type": "m.presence", "content": content }],
        })
    );
    assert_passed(seen, from, to);
}

/// Asserts that it was signed for the other, and taken.
fn assert_passed(seen: &Seen, from: &Place, to: &Place) {
    assert_eq!((seen.method.as_str(), seen.status.as_u16()), ("PUT", 200));
    assert!(seen.path.starts_with("/_matrix/federation/v1/send/rollcall-"), "{}", seen.path);
    let authorization = &seen.authorization;
    assert!(authorization.starts_with("X-Matrix "), "{authorization}");
    for part in [&from.name, &to.name, "ed25519:", "sig="] {
        assert!(authorization.contains(part), "{authorization} has no {part}");
    }
}
