//! Operations on a real embedded bus and store: dead letters, the listener, the schedule.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use rollcall::bus::embedded::Embedded;
use rollcall::bus::{Exchange, Outgoing, Queue, SharedBus, Topology};
use rollcall::clock::{Clock, SystemClock};
use rollcall::config::ScheduleConfig;
use rollcall::model::{Partition, ServerName};
use rollcall::ops::dead::{DeadError, DeadLetters};
use rollcall::ops::http::{OpsState, serve};
use rollcall::ops::metrics;
use rollcall::ops::readiness::Check;
use rollcall::ops::status::{About, Observer, Status};
use rollcall::pace::Moments;
use rollcall::schedule::Schedule;
use rollcall::store::sqlite::{Mode, Sqlite};
use rollcall::store::{SharedStore, Store};
use rollcall::wire::contract::parse_internal;
use rollcall::wire::envelope::Packet;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PARTITIONS: u16 = 2;
const PATIENCE: Duration = Duration::from_secs(10);

struct Deployment {
    folder: TempDir,
    store: Arc<Sqlite>,
    bus: SharedBus,
}

impl Deployment {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("rollcall.db"), Mode::Owner).await.unwrap();
        store.prepare(&ServerName::parse("rollcall.localhost").unwrap(), PARTITIONS).await.unwrap();
        let topology = Topology { prefix: "presence.".into(), partitions: PARTITIONS };
        let bus = Embedded::new(store.clone(), topology, PATIENCE).shared();
        bus.declare().await.unwrap();
        Self { folder, store, bus }
    }

    async fn bury(&self, origin: &str, body: &'static str) {
        let mut message = Outgoing::new(Exchange::Dead, "", body);
        message.headers.origin = Some(origin.into());
        message.headers.reason = Some("as the test wants it".into());
        self.bus.publish(vec![message]).await.unwrap();
    }

    async fn held(&self) -> DeadLetters {
        DeadLetters::hold(&*self.bus, 100).await.unwrap()
    }

    async fn close(self) -> TempDir {
        self.bus.close().await;
        self.store.close().await;
        self.folder
    }
}

/// Runs the command on the deployment that lies in `folder`.
fn rollcall(folder: &Path, listen: &str, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_rollcall"))
        .args(arguments)
        .env_clear()
        .env("ROLLCALL_DATA_DIR", folder)
        .env("ROLLCALL_PARTITIONS", PARTITIONS.to_string())
        .env("ROLLCALL_OPS__LISTEN", listen)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_put_back_or_dropped_and_others_stay() {
    let deployment = Deployment::start().await;
    for (origin, body) in [("users.1", "first"), ("inbound", "no event"), ("peers.0", "third")] {
        deployment.bury(origin, body).await;
    }
    let mut letters = deployment.held().await;
    let bodies: Vec<_> = letters.list().map(|letter| letter.body.clone()).collect();
    assert_eq!(bodies, ["first", "no event", "third"]);
    let id = letters.list().next().unwrap().id.clone();
    assert_eq!(letters.find(&id[..6]).unwrap(), [0]);
    assert_eq!(letters.find("2").unwrap(), [2]);
    assert!(matches!(letters.find("3"), Err(DeadError::Unknown(_))));
    assert!(matches!(letters.find("zzzzzz"), Err(DeadError::Unknown(_))));

    letters.replay(&*deployment.bus, 0).await.unwrap();
    assert!(matches!(letters.replay(&*deployment.bus, 1).await, Err(DeadError::NoWayBack { .. })));
    letters.discard(2).await.unwrap();
    drop(letters);

    let mut users = deployment.bus.subscribe(&[(Queue::Users(Partition(1)), 10)]).await.unwrap();
    let back = timeout(PATIENCE, users.next()).await.unwrap().unwrap();
    assert_eq!((back.body.as_ref(), back.headers.reason), (&b"first"[..], None));
    let left: Vec<_> = deployment.held().await.list().map(|letter| letter.body.clone()).collect();
    assert_eq!(left, ["no event"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_handles_dead_letters_on_its_own() {
    let deployment = Deployment::start().await;
    deployment.bury("outbound", "one").await;
    deployment.bury("outbound", "two").await;
    let folder = deployment.close().await;
    let run = |arguments: &[&str]| rollcall(folder.path(), "127.0.0.1:0", arguments);
    let listed = run(&["dead", "list"]);
    assert!(listed.contains("as the test wants it") && listed.contains("two"), "{listed}");
    assert!(run(&["dead", "show", "1"]).ends_with("\ntwo\n"));
    assert_eq!(run(&["dead", "drop", "0"]), "1 dropped\n");
    assert_eq!(run(&["dead", "replay", "--all"]), "1 put back\n");
    assert_eq!(run(&["dead", "list"]), "there are no dead letters\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_tells_what_is_there_and_what_is_missing() {
    let deployment = Deployment::start().await;
    deployment.bury("inbound", "x").await;
    let store: SharedStore = deployment.store.clone();
    let about = About { server: "a.example".into(), lag_max_ms: 10_000, ..About::default() };
    let observer = Observer::new(deployment.bus.clone(), store, Arc::new(SystemClock), PARTITIONS).within(about);
    let metrics = metrics::install().expect("no other test installs a recorder");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let state = Arc::new(OpsState { observer, metrics });
    let server = rollcall::lifecycle::spawn("ops", serve(listener, state, stop.clone()));

    assert_eq!(get(&address, "/livez").await.0, 200);
    let (code, readiness) = get(&address, "/readyz").await;
    assert_eq!(code, 503);
    assert!(readiness.contains("0 of 2 have an owner"), "{readiness}");
    let (_, page) = get(&address, "/").await;
    assert!(
        page.contains("<title>rollcall</title>") && !page.contains("http"),
        "the page loads nothing from elsewhere"
    );

    for number in 0..PARTITIONS {
        let lease = deployment.store.acquire(Partition(number), "somebody", 60_000).await.unwrap().unwrap();
        deployment.store.renew(lease, 60_000, SystemClock.now()).await.unwrap();
    }
    let ready = async { while get(&address, "/readyz").await.0 != 200 {} };
    timeout(PATIENCE, ready).await.expect("ready as soon as a fresh look is taken");
    let (_, scrape) = get(&address, "/metrics").await;
    assert!(scrape.contains(r#"rollcall_queue_messages{queue="presence.dead",state="ready"} 1"#), "{scrape}");
    assert!(scrape.contains("# HELP rollcall_partition_lag_seconds How far"), "{scrape}");
    assert!(scrape.contains(r#"rollcall_up{part="store"} 1"#) && scrape.contains("\nprocess_open_fds "), "{scrape}");
    assert!(scrape.contains(concat!(r#"rollcall_build_info{version=""#, env!("CARGO_PKG_VERSION"))), "{scrape}");

    let told = tokio::task::spawn_blocking({
        let (folder, address) = (deployment.folder.path().to_owned(), address.clone());
        move || {
            let told = [&["status", "--json"][..], &["status"], &["status", "--all"]];
            told.map(|arguments| rollcall(&folder, &address, arguments))
        }
    });
    let [json, table, all] = told.await.unwrap();
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status["queues"].as_array().unwrap().len(), 3 * usize::from(PARTITIONS) + 3);
    assert_eq!(status["partitions"][1]["owner"], "somebody");
    assert!(status["partitions"][1]["lag_ms"].is_u64() && status["links"]["total"] == 0, "{status}");
    assert_eq!((&status["server"], &status["ready"]), (&"a.example".into(), &true.into()), "{status}");
    let (head, rest) = table.split_once("\n\n").unwrap();
    for line in
        ["server        a.example", "ready         yes", "dead letters  1", "messages      0 in", "links         0, "]
    {
        assert!(head.contains(line), "no {line:?} in {head}");
    }
    assert!(rest.contains("presence.dead") && rest.contains("queues are empty"), "{table}");
    assert!(!rest.contains("presence.users.1") && all.contains("presence.users.1"), "{table}{all}");

    let mut half = tokio::net::TcpStream::connect(&address).await.unwrap();
    half.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    stop.cancel();
    timeout(PATIENCE, server).await.expect("half a request holds nobody up").unwrap().unwrap();
}

/// A health check looks at nothing but the exit code.
#[tokio::test(flavor = "multi_thread")]
async fn status_fails_if_something_does_not_answer() {
    let broker = [("broker", "refused"), ("store", ""), ("lag", "")];
    for arguments in [&["status", "--json"][..], &["status"], &["status", "--ready"]] {
        fails_with(arguments, status_of(broker), "broker: refused").await;
    }
    let lag = [("broker", ""), ("store", ""), ("lag", "60000 ms")];
    fails_with(&["status", "--ready"], status_of(lag), "lag: 60000 ms").await;
    assert_eq!(exit_code(&["status"], status_of(lag)).await.0, Some(0), "it answers");
    // All but dead letters goes on without their queue.
    let dead = Status {
        errors: vec!["broker: presence.dead".into()],
        ..status_of([("broker", ""), ("store", ""), ("lag", "")])
    };
    assert_eq!(exit_code(&["status", "--ready"], dead).await.0, Some(0));
}

/// What fails has a reason.
fn status_of(checks: [(&str, &str); 3]) -> Status {
    let check =
        |(name, detail): (&str, &str)| Check { name: name.into(), ok: detail.is_empty(), detail: detail.into() };
    Status { checks: checks.map(check).into(), ..Status::default() }
}

async fn fails_with(arguments: &[&str], status: Status, reason: &str) {
    let (code, output) = exit_code(arguments, status).await;
    assert_eq!(code, Some(1), "{arguments:?}");
    assert!(!output.stdout.is_empty(), "it prints what it learnt");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(reason), "{said}");
}

/// Of a process that is told `status`.
async fn exit_code(arguments: &[&str], status: Status) -> (Option<i32>, Output) {
    let (answer, home) = (serde_json::to_string(&status).unwrap(), tempfile::tempdir().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = axum::Router::new().route("/status", axum::routing::get(async || answer));
    drop(rollcall::lifecycle::spawn("ops", async { axum::serve(listener, router).await }));
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    command.args(arguments).env_clear().env("ROLLCALL_DATA_DIR", home.path()).env("ROLLCALL_OPS__LISTEN", &address);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    (output.status.code(), output)
}

async fn get(address: &str, path: &str) -> (u16, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = client.get(format!("http://{address}{path}")).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn beats_arrive_and_end_with_the_schedule() {
    let deployment = Deployment::start().await;
    let local = ServerName::parse("a.example").unwrap();
    let (bus, worker) = (deployment.bus.clone(), "w".to_owned());
    let schedule = Schedule { bus, clock: Arc::new(SystemClock), worker, local, moments: Moments::default() };
    let [compact, expire, audit, probe, statistics] = std::array::from_fn(|_| "0 0 0 1 1 *".to_owned());
    let config = ScheduleConfig { beat: "* * * * * *".into(), compact, expire, audit, probe, statistics };
    let stop = CancellationToken::new();
    let running = rollcall::lifecycle::spawn("schedule", schedule.run(config, stop.clone()));
    let mut inbound = deployment.bus.subscribe(&[(Queue::Inbound, 10)]).await.unwrap();
    for _ in 0..2 {
        let beat = timeout(PATIENCE, inbound.next()).await.expect("one a second").unwrap();
        let packet = parse_internal(&beat.body, SystemClock.now()).unwrap();
        assert!(matches!(packet, Packet::Beat { worker, .. } if &*worker == "w"));
        inbound.ack(vec![beat.token]).await.unwrap();
    }
    stop.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
}
