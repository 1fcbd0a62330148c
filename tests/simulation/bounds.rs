//! The fifth guarantee, at every commit: what a server keeps is bounded by its users and by whom they know, however much happens.

use rollcall::bus::Queue;
use rollcall::store::Commit;
use tokio::time::Duration;

use super::plan::{HOLD_MAX_MS, Plan};
use super::sim::Sim;
use super::store::Tables;

/// A row is so long at most, and so much longer for each user of the world.
const ROW_BYTES: usize = 1_000;
const ROW_BYTES_A_USER: usize = 300;
/// So many runs of a partition may be committed and not said.
const OUTBOX_ROWS: usize = 8;
/// A partition's own rows are one for each hour of the day.
const HOURS: usize = 24;

const HOLD_MAX: Duration = Duration::from_millis(HOLD_MAX_MS);
/// A run waits for more, is committed, and what it says is confirmed, in calm.
const DONE_WITHIN: Duration = Duration::from_millis(500);

/// A server has committed something.
pub fn check(sim: &Sim, server: usize, tables: &Tables, commit: &Commit) {
    let users = users(&sim.plan);
    let most = rows(&sim.plan, server) + sim.ledger().transactions(server);
    if tables.rows.len() > most {
        sim.blame(format!("s{server} keeps {} rows of {users} users", tables.rows.len()));
    }
    let longest = ROW_BYTES + ROW_BYTES_A_USER * users;
    let values = commit.rows.iter().filter_map(|row| Some((&row.key, row.value.as_ref()?.len())));
    for (key, bytes) in values.filter(|(_, bytes)| *bytes > longest) {
        sim.blame(format!("s{server} writes {bytes} bytes of {:?} {:?}", key.kind, key.key));
    }
    let outbox = tables.outbox.keys().filter(|(partition, ..)| *partition == commit.partition).count();
    if outbox > OUTBOX_ROWS {
        sim.blame(format!("s{server} keeps {outbox} runs of {} that are not said", commit.partition));
    }
}

fn users(plan: &Plan) -> usize {
    plan.servers.iter().map(|make| make.users).sum()
}

/// Of users, their relations and who watches them; of links, whom they know, tell and ask. What transactions held comes on top.
fn rows(plan: &Plan, server: usize) -> usize {
    let ours = plan.servers[server].users;
    let (theirs, peers) = (users(plan) - ours, plan.servers.len() - 1);
    let of_users = 2 * ours + ours * ours;
    let of_links = peers + theirs + ours * peers + 2 * ours * theirs;
    of_users + of_links + HOURS * usize::from(plan.servers[server].partitions)
}

/// A message was held for so long before it was done with. Those on `presence.batch` wait for their window, the others for their run's
/// commit and its confirms; but a transaction until its peer took it, or for good.
pub fn held(sim: &Sim, server: usize, queue: &Queue, held: Duration) {
    let most = if matches!(queue, Queue::Batch(_)) { HOLD_MAX } else { Duration::ZERO } + DONE_WITHIN;
    if sim.is_settled() && *queue != Queue::Outbound && held > most {
        sim.blame(format!("s{server} held a message of {queue} for {} ms", held.as_millis()));
    }
}
