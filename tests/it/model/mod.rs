//! Two servers of nothing but machines against a reference that is small enough to be obviously right: whatever people do, and
//! however long nothing happens, both say the same.

mod reference;

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use rollcall::core::Settings;
use rollcall::core::signal::{Outcome, SessionAction, UserSignal};
use rollcall::model::{Presence, Timestamp};

use self::reference::Reference;
use crate::support::pair::{START, Server, device, receive, settings};

const USERS: [&str; 4] = ["@a0:a.example", "@a1:a.example", "@b0:b.example", "@b1:b.example"];
const DEVICES: [&str; 2] = ["PHONE", "WEB"];
/// Holds the session, and says nothing of presence.
const LIST: &str = "LIST";
/// After each operation so long passes, that all that it leads to has arrived: two windows, and the linger. A multiple of it is
/// never within `settle` of a time-out, so that nobody can argue about a moment.
const QUIET_S: u64 = 40;
const LEASE_MS: u64 = 24 * 3_600_000;
/// What failed once is tried first ever after.
const KEPT: FileFailurePersistence =
    FileFailurePersistence::Direct(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/model/regressions.txt"));

/// What may happen. Users and devices by number.
#[derive(Debug, Clone)]
enum Operation {
    Set {
        user: usize,
        device: usize,
        presence: Presence,
        message: u8,
    },
    Activity {
        user: usize,
        device: usize,
        implied: Option<Presence>,
    },
    Idle {
        user: usize,
        device: usize,
        on: bool,
    },
    Session {
        user: usize,
        on: bool,
    },
    List {
        user: usize,
        target: usize,
        on: bool,
    },
    Answer {
        user: usize,
        observer: usize,
        allow: bool,
    },
    /// So many more quiet times pass.
    Tick(u64),
    /// A server falls, and comes back with what it has committed.
    Restart {
        server: usize,
    },
    /// Nothing gets through for a while, and then all of it must be made good.
    Outage,
    /// The last transaction of each comes again.
    Repeat,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::{Activity, Answer, Idle, List, Outage, Repeat, Restart, Session, Set, Tick};
    let presence =
        prop::sample::select(vec![Presence::Offline, Presence::Unavailable, Presence::Online, Presence::Busy]);
    let implied = prop::option::of(presence.clone());
    let (user, device) = (0..USERS.len(), 0..DEVICES.len());
    prop_oneof![
        4 => (user.clone(), device.clone(), presence, any::<u8>())
            .prop_map(|(user, device, presence, message)| Set { user, device, presence, message }),
        3 => (user.clone(), device.clone(), implied)
            .prop_map(|(user, device, implied)| Activity { user, device, implied }),
        1 => (user.clone(), device, any::<bool>()).prop_map(|(user, device, on)| Idle { user, device, on }),
        2 => (user.clone(), prop::bool::weighted(0.7)).prop_map(|(user, on)| Session { user, on }),
        4 => (user.clone(), user.clone(), prop::bool::weighted(0.7)).prop_map(|(user, target, on)| List { user, target, on }),
        2 => (user.clone(), user, any::<bool>()).prop_map(|(user, observer, allow)| Answer { user, observer, allow }),
        2 => (1u64..12).prop_map(Tick),
        1 => (0usize..2).prop_map(|server| Restart { server }),
        1 => Just(Outage),
        1 => Just(Repeat),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: Some(Box::new(KEPT)), ..ProptestConfig::default() })]

    #[test]
    fn machines_say_what_the_reference_says(operations in prop::collection::vec(operation(), 1..40)) {
        let mut run = Run::new();
        for (index, operation) in operations.iter().enumerate() {
            run.perform(operation);
            run.compare().map_err(|difference| TestCaseError::fail(format!("after {index}, {operation:?}: {difference}")))?;
        }
    }
}

/// Both sides of the comparison.
struct Run {
    now: Timestamp,
    servers: [Server; 2],
    reference: Reference,
    /// The last transactions of each, to be repeated.
    last: [VecDeque<rollcall::core::Transaction>; 2],
}

impl Run {
    fn new() -> Self {
        // What follows within half a minute is withheld, each time: quiet is long enough for it to leave.
        let thrifty = Settings { repeat_ms: 30_000, repeat_cost_us: u64::MAX, ..settings() };
        let servers = ["a.example", "b.example"].map(|name| Server::with(name, thrifty.clone()));
        Self { now: START, servers, reference: Reference::default(), last: Default::default() }
    }

    fn perform(&mut self, operation: &Operation) {
        let now = self.now;
        self.reference.perform(now, operation);
        match *operation {
            Operation::Set { user, device: at, presence, message } => {
                let stamp = self.home(user).stamp(now);
                let status_msg = rollcall::core::signal::MessageEdit::Set(message.to_string().into());
                self.tell(user, UserSignal::Status { device: device(DEVICES[at]), presence, status_msg, stamp });
            }
            Operation::Activity { user, device: at, implied } => {
                let stamp = self.home(user).stamp(now);
                self.tell(user, UserSignal::Activity { device: device(DEVICES[at]), set_presence: implied, stamp });
            }
            Operation::Idle { user, device: at, on } => {
                let stamp = self.home(user).stamp(now);
                self.tell(user, UserSignal::Idle { device: device(DEVICES[at]), idle_ms: on.then_some(0), stamp });
            }
            Operation::Session { user, on } => {
                let stamp = self.home(user).stamp(now);
                let start = SessionAction::Start { lease_ms: LEASE_MS, edge: None };
                let action = if on { start } else { SessionAction::Stop };
                self.tell(user, UserSignal::Session { device: device(LIST), action, stamp });
            }
            Operation::List { user, target, on } => {
                let (add, remove): (&[&str], &[&str]) =
                    if on { (&[USERS[target]], &[]) } else { (&[], &[USERS[target]]) };
                self.home(user).list(now, USERS[user], add, remove);
            }
            Operation::Answer { user, observer, allow } => {
                self.home(user).answer(now, USERS[user], USERS[observer], allow);
            }
            Operation::Tick(times) => (1..times).for_each(|_| self.be_quiet(true)),
            Operation::Restart { server } => self.servers[server].restart(now),
            // What was given up may not be followed by anything until nobody can send it any longer.
            Operation::Outage => [false, true, true, true].into_iter().for_each(|through| self.be_quiet(through)),
            Operation::Repeat => self.repeat(),
        }
        self.be_quiet(true);
    }

    fn home(&mut self, user: usize) -> &mut Server {
        &mut self.servers[user / 2]
    }

    fn tell(&mut self, user: usize, signal: UserSignal) {
        let now = self.now;
        self.home(user).tell(now, USERS[user], signal);
    }

    /// Second by second; what leaves arrives, or (not `through`) is refused.
    fn be_quiet(&mut self, through: bool) {
        for _ in 0..QUIET_S {
            self.now = self.now.plus(1_000);
            for server in &mut self.servers {
                server.tick(self.now);
            }
            self.exchange(0, through);
            self.exchange(1, through);
        }
    }

    fn exchange(&mut self, from: usize, through: bool) {
        while let Some(transaction) = self.servers[from].out.pop_front() {
            let name = self.servers[from].name.clone();
            if through {
                receive(self.now, &name, &transaction, &mut self.servers[1 - from]);
            }
            let outcome = if through { Outcome::Delivered } else { Outcome::Expired };
            self.servers[from].receipt(self.now, &transaction, outcome);
            if through {
                self.last[from].push_front(transaction);
                self.last[from].truncate(2);
            }
        }
    }

    /// As a sender does that died before it acknowledged. The older comes last.
    fn repeat(&mut self) {
        for from in 0..2 {
            let name = self.servers[from].name.clone();
            for transaction in self.last[from].clone() {
                receive(self.now, &name, &transaction, &mut self.servers[1 - from]);
            }
        }
    }

    fn compare(&self) -> Result<(), String> {
        for (user, name) in USERS.iter().enumerate() {
            let expected = self.reference.status(user, self.now);
            let own = self.servers[user / 2].sees(self.now, name, name).expect("everybody sees themselves").status;
            let told = (own.presence, own.status_msg.map(String::from));
            if !self.reference.was_never_there(user) && told != expected {
                return Err(format!("{name} is {told:?}, should be {expected:?}"));
            }
            for (target, other) in USERS.iter().enumerate().filter(|(target, _)| *target != user) {
                self.compare_view(user, target, other)?;
            }
        }
        Ok(())
    }

    fn compare_view(&self, user: usize, target: usize, other: &str) -> Result<(), String> {
        let name = USERS[user];
        let list = self.servers[user / 2].list_of(self.now, name);
        let entry = list.iter().find(|(id, ..)| id == other).map(|(_, accepted, presence)| (*accepted, *presence));
        let listed = entry.is_some();
        if listed != self.reference.lists(user, target) {
            return Err(format!("{name} lists {other}: {listed}, should be {}", !listed));
        }
        let Some((accepted, presence)) = entry else { return Ok(()) };
        if !accepted {
            return Err(format!("{name} was not accepted by {other}"));
        }
        let is_remote = user / 2 != target / 2;
        let (expected, _) = self.reference.status(target, self.now);
        let known = !is_remote || self.reference.watches(user / 2, target, self.now);
        let expected = if known { expected } else { Presence::Unknown };
        let never = self.reference.was_never_there(target);
        if presence != expected && !never {
            return Err(format!("{name} sees {other} as {presence}, should be {expected}"));
        }
        Ok(())
    }
}
