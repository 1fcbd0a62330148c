//! What the users do.
//!
//! A change is what watchers notice, as every one of them is a NOTIFY elsewhere. Coming online is two: a minute after their last
//! activity users count as active no longer. Coming, going and the rest make up what the scenario asks for.

use fastrand::Rng;

use super::world::World;
use super::{Outcome, Scenario};
use crate::core::signal::{MessageEdit, SessionAction, Stamp, UserSignal};
use crate::model::{DeviceId, Presence, Timestamp, UserId};

const HOUR_MS: u64 = 3_600_000;
/// A session.
const SESSION_MS: u64 = 8 * HOUR_MS;
/// Within so long everybody comes.
const ARRIVALS_MS: u64 = HOUR_MS / 2;
/// Leases last as long as they may; they are renewed well before their end.
const LEASE_MS: u64 = HOUR_MS;
const RENEWAL_MS: usize = 50 * 60_000;
/// Nothing is said for so long: everything was said.
const QUIET_MS: u64 = 60_000;

/// Everybody lists their contacts, who list them. What it takes is not part of the day.
pub(super) fn befriend(world: &mut World, scenario: &Scenario) {
    let mut rng = Rng::with_seed(scenario.seed);
    let mut shifts = Vec::new();
    while shifts.len() < scenario.contacts {
        let shift = rng.usize(..scenario.users);
        if !shifts.contains(&shift) {
            shifts.push(shift);
        }
    }
    let count = scenario.users;
    for n in 0..count {
        let theirs: Vec<UserId> = shifts.iter().map(|shift| remote(world, (n + shift) % count)).collect();
        let ours: Vec<UserId> = shifts.iter().map(|shift| world.user(0, (n + count - shift) % count)).collect();
        let (server, now) = (home(world, n), world.now);
        world.act(0, world.user(0, n), list(theirs, now));
        world.act(server, remote(world, n), list(ours, now));
    }
    world.run_until_quiet(QUIET_MS);
    world.outcome = Outcome::default();
}

/// Everybody comes, changes their status now and then, and goes after eight hours.
pub(super) fn work(world: &mut World, scenario: &Scenario) -> Outcome {
    let mut rng = Rng::with_seed(!scenario.seed);
    let start = world.now;
    let mut plan: Vec<(Timestamp, usize, Act)> = Vec::new();
    for person in 0..2 * scenario.users {
        plan_session(&mut plan, person, start.plus(rng.u64(..ARRIVALS_MS)), scenario, &mut rng);
    }
    // Stable: what one person does at one moment stays in order.
    plan.sort_by_key(|(at, ..)| *at);
    for (at, person, act) in plan {
        world.run_until(at);
        let (server, user) = match person.checked_sub(scenario.users) {
            None => (0, world.user(0, person)),
            Some(n) => (home(world, n), remote(world, n)),
        };
        world.outcome.changes += act.changes();
        world.act(server, user, signal(act, at));
    }
    world.run_until_quiet(QUIET_MS);
    world.outcome
}

/// What a person does at some moment.
#[derive(Debug, Clone, Copy)]
enum Act {
    Set(Presence),
    /// Another text, while unavailable.
    Say(u32),
    /// For so many ms.
    Lease(u32),
    Leave,
}

impl Act {
    /// How many changes watchers notice.
    fn changes(self) -> u64 {
        match self {
            Self::Set(Presence::Online) => 2,
            Self::Set(_) | Self::Say(_) => 1,
            Self::Lease(_) | Self::Leave => 0,
        }
    }
}

fn plan_session(
    plan: &mut Vec<(Timestamp, usize, Act)>,
    person: usize,
    from: Timestamp,
    scenario: &Scenario,
    rng: &mut Rng,
) {
    let until = from.plus(SESSION_MS);
    plan.push((from, person, Act::Set(Presence::Online)));
    for lease in (0..SESSION_MS).step_by(RENEWAL_MS) {
        let length = u32::try_from(LEASE_MS.min(SESSION_MS - lease)).unwrap_or(u32::MAX);
        plan.push((from.plus(lease), person, Act::Lease(length)));
    }
    let acts = acts(8 * scenario.changes_per_hour);
    let mut moments: Vec<u64> = acts.iter().map(|_| rng.u64(1..SESSION_MS)).collect();
    moments.sort_unstable();
    plan.extend(moments.into_iter().zip(acts).map(|(ms, act)| (from.plus(ms), person, act)));
    plan.push((until, person, Act::Leave));
    plan.push((until, person, Act::Set(Presence::Offline)));
}

/// What makes `changes` of a session, coming and going included.
fn acts(changes: u32) -> Vec<Act> {
    let between = changes.saturating_sub(3);
    let away = [Act::Set(Presence::Unavailable), Act::Set(Presence::Online)];
    let absences = (0..between / 3).flat_map(|_| away);
    let rest = (0..between % 3).map(Act::Say);
    absences.chain(rest).collect()
}

/// The peer that user `n` of the other side is on.
fn home(world: &World, n: usize) -> usize {
    1 + n % world.peers()
}

fn remote(world: &World, n: usize) -> UserId {
    world.user(home(world, n), n)
}

fn device() -> DeviceId {
    DeviceId::parse("PHONE").expect("a device ID")
}

fn stamp(at: Timestamp) -> Stamp {
    Stamp { ts: at, id: "event".into() }
}

fn list(add: Vec<UserId>, at: Timestamp) -> UserSignal {
    UserSignal::List { add, remove: Vec::new(), stamp: stamp(at) }
}

fn signal(act: Act, at: Timestamp) -> UserSignal {
    let (device, stamp) = (device(), stamp(at));
    let session = |device, action, stamp| UserSignal::Session { device, action, stamp };
    match act {
        Act::Set(presence) => UserSignal::Status { device, presence, status_msg: MessageEdit::Keep, stamp },
        Act::Say(n) => {
            let status_msg = MessageEdit::Set(format!("task {n}").into());
            UserSignal::Status { device, presence: Presence::Unavailable, status_msg, stamp }
        }
        Act::Lease(lease_ms) => session(device, SessionAction::Start { lease_ms: lease_ms.into(), edge: None }, stamp),
        Act::Leave => session(device, SessionAction::Stop, stamp),
    }
}
