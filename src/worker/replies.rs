//! What the runs of this process's partitions answer edges, together: those that end together answer each edge in one message.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio::task::yield_now;

use crate::bus::SharedBus;
use crate::wire::envelope::encode;

/// Runs whose answers may wait. Beyond it they are dropped, which costs their readers no more than time.
const WAITING: usize = 1_024;

/// The way in. The task behind it ends, after all that was handed in, when the last of these is dropped.
#[derive(Clone)]
pub(super) struct Replies {
    runs: mpsc::Sender<BTreeMap<String, Vec<u64>>>,
}

impl Replies {
    /// The way in, and the task to be run behind it.
    pub(super) fn new(bus: SharedBus) -> (Self, impl Future<Output = ()>) {
        let (runs, inbox) = mpsc::channel(WAITING);
        (Self { runs }, pass_on(bus, inbox))
    }

    /// Hands in what one run has committed: the requests' numbers, by the addresses to be told.
    pub(super) fn hand_in(&self, run: BTreeMap<String, Vec<u64>>) {
        if !run.is_empty() && self.runs.try_send(run).is_err() {
            metrics::counter!("rollcall_replies_dropped_total").increment(1);
        }
    }
}

async fn pass_on(bus: SharedBus, mut inbox: mpsc::Receiver<BTreeMap<String, Vec<u64>>>) {
    while let Some(first) = inbox.recv().await {
        // Whose run was committed with this one gets in.
        yield_now().await;
        let mut all = first;
        while let Ok(run) = inbox.try_recv() {
            for (address, ids) in run {
                all.entry(address).or_default().extend(ids);
            }
        }
        for (address, ids) in all {
            bus.reply(&address, encode(&ids)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bus::embedded::Embedded;
    use crate::bus::{Exchange, Headers, Outgoing, Queue, Topology};
    use crate::model::Partition;
    use crate::store::sqlite::{Mode, Sqlite};
    use crate::wire::envelope::decode;

    /// Where a reader of `bus` is told that something is applied.
    async fn address(bus: &SharedBus) -> String {
        let mut question = Outgoing::new(Exchange::Users, "0", "");
        question.headers.reply_to = Some(Headers::REPLY_HERE.into());
        let mut users = bus.subscribe(&[(Queue::Users(Partition(0)), 1)]).await.unwrap();
        bus.publish(vec![question]).await.unwrap();
        users.next().await.unwrap().headers.reply_to.unwrap()
    }

    #[tokio::test]
    async fn runs_that_end_together_answer_in_one_message() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("rollcall.db"), Mode::Owner).await.unwrap();
        let topology = Topology { prefix: String::new(), partitions: 1 };
        let bus = Embedded::new(store, topology, Duration::from_secs(20)).shared();
        let mut heard = bus.replies();
        let address = address(&bus).await;
        let (replies, passing) = Replies::new(bus);
        let run = |ids: &[u64]| BTreeMap::from([(address.clone(), ids.to_vec())]);
        replies.hand_in(run(&[1, 2]));
        replies.hand_in(BTreeMap::new());
        replies.hand_in(run(&[3]));
        drop(replies);
        passing.await;
        assert_eq!(decode::<Vec<u64>>(&heard.recv().await.unwrap().body).ok(), Some(vec![1, 2, 3]));
        assert!(heard.try_recv().is_err());
    }
}
