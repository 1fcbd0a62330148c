//! Whose status a client may read, and that a refusal tells nothing of whether there is such a user.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use rollcall::config::ListShared;
use rollcall::edge::EdgeParts;
use rollcall::model::{Presence, Timestamp};
use rollcall::reader::Reader;
use tokio::time::Instant;

use super::edge::{Edge, Own, config, parts};
use super::name;
use crate::support::pair::{START, Server, defaults};
use crate::support::rows::Rows;

const READER: &str = "@john:a.example";
const NOW: Timestamp = START;

/// An edge over the rows of a server on which Alice is online and has long lists, and let Bob see her but refused Eve.
async fn edge(shared: ListShared) -> (Edge, Arc<Rows>) {
    let mut server = Server::with("a.example", defaults());
    let contacts: Vec<String> = (0..1_000).map(|number| format!("@contact{number}:b.example")).collect();
    server.set(NOW, "@alice:a.example", Presence::Online, Some("cupcakes"));
    server.list(NOW, "@alice:a.example", &contacts.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    server.answer(NOW, "@alice:a.example", "@bob:a.example", true);
    server.answer(NOW, "@alice:a.example", "@eve:a.example", false);
    let rows = Arc::new(Rows::new(server.rows.clone()));
    let own = Own::start().await;
    let reader = Reader::new(rows.clone(), name("a.example"), 1, defaults().rules()).sharing(shared);
    let parts = EdgeParts { reader, ..parts(&own, config(), &[]) };
    (Edge::with(own, parts).await, rows)
}

/// All that a client is answered, but for the date; how often the store was asked for it, and how long it took.
async fn read(edge: &Edge, rows: &Rows, reader: &str, user: &str) -> (String, usize, Duration) {
    let (begun, before) = (Instant::now(), rows.reads.load(Ordering::Relaxed));
    let request = edge.request(Method::GET, &format!("/_matrix/client/v3/presence/{user}/status"));
    let response = request.header("authorization", format!("Bearer {reader}|PHONE")).send().await.unwrap();
    let took = begun.elapsed();
    let mut headers = response.headers().clone();
    headers.remove("date");
    let status = response.status();
    let text = format!("{status} {headers:?} {}", response.text().await.unwrap());
    (text, rows.reads.load(Ordering::Relaxed) - before, took)
}

#[tokio::test]
async fn a_refusal_is_the_same_whether_or_not_there_is_such_a_user() {
    let (edge, rows) = edge(ListShared::Nobody).await;
    let (there, reads, took) = read(&edge, &rows, READER, "@alice:a.example").await;
    assert!(there.starts_with("403") && there.contains("M_FORBIDDEN"), "{there}");
    assert!(took >= Duration::from_millis(10), "{took:?}");
    for absent in ["@nobody:a.example", "@aaaa:a.example"] {
        let (answer, its_reads, took) = read(&edge, &rows, READER, absent).await;
        assert_eq!((&answer, its_reads), (&there, reads), "{absent}");
        assert!(took >= Duration::from_millis(10), "nobody is refused as slowly: {took:?}");
    }
    let (peer, _, _) = read(&edge, &rows, READER, "@nobody:b.example").await;
    let (refused, _, _) = read(&edge, &rows, "@eve:a.example", "@alice:a.example").await;
    assert_eq!((&peer, &refused), (&there, &there));
}

#[tokio::test]
async fn a_status_is_for_whom_it_was_allowed() {
    let (edge, rows) = edge(ListShared::Nobody).await;
    for reader in ["@alice:a.example", "@bob:a.example"] {
        let (answer, _, _) = read(&edge, &rows, reader, "@alice:a.example").await;
        assert!(answer.starts_with("200") && answer.contains("cupcakes"), "{reader}: {answer}");
    }
    for reader in [READER, "@eve:a.example"] {
        let (answer, _, _) = read(&edge, &rows, reader, "@alice:a.example").await;
        assert!(answer.starts_with("403") && !answer.contains("cupcakes"), "{reader}: {answer}");
    }
}

#[tokio::test]
async fn what_is_shared_is_for_every_local_user_who_was_not_refused() {
    let (edge, rows) = edge(ListShared::Local).await;
    let (answer, _, _) = read(&edge, &rows, READER, "@alice:a.example").await;
    assert!(answer.starts_with("200") && answer.contains("cupcakes"), "{answer}");
    let (nobody, _, _) = read(&edge, &rows, READER, "@nobody:a.example").await;
    let (unseen, _, _) = read(&edge, &rows, READER, "@bob:a.example").await;
    assert!(nobody.starts_with("200") && nobody.contains(r#""known":false"#), "{nobody}");
    assert_eq!(nobody, unseen, "a user who was never seen is as one who is not there");
    for (reader, user) in [("@eve:a.example", "@alice:a.example"), (READER, "@contact1:b.example")] {
        let (answer, _, _) = read(&edge, &rows, reader, user).await;
        assert!(answer.starts_with(StatusCode::FORBIDDEN.as_str()), "{reader} reads {user}: {answer}");
    }
}
