//! `rollcall demo`: two whole servers in one process that federate over loopback, real HTTP and real signatures, and a crowd of
//! simulated users who keep both busy.
//!
//! Every figure is counted where it happens: events when an edge has confirmed them, transactions on a hop of the demo's own that
//! lies between the servers (`hop.rs`), what is held by asking the servers. Only the price of the alternative is a model: see
//! [`Figures`].

mod arrivals;
mod crowd;
mod figures;
mod hop;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use metrics_exporter_prometheus::PrometheusHandle;
use reqwest::Client;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::arrivals::Arrived;
pub use self::figures::{ACTS, Figures, Traffic};

use self::crowd::{Crowd, Person, Tally};
use self::hop::Hop;
use self::watch::Held;
use crate::app::Server;
use crate::config::{Config, Roles};
use crate::lifecycle::{self, Failure, Shutdown, Tasks};
use crate::outbound::http;

/// The servers' names, in the order of every pair in this module.
pub const NAMES: [&str; 2] = ["a.example", "b.example"];

/// How long one of the demo's own requests may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two looks at who has answered.
const GLANCE: Duration = Duration::from_millis(20);
/// How long each group of tasks may take to leave.
const DRAIN: Duration = Duration::from_secs(20);

/// What the demo is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Simulated users, over both servers.
    pub users: u16,
    /// `batch.window` of both servers.
    pub window: String,
}

/// A demo under way. Dropping it ends it without ceremony; its directory goes in any case.
pub struct Demo {
    sides: [Side; 2],
    begun: Instant,
    window: Duration,
    client: Client,
    crowds: Group,
    servers: Group,
    helpers: Group,
    _folder: TempDir,
}

/// One server, as the demo sees it.
struct Side {
    edge: String,
    people: Arc<[Person]>,
    tally: Arc<Tally>,
    /// What reaches this server from the other.
    inward: Arc<Hop>,
    held: Arc<Held>,
}

/// Tasks that end together.
struct Group {
    stop: Shutdown,
    running: JoinHandle<Result<(), Failure>>,
}

impl Demo {
    /// Starts servers, hops and crowds, and introduces the users to each other, which takes a few windows. `metrics` is the process's
    /// one recorder: both servers count on it. Dropping the future ends what was started.
    ///
    /// # Errors
    /// A window that is no duration ([`crate::config::ConfigErrors`]), or the first thing that could not be had.
    pub async fn start(options: &Options, metrics: &PrometheusHandle) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary directory")?;
        let listeners = [loopback().await?, loopback().await?];
        let hops = [listeners[0].local_addr()?, listeners[1].local_addr()?];
        let configs = [configure(&folder, 0, hops[1], options)?, configure(&folder, 1, hops[0], options)?];
        let window = configs[0].batch.window;
        let client = http::client(PATIENCE)?;

        let mut servers = Tasks::new();
        let mut addresses = Vec::new();
        for (name, config) in NAMES.into_iter().zip(configs) {
            let server = Server::start(config, Roles::ALL, metrics.clone()).await.context(name)?;
            addresses.push((server.addresses.edge.context("an edge without an address")?, server.addresses.ops));
            servers.spawn(name, run(server, servers.shutdown().soft));
        }
        let [ours, theirs] = crowd::people(options.users);
        let sides = [side(addresses[0], ours, &client)?, side(addresses[1], theirs, &client)?];
        let (servers, helpers) = (Group::of(servers), Group::of(help(&sides, listeners)));
        let mut crowds = sides.iter().map(|side| Crowd::new(client.clone(), side)).collect::<Vec<_>>();
        introduce(&sides, &mut crowds, window).await?;
        let crowds = Group::of(populate(crowds));
        Ok(Self { sides, begun: Instant::now(), window, client, crowds, servers, helpers, _folder: folder })
    }

    /// What was counted so far.
    pub fn figures(&self) -> Figures {
        let [a, b] = &self.sides;
        Figures {
            elapsed: self.begun.elapsed(),
            acts: std::array::from_fn(|act| a.tally.acts()[act] + b.tally.acts()[act]),
            changes: a.tally.changes() + b.tally.changes(),
            held: [a.held.latest(), b.held.latest()],
            sent: [b.inward.traffic(), a.inward.traffic()],
            one_entry_body: figures::one_entry_body(),
        }
    }

    /// Waits for what must not happen: the end of a part by itself.
    pub async fn failure(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            ended = &mut self.crowds.running => ended,
            ended = &mut self.servers.running => ended,
            ended = &mut self.helpers.running => ended,
        };
        match ended {
            Ok(Err(failure)) => failure.into(),
            Ok(Ok(())) => anyhow::anyhow!("a part of the demo ended by itself"),
            Err(panic) => panic.into(),
        }
    }

    /// Sends the crowds home, looks at what arrived of their last words, then stops both servers.
    ///
    /// # Errors
    /// The first failure of any part.
    pub async fn stop(self) -> Result<(Figures, [Arrived; 2])> {
        self.crowds.stop.soft.cancel();
        let arrived = arrivals::settle(&self.sides, &self.client, self.window).await?;
        let figures = self.figures();
        self.crowds.end().await?;
        self.servers.end().await?;
        self.helpers.end().await?;
        Ok((figures, arrived))
    }
}

impl Group {
    fn of(tasks: Tasks) -> Self {
        let stop = tasks.shutdown();
        let (sender, signals) = mpsc::channel(1);
        let running = async move {
            // Signals go to the demo as a whole; what is kept open here says that none comes.
            let _open = sender;
            tasks.run_until_stopped(signals, DRAIN).await
        };
        Self { stop, running: lifecycle::spawn("demo", running) }
    }

    async fn end(self) -> Result<()> {
        self.stop.soft.cancel();
        Ok(self.running.await??)
    }
}

async fn loopback() -> Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").await.context("cannot listen on loopback")
}

/// The configuration of one server, whose peer is reached through `hop`. Nothing is withheld: the crowds change all the time, and their
/// last words are looked for as soon as they have left.
fn configure(folder: &TempDir, which: usize, hop: SocketAddr, options: &Options) -> Result<Config> {
    let (name, peer) = (NAMES[which], NAMES[1 - which]);
    let data = folder.path().join(name);
    let text = format!(
        r#"
server_name = "{name}"
data_dir = {data:?}
partitions = 4
edge.listen = "127.0.0.1:0"
ops.listen = "127.0.0.1:0"
federation.resolve = {{ "{peer}" = "http://{hop}" }}
batch.window = {window:?}
batch.hold_max = "10m"
list.accept = "everyone"
presence.repeat_within = "0ms"
"#,
        window = options.window,
    );
    let mut config = Config::from_toml(&text)?;
    config.batch.hold_max = config.batch.window * 3;
    Ok(config)
}

/// Runs a server until `stop`, then lets it drain.
async fn run(server: Server, stop: CancellationToken) -> Result<(), Failure> {
    let soft = server.shutdown().soft;
    let (_open, signals) = mpsc::channel(1);
    let mut running = Box::pin(server.run(signals, DRAIN));
    tokio::select! {
        ended = &mut running => return ended,
        () = stop.cancelled() => soft.cancel(),
    }
    running.await
}

fn side((edge, ops): (SocketAddr, SocketAddr), people: Vec<Person>, client: &Client) -> Result<Side> {
    let edge = format!("http://{edge}");
    Ok(Side {
        inward: Arc::new(Hop::new(http::client(PATIENCE)?, edge.clone())),
        held: Arc::new(Held::new(client.clone(), ops)),
        people: people.into(),
        tally: Arc::default(),
        edge,
    })
}

fn help(sides: &[Side; 2], listeners: [TcpListener; 2]) -> Tasks {
    let mut tasks = Tasks::new();
    for (side, listener) in sides.iter().zip(listeners) {
        tasks.spawn("hop", hop::serve(listener, side.inward.clone(), tasks.shutdown().soft));
        tasks.spawn("watch", side.held.clone().run(tasks.shutdown().soft));
    }
    tasks
}

/// Lets the users of both servers ask to see their contacts, and waits for the answers: what happens once in a lifetime is not
/// counted.
async fn introduce(sides: &[Side; 2], crowds: &mut [Crowd], window: Duration) -> Result<()> {
    for crowd in crowds {
        crowd.introduce().await?;
    }
    // Each way: the questions of one side, the answers of the other.
    let pairs = |side: &Side| side.people.iter().map(|person| person.contacts.len() as u64).sum::<u64>();
    let expected = sides.iter().map(pairs).sum::<u64>();
    let deadline = Instant::now() + window * 4 + PATIENCE;
    while sides.iter().any(|side| side.inward.permissions() < expected) {
        anyhow::ensure!(Instant::now() < deadline, "the simulated users could not make each other's acquaintance");
        tokio::time::sleep(GLANCE).await;
    }
    sides.iter().for_each(|side| side.inward.forget());
    Ok(())
}

fn populate(crowds: Vec<Crowd>) -> Tasks {
    let mut tasks = Tasks::new();
    for crowd in crowds {
        tasks.spawn("crowd", crowd.run(tasks.shutdown().soft));
    }
    tasks
}
