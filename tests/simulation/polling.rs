//! E1, at every commit: nobody is polled but for somebody who has a session, or had one within the linger.

use std::collections::BTreeMap;

use rollcall::core::rows::{RemoteRow, UserState, user_key};
use rollcall::core::signal::{LinkSignal, UserSignal};
use rollcall::model::{Partition, Timestamp, UserId};
use rollcall::store::{Commit, RowKind};
use rollcall::wire::envelope::{Packet, decode};

use super::ledger::Ledger;
use super::plan::LINGER_MS;
use super::sim::Sim;
use super::store::Rows;

/// In calm, what was said arrives within this time, and what ends by time ends within it, ms.
const LATE_MS: u64 = 5_000;

/// Who begins to watch whom by a run, and who ends.
#[derive(Default)]
pub struct Watches {
    on: BTreeMap<(UserId, UserId), bool>,
}

impl Watches {
    /// Something that a run says.
    pub fn note(&mut self, body: &[u8]) {
        match decode(body) {
            Ok(Packet::Links(signals)) => {
                for signal in signals {
                    if let LinkSignal::Watch { observer, target, on, .. } = signal.signal {
                        self.on.insert((observer, target), on);
                    }
                }
            }
            Ok(Packet::Users(signals)) => {
                for signal in signals {
                    if let UserSignal::Observed { observer, on, .. } = signal.signal {
                        self.on.insert((observer, signal.to), on);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whoever begins to watch somebody has a session, as the rows say that are committed with it.
    pub fn check(&self, sim: &Sim, rows: &Rows, partition: Partition) {
        for ((observer, target), _) in self.on.iter().filter(|(_, on)| **on) {
            let row = rows.get(&(partition, user_key(RowKind::User, observer)));
            let is_watching = row.is_some_and(|row| decode::<UserState>(row).expect("a user's row").is_watching());
            if !is_watching {
                sim.blame(format!("{observer} begins to watch {target}, and has no session"));
            }
        }
    }
}

/// A user's row says that the user watches the list.
pub fn watches(sim: &Sim, server: usize, user: &UserId) {
    if !has_session(sim, &sim.ledger(), server, user) {
        sim.blame(format!("{user} watches others, and has no session"));
    }
}

/// A transaction that was made `then` polls `user`. By what came later in the same run they may be wanted no longer.
pub fn polls(sim: &Sim, server: usize, rows: &Rows, commit: &Commit, (user, then): (&UserId, Timestamp)) {
    let key = user_key(RowKind::Remote, user);
    let changed = commit.rows.iter().any(|row| row.key == key);
    let row = rows.get(&(commit.partition, key));
    let row = row.map(|row| decode::<RemoteRow>(row).expect("a remote's row")).unwrap_or_default();
    let ledger = sim.ledger();
    let mut watchers = row.watchers().chain(row.others_since(then).filter(|_| changed));
    let is_wanted = watchers.any(|watcher| has_session(sim, &ledger, server, watcher));
    drop(ledger);
    if !is_wanted {
        sim.blame(format!("s{server} polls {user}, and nobody there has a session who watches them"));
    }
}

/// In a storm what people say may take any time to arrive: then whoever ever had a session may have it still.
fn has_session(sim: &Sim, ledger: &Ledger, server: usize, user: &UserId) -> bool {
    let since = if sim.is_settled() { sim.elapsed().saturating_sub(LINGER_MS + LATE_MS) } else { 0 };
    ledger.is_shaky(server) || ledger.sessions.lasts(user, since)
}
