//! Asking, allowing, revoking (S1, S2, C6), between servers and within one, as clients see it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Pair, user};
use crate::support::broker;
use crate::support::person::Person;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_asked_decides_over_rabbitmq() {
    who_is_asked_decides(&broker::shared_url().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_asked_decides_on_the_embedded_bus() {
    who_is_asked_decides("embedded:").await;
}

/// With the configuration's own policy.
async fn who_is_asked_decides(bus: &str) {
    let pair = Pair::start_with(bus, "", "").await;
    let (alice, bob) = (pair.alice(), pair.bob());
    alice.set("online", "for friends").await;
    bob.list(&[&alice.id]).await;
    alice.is_asked_by(&[&bob.id]).await;
    let list = bob.lists_that(|list| list.len() == 1).await;
    assert_eq!(list, [json!({ "user_id": alice.id, "accepted": false, "presence": "unknown" })]);

    alice.answer(&bob.id, true).await;
    let list = bob.lists_that(|list| list[0]["presence"] == "online").await;
    assert_eq!((&list[0]["accepted"], &list[0]["status_msg"]), (&json!(true), &json!("for friends")));
    alice.is_asked_by(&[]).await;

    alice.answer(&bob.id, false).await;
    bob.lists_that(<[Value]>::is_empty).await;
    assert_refused(&bob, &alice.id).await;
    alice.set("busy", "not for Bob").await;
    assert_refused(&bob, &alice.id).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn within_a_server_nothing_leaves_it() {
    let pair = Pair::start_with("embedded:", "", "").await;
    let (alice, amy) = (pair.alice(), user("amy", &pair.a));
    alice.set("online", "at home").await;
    amy.list(&[&alice.id]).await;
    alice.is_asked_by(&[&amy.id]).await;
    assert_refused(&amy, &alice.id).await;
    assert_refused(&amy, &user("nobody", &pair.a).id).await;
    alice.list(&[&amy.id]).await;
    let list = amy.lists_that(|list| list[0]["accepted"] == true).await;
    assert_eq!((&list[0]["presence"], &list[0]["status_msg"]), (&json!("online"), &json!("at home")));
    amy.drop(&alice.id).await;
    amy.lists_that(<[Value]>::is_empty).await;
    assert!(pair.to_b.transactions().is_empty());
    pair.stop().await;
}

/// In the same words whether or not there is such a user.
async fn assert_refused(person: &Person, who: &str) {
    let (status, body) = person.ask(Method::GET, &format!("/_matrix/client/v3/presence/{who}/status"), "").await;
    let refusal = json!({ "errcode": "M_FORBIDDEN", "error": "you may not see this user" });
    assert_eq!((status, body), (StatusCode::FORBIDDEN, refusal), "{who}");
}
