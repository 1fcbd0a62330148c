//! The contract on the embedded bus, ended in good order and otherwise.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rollcall::bus::embedded::Embedded;
use rollcall::bus::{Bus, SharedBus, Topology};
use rollcall::store::Store;
use rollcall::store::sqlite::{Mode, Sqlite};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::contract::{self, DEADLINE, Deployment, PARTITIONS, USERS, numbered, numbers, take, tokens};

const CONFIRM: Duration = Duration::from_secs(20);

/// Queues in a database of one's own.
struct InStore {
    /// `None` only between two lives.
    life: Option<Life>,
    path: PathBuf,
    _folder: TempDir,
}

/// What one process has of it.
struct Life {
    bus: SharedBus,
    store: Arc<Sqlite>,
}

impl InStore {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rollcall.db");
        let life = Some(Life::begin(&path).await);
        Self { life, path, _folder: folder }
    }

    fn life(&self) -> &Life {
        self.life.as_ref().expect("alive between two calls")
    }

    /// Everything is dropped as it is, as at the end of a process that was killed.
    async fn crash(&mut self) {
        drop(self.life.take());
        self.life = Some(Life::begin(&self.path).await);
    }
}

impl Life {
    /// Waits for the end of the life before, whose files stay locked until its last thread has let go of them.
    async fn begin(path: &std::path::Path) -> Self {
        let deadline = Instant::now() + DEADLINE;
        let store = loop {
            match Sqlite::open(path, Mode::Owner).await {
                Ok(store) => break store,
                Err(error) if Instant::now() > deadline => panic!("{error}"),
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        };
        let bus = Embedded::new(store.clone(), topology(), CONFIRM);
        bus.declare().await.unwrap();
        Self { bus: bus.shared(), store }
    }
}

impl Deployment for InStore {
    fn bus(&self) -> &SharedBus {
        &self.life().bus
    }

    async fn restart(&mut self) {
        self.life().bus.close().await;
        self.life().store.close().await;
        self.crash().await;
    }

    fn topology(&self) -> Topology {
        topology()
    }
}

fn topology() -> Topology {
    Topology { prefix: "presence.".into(), partitions: PARTITIONS }
}

contract::tests!(InStore::new());

/// An acknowledgement may be lost with the process that gave it; nothing else may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loses_nothing_that_was_not_acknowledged() {
    let mut deployment = InStore::new().await;
    deployment.bus().publish(numbered(0..30)).await.unwrap();
    let mut subscription = deployment.bus().subscribe(&[(USERS, 100)]).await.unwrap();
    let mut taken = take(&mut *subscription, 20).await;
    taken.truncate(10);
    subscription.ack(tokens(taken)).await.unwrap();
    drop(subscription);
    deployment.crash().await;
    // The last one: behind all that was there before.
    deployment.bus().publish(numbered(30..31)).await.unwrap();
    let mut subscription = deployment.bus().subscribe(&[(USERS, 100)]).await.unwrap();
    let mut again = Vec::new();
    while again.last() != Some(&30) {
        again.extend(numbers(&take(&mut *subscription, 1).await));
    }
    let first = 31 - u32::try_from(again.len()).unwrap();
    assert!(first <= 10, "{again:?}");
    assert!((10..=30).all(|number| again.contains(&number)), "{again:?}");
    assert!(again.windows(2).all(|two| two[0] < two[1]), "in order, each once: {again:?}");
}
