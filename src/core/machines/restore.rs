//! What the rows of a partition say.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Machines, Member, Settings};
use crate::core::link::{Link, Standing};
use crate::core::rows::{ObserverRow, Relations, UserState};
use crate::core::user::User;
use crate::model::{ServerName, Timestamp, UserId};
use crate::store::{RowKey, RowKind};
use crate::wire::envelope::{EnvelopeError, decode};

/// Why rows could not be read: they are damaged, or of a later release.
#[derive(Debug, thiserror::Error)]
#[error("row {:?} {:?}: {error}", key.kind, key.key)]
pub struct RestoreError {
    /// Which row.
    pub key: RowKey,
    /// What is wrong with it.
    pub error: EnvelopeError,
}

impl Machines {
    /// What the rows of a partition say, ordered as [`crate::store::Store::load`] gives them; `horizon` is the last owner's.
    pub fn restore(
        local: ServerName,
        settings: Settings,
        epoch: u64,
        horizon: Timestamp,
        rows: impl IntoIterator<Item = (RowKey, Bytes)>,
        now: Timestamp,
    ) -> Result<Self, RestoreError> {
        let mut machines = Self::new(local, settings, epoch);
        // From the beginning of time, every device would look alive until the first beat.
        machines.users_horizon = horizon.min(now);
        machines.peers_horizon = horizon.min(now);
        let mut relations = BTreeMap::new();
        for (key, value) in rows {
            machines.restore_row(&key, &value, &mut relations, now).map_err(|error| RestoreError { key, error })?;
        }
        for (user, relations) in relations {
            machines.user(&user).relations = relations;
        }
        machines.begin(now);
        machines.arm_everything();
        Ok(machines)
    }

    /// What a restart itself leads to.
    fn begin(&mut self, now: Timestamp) {
        let horizon = self.users_horizon;
        for number in self.users.numbers(|_| true) {
            self.with_user(number, now, now, None, |me, user, turn| {
                user.trust_clock(now, turn.settings);
                user.review(me, turn);
                user.ask_anew(me, now, horizon);
            });
        }
        let horizon = self.peers_horizon;
        for (_, link) in self.links.iter_mut() {
            link.begin(now, horizon, &self.settings);
            self.suspicion.note(Standing::default(), link.standing());
        }
        // What peers said while nobody was there to hear it is not lost, but what they meant to say before may be.
        let guarding = self.links.numbers(|link| link.standing().guards);
        self.remind_in_turn(now, guarding, None);
    }

    fn restore_row(
        &mut self,
        key: &RowKey,
        value: &[u8],
        relations: &mut BTreeMap<UserId, Relations>,
        now: Timestamp,
    ) -> Result<(), EnvelopeError> {
        match key.kind {
            RowKind::User => {
                let state: UserState = decode(value)?;
                self.user(&user_of(&key.key)?).state = state;
            }
            RowKind::Relations => {
                relations.insert(user_of(&key.key)?, decode(value)?);
            }
            RowKind::Link => self.link(&key.key)?.restore_state(decode(value)?),
            RowKind::Remote => {
                let user = user_of(&key.key)?;
                let row = decode(value)?;
                self.link(user.server_str())?.restore_remote(&user, row, now);
            }
            RowKind::Served => {
                let (server, user) = split(&key.key)?;
                let (row, user) = (decode(value)?, user_of(user)?);
                self.link(server)?.restore_served(user, row);
            }
            RowKind::Permit => {
                let (server, pair) = split(&key.key)?;
                let (observed, observer) = split(pair)?;
                let pair = (user_of(observed)?, user_of(observer)?);
                self.link(server)?.restore_permit(pair, decode(value)?);
            }
            RowKind::Observer => {
                let (observed, observer) = split(&key.key)?;
                let row: ObserverRow = decode(value)?;
                let observer = user_of(observer)?;
                self.user(&user_of(observed)?).restore_observer(observer, row.serial);
            }
            RowKind::Hour => self.day.restore(decode(value)?),
            RowKind::Sent => {
                let (server, _) = split(&key.key)?;
                let row = decode(value)?;
                self.link(server)?.restore_sent(row);
            }
        }
        Ok(())
    }

    fn link(&mut self, server: &str) -> Result<&mut Link, EnvelopeError> {
        let server = ServerName::parse(server).map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
        let number = self.link_or_new(&server);
        Ok(self.links.get_mut(number).expect("just made"))
    }

    fn user(&mut self, user: &UserId) -> &mut User {
        let (number, _) = self.users.number_or_insert(user, || Member::new(user));
        &mut self.users.get_mut(number).expect("just made").user
    }
}

fn user_of(text: &str) -> Result<UserId, EnvelopeError> {
    UserId::parse(text).map_err(|error| EnvelopeError::Malformed(error.to_string()))
}

fn split(key: &str) -> Result<(&str, &str), EnvelopeError> {
    key.split_once('\0').ok_or_else(|| EnvelopeError::Malformed("a key of one part".into()))
}
