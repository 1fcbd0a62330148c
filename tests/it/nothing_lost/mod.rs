//! Guarantees 1 and 2, against kill -9: what an edge saw confirmed arrives at the peer, and nobody is told an older status after a
//! newer one, whenever the process or the broker dies.
//!
//! `ROLLCALL_SEED` repeats a run's choices, `ROLLCALL_KILLS` and `ROLLCALL_BROKER_KILLS` make it longer.

mod history;
mod load;
mod peer;

use std::fmt::Display;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollcall::lifecycle::spawn;
use rollcall::outbound::http::client;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::history::{Arrival, Ledger, complaints, repeats};
use self::load::{Edge, Gate, Load};
use self::peer::Peer;
use crate::support::broker::Broker;
use crate::support::process::{Place, Process};

const PEER: &str = "b.example";
const USERS: usize = 200;
/// `batch.window`.
const WINDOW: Duration = Duration::from_millis(500);
/// How long the work lasts that a confirm or an arrival sets off: runs, commits, publishes, acknowledgements.
const BURST: Duration = Duration::from_millis(20);
/// How long it may take until everything has arrived, and until something arrives after a fault.
const PATIENCE: Duration = Duration::from_secs(90);
/// Complaints that are shown.
const SHOWN: usize = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_on_rabbitmq() {
    let kills = Kills { process: variable("ROLLCALL_KILLS", 4), broker: variable("ROLLCALL_BROKER_KILLS", 1) };
    let broker = Broker::start().await;
    let (url, prefix) = (broker.url(), "lost-amqp.example.");
    run("lost-amqp.example", &url.clone(), Some(broker), |_| Edge::amqp(url, prefix), kills).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_on_the_embedded_bus() {
    let kills = Kills { process: variable("ROLLCALL_KILLS", 4), broker: 0 };
    run("lost-embedded.example", "embedded:", None, |place| Edge::http(&place.url()), kills).await;
}

struct Kills {
    process: usize,
    broker: usize,
}

/// What dies.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Process,
    Broker,
}

struct World {
    place: Place,
    process: Option<Process>,
    broker: Option<Broker>,
    peer: Peer,
    rng: fastrand::Rng,
    ledger: Arc<Mutex<Ledger>>,
    /// Who holds it keeps the edge quiet.
    gate: Arc<Gate>,
}

async fn run(name: &str, bus: &str, broker: Option<Broker>, edge: impl FnOnce(&Place) -> Edge, kills: Kills) {
    let seed = variable("ROLLCALL_SEED", fastrand::u64(..));
    say(format!("{name}: ROLLCALL_SEED={seed}"));
    let mut rng = fastrand::Rng::with_seed(seed);
    let users: Vec<String> = (0..USERS).map(|n| format!("@u{n}:{name}")).collect();
    let ledger = Arc::new(Mutex::new(Ledger::of(users.clone())));
    let peer = Peer::start(PEER, name, rng.fork()).await;
    let place = Place::new(name, bus, &settings(&peer.base));
    let process = place.serve().await;
    peer.trust(&place.directory().join("signing.key"));
    peer.poll(&place.url(), &users).await;

    let (stop, gate) = (CancellationToken::new(), Arc::default());
    let load = Load { edge: edge(&place), users, ledger: ledger.clone(), rng: rng.fork(), gate: Arc::clone(&gate) };
    let loading = spawn("load", load.run(stop.clone()));
    let mut world = World { place, process: Some(process), broker, peer, rng, ledger, gate };
    let begun = Instant::now();
    world.suffer(&kills).await;
    stop.cancel();
    let confirmed = loading.await.unwrap();
    world.settle().await;
    let seconds = begun.elapsed().as_secs_f64();
    let arrivals = world.peer.arrivals();
    report(name, &kills, confirmed, &arrivals, seconds);
    world.judge(&arrivals).await;
}

/// Nothing is inferred, so that a status is what the edge said last; failures are given up fast, so that this happens too.
fn settings(peer: &str) -> String {
    format!(
        r#"
batch.window = "{}ms"
list.accept = "everyone"
presence.idle_after = "1h"
presence.offline_after = "1h"
presence.activity_granularity = "1h"
federation.resolve = {{ "{PEER}" = "{peer}" }}
federation.resend = "3s"
federation.backoff_min = "100ms"
federation.backoff_max = "1s"
federation.timeout = "2s"
"#,
        WINDOW.as_millis()
    )
}

impl World {
    async fn suffer(&mut self, kills: &Kills) {
        let mut faults = vec![Fault::Process; kills.process];
        faults.resize(kills.process + kills.broker, Fault::Broker);
        self.rng.shuffle(&mut faults);
        for fault in faults {
            // Every second time at work in full, else wherever it is on the way there.
            if self.rng.bool() {
                self.see_an_arrival().await;
            }
            if self.rng.bool() { self.strike_in_silence(fault).await } else { self.strike(fault).await }
        }
    }

    /// Either while windows fill, or within the work that has just begun. The load goes on.
    async fn strike(&mut self, fault: Fault) {
        let span = if self.rng.bool() { WINDOW.mul_f64(1.5) } else { BURST };
        sleep(span.mul_f64(self.rng.f64())).await;
        match fault {
            Fault::Process => self.kill_process().await,
            Fault::Broker => self.kill_broker().await,
        }
    }

    /// Nothing is said after the fault that could stand in for what it lost.
    async fn strike_in_silence(&mut self, fault: Fault) {
        let gate = Arc::clone(&self.gate);
        let _silence = gate.lock().await;
        self.strike(fault).await;
        self.settle().await;
    }

    async fn kill_process(&mut self) {
        self.process.take().expect("it runs").kill9();
        self.process = Some(self.place.serve().await);
    }

    /// The process lives on, and is ready again by itself.
    async fn kill_broker(&mut self) {
        let broker = self.broker.as_ref().expect("only a broker of one's own is killed");
        broker.kill9();
        broker.restart().await;
        self.process().ready(&self.place.ops).await;
    }

    /// Until one more transaction arrives.
    async fn see_an_arrival(&self) {
        let (before, deadline) = (self.peer.count(), Instant::now() + PATIENCE);
        while self.peer.count() == before {
            assert!(Instant::now() < deadline, "nothing arrives any longer:\n{}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Until all that was confirmed has arrived.
    async fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let missing = self.ledger.lock().unwrap().missing(&self.peer.arrivals());
            if missing.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "lost: {:#?}\n{}", &missing[..missing.len().min(SHOWN)], self.log());
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn judge(&self, arrivals: &[Arrival]) {
        let mut complaints = complaints(&self.ledger.lock().unwrap(), arrivals);
        complaints.extend(self.peer.unsigned());
        complaints.extend(self.dead().await);
        let (count, log) = (complaints.len(), self.log());
        complaints.truncate(SHOWN);
        assert!(complaints.is_empty(), "{count} complaints:\n{}\n\n{log}", complaints.join("\n"));
    }

    /// Nothing that was said is undeliverable.
    async fn dead(&self) -> Option<String> {
        let asking = client(PATIENCE).unwrap().get(format!("http://{}/status", self.place.ops)).send();
        let status: Value = serde_json::from_slice(&asking.await.unwrap().bytes().await.unwrap()).unwrap();
        let name = format!("{}.dead", self.place.name);
        let queues = status["queues"].as_array().unwrap();
        let dead = queues.iter().find(|queue| queue["name"] == name.as_str()).unwrap();
        let empty = dead["ready"] == 0 && dead["unacked"].as_u64().unwrap_or(0) == 0;
        (!empty).then(|| format!("dead letters: {dead}"))
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// The end of what the process said.
    fn log(&self) -> String {
        let log = self.process().log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(200)..].join("\n")
    }
}

fn report(name: &str, kills: &Kills, confirmed: usize, arrivals: &[Arrival], seconds: f64) {
    let gaps = arrivals.windows(2).map(|pair| pair[1].at - pair[0].at);
    let gap = gaps.max().unwrap_or_default().as_secs_f64();
    let Kills { process, broker } = kills;
    let (all, repeats) = (arrivals.len(), repeats(arrivals));
    say(format!(
        "{name}: {process} kills, {broker} broker kills, {confirmed} events confirmed, {all} transactions arrived, \
         {repeats} of them repeats, {seconds:.1} s, longest gap of arrivals {gap:.1} s"
    ));
}

#[expect(clippy::print_stdout, reason = "the figures of a run, and how to repeat it")]
fn say(line: impl Display) {
    println!("{line}");
}

#[expect(clippy::disallowed_methods, reason = "the tests' own switches: there is no configuration to hold them")]
fn variable<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")),
        Err(_) => default,
    }
}
