//! Puts the parts together: what `serve` runs (tools open less: [`crate::ops::tools`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::bus::SharedBus;
use crate::bus::amqp::{Amqp, client_name};
use crate::bus::embedded::Embedded;
use crate::bus::transfer::transfer;
use crate::clock::{SharedClock, SystemClock};
use crate::config::{BusUrl, Config, FederationVia, Roles};
use crate::core::Settings;
use crate::edge::peer_keys::PeerKeys;
use crate::edge::{self, EdgeParts, EdgeState};
use crate::ingest::Ingest;
use crate::lifecycle::{self, Failure, Tasks};
use crate::model::EdgeName;
use crate::ops::http::{self as ops_http, OpsState};
use crate::ops::metrics;
use crate::ops::start as ops_start;
use crate::ops::status::{About, Observer};
use crate::outbound::discovery::Ports;
use crate::outbound::dns::Dns;
use crate::outbound::keys::{SigningKeys, is_open_to_others};
use crate::outbound::peers::Peers;
use crate::outbound::sender::Sender;
use crate::pace::Moments;
use crate::policy::Policy;
use crate::preflight;
use crate::reader::Reader;
use crate::schedule::Schedule;
use crate::store::SharedStore;
use crate::store::sqlite::{Mode, Sqlite};
use crate::worker::{Board, Worker};

/// Runs the pipeline's stages until a signal; `announce` is told where it listens. A signal before that ends it at once, for nothing has
/// been begun.
///
/// # Errors
/// What keeps it from starting ([`preflight`] first), or the first failure of a stage.
pub async fn serve(config: Config, roles: Roles, announce: impl FnOnce(&Addresses) -> Result<()>) -> Result<()> {
    preflight::check(&config, roles)?;
    ops_start::say(&config, roles);
    let mut signals = lifecycle::signals().context("cannot listen for signals")?;
    // Held, so that SIGHUP ends no process, whatever it can read anew.
    let _reloads = lifecycle::reloads().context("cannot listen for signals")?;
    let drain = config.ops.drain_timeout;
    let starting = Box::pin(Server::start(config, roles, metrics::install()?));
    let server = tokio::select! {
        // In this order: what has started is drained.
        biased;
        started = starting => started?,
        Some(signal) = signals.recv() => {
            tracing::info!(signal, "stopping before the start was done: nothing was begun");
            return Ok(());
        }
    };
    announce(&server.addresses)?;
    server.run(signals, drain).await?;
    Ok(())
}

/// Unacknowledged messages that ingest takes: an edge may make each as long as 1 MiB, and what was taken lies in memory.
const INGEST_PREFETCH: u16 = 512;

/// Where a running server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The edge, if this process has that role.
    pub edge: Option<SocketAddr>,
    /// Operations.
    pub ops: SocketAddr,
}

/// The stages of one process, running.
pub struct Server {
    /// Where it listens.
    pub addresses: Addresses,
    tasks: Tasks,
    store: SharedStore,
    bus: SharedBus,
}

/// What the stages share.
struct Parts {
    config: Config,
    store: SharedStore,
    bus: SharedBus,
    clock: SharedClock,
    keys: Arc<SigningKeys>,
    peers: Peers,
    policy: Policy,
    name: String,
    moments: Moments,
}

impl Server {
    /// Opens store and bus, declares the topology, binds the listeners, starts the stages of `roles`.
    ///
    /// # Errors
    /// The first thing that could not be had, by name.
    pub async fn start(config: Config, roles: Roles, metrics: PrometheusHandle) -> Result<Self> {
        preflight::check_roles(&config, roles)?;
        let ops = bind("ops.listen", config.ops.listen).await?;
        let edge = if roles.edge { Some(bind("edge.listen", config.edge.listen).await?) } else { None };
        let name = format!("{}-{}", std::process::id(), ulid::Ulid::new());
        let Opened { store, bus, former } = open(&config, roles, &name).await?;
        store.prepare(&config.server_name, config.partitions).await?;
        bus.declare().await?;
        if let Some(former) = former {
            take_over(&former, &bus, &config).await?;
        }
        let parts = Parts::new(config, name, store.clone(), bus.clone())?;
        let mut tasks = Tasks::new();
        let addresses = Addresses { edge: local(edge.as_ref())?, ops: ops.local_addr()? };
        if let Some(listener) = edge {
            parts.start_edge(&mut tasks, listener)?;
        }
        let board = parts.start_stages(&mut tasks, roles);
        parts.reload_policy(&mut tasks)?;
        parts.start_ops(&mut tasks, ops, metrics, (roles, board));
        Ok(Self { addresses, tasks, store, bus })
    }

    /// What ends it from within the process.
    pub fn shutdown(&self) -> lifecycle::Shutdown {
        self.tasks.shutdown()
    }

    /// Lives until a signal, drains, closes bus and store.
    ///
    /// # Errors
    /// The first failure of a stage.
    pub async fn run(
        self,
        signals: tokio::sync::mpsc::Receiver<&'static str>,
        drain_timeout: Duration,
    ) -> Result<(), Failure> {
        let ended = self.tasks.run_until_stopped(signals, drain_timeout).await;
        self.bus.close().await;
        self.store.close().await;
        ended
    }
}

impl Parts {
    fn new(config: Config, name: String, store: SharedStore, bus: SharedBus) -> Result<Self> {
        let keys = signing_keys(&config)?;
        let clock: SharedClock = Arc::new(SystemClock);
        let dns = Dns::of_system().or_else(|error| {
            tracing::warn!(%error, "only peers of federation.resolve can be reached: the system names no name server");
            Dns::of_servers(&[])
        })?;
        Ok(Self {
            keys: Arc::new(keys),
            peers: Peers::new(&config.federation, dns, clock.clone(), Ports::default())?,
            policy: Policy::new(&config.federation.servers),
            moments: Moments::default(),
            name,
            clock,
            config,
            store,
            bus,
        })
    }

    fn start_edge(&self, tasks: &mut Tasks, listener: TcpListener) -> Result<()> {
        let config = &self.config;
        let rules = Settings::from(config).rules();
        let edge = EdgeState::start(EdgeParts {
            bus: self.bus.clone(),
            clock: self.clock.clone(),
            reader: Reader::new(self.store.clone(), config.server_name.clone(), config.partitions, rules)
                .sharing(config.list.shared),
            config: config.edge.clone(),
            homeserver: config.homeserver.clone(),
            local: config.server_name.clone(),
            partitions: config.partitions,
            pack_linger: config.worker.pack_linger,
            moments: self.moments,
            keys: self.keys.clone(),
            peer_keys: PeerKeys::new(self.peers.clone(), self.clock.clone()),
            policy: self.policy.clone(),
            embedded_bus: matches!(config.bus.url, BusUrl::Embedded),
        })?;
        let stop = tasks.shutdown().soft;
        tasks.spawn("edge", edge::serve(listener, edge, stop));
        Ok(())
    }

    /// Returns what the worker shows of itself, if there is one.
    fn start_stages(&self, tasks: &mut Tasks, roles: Roles) -> Option<Arc<Board>> {
        let stop = tasks.shutdown().soft;
        let mut board = None;
        if roles.ingest {
            tasks.spawn("ingest", self.ingest().run(stop.clone()));
        }
        if roles.worker {
            let (store, bus, clock) = (self.store.clone(), self.bus.clone(), self.clock.clone());
            let worker = Worker::new(&self.config, self.name.clone(), store, bus, clock, self.moments);
            board = Some(worker.board());
            let (schedule, jobs) = (self.schedule(), self.config.schedule.clone());
            tasks.spawn("schedule", schedule.run(jobs, stop.clone()));
            let stop = stop.clone();
            tasks.spawn("worker", async move {
                worker.run(stop).await;
                Ok::<(), std::convert::Infallible>(())
            });
        }
        match self.config.federation.via {
            FederationVia::Http if roles.sender => tasks.spawn("sender", self.sender().run(stop)),
            FederationVia::Edge if roles.sender => tracing::info!("presence.outbound is left to a homeserver's edge"),
            _ => {}
        }
        board
    }

    /// What was wrong in the file is told and changes nothing.
    fn reload_policy(&self, tasks: &mut Tasks) -> Result<()> {
        let (policy, file) = (self.policy.clone(), self.config.file.clone());
        let reload = move || match file.as_deref().map(|file| Config::load(Some(file))) {
            Some(Ok(config)) => {
                policy.replace(&config.federation.servers);
                tracing::info!("federation.inbound and federation.outbound hold as they are now");
            }
            Some(Err(errors)) => tracing::error!(%errors, "the lists of servers stay as they were"),
            None => tracing::info!("there is no configuration file to read again"),
        };
        tasks.spawn("reload", lifecycle::on_hangup(tasks.shutdown().soft, reload)?);
        Ok(())
    }

    fn start_ops(
        &self,
        tasks: &mut Tasks,
        listener: TcpListener,
        metrics: PrometheusHandle,
        (roles, board): (Roles, Option<Arc<Board>>),
    ) {
        let observer = Observer::new(self.bus.clone(), self.store.clone(), self.clock.clone(), self.config.partitions)
            .within(About::new(&self.config, roles))
            .with_board(board);
        let state = Arc::new(OpsState { observer, metrics });
        let stop = tasks.shutdown().soft;
        tasks.spawn("ops", ops_http::serve(listener, state, stop));
    }

    fn ingest(&self) -> Ingest {
        Ingest {
            bus: self.bus.clone(),
            clock: self.clock.clone(),
            local: self.config.server_name.clone(),
            policy: self.policy.clone(),
            partitions: self.config.partitions,
            linger: self.config.worker.pack_linger,
            prefetch: self.config.bus.prefetch.min(INGEST_PREFETCH),
        }
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            bus: self.bus.clone(),
            clock: self.clock.clone(),
            worker: self.name.clone(),
            local: self.config.server_name.clone(),
            moments: self.moments,
        }
    }

    fn sender(&self) -> Sender {
        Sender {
            bus: self.bus.clone(),
            clock: self.clock.clone(),
            peers: self.peers.clone(),
            policy: self.policy.clone(),
            keys: self.keys.clone(),
            config: self.config.federation.clone(),
            local: self.config.server_name.clone(),
            partitions: self.config.partitions,
            give_up: self.config.watchdog.give_up,
        }
    }
}

/// Store and bus, and the embedded queues that a broker has taken the place of.
struct Opened {
    store: SharedStore,
    bus: SharedBus,
    former: Option<SharedBus>,
}

/// Only the process that works on partitions, or carries the embedded bus, owns the file; others read beside it.
async fn open(config: &Config, roles: Roles, name: &str) -> Result<Opened> {
    let mode = if roles.worker { Mode::Owner } else { Mode::Guest };
    let store = Sqlite::open(&config.store.path, mode).await?;
    let embedded = || Embedded::new(store.clone(), config.topology(), config.bus.confirm_timeout).shared();
    let (bus, former) = match &config.bus.url {
        BusUrl::Embedded => (embedded(), None),
        BusUrl::Amqp(_) => {
            let which = config.edge.name.as_ref().filter(|_| roles.edge).map_or(name, EdgeName::as_str);
            let client = client_name(&config.server_name, &roles.to_string(), which);
            let bus = Amqp::connect(&config.bus, config.topology(), &client).await?;
            (bus as SharedBus, roles.worker.then(embedded))
        }
    };
    Ok(Opened { store, bus, former })
}

/// What waited in the embedded queues when `bus.url` began to name a broker.
async fn take_over(former: &SharedBus, bus: &SharedBus, config: &Config) -> Result<()> {
    let moved = transfer(former, bus, &config.topology()).await?;
    if moved > 0 {
        tracing::info!(messages = moved, "what waited in the embedded queues is with the broker now");
    }
    former.close().await;
    Ok(())
}

/// A configured key must be there: one made in its place would sign, and be published, as this server's.
fn signing_keys(config: &Config) -> Result<SigningKeys> {
    let path = config.signing_key_path();
    let keys = match config.signing_key {
        Some(_) => SigningKeys::load(&path),
        None => SigningKeys::load_or_create(&path),
    };
    let keys = keys.context("signing_key")?;
    if is_open_to_others(&path) {
        tracing::warn!(path = %path.display(), "the signing key file is open to other users; chmod 600 it");
    }
    Ok(keys)
}

async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{key}: cannot listen on {address}"))
}

fn local(listener: Option<&TcpListener>) -> Result<Option<SocketAddr>> {
    listener.map(TcpListener::local_addr).transpose().context("a listener without an address")
}
