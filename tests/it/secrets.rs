//! Secrets stay where they belong: the real process, with one in every key that holds one, and errors wherever they may show.

use std::fs;
use std::process::Command;

use reqwest::{Client, StatusCode};
use rollcall::outbound::http::client;
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use crate::federation::peer::{Answer, Peer, Seen};
use crate::support::broker::Broker;
use crate::support::certificates::Authority;
use crate::support::process::{Place, Process};

const PATIENCE: Duration = Duration::from_secs(30);
const BUS_PASSWORD: &str = "sesame-of-the-bus";
const WRONG_PASSWORD: &str = "sesame-of-nowhere";
const EVENTS_TOKEN: &str = "sesame-of-the-events";
const EDGE_SECRET: &str = "sesame-of-the-edge";
const ACCESS_TOKEN: &str = "sesame-of-a-client";
const WRONG_TOKEN: &str = "sesame-of-a-stranger";
const LATE_TOKEN: &str = "sesame-of-a-latecomer";

/// A running server that knows all of them, and those of them that stand in files of its own making.
struct Scene {
    place: Place,
    process: Process,
    http: Client,
    secrets: Vec<String>,
    broker: Broker,
    homeserver: Peer,
    /// `b.example`.
    peer: Peer,
}

impl Scene {
    async fn set() -> Self {
        let broker = Broker::start().await;
        broker.ctl(&["add_user", "rollcall", BUS_PASSWORD]).await;
        broker.ctl(&["set_permissions", "rollcall", ".*", ".*", ".*"]).await;
        let place = Place::new("s.example", "embedded:", "");
        let identity = Authority::new("ours").server();
        let (cert, key) = identity.write(place.directory(), "server");
        fs::write(place.directory().join("events"), EVENTS_TOKEN).unwrap();
        fs::write(place.directory().join("urls"), urls(&broker)).unwrap();
        let (homeserver, peer) = (homeserver().await, Peer::start("b.example", vec![]).await);
        let [cert, key] = [cert, key].map(|path| path.display().to_string());
        configure(&place, &cert, &key, &homeserver.base, &peer.base);
        let process = place.serve().await;
        let seed = fs::read_to_string(place.directory().join("signing.key")).unwrap();
        let (passwords, tokens) = ([BUS_PASSWORD, WRONG_PASSWORD], [ACCESS_TOKEN, WRONG_TOKEN, LATE_TOKEN]);
        let all = passwords.into_iter().chain([EVENTS_TOKEN, EDGE_SECRET]).chain(tokens);
        let mut secrets: Vec<String> = all.map(Into::into).collect();
        secrets.push(seed.split_whitespace().nth(2).unwrap().to_owned());
        secrets.push(identity.key.lines().nth(1).unwrap().to_owned());
        let http = Client::builder().tls_danger_accept_invalid_certs(true).timeout(PATIENCE).build().unwrap();
        Self { place, process, http, secrets, broker, homeserver, peer }
    }

    /// One request; its answer must not repeat a secret either.
    async fn ask(&self, method: &str, path: &str, header: (&str, &str), body: &str) -> StatusCode {
        let url = format!("https://{}{path}", self.place.edge);
        let request = self.http.request(method.parse().unwrap(), url).header(header.0, header.1);
        let answer = request.body(body.to_owned()).send().await.unwrap();
        let status = answer.status();
        self.assert_clean(path, &format!("{:?} {}", answer.headers().clone(), answer.text().await.unwrap()));
        status
    }

    /// What the peer is sent first.
    async fn transaction(&self) -> Seen {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = self.peer.seen().into_iter().next() {
                return seen;
            }
            assert!(Instant::now() < deadline, "nothing is sent");
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn assert_clean(&self, place: &str, text: &str) {
        for secret in &self.secrets {
            let Some(at) = text.find(secret.as_str()) else { continue };
            let begin = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let line: String = text[begin..].chars().take(500).collect();
            panic!("{place} holds {secret:?}:\n{line}");
        }
    }

    async fn dead_letters(&self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let listed = self.place.run(&["dead", "list"]).await;
            if let Some(line) = listed.lines().nth(1) {
                let id = line.split_whitespace().nth(1).unwrap();
                return listed.clone() + &self.place.run(&["dead", "show", id]).await;
            }
            assert!(Instant::now() < deadline, "no dead letter: {listed}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Says whose the first token is, that the second is nobody's, and of others nothing.
async fn homeserver() -> Peer {
    let john = json!({ "user_id": "@john:s.example", "device_id": "PHONE" });
    let nobody = json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "who?" });
    let script = [(StatusCode::OK, john), (StatusCode::UNAUTHORIZED, nobody), (StatusCode::BAD_GATEWAY, json!({}))];
    let script = script.map(|(status, answer)| Answer::Now(status, answer.to_string()));
    Peer::start("homeserver.example", script.into()).await
}

/// The first and the second address lead nowhere.
fn urls(broker: &Broker) -> String {
    let good = broker.url().replace("amqp://", &format!("amqp://rollcall:{BUS_PASSWORD}@"));
    let wrong = broker.url().replace("amqp://", &format!("amqp://rollcall:{WRONG_PASSWORD}@"));
    format!("amqp://rollcall:{WRONG_PASSWORD}@127.0.0.1:1\n{wrong}\n{good}\n")
}

/// Everything is logged that can be.
fn configure(place: &Place, cert: &str, key: &str, homeserver: &str, peer: &str) {
    let folder = place.directory().display();
    place.configure(
        "embedded:",
        &format!(
            r#"
bus.url_file = "{folder}/urls"
log.filter = "trace"
homeserver.url = "{homeserver}"
federation.resolve = {{ "b.example" = "{peer}" }}
edge.auth = "whoami"
edge.events_token_file = "{folder}/events"
edge.federation = "trusted"
edge.federation_secret = "{EDGE_SECRET}"
edge.tls.cert = "{cert}"
edge.tls.key = "{key}"
"#
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_show_nowhere() {
    let scene = Scene::set().await;
    let status = "/_matrix/client/v3/presence/@john:s.example/status";
    let list = "/_matrix/client/v3/presence/list/@john:s.example";
    let bearer = |token: &str| format!("Bearer {token}");
    let send = "/_matrix/federation/v1/send/1";
    let (event, transaction) = (json!({ "v": 1, "type": "client.status" }).to_string(), bad_transaction());
    for (method, path, name, value, body, expected) in [
        ("GET", status, "authorization", bearer(ACCESS_TOKEN), "", 200),
        ("GET", status, "authorization", bearer(WRONG_TOKEN), "", 401),
        ("GET", status, "authorization", bearer(LATE_TOKEN), "", 503),
        ("POST", list, "authorization", bearer(ACCESS_TOKEN), r#"{"invite":["@bob:b.example"]}"#, 200),
        ("POST", "/_rollcall/v1/events", "authorization", bearer(EVENTS_TOKEN), event.as_str(), 400),
        ("POST", "/_rollcall/v1/events", "authorization", bearer(WRONG_TOKEN), "[]", 401),
        ("PUT", send, "rollcall-edge-secret", EDGE_SECRET.to_owned(), "{", 400),
        ("PUT", send, "rollcall-edge-secret", EDGE_SECRET.to_owned(), transaction.as_str(), 200),
        ("PUT", send, "rollcall-edge-secret", WRONG_TOKEN.to_owned(), "{}", 401),
    ] {
        let status = scene.ask(method, path, (name, &value), body).await;
        assert_eq!(status.as_u16(), expected, "{method} {path}");
    }
    let authorization = |seen: &Seen| seen.headers["authorization"].to_str().unwrap().to_owned();
    let shown: Vec<_> = scene.homeserver.seen().iter().map(authorization).collect();
    assert_eq!(shown, [ACCESS_TOKEN, WRONG_TOKEN, LATE_TOKEN].map(bearer));
    let sent = scene.transaction().await;
    assert!(authorization(&sent).starts_with("X-Matrix "), "{sent:?}");
    scene.assert_clean("what a peer is sent", &format!("{sent:?}"));
    let dead = scene.dead_letters().await;
    assert!(dead.contains("@eve:else.example"), "{dead}");
    scene.assert_clean("a dead letter", &dead);
    // Reconnecting says a good deal.
    scene.broker.kill9();
    scene.broker.restart().await;
    scene.process.ready(&scene.place.ops).await;
    let http = client(PATIENCE).unwrap();
    for path in ["/metrics", "/status", "/readyz", "/"] {
        let answer = http.get(format!("http://{}{path}", scene.place.ops)).send().await.unwrap();
        scene.assert_clean(path, &answer.text().await.unwrap());
    }
    let pid = scene.process.id();
    scene.assert_clean("the process list", &fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap());
    let log = scene.process.log();
    for expected in ["TRACE", "homeserver", "connection to the broker lost"] {
        assert!(log.contains(expected), "nothing happened: no {expected:?} in the log");
    }
    scene.assert_clean("the log", &log);
}

fn bad_transaction() -> String {
    let entry = json!({ "user_id": "@eve:else.example", "presence": "online", "last_active_ago": 5 });
    let edus = json!([{ "edu_type": "m.presence", "content": { "push": [entry] } }]);
    json!({ "origin": "b.example", "origin_server_ts": 5, "pdus": [], "edus": edus }).to_string()
}

/// What the command says of a configuration that is wrong, or leads nowhere.
#[tokio::test]
async fn secrets_show_in_no_complaint() {
    let place = Place::new("s.example", &format!("amqp://me:{BUS_PASSWORD}@127.0.0.1:1"), "");
    let config = place.config();
    let complain = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
        command.args(arguments).arg("--config").arg(&config).env_clear().envs(variables.iter().copied());
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        for secret in [BUS_PASSWORD, EVENTS_TOKEN, EDGE_SECRET] {
            assert!(!said.contains(secret), "{arguments:?}: {said}");
        }
        said
    };
    assert!(complain(&["serve"], &[]).contains("127.0.0.1:1"));
    assert!(complain(&["dead", "list"], &[]).contains("127.0.0.1:1"));
    let (spaced, url) = (format!("{EVENTS_TOKEN} {EDGE_SECRET}"), format!("amqp://me:{BUS_PASSWORD}@host:port"));
    let said = complain(
        &["check"],
        &[
            ("ROLLCALL_EDGE__EVENTS_TOKEN", spaced.as_str()),
            ("ROLLCALL_EDGE__FEDERATION_SECRET", spaced.as_str()),
            ("ROLLCALL_BUS__URL", url.as_str()),
        ],
    );
    assert_eq!(said.lines().count(), 3, "{said}");
}
