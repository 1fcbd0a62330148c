//! A store as the worker knows it: one table a server, that outlives every process; commits that take long, that are refused, and
//! whose outcome nobody learns.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use rollcall::model::{Partition, ServerName, Timestamp};
use rollcall::store::{Commit, Lease, OutboxRow, Ownership, RowKey, RowKind, Store, StoreError};

use super::life::Life;
use super::sim::Sim;

/// The rows of all partitions.
pub type Rows = BTreeMap<(Partition, RowKey), Bytes>;

/// What is on the disk.
#[derive(Default, Clone)]
pub struct Tables {
    pub rows: Rows,
    pub outbox: BTreeMap<(Partition, u64, u64), Bytes>,
    owners: BTreeMap<Partition, Owned>,
    newest_epoch: u64,
}

#[derive(Default, Clone)]
struct Owned {
    owner: Option<String>,
    epoch: u64,
    /// Ms since the world began.
    lease_until: u64,
    horizon: Timestamp,
}

impl Tables {
    /// The dead hold nothing: as a lock on the file proves.
    pub fn forget_leases(&mut self) {
        self.owners.values_mut().for_each(|owned| owned.lease_until = 0);
    }

    pub fn newest_epoch(&self) -> u64 {
        self.newest_epoch
    }

    fn owned(&mut self, lease: Lease) -> Result<&mut Owned, StoreError> {
        let owned = self.owners.get_mut(&lease.partition);
        owned
            .filter(|owned| owned.epoch == lease.epoch && owned.owner.is_some())
            .ok_or(StoreError::Fenced(lease.partition))
    }

    fn write(&mut self, commit: &Commit) {
        let partition = commit.partition;
        for row in &commit.rows {
            let key = (partition, row.key.clone());
            match &row.value {
                Some(value) => self.rows.insert(key, value.clone()),
                None => self.rows.remove(&key),
            };
        }
        if let Some((number, body)) = &commit.outbox {
            self.outbox.insert((partition, commit.epoch, *number), body.clone());
        }
        if let Some((epoch, number)) = commit.published {
            self.outbox.retain(|(of, e, n), _| *of != partition || (*e, *n) > (epoch, number));
        }
    }
}

/// One process's way to it.
pub struct SimStore {
    pub life: Arc<Life>,
    pub tables: Arc<Mutex<Tables>>,
}

impl SimStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }

    fn sim(&self) -> &Sim {
        &self.life.sim
    }

    async fn reach(&self) {
        self.life.pass().await;
        if self.sim().strikes(self.sim().plan.faults.commit_slow) {
            // Longer than a lease, at times.
            self.sim().pause(20, 9_000).await;
            self.life.pass().await;
        }
    }

    fn write(&self, commit: &Commit) -> Result<(), StoreError> {
        let Commit { partition, epoch, .. } = *commit;
        let mut tables = self.tables();
        tables.owned(Lease { partition, epoch })?;
        tables.write(commit);
        self.sim().note(epoch, || format!("{:?} commits {} rows in {partition}", self.life, commit.rows.len()));
        super::watch::committed(self.sim(), self.life.server, &self.life, commit, &tables.rows);
        super::bounds::check(self.sim(), self.life.server, &tables, commit);
        Ok(())
    }
}

#[async_trait]
impl Store for SimStore {
    async fn prepare(&self, _: &ServerName, _: u16) -> Result<(), StoreError> {
        Ok(())
    }

    async fn acquire(&self, partition: Partition, owner: &str, lease_ms: u64) -> Result<Option<Lease>, StoreError> {
        self.reach().await;
        let now = self.sim().elapsed();
        // The store's clock: the server's, which is never shaken.
        let seconds = self.sim().now().0 / 1000;
        let mut tables = self.tables();
        let known = tables.owners.entry(partition).or_default();
        if known.owner.as_deref().is_some_and(|other| other != owner) && known.lease_until > now {
            return Ok(None);
        }
        let horizon = known.horizon;
        let epoch = (tables.newest_epoch + 1).max(seconds);
        tables.newest_epoch = epoch;
        tables
            .owners
            .insert(partition, Owned { owner: Some(owner.into()), epoch, lease_until: now + lease_ms, horizon });
        drop(tables);
        self.sim().note(epoch, || format!("{:?} owns {partition} as of epoch {epoch}", self.life));
        Ok(Some(Lease { partition, epoch }))
    }

    async fn renew(&self, lease: Lease, lease_ms: u64, horizon: Timestamp) -> Result<(), StoreError> {
        self.reach().await;
        let until = self.sim().elapsed() + lease_ms;
        let mut tables = self.tables();
        let owned = tables.owned(lease)?;
        owned.lease_until = until;
        owned.horizon = owned.horizon.max(horizon);
        Ok(())
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.reach().await;
        let mut tables = self.tables();
        let owned = tables.owned(lease)?;
        owned.owner = None;
        Ok(())
    }

    async fn ownerships(&self) -> Result<Vec<Ownership>, StoreError> {
        let tables = self.tables();
        let ownership = |(partition, owned): (&Partition, &Owned)| Ownership {
            partition: *partition,
            owner: owned.owner.clone(),
            epoch: owned.epoch,
            horizon: owned.horizon,
        };
        Ok(tables.owners.iter().map(ownership).collect())
    }

    async fn load(&self, partition: Partition) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        self.life.pass().await;
        let tables = self.tables();
        let mine = tables.rows.iter().filter(|((of, _), _)| *of == partition);
        Ok(mine.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    async fn outbox(&self, partition: Partition) -> Result<Vec<OutboxRow>, StoreError> {
        self.life.pass().await;
        let tables = self.tables();
        let mine = tables.outbox.iter().filter(|((of, ..), _)| *of == partition);
        let row = |(&(_, epoch, number), body): (&(Partition, u64, u64), &Bytes)| OutboxRow {
            epoch,
            number,
            body: body.clone(),
        };
        Ok(mine.map(row).collect())
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.reach().await;
        let faults = self.sim().plan.faults;
        if self.sim().strikes(faults.commit_refused) {
            return Err(StoreError::Unavailable("refused".into()));
        }
        let unknown = self.sim().strikes(faults.commit_unknown);
        if !unknown || self.sim().strikes(500) {
            self.write(&commit)?;
        }
        self.life.pass().await;
        if unknown { Err(StoreError::Unknown("the connection broke".into())) } else { Ok(()) }
    }

    async fn read(&self, partition: Partition, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        Ok(self.tables().rows.get(&(partition, key.clone())).cloned())
    }

    async fn count(&self, kind: RowKind) -> Result<u64, StoreError> {
        let tables = self.tables();
        Ok(tables.rows.keys().filter(|(_, key)| key.kind == kind).count() as u64)
    }

    async fn close(&self) {}
}
