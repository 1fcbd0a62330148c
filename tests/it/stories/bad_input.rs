//! What cannot be used is refused, or put aside alone with a reason that names the field; everything else goes on.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use rollcall::outbound::http::client;
use rollcall::outbound::sign::authorize_put;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{now, resolve, server, user};
use crate::federation::peer::Peer;
use crate::support::person::Person;
use crate::support::process::{Place, Process};
use crate::support::{broker, edge};

const PATIENCE: Duration = Duration::from_secs(30);

/// A server, and a peer of which Alice watches Bob.
struct Scene {
    process: Process,
    place: Place,
    peer: Peer,
    alice: Person,
    bob: String,
}

impl Scene {
    async fn set(bus: &str) -> Self {
        let place = Place::new(&server("s"), bus, "");
        let peer = Peer::start(&server("p"), vec![]).await;
        place.configure(bus, &resolve(&[(peer.name.as_str(), &peer.base)]));
        let process = place.serve().await;
        let (alice, bob) = (user("alice", &place), format!("@bob:{}", peer.name));
        alice.list(&[&bob]).await;
        alice.poll().await;
        Self { process, place, peer, alice, bob }
    }

    /// A status of a local user, told by an edge.
    fn status(&self, name: &str, message: &str) -> Value {
        let id = user(name, &self.place).id;
        json!({
            "v": 1, "type": "client.status", "id": "1", "ts": now(),
            "user_id": id, "device_id": "DEV", "presence": "online", "status_msg": message,
        })
    }

    /// What the peer says of Bob and, as if it were its own, of Eve.
    fn edus(&self, message: &str) -> Value {
        let entry =
            |user: &str| json!({ "user_id": user, "presence": "online", "last_active_ago": 5, "status_msg": message });
        let push = [entry("@eve:else.example"), entry(&self.bob)];
        json!([{ "edu_type": "m.presence", "content": { "push": push } }])
    }

    /// The same, as the transaction that an edge of ours took in.
    fn transaction(&self, edus: &Value) -> Value {
        json!({
            "v": 1, "type": "federation.transaction", "id": "1", "ts": now(),
            "origin": self.peer.name, "txn_id": "1", "origin_server_ts": now(), "edus": edus,
        })
    }

    /// A transaction that the peer signs and sends itself.
    async fn send(&self, txn_id: &str, edus: &Value) -> (StatusCode, Value) {
        let body = json!({ "origin": self.peer.name, "origin_server_ts": now(), "pdus": [], "edus": edus }).to_string();
        let path = format!("/_matrix/federation/v1/send/{txn_id}");
        let to = rollcall::model::ServerName::parse(&self.place.name).unwrap();
        let key = self.peer.keys.current();
        let authorization = authorize_put(key, &self.peer.name, &to, &path, body.as_bytes()).unwrap();
        let request = client(PATIENCE).unwrap().put(format!("{}{path}", self.place.url()));
        let answer = request.header("authorization", authorization).body(body).send().await.unwrap();
        (answer.status(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    /// Reads `dead list` until every one of `parts` is in a line of its own and there are no more; the lines.
    async fn dead(&self, parts: &[&str]) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let listed = self.place.run(&["dead", "list"]).await;
            let lines: Vec<String> = listed.lines().skip(1).map(Into::into).collect();
            let found = parts.iter().filter(|part| lines.iter().filter(|line| line.contains(**part)).count() == 1);
            if found.count() == parts.len() && lines.len() == parts.len() {
                return lines;
            }
            assert!(Instant::now() < deadline, "not just {parts:#?}:\n{listed}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The server works, and says that it does.
    async fn assert_well(&self, message: &str) {
        self.alice.set("online", message).await;
        self.alice.sees_message(&self.alice.id, message).await;
        self.process.ready(&self.place.ops).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_bad_input_is_refused_with_rabbitmq() {
    over_http_bad_input_is_refused(&broker::shared_url().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_bad_input_is_refused_on_the_embedded_bus() {
    over_http_bad_input_is_refused("embedded:").await;
}

async fn over_http_bad_input_is_refused(bus: &str) {
    let scene = Scene::set(bus).await;
    single_events_are_refused(&scene).await;
    a_bad_member_is_refused_alone(&scene).await;
    let (status, error) = scene.send("many", &vec![json!({ "edu_type": "m.typing", "content": {} }); 101].into()).await;
    assert_eq!((status.as_u16(), &error["errcode"]), (400, &json!("M_BAD_JSON")), "{error}");
    assert!(error["error"].as_str().unwrap().contains("edus"), "{error}");
    assert_eq!(scene.send("eve", &scene.edus("signed")).await, (StatusCode::OK, json!({ "pdus": {} })));
    scene.alice.sees_message(&scene.bob, "signed").await;
    let dead = scene.dead(&["edus[0].content.push[0]"]).await;
    assert!(dead[0].contains("@eve:else.example"), "{dead:?}");
    assert_eq!(scene.place.run(&["dead", "drop", "--all"]).await, "1 dropped\n");
    assert_eq!(scene.place.run(&["dead", "list"]).await, "there are no dead letters\n");
    scene.assert_well("all the same").await;
}

async fn single_events_are_refused(scene: &Scene) {
    let changed = |field: &str, value: Value| {
        let mut event = scene.status("alice", "bad");
        event[field] = value;
        event.to_string()
    };
    for (body, status, reason) in [
        ("{\"v\":1,".to_owned(), 400, "not JSON"),
        (changed("presence", json!(5)), 400, "client.status: \"presence\""),
        (changed("type", json!("client.foo")), 400, "unknown type \"client.foo\""),
        (changed("user_id", json!("@x:else.example")), 400, "client.status: \"user_id\": @x:else.example belongs to"),
        (changed("status_msg", json!("x".repeat(2 << 20))), 413, "1048576"),
    ] {
        let (got, answer) = scene.alice.ask(Method::POST, "/_rollcall/v1/events", &body).await;
        assert_eq!(got.as_u16(), status, "{reason}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(reason), "{answer} does not say {reason:?}");
    }
}

async fn a_bad_member_is_refused_alone(scene: &Scene) {
    let events =
        json!([scene.status("first", "good"), { "v": 1, "type": "client.status" }, scene.status("third", "good")]);
    let (status, answer) = scene.alice.events(&events).await;
    assert_eq!((status.as_u16(), &answer["accepted"]), (200, &json!(2)), "{answer}");
    let rejected = answer["rejected"].as_array().unwrap();
    assert_eq!((rejected.len(), &rejected[0]["index"]), (1, &json!(1)), "{answer}");
    assert!(rejected[0]["reason"].as_str().unwrap().starts_with("[1] client.status: \""), "{answer}");
    for name in ["first", "third"] {
        let neighbour = user(name, &scene.place);
        neighbour.sees_message(&neighbour.id, "good").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_amqp_bad_input_is_put_aside_with_its_reason() {
    let bus = broker::shared_url().await;
    let scene = Scene::set(&bus).await;
    let prefix = format!("{}.", scene.place.name);
    edge::publish(&bus, &prefix, "client", &bad_events(&scene)).await;
    edge::publish(&bus, &prefix, "klient", &[scene.status("erin", "replayed").to_string()]).await;
    let many = scene.transaction(&vec![json!({ "edu_type": "m.typing", "content": {} }); 101].into());
    let eve = scene.transaction(&scene.edus("neighbour"));
    edge::publish(&bus, &prefix, "federation", &[many.to_string(), eve.to_string()]).await;

    let dead = scene.dead(REASONS).await;
    for name in ["first", "third"] {
        let neighbour = user(name, &scene.place);
        neighbour.sees_message(&neighbour.id, "good").await;
    }
    scene.alice.sees_message(&scene.bob, "neighbour").await;
    scene.assert_well("all the same").await;
    the_dead_are_replayed_or_dropped(&scene, &dead).await;
    scene.assert_well("at the end").await;
}

/// What `dead list` says of them, each once.
const REASONS: &[&str] = &[
    "not JSON: ",
    "client.status: \"presence\" must be",
    "unknown type \"client.foo\"",
    "client.status: \"user_id\": @x:else.example belongs to else.example",
    "[1] client.status: \"",
    "the body has 2097",
    "no queue takes routing key \"klient\"",
    "federation.transaction: \"edus\" are 101, at most 100 are allowed",
    "edus[0].content.push[0]: ",
];

fn bad_events(scene: &Scene) -> Vec<String> {
    let changed = |field: &str, value: Value| {
        let mut event = scene.status("alice", "bad");
        event[field] = value;
        event.to_string()
    };
    let mixed =
        json!([scene.status("first", "good"), { "v": 1, "type": "client.status" }, scene.status("third", "good")]);
    vec![
        "{\"v\":1,".into(),
        changed("presence", json!(5)),
        changed("type", json!("client.foo")),
        changed("user_id", json!("@x:else.example")),
        changed("status_msg", json!("x".repeat(2 << 20))),
        mixed.to_string(),
    ]
}

/// The one that only had the wrong key counts once it is put back; the others are dropped.
async fn the_dead_are_replayed_or_dropped(scene: &Scene, dead: &[String]) {
    let erin = user("erin", &scene.place);
    assert_ne!(erin.sees(&erin.id).await["status_msg"], "replayed", "not yet");
    let line = dead.iter().find(|line| line.contains("klient")).unwrap();
    let id = line.split_whitespace().nth(1).unwrap();
    assert_eq!(scene.place.run(&["dead", "replay", id]).await, "1 put back\n");
    erin.sees_message(&erin.id, "replayed").await;
    assert_eq!(scene.place.run(&["dead", "drop", "--all"]).await, format!("{} dropped\n", REASONS.len() - 1));
    assert_eq!(scene.place.run(&["dead", "list"]).await, "there are no dead letters\n");
}
