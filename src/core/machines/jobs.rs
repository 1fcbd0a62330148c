//! Periodic jobs, as each partition does them.

use super::{Machines, note_dirty};
use crate::core::link::Standing;
use crate::core::rows::{delete, user_key};
use crate::model::{Timestamp, UserId};
use crate::store::RowKind;
use crate::wire::envelope::Job;

impl Machines {
    /// A periodic job is due for users (`Compact`, so far).
    pub fn handle_users_job(&mut self, now: Timestamp, job: Job) {
        if job != Job::Compact {
            return;
        }
        let mut useless = Vec::new();
        for (key, user) in &mut self.users {
            user.compact(now, &self.settings);
            note_dirty(key, user, &mut self.dirty_users);
            if user.is_useless() {
                useless.push(key.clone());
            }
        }
        for key in useless {
            self.users.remove(&key);
            self.removals.extend([RowKind::User, RowKind::Relations].map(|kind| delete(user_key(kind, &key))));
        }
    }

    /// A periodic job is due for links (`Compact`, so far).
    pub fn handle_peers_job(&mut self, now: Timestamp, job: Job) {
        if job != Job::Compact {
            return;
        }
        let mut gone = Vec::new();
        for (number, link) in self.links.iter_mut() {
            if link.compact(now) {
                gone.push(number);
            }
            if !std::mem::replace(&mut link.noted, true) {
                self.dirty_links.push(number);
            }
        }
        for number in gone {
            let Some(mut link) = self.links.remove(number) else { continue };
            self.suspicion.note(link.standing(), Standing::default());
            let mut rows = Vec::new();
            link.take_rows(&mut rows);
            rows.retain(|row| row.value.is_none());
            link.delete_rows(&mut rows);
            self.removals.append(&mut rows);
        }
        self.observers.retain(UserId::is_shared);
    }
}
