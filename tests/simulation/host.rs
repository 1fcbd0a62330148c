//! One server that speaks rollcall: what outlives its processes, and the processes, each with the real worker loop and the real
//! ingest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rollcall::bus::Bus as _;
use rollcall::bus::{Exchange, Outgoing, Queue, SharedBus};
use rollcall::clock::Clock as _;
use rollcall::config::Config;
use rollcall::core::Settings;
use rollcall::core::rows::UserState;
use rollcall::core::signal::{Addressed, PeerSignal};
use rollcall::ingest::{Ingest, pack};
use rollcall::lifecycle::spawn;
use rollcall::model::{Partition, ServerName, Status, Timestamp, UserId};
use rollcall::pace::Moments;
use rollcall::policy::Policy;
use rollcall::reader::Reader;
use rollcall::store::{RowKey, RowKind};
use rollcall::wire::contract::{Context, Source, encode_beat, parse};
use rollcall::wire::envelope::{Packer, decode};
use rollcall::wire::matrix::parse_edus;
use rollcall::worker::Worker;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use super::broker::{Broker, Message};
use super::bus::{Role, SimBus, end_subscription};
use super::life::Life;
use super::sim::Sim;
use super::store::{SimStore, Tables};

const BEAT_MS: u64 = 1_000;

/// See the module.
pub struct Host {
    pub sim: Arc<Sim>,
    pub index: usize,
    pub config: Config,
    pub tables: Arc<Mutex<Tables>>,
    pub broker: Arc<Mutex<Broker>>,
    /// A slot each, which a process that ended leaves to its successor.
    processes: Mutex<Vec<Arc<Life>>>,
    backup: Mutex<Option<Backup>>,
    /// Messages put onto the queues that nobody can understand.
    pub poisons: AtomicUsize,
}

#[derive(Clone)]
struct Backup {
    tables: Tables,
    queues: BTreeMap<Queue, VecDeque<Message>>,
}

impl Host {
    pub fn new(sim: Arc<Sim>, index: usize) -> Self {
        let make = &sim.plan.servers[index];
        let broker = Arc::new(Mutex::new(Broker::new(make.partitions)));
        let (tables, processes, backup) = (Arc::default(), Mutex::default(), Mutex::default());
        Self { config: make.config(), sim, index, tables, broker, processes, backup, poisons: AtomicUsize::new(0) }
    }

    pub fn name(&self) -> &ServerName {
        &self.config.server_name
    }

    /// A new process in `slot`, whatever was there before; its sender is the caller's to start.
    pub fn start(&self, slot: usize) -> (Arc<Life>, SharedBus) {
        let make = &self.sim.plan.servers[self.index];
        let id = self.sim.ledger().next_process();
        let life = Life::new(self.sim.clone(), self.index, id, make.offset_ms);
        let mut processes = self.processes.lock().unwrap();
        if slot < processes.len() {
            processes[slot] = life.clone();
        } else {
            processes.push(life.clone());
        }
        drop(processes);
        self.sim.note(id, || format!("{life:?} starts"));
        let store = Arc::new(SimStore { life: life.clone(), tables: self.tables.clone() });
        let bus = |role| Arc::new(self.bus(&life, role)) as SharedBus;
        let worker =
            Worker::new(&self.config, format!("p{id}"), store, bus(Role::Worker), life.clone(), Moments::default());
        spawn("worker", worker.run(life.stop.clone()));
        if slot < make.ingests {
            let ingest = Ingest {
                bus: bus(Role::Other),
                clock: life.clone(),
                local: self.name().clone(),
                policy: Policy::everybody(),
                partitions: self.config.partitions,
                linger: self.config.worker.run_linger,
                prefetch: 64,
            };
            spawn("ingest", ingest.run(life.stop.clone()));
        }
        spawn("beats", beats(life.clone(), bus(Role::Other)));
        let others = bus(Role::Other);
        (life, others)
    }

    fn bus(&self, life: &Arc<Life>, role: Role) -> SimBus {
        SimBus { life: life.clone(), broker: self.broker.clone(), role }
    }

    pub fn lives(&self) -> Vec<Arc<Life>> {
        self.processes.lock().unwrap().clone()
    }

    /// Slots whose process is dead.
    pub fn vacant(&self) -> Vec<usize> {
        let lives = self.lives();
        (0..lives.len()).filter(|slot| lives[*slot].is_dead()).collect()
    }

    /// A process that takes requests, if there is any.
    fn someone(&self) -> Option<Arc<Life>> {
        let running: Vec<_> = self.lives().into_iter().filter(|life| life.runs()).collect();
        (!running.is_empty()).then(|| running[self.sim.rng().usize(..running.len())].clone())
    }

    pub fn kill(&self, slot: usize) {
        let life = self.lives()[slot].clone();
        self.sim.note(life.id, || format!("{life:?} is killed"));
        life.kill();
    }

    /// The connections of the dead are closed by the system, and what they held comes again.
    pub fn bury_the_dead(&self) {
        for life in self.lives().into_iter().filter(|life| life.is_dead()) {
            self.disconnect(&life);
        }
        if self.sim.plan.embedded && self.lives().iter().all(|life| life.is_dead()) {
            self.tables.lock().unwrap().forget_leases();
        }
    }

    pub fn disconnect(&self, life: &Life) {
        let subs = self.broker.lock().unwrap().of_process(life.id);
        for id in subs {
            end_subscription(&self.broker, life, id);
        }
    }

    pub fn back_up(&self) {
        let tables = self.tables.lock().unwrap().clone();
        let queues = self.broker.lock().unwrap().snapshot();
        *self.backup.lock().unwrap() = Some(Backup { tables, queues });
        self.sim.note(9, || format!("s{} is backed up", self.index));
    }

    /// Ends all processes, and everything is as it was then; `false`: there is no backup.
    pub fn restore_from_backup(&self) -> bool {
        let Some(Backup { tables, queues }) = self.backup.lock().unwrap().clone() else { return false };
        self.lives().iter().for_each(|life| life.kill());
        self.bury_the_dead();
        *self.tables.lock().unwrap() = tables;
        self.tables.lock().unwrap().forget_leases();
        self.broker.lock().unwrap().restore(queues);
        self.sim.note(10, || format!("s{} is restored from its backup", self.index));
        self.sim.ledger().restored(self.index, self.statuses(), self.sim.elapsed());
        true
    }

    /// What its users' rows say of them.
    fn statuses(&self) -> Vec<(UserId, Status)> {
        let tables = self.tables.lock().unwrap();
        let users = tables.rows.iter().filter(|((_, key), _)| key.kind == RowKind::User);
        let status = |((_, key), value): (&(Partition, RowKey), &Bytes)| {
            let state: UserState = decode(value).expect("a user's row");
            (UserId::parse(&key.key).expect("a user's key"), state.status().clone())
        };
        users.map(status).collect()
    }

    /// A client's event through an edge of a process: `false` if nobody could take it. `direct`: not by way of ingest.
    pub async fn client_event(&self, event: &Value, reply: Option<u64>, direct: bool) -> bool {
        let Some(life) = self.someone() else { return false };
        let bus = self.bus(&life, Role::Other);
        let messages = if direct {
            self.packed(&event.to_string(), life.now(), reply)
        } else {
            vec![Outgoing::new(Exchange::Inbound, "client", event.to_string())]
        };
        matches!(timeout(Duration::from_secs(5), bus.publish(messages)).await, Ok(Ok(())))
    }

    fn packed(&self, body: &str, now: Timestamp, reply: Option<u64>) -> Vec<Outgoing> {
        let context = Context { local: self.name().clone(), now, key: Source::Any, policy: Policy::everybody() };
        let mut parsed = parse(body.as_bytes(), &context);
        for routed in &mut parsed.signals {
            if let rollcall::wire::contract::Routed::User(signal) = routed {
                signal.reply = reply;
            }
        }
        let mut packer = Packer::new(self.config.partitions);
        let rejects = pack(parsed, None, &mut packer);
        assert!(rejects.is_empty(), "{rejects:?}");
        packer.finish(reply.is_some())
    }

    /// An edge that never fails, with a clock that is right: straight onto the queue.
    pub fn steady_event(&self, event: &Value) {
        let message = Outgoing::new(Exchange::Inbound, "client", event.to_string());
        self.broker.lock().unwrap().put(&Queue::Inbound, message);
    }

    pub fn poison(&self, queue: &Queue, body: &str) {
        let exchange = queue.exchange();
        let key = queue.binding_keys().swap_remove(0);
        self.poisons.fetch_add(1, Ordering::Relaxed);
        self.broker.lock().unwrap().put(queue, Outgoing::new(exchange, key, body.to_owned()));
    }

    /// A transaction of `origin`, by way of one process' edge: whether it is answered 200.
    pub async fn receive(&self, origin: &ServerName, txn_id: &str, body: &RawValue, direct: bool) -> bool {
        let Some(life) = self.someone() else { return false };
        let bus = self.bus(&life, Role::Other);
        let messages = if direct {
            self.inbound(origin, txn_id, body, life.now())
        } else {
            foreign(origin, txn_id, body, life.now())
        };
        matches!(timeout(Duration::from_secs(3), bus.publish(messages)).await, Ok(Ok(())))
    }

    fn inbound(&self, origin: &ServerName, txn_id: &str, body: &RawValue, now: Timestamp) -> Vec<Outgoing> {
        let Body { origin_server_ts, edus } = serde_json::from_str(body.get()).expect("a transaction");
        let (mut inbound, rejects) = parse_edus(origin, self.name(), &edus, now, Timestamp(origin_server_ts));
        if !rejects.is_empty() {
            self.sim.blame(format!("s{} rejects parts of {txn_id} from {origin}: {rejects:?}", self.index));
        }
        inbound.txn_id = txn_id.into();
        let mut packer = Packer::new(self.config.partitions);
        let signal = PeerSignal::Transaction(Box::new(inbound));
        packer.peer(Addressed { to: origin.clone(), at: now, reply: None, trace: None, signal });
        packer.finish(false)
    }

    pub fn reader(&self) -> Reader {
        let life = self.lives()[0].clone();
        let store = Arc::new(SimStore { life, tables: self.tables.clone() });
        Reader::new(store, self.name().clone(), self.config.partitions, Settings::from(&self.config).rules())
    }
}

#[derive(serde::Deserialize)]
struct Body {
    origin_server_ts: u64,
    edus: Vec<Box<RawValue>>,
}

/// As a homeserver's own edge hands it over.
fn foreign(origin: &ServerName, txn_id: &str, body: &RawValue, now: Timestamp) -> Vec<Outgoing> {
    let Body { origin_server_ts, edus } = serde_json::from_str(body.get()).expect("a transaction");
    let event = json!({
        "v": 1, "type": "federation.transaction", "id": txn_id, "ts": now.0, "origin": origin.as_str(),
        "txn_id": txn_id, "origin_server_ts": origin_server_ts, "edus": edus, "pdus": 0,
    });
    vec![Outgoing::new(Exchange::Inbound, "federation", event.to_string())]
}

async fn beats(life: Arc<Life>, bus: SharedBus) {
    while !life.stop.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(BEAT_MS)).await;
        let beat = Outgoing::new(Exchange::Inbound, "beat", encode_beat(&format!("p{}", life.id), life.now()));
        let _ = bus.publish(vec![beat]).await;
    }
}
