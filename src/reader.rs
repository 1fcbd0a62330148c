//! Reads of committed state for edges: never through the queues. What is shown is what may be seen: of a local user that user's own
//! relations decide, of a peer's user what the peer answered.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::config::{ListAccept, ListShared};
use crate::core::device::Device;
use crate::core::rows::{LinkState, Relations, RemoteRow, UserState, link_key, user_key};
use crate::core::settings::Rules;
use crate::model::{DeviceId, Partition, ServerName, Status, Timestamp, UserId};
use crate::store::{RowKey, RowKind, SharedStore, StoreError};
use crate::wire::envelope::decode;

/// Reads what workers committed.
#[derive(Clone)]
pub struct Reader {
    store: SharedStore,
    local: ServerName,
    partitions: u16,
    rules: Rules,
    shared: ListShared,
}

/// Users whose rows are read with one question to the store.
const AT_ONCE: usize = 256;

type Links = BTreeMap<ServerName, LinkState>;

/// What a reader learns of a user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// The status; presence `unknown` if nothing is known.
    pub status: Status,
    /// The age of the last knowledge, ms; 0 for local users.
    pub stale_ms: u64,
}

impl Reader {
    /// Reads from `store`; `rules` are the workers'.
    pub fn new(store: SharedStore, local: ServerName, partitions: u16, rules: Rules) -> Self {
        Self { store, local, partitions, rules, shared: ListShared::Nobody }
    }

    /// The same, with what the deployment declares as shared (`list.shared`).
    #[must_use]
    pub fn sharing(self, shared: ListShared) -> Self {
        Self { shared, ..self }
    }

    /// The status of `user` as `reader`, a local user, may see it; `None`: may not, whether or not there is such a user.
    pub async fn status(&self, reader: &UserId, user: &UserId, now: Timestamp) -> Result<Option<Known>, StoreError> {
        let listed = match reader == user || user.belongs_to(&self.local) {
            true => None,
            false => self.relations(reader).await?.lists(user),
        };
        let mut links = BTreeMap::new();
        let may = match reader != user && user.belongs_to(&self.local) {
            true => self.relations(user).await?.may_see(reader, self.reading()),
            false => self.may_see(reader, user, listed, &mut links).await?,
        };
        if may { self.known(user, now, &mut links).await.map(Some) } else { Ok(None) }
    }

    /// What is known of a device of `user`, a local user; `None`: it was never heard of, or is gone.
    pub async fn device(&self, user: &UserId, device: &DeviceId) -> Result<Option<Device>, StoreError> {
        let state: UserState = self.row(user_key(RowKind::User, user), user.as_str()).await?;
        Ok(state.device(device).cloned())
    }

    /// The presence list of `user`: whom, whether they let `user` see them, and what is known and may be seen. Of those who do not
    /// that is nothing, unless their server is a plain peer, which has no word for a yes.
    pub async fn list(&self, user: &UserId, now: Timestamp) -> Result<Vec<(UserId, bool, Known)>, StoreError> {
        self.list_page(user, None, usize::MAX, now).await
    }

    /// Of that list at most `limit` entries after `after`, in the order of their IDs.
    pub async fn list_page(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<(UserId, bool, Known)>, StoreError> {
        let (mut list, mut links) = (Vec::new(), BTreeMap::new());
        let relations = self.relations(user).await?;
        let rest = relations.listed().filter(|(listed, _)| after.is_none_or(|after| *listed > after));
        let entries: Vec<(&UserId, bool)> = rest.take(limit).collect();
        for entries in entries.chunks(AT_ONCE) {
            let ours = entries.iter().map(|(listed, _)| *listed).filter(|listed| listed.belongs_to(&self.local));
            let mut words = self.rows_of(ours.map(|listed| (listed, RowKind::Relations))).await?;
            let mut seen = BTreeMap::new();
            for (listed, agreed) in entries {
                let may = match listed.belongs_to(&self.local) && *listed != user {
                    true => {
                        let theirs: Relations = decoded(words.remove(listed.as_str()), listed.as_str())?;
                        theirs.may_see(user, self.rules)
                    }
                    false => self.may_see(user, listed, Some(*agreed), &mut links).await?,
                };
                seen.insert(*listed, may);
            }
            let visible = seen.iter().filter(|(_, may)| **may).map(|(listed, _)| (*listed, self.kind_of(listed)));
            let mut rows = self.rows_of(visible).await?;
            for (listed, agreed) in entries {
                let may = seen[*listed];
                // The entry hears of a local user's word only after that user's own relations hold it: so they say both.
                let accepted = if listed.belongs_to(&self.local) { may } else { *agreed };
                let row = rows.remove(listed.as_str());
                let known = if may { self.understood(listed, row, now, &mut links).await? } else { Known::default() };
                list.push(((*listed).clone(), accepted, known));
            }
        }
        Ok(list)
    }

    /// These users' rows of these kinds, by user.
    async fn rows_of<'u>(
        &self,
        users: impl Iterator<Item = (&'u UserId, RowKind)>,
    ) -> Result<BTreeMap<String, Bytes>, StoreError> {
        let mut wanted: BTreeMap<(Partition, RowKind), Vec<String>> = BTreeMap::new();
        for (user, kind) in users {
            wanted.entry((self.partition_of(user), kind)).or_default().push(user_key(kind, user).key);
        }
        let mut rows = BTreeMap::new();
        for ((partition, kind), keys) in wanted {
            rows.append(&mut self.store.read_many(partition, kind, keys).await?);
        }
        Ok(rows)
    }

    /// As what is known of a user is kept.
    fn kind_of(&self, user: &UserId) -> RowKind {
        if user.belongs_to(&self.local) { RowKind::User } else { RowKind::Remote }
    }

    /// Where a user's rows are: a peer's users have theirs with its link.
    fn partition_of(&self, user: &UserId) -> Partition {
        let key = if user.belongs_to(&self.local) { user.as_str() } else { user.server_str() };
        Partition::of(key, self.partitions)
    }

    /// Who waits for `user` to say whether they may see them, and since when.
    pub async fn questions(&self, user: &UserId) -> Result<Vec<(UserId, Timestamp)>, StoreError> {
        let relations = self.relations(user).await?;
        Ok(relations.questions().map(|(observer, since)| (observer.clone(), since)).collect())
    }

    /// How far the slowest partition lags behind, ms; 0 while no horizon was ever published.
    pub async fn lag_ms(&self, now: Timestamp) -> Result<u64, StoreError> {
        let ownerships = self.store.ownerships().await?;
        let published = ownerships.iter().map(|ownership| ownership.horizon).filter(|horizon| horizon.0 > 0);
        Ok(published.map(|horizon| now.since(horizon)).max().unwrap_or(0))
    }

    /// What decides who may read a status. What is pushed, and what lists show, goes by the workers' rules.
    fn reading(&self) -> Rules {
        match self.shared {
            ListShared::Nobody => self.rules,
            ListShared::Local => Rules { accept: ListAccept::Everyone, ..self.rules },
        }
    }

    /// Of oneself, and of a peer's user. `listed`: whether `reader` lists `user`, and with their consent. `links`: those of the peers, as
    /// found so far.
    async fn may_see(
        &self,
        reader: &UserId,
        user: &UserId,
        listed: Option<bool>,
        links: &mut Links,
    ) -> Result<bool, StoreError> {
        if reader == user {
            return Ok(true);
        }
        let Some(accepted) = listed else { return Ok(false) };
        if accepted {
            return Ok(true);
        }
        Ok(!self.link(user, links).await?.knows_permission())
    }

    async fn link<'l>(&self, user: &UserId, links: &'l mut Links) -> Result<&'l LinkState, StoreError> {
        match links.entry(user.server()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let server = unknown.key();
                let link = self.row(link_key(server), server.as_str()).await?;
                Ok(unknown.insert(link))
            }
        }
    }

    async fn known(&self, user: &UserId, now: Timestamp, links: &mut Links) -> Result<Known, StoreError> {
        let row = self.store.read(self.partition_of(user), &user_key(self.kind_of(user), user)).await?;
        self.understood(user, row, now, links).await
    }

    /// What the row of what is known of `user` says.
    async fn understood(
        &self,
        user: &UserId,
        row: Option<Bytes>,
        now: Timestamp,
        links: &mut Links,
    ) -> Result<Known, StoreError> {
        if user.belongs_to(&self.local) {
            let state: UserState = decoded(row, user.as_str())?;
            return Ok(Known { status: state.status().clone(), stale_ms: 0 });
        }
        let row: RemoteRow = decoded(row, user.as_str())?;
        let stale_ms = if row.known_at.0 == 0 { 0 } else { now.since(row.heard_at()) };
        // Of a peer that was given up nothing is known but what it said since.
        let believed = self.link(user, links).await?.believes(row.known_at);
        Ok(Known { status: if believed { row.status } else { Status::default() }, stale_ms })
    }

    async fn relations(&self, user: &UserId) -> Result<Relations, StoreError> {
        self.row(user_key(RowKind::Relations, user), user.as_str()).await
    }

    async fn row<T: DeserializeOwned + Default>(&self, key: RowKey, partition_key: &str) -> Result<T, StoreError> {
        let partition = Partition::of(partition_key, self.partitions);
        decoded(self.store.read(partition, &key).await?, &key.key)
    }
}

fn decoded<T: DeserializeOwned + Default>(row: Option<Bytes>, key: &str) -> Result<T, StoreError> {
    let Some(value) = row else { return Ok(T::default()) };
    decode(&value).map_err(|error| StoreError::Unusable(format!("row of {key}: {error}")))
}
