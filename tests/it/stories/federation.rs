//! A poll, an answer, and changes that leave together.

use std::time::Duration;

use rollcall::model::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Pair, assert_exact, assert_passed, now, user};
use crate::support::broker;
use crate::support::tap::Seen;

/// What a change may take from its answer to a peer's reader: a window of 1 s, and as much for all the rest.
const IN_TIME: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_reaches_a_peers_reader_within_a_window_over_rabbitmq() {
    a_status_reaches_a_peers_reader_within_a_window(&broker::shared_url().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_reaches_a_peers_reader_within_a_window_on_the_embedded_bus() {
    a_status_reaches_a_peers_reader_within_a_window("embedded:").await;
}

async fn a_status_reaches_a_peers_reader_within_a_window(bus: &str) {
    let pair = Pair::start(bus, "").await;
    let (alice, bob) = (pair.alice(), pair.bob());
    pair.watch(&[&alice.id]).await;
    let (polls, answers) = (pair.to_a.transactions(), pair.to_b.transactions());
    assert_exact(&polls[0], &pair.b, &pair.a, json!({ "push": [], "poll": [alice.id] }));
    // Never active: an age that reaches back to 1970.
    let never = answers[0].body["origin_server_ts"].as_u64().unwrap();
    let offline = json!({
        "user_id": alice.id, "presence": "offline", "last_active_ago": never,
    });
    assert_exact(&answers[0], &pair.a, &pair.b, json!({ "push": [offline] }));

    let before = now();
    alice.set("online", "cupcakes").await;
    let set = (Instant::now(), now());
    let seen = bob.sees_message(&alice.id, "cupcakes").await;
    report_and_judge(bus, set.0.elapsed());
    assert_eq!((&seen["presence"], &seen["rollcall"]["known"]), (&json!("online"), &json!(true)), "{seen}");
    let change = pair.the_change();
    let entry = entry(&change, &alice.id, "cupcakes", before, set.1);
    assert_exact(&change, &pair.a, &pair.b, json!({ "push": [entry] }));
    pair.stop().await;
}

#[expect(clippy::print_stdout, reason = "the measured time is worth reading, with --nocapture")]
fn report_and_judge(bus: &str, took: Duration) {
    let bus = bus.split(':').next().unwrap_or_default();
    println!("from the answer to a peer's reader, window 1 s, {bus}: {} ms", took.as_millis());
    assert!(took < IN_TIME, "{took:?}");
}

/// How an online user stands in a push, if the age in `seen` fits an activity between `from` and `to`.
fn entry(seen: &Seen, user: &str, message: &str, from: Timestamp, to: Timestamp) -> Value {
    let sent_at = seen.body["origin_server_ts"].as_u64().unwrap();
    let ago = seen.body["edus"][0]["content"]["push"][0]["last_active_ago"].as_u64().unwrap();
    assert!((from.0..=to.0).contains(&(sent_at - ago)), "{ago} ms before {sent_at}");
    json!({
        "user_id": user, "presence": "online", "status_msg": message, "last_active_ago": ago, "currently_active": true,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_altered_on_its_way_is_refused_and_told_again() {
    let pair = Pair::start("embedded:", "").await;
    let (alice, bob) = (pair.alice(), pair.bob());
    pair.watch(&[&alice.id]).await;
    pair.to_b.forge(true);
    alice.set("online", "cupcakes").await;
    let refused = pair.to_b.wait_for(2).await.swap_remove(1);
    let presence = &refused.body["edus"][0]["content"]["push"][0]["presence"];
    assert_eq!((refused.status.as_u16(), presence), (401, &json!("offline")));
    assert_ne!(bob.sees(&alice.id).await["status_msg"], "cupcakes");
    pair.to_b.forge(false);
    let seen = bob.sees_message(&alice.id, "cupcakes").await;
    assert_eq!(seen["presence"], "online", "{seen}");
    let told = pair.to_b.transactions().pop().unwrap();
    assert_passed(&told, &pair.a, &pair.b);
    assert_ne!(told.path, refused.path, "what was refused is told anew, under another id");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_changes_within_a_window_leave_as_one_entry() {
    let pair = Pair::start(&broker::shared_url().await, r#"batch.window = "3s""#).await;
    let (alice, bob) = (pair.alice(), pair.bob());
    pair.watch(&[&alice.id]).await;
    let begun = Instant::now();
    let mut before = now();
    for n in 0..10 {
        before = now();
        alice.set(if n % 2 == 0 { "busy" } else { "online" }, &format!("message {n}")).await;
    }
    assert!(begun.elapsed() < Duration::from_millis(2_400), "the shortest window of 3 s: {:?}", begun.elapsed());
    let after = now();
    bob.sees_message(&alice.id, "message 9").await;
    let change = pair.the_change();
    let entry = entry(&change, &alice.id, "message 9", before, after);
    assert_exact(&change, &pair.a, &pair.b, json!({ "push": [entry] }));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_users_within_a_window_leave_as_one_transaction() {
    let pair = Pair::start(&broker::shared_url().await, r#"batch.window = "3s""#).await;
    let mut users: Vec<String> = (0..1_000).map(|n| user(&format!("user{n}"), &pair.a).id).collect();
    users.sort_unstable();
    pair.watch(&users.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(names(&pair.to_a.transactions()[0], "poll", |name| name), users, "all asked for at once");
    for part in users.chunks(250) {
        let events: Vec<Value> = part.iter().map(|id| online(id)).collect();
        let (status, answer) = pair.alice().events(&events.into()).await;
        assert_eq!((status.as_u16(), answer), (200, json!({ "accepted": 250, "rejected": [] })));
    }
    pair.to_b.wait_for(2).await;
    let last = &users[999];
    pair.bob().sees_message(last, last).await;
    let change = pair.the_change();
    assert_passed(&change, &pair.a, &pair.b);
    assert_eq!(names(&change, "push", |entry| &entry["user_id"]), users, "each once");
    assert!(pushes(&change).all(|entry| entry["presence"] == "online" && entry["status_msg"] == entry["user_id"]));
    let headed = change.body["edus"].as_array().unwrap().iter().map(|edu| edu["content"]["rollcall"].is_object());
    assert_eq!(headed.collect::<Vec<_>>(), [true, false, false, false], "256 entries an EDU, one head");
    pair.stop().await;
}

/// E1: who has no session that cares does not poll, and is not pushed to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_session_nothing_is_asked_for_and_nothing_is_told() {
    let pair = Pair::start(&broker::shared_url().await, "").await;
    let (alice, bob) = (pair.alice(), pair.bob());
    pair.watch(&[&alice.id]).await;
    bob.leave().await;
    let unpoll = pair.to_a.wait_for(2).await.swap_remove(1);
    assert_exact(&unpoll, &pair.b, &pair.a, json!({ "push": [], "unpoll": [alice.id] }));
    bob.sees_that(&alice.id, |seen| seen["rollcall"]["known"] == false).await;

    alice.set("online", "unheard").await;
    alice.set("busy", "heard").await;
    bob.poll().await;
    bob.sees_message(&alice.id, "heard").await;
    let told = pair.to_b.transactions();
    assert_eq!(told.len(), 2, "the two answers, nothing in between: {told:?}");
    pair.stop().await;
}

/// Each says its own name, so that nobody's status can pass for another's.
fn online(id: &str) -> Value {
    json!({
        "v": 1, "type": "client.status", "id": "1", "ts": now(),
        "user_id": id, "device_id": "DEV", "presence": "online", "status_msg": id,
    })
}

fn pushes(seen: &Seen) -> impl Iterator<Item = &Value> {
    let edus = seen.body["edus"].as_array().unwrap().iter();
    edus.flat_map(|edu| edu["content"]["push"].as_array().unwrap())
}

/// The user IDs in `field` of all EDUs, sorted.
fn names(seen: &Seen, field: &str, id: impl Fn(&Value) -> &Value) -> Vec<String> {
    let edus = seen.body["edus"].as_array().unwrap().iter();
    let entries = edus.flat_map(|edu| edu["content"][field].as_array().into_iter().flatten());
    let mut names: Vec<_> = entries.map(|entry| id(entry).as_str().unwrap().to_owned()).collect();
    names.sort_unstable();
    names
}
