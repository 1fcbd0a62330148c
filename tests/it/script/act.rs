//! Acts, carried out.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rollcall::core::signal::{Extension, Inbound, PeerSignal, Permission, Reminder, SessionAction, Stamp, UserSignal};
use rollcall::model::{Partition, Serial, ServerName, Status, Timestamp, UserId};
use rollcall::reader::{Known, Reader};
use rollcall::store::{Commit, Lease, OutboxRow, Ownership, RowKey, RowKind, Store, StoreError};

use super::parse::{Act, Foreign, LEASE_MS, UserAct};
use super::show;
use super::world::World;

pub fn carry_out(world: &mut World, act: Act) {
    match act {
        Act::Config(key, value) => world.config.push((key, value)),
        Act::Servers(servers) => servers.into_iter().for_each(|(name, make)| world.add(name, make)),
        Act::Advance(ms) => world.advance(ms),
        Act::Link(one, other, line) => world.set_line(&one, &other, line),
        Act::Restart(server) | Act::Up(server) => world.restart(&server),
        Act::Down(server) => world.set_up(&server, false),
        Act::Damage(server, user) => world.damage(&server, &user),
        Act::User(user, act) => user_act(world, user, act),
        Act::Sends(from, to, what) => sends(world, &from, &to, what),
    }
}

fn user_act(world: &mut World, user: UserId, act: UserAct) {
    world.stamps += 1;
    let stamp = Stamp { ts: world.now, id: format!("{:08}", world.stamps).into() };
    let signal = match act {
        UserAct::Status(device, presence, status_msg) => UserSignal::Status { device, presence, status_msg, stamp },
        UserAct::Idle(device, idle_ms) => UserSignal::Idle { device, idle_ms, stamp },
        UserAct::Kind(device, kind) => UserSignal::Device { device, device_type: kind.map(Into::into), stamp },
        UserAct::Active(device, set_presence) => UserSignal::Activity { device, set_presence, stamp },
        UserAct::Start(device, lease_ms) => {
            let action = SessionAction::Start { lease_ms, edge: Some("edge".into()) };
            UserSignal::Session { device, action, stamp }
        }
        UserAct::Stop(device) => UserSignal::Session { device, action: SessionAction::Stop, stamp },
        UserAct::List(users, true) => UserSignal::List { add: users, remove: Vec::new(), stamp },
        UserAct::List(users, false) => UserSignal::List { add: Vec::new(), remove: users, stamp },
        UserAct::Answer(observer, allow) => UserSignal::Answer { observer, allow, stamp },
        UserAct::Reads(whom) => return reads(world, &user, &whom),
        UserAct::ReadsList(None) => return reads_list(world, &user),
        UserAct::ReadsList(Some(device)) => {
            // As the edge answers such a request.
            reads_list(world, &user);
            UserSignal::Session { device, action: SessionAction::Start { lease_ms: LEASE_MS, edge: None }, stamp }
        }
        UserAct::ReadsRequests => return reads_requests(world, &user),
    };
    world.tell_user(user, signal);
}

fn sends(world: &mut World, from: &ServerName, to: &ServerName, what: Foreign) {
    world.stamps += 1;
    let numbered = Extension { seq: Serial { epoch: 1, counter: world.stamps }, ..Extension::default() };
    let mut inbound =
        Inbound { txn_id: world.stamps.to_string().into(), origin_server_ts: world.now, ..Inbound::default() };
    match what {
        Foreign::Push(user, presence) => {
            inbound.push.push((user, Status { presence, last_active: world.now, ..Status::default() }));
        }
        Foreign::Poll(user) => inbound.poll.push(user),
        Foreign::Unpoll(user) => inbound.unpoll.push(user),
        Foreign::Permission(kind, observed, observer) => {
            inbound.permissions.push(Permission { kind, observed, observer });
        }
        Foreign::Query(user) => inbound.extension = Some(Extension { query: vec![user], ..numbered }),
        Foreign::Reminder => {
            let reminder = Reminder { id: inbound.txn_id.clone(), ..Reminder::default() };
            inbound.extension = Some(Extension { reminder: Some(reminder), ..numbered });
        }
        Foreign::Heard => return world.tell_peer(to, from, PeerSignal::Heard),
    }
    world.tell_peer(to, from, PeerSignal::Transaction(Box::new(inbound)));
}

fn reads(world: &mut World, who: &UserId, whom: &UserId) {
    let (reader, now) = (reader(world, who), world.now);
    let text = match block_on(reader.status(who, whom, now)) {
        Some(known) => known_as(&known, now),
        None => "forbidden".into(),
    };
    world.answer(text);
}

fn reads_list(world: &mut World, who: &UserId) {
    let (reader, now) = (reader(world, who), world.now);
    let list = block_on(reader.list(who, now));
    if list.is_empty() {
        world.answer("nobody".into());
    }
    for (user, accepted, known) in list {
        let state = if accepted { "accepted" } else { "asked" };
        world.answer(format!("{} {state} {}", show::short(&user), known_as(&known, now)));
    }
}

fn reads_requests(world: &mut World, who: &UserId) {
    let requests = block_on(reader(world, who).questions(who));
    if requests.is_empty() {
        world.answer("nobody".into());
    }
    for (user, _) in requests {
        world.answer(format!("{} asks", show::short(&user)));
    }
}

fn known_as(known: &Known, now: Timestamp) -> String {
    let age = if known.stale_ms > 0 { format!(", known for {}s", known.stale_ms / 1000) } else { String::new() };
    show::status(&known.status, now) + &age
}

fn reader(world: &World, who: &UserId) -> Reader {
    let server = who.server();
    let rows = world.hosts[&server].rows.clone();
    let rules = world.settings(&server).rules();
    Reader::new(Arc::new(Committed(rows)), server, 1, rules)
}

/// The store answers at once.
fn block_on<T>(work: impl Future<Output = Result<T, StoreError>>) -> T {
    futures_util::FutureExt::now_or_never(work).expect("rows in memory").expect("readable rows")
}

/// A store that is only read: what one server has committed.
struct Committed(BTreeMap<RowKey, Bytes>);

#[async_trait]
impl Store for Committed {
    async fn prepare(&self, _: &ServerName, _: u16) -> Result<(), StoreError> {
        unreachable!("only read")
    }

    async fn acquire(&self, _: Partition, _: &str, _: u64) -> Result<Option<Lease>, StoreError> {
        unreachable!("only read")
    }

    async fn renew(&self, _: Lease, _: u64, _: Timestamp) -> Result<(), StoreError> {
        unreachable!("only read")
    }

    async fn release(&self, _: Lease) -> Result<(), StoreError> {
        unreachable!("only read")
    }

    async fn ownerships(&self) -> Result<Vec<Ownership>, StoreError> {
        unreachable!("only read")
    }

    async fn load(&self, _: Partition) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        unreachable!("only read")
    }

    async fn outbox(&self, _: Partition) -> Result<Vec<OutboxRow>, StoreError> {
        unreachable!("only read")
    }

    async fn commit(&self, _: Commit) -> Result<(), StoreError> {
        unreachable!("only read")
    }

    async fn read(&self, _: Partition, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    async fn count(&self, _: RowKind) -> Result<u64, StoreError> {
        unreachable!("only read")
    }

    async fn close(&self) {}
}
