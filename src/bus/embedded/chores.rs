//! What happens beside publishing and taking: deleting what was acknowledged, burying what keeps coming back, looking for what other
//! processes wrote, and keeping the dead letters within their bounds.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Inner;
use super::state::Chores;
use crate::bus::topology::{Queue, Topology};
use crate::lifecycle;
use crate::store::StoreError;
use crate::store::sqlite::Mode;
use crate::store::sqlite::bus::SharedWatch;

/// How often other processes' rows are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Dead letters are measured at every so many looks.
const LOOKS_PER_TRIM: u32 = 10;
/// Deletions in one job.
const DELETES_MAX: usize = 8192;
/// How long acknowledged messages stay for more to be deleted with them: at a low rate each would cost a transaction of its own. A
/// crash meanwhile delivers them again, as a broker would whose acknowledgements are on their way.
const GATHER: Duration = Duration::from_millis(25);
/// How long to wait after the store failed.
const PAUSE: Duration = Duration::from_millis(200);

/// Starts the task. It ends when the bus is closed, after what was acknowledged has been deleted.
pub(super) fn start(inner: &Arc<Inner>) -> JoinHandle<()> {
    lifecycle::spawn("embedded bus", run(Arc::clone(inner)))
}

async fn run(inner: Arc<Inner>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0;
    while !inner.state().is_closed() {
        tokio::select! {
            () = inner.chores.notified() => sleep(GATHER).await,
            _ = look.tick() => {
                look_around(&inner, looks).await;
                looks += 1;
            }
        }
        while let Err(error) = work_off(&inner).await {
            tracing::warn!(%error, "acknowledged messages could not be deleted");
            if inner.state().is_closed() {
                break;
            }
            sleep(PAUSE).await;
        }
    }
    finish(&inner).await;
}

/// Does all there is to do.
async fn work_off(inner: &Arc<Inner>) -> Result<(), StoreError> {
    loop {
        let chores = inner.state().take_chores(DELETES_MAX);
        if chores.is_empty() {
            return Ok(());
        }
        let outcome = perform(inner, &chores).await;
        inner.drained.notify_waiters();
        if let Err(error) = outcome {
            inner.state().return_chores(chores);
            return Err(error);
        }
    }
}

/// A burial is one transaction: the dead letter comes as the message goes.
async fn perform(inner: &Arc<Inner>, chores: &Chores) -> Result<(), StoreError> {
    let inserts = chores.burials.iter().map(|(_, row)| row.clone()).collect();
    let buried = chores.burials.iter().map(|(id, _)| *id);
    let deletes = chores.deletes.iter().copied().chain(buried).collect();
    let watch: SharedWatch = inner.clone();
    inner.store.bus_write(inserts, deletes, watch).await
}

async fn look_around(inner: &Arc<Inner>, looks: u32) {
    let watch: SharedWatch = inner.clone();
    // The first look counts all there is.
    if let Err(error) = inner.store.bus_recount(looks == 0, watch).await {
        tracing::warn!(%error, "the queues could not be looked at");
    }
    if looks.is_multiple_of(LOOKS_PER_TRIM) && inner.store.mode() == Mode::Owner {
        trim_dead(inner).await;
    }
}

/// Drops dead letters that are too old or too many, oldest first.
async fn trim_dead(inner: &Arc<Inner>) {
    let dead = inner.topology.queue_name(&Queue::Dead);
    let bounds = (Topology::DEAD_TTL_MS, Topology::DEAD_MAX_BYTES);
    loop {
        let rows = match inner.store.bus_surplus(&dead, bounds.0, bounds.1).await {
            Ok(rows) if rows.is_empty() => return,
            Ok(rows) => rows,
            Err(error) => return tracing::warn!(%error, "the dead letters could not be measured"),
        };
        metrics::counter!("rollcall_dead_letters_dropped_total").increment(rows.len() as u64);
        inner.state().discard_rows(&dead, &rows);
        if let Err(error) = work_off(inner).await {
            return tracing::warn!(%error, "dead letters could not be dropped");
        }
    }
}

/// Deletes what was acknowledged at the last moment, and marks what was delivered in vain.
async fn finish(inner: &Arc<Inner>) {
    let unfinished = inner.state().unfinished();
    let outcome = match work_off(inner).await {
        Ok(()) if unfinished.is_empty() => Ok(()),
        Ok(()) => inner.store.bus_returned(unfinished).await,
        failed => failed,
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "the embedded bus could not tidy up");
    }
}
