//! A link's rows: what is read at the start, what is written.

use super::remote::Remote;
use super::{Link, LinkState, RemoteRow};
use crate::core::rows::{SentRow, delete, link_key, put, sent_key, under_link, user_key};
use crate::core::settings::Settings;
use crate::model::{Timestamp, UserId};
use crate::store::{RowChange, RowKind};

impl Link {
    pub(in crate::core) fn restore_state(&mut self, state: LinkState) {
        self.state = state;
    }

    /// After the last row; `horizon` is the last owner's.
    pub(in crate::core) fn begin(&mut self, now: Timestamp, horizon: Timestamp, settings: &Settings) {
        self.begin_permits(now);
        self.restore_refresh(horizon, settings);
        self.guard(now);
        self.busy.rest();
    }

    pub(in crate::core) fn restore_remote(&mut self, user: &UserId, row: RemoteRow, now: Timestamp) {
        let remote = Remote::restore(row);
        self.wanted += u32::from(remote.is_wanted());
        if remote.is_known() {
            // Looked at as soon as the horizon moves: it may be too old by now.
            self.plain_due = Timestamp(0).into();
        }
        *self.remotes.get_or_default(user.localpart()) = remote;
        self.reconsider(user.localpart(), now);
    }

    /// What was sent is remembered, so that a delivery that comes again is not taken for news.
    pub(in crate::core) fn restore_sent(&mut self, row: SentRow) {
        for (user, serial) in &row.entries {
            if self.told.is_resting() || !self.told.restore_serial(user, *serial) {
                let once = self.busy.others.once.entry(user.clone()).or_default();
                *once = (*once).max((*serial, row.at));
            }
        }
        for (permission, serial) in &row.permissions {
            self.busy.permits.note_answered(permission, *serial, row.at);
        }
        let at = self.sent.partition_point(|(seq, _)| *seq < row.seq);
        self.sent.insert(at, (row.seq, row.at));
        if self.state.transit.live.as_ref().is_some_and(|live| live.seq == row.seq) {
            self.busy.live = Some(row);
        }
    }

    /// The rows that changed since the last call.
    pub(in crate::core) fn take_rows(&mut self, rows: &mut Vec<RowChange>) {
        if self.busy.is_resting() {
            return;
        }
        if std::mem::take(&mut self.busy.dirty.state) {
            rows.push(put(link_key(&self.server), &self.state));
        }
        for user in std::mem::take(&mut self.busy.dirty.served) {
            let key = under_link(RowKind::Served, &self.server, user.as_str());
            rows.push(match self.served_row(&user) {
                Some(row) => put(key, &row),
                None => delete(key),
            });
        }
        for localpart in std::mem::take(&mut self.busy.dirty.remotes) {
            let user = UserId::from_parts(&localpart, &self.server);
            let key = user_key(RowKind::Remote, &user);
            rows.push(match self.remotes.get_mut(&localpart) {
                Some(remote) => {
                    remote.dirty = false;
                    put(key, &remote.row())
                }
                None => delete(key),
            });
        }
        self.busy.permits.take_rows(&self.server, rows);
        rows.append(&mut self.busy.dirty.rows);
        self.busy.rest();
    }

    /// The deletions that remove the link itself.
    pub(in crate::core) fn delete_rows(self, rows: &mut Vec<RowChange>) {
        rows.push(delete(link_key(&self.server)));
        rows.extend(self.sent.iter().map(|(seq, _)| delete(sent_key(&self.server, *seq))));
    }
}
