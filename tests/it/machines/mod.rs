//! The machines of two servers, against each other. No bus, no store, no real time.

mod backoff;
mod devices;
mod first_appearance;
mod found;
mod jobs;
mod lists;
mod local;
mod mending;
mod permission;
mod plain;
mod promises;
mod questions;
mod repeats;
mod replays;
mod restarts;
mod reviewed;
mod spread;
mod storms;
mod updates;
mod watchdogs;
mod watching;
mod windows;

use rollcall::core::rows::{RemoteRow, user_key};
use rollcall::model::{Presence, Timestamp};
use rollcall::store::RowKind;
use rollcall::wire::envelope::decode;
use serde_json::Value;

use crate::support::pair::{START, Server, defaults, pass, said, user};

const ALICE: &str = "@alice:a.example";
const BOB: &str = "@bob:b.example";
const HOUR: Option<u64> = Some(3_600_000);

/// `@bob:b` lists `@alice:a`, who lets everybody see her, and has a session: b asks and then polls a, a answers.
fn watched() -> (Timestamp, Server, Server) {
    watched_by(Server::new("a.example"), Server::new("b.example"))
}

fn watched_by(mut a: Server, mut b: Server) -> (Timestamp, Server, Server) {
    let mut now = START;
    b.list(now, BOB, &[ALICE], &[]);
    b.session(now, BOB, HOUR);
    let seen = pass(&mut now, 30, &mut a, &mut b);
    let expected = [
        "b.example: invite @bob:b.example to see @alice:a.example",
        "a.example: accept @bob:b.example to see @alice:a.example",
        "b.example: poll @alice:a.example",
        "a.example: push @alice:a.example offline",
    ];
    assert_eq!(said(&seen), expected);
    (now, a, b)
}

/// Alice and Bob list each other, both accepted, as the defaults have it; nobody has a session.
fn friends() -> (Timestamp, Server, Server) {
    let (mut a, mut b) = (Server::with("a.example", defaults()), Server::with("b.example", defaults()));
    let mut now = START;
    a.list(now, ALICE, &[BOB], &[]);
    b.list(now, BOB, &[ALICE], &[]);
    pass(&mut now, 60, &mut a, &mut b);
    assert_eq!(a.list_of(now, ALICE), [(BOB.to_owned(), true, Presence::Unknown)]);
    assert_eq!(b.list_of(now, BOB), [(ALICE.to_owned(), true, Presence::Unknown)]);
    (now, a, b)
}

fn known(server: &Server, who: &str) -> RemoteRow {
    decode(&server.rows[&user_key(RowKind::Remote, &user(who))]).unwrap()
}

fn presence(server: &Server, who: &str) -> Presence {
    known(server, who).status.presence
}

fn pushes(body: &Value) -> Vec<&Value> {
    let edus = body["edus"].as_array().unwrap().iter();
    edus.filter_map(|edu| edu["content"]["push"].as_array()).flatten().collect()
}
