//! Periodic jobs, as each partition does them. Whatever comes twice finds nothing left to do.

use xxhash_rust::xxh3::xxh3_64;

use super::{Machines, Member, note_dirty};
use crate::core::link::Standing;
use crate::core::rows::{delete, user_key};
use crate::core::settings::Settings;
use crate::model::{Timestamp, UserId};
use crate::store::RowKind;
use crate::wire::envelope::Job;

/// What periodic jobs found to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobTotals {
    /// Users of peers who were forgotten, because nobody wanted to know of them any longer.
    pub expired: u64,
    /// Promises and watches of which one side knew nothing.
    pub repaired: u64,
    /// Times that a peer that was given up was tried again.
    pub probed: u64,
}

/// Where the jobs are.
#[derive(Debug)]
pub(super) struct Chores {
    totals: JobTotals,
    /// Which slice of the users the next audit looks at: of its own users', and of the links'.
    next: [u64; 2],
}

impl Chores {
    /// Another owner begins elsewhere, so that short ownerships do not leave the same slices out each time.
    pub(super) fn new(epoch: u64) -> Self {
        Self { totals: JobTotals::default(), next: [epoch; 2] }
    }

    pub(super) fn totals(&self) -> JobTotals {
        self.totals
    }

    pub(super) fn repairs(&mut self) -> &mut u64 {
        &mut self.totals.repaired
    }

    /// Takes a slice: whose turn it is. Not by the low bits, which decide the partition.
    fn take_slice(&mut self, side: usize) -> impl Fn(&UserId) -> bool + Copy + use<> {
        let slice = self.next[side] % Settings::AUDIT_SLICES;
        self.next[side] += 1;
        move |user: &UserId| (xxh3_64(user.as_str().as_bytes()) >> 32) % Settings::AUDIT_SLICES == slice
    }
}

impl Machines {
    /// A periodic job is due for users.
    pub fn handle_users_job(&mut self, now: Timestamp, job: Job) {
        match job {
            Job::Compact => self.compact_users(now),
            Job::Audit => self.audit_users(now),
            Job::Statistics => self.roll_up(),
            // Theirs are the links.
            Job::Expire | Job::Probe => {}
        }
    }

    /// A periodic job is due for links.
    pub fn handle_peers_job(&mut self, now: Timestamp, job: Job) {
        match job {
            Job::Compact => self.compact_links(now),
            Job::Expire => self.expire_remotes(now),
            Job::Audit => self.audit_links(now),
            Job::Probe => self.probe_links(now),
            // Once a partition is enough.
            Job::Statistics => {}
        }
    }

    fn compact_users(&mut self, now: Timestamp) {
        let mut useless = Vec::new();
        for (number, Member { user, .. }) in self.users.iter_mut() {
            user.compact(now, self.users_horizon, &self.settings);
            note_dirty(number, user, &mut self.dirty_users);
            if user.is_useless() {
                useless.push(number);
            }
        }
        for number in useless {
            let Some(Member { id, .. }) = self.users.remove(number) else { continue };
            self.removals.extend([RowKind::User, RowKind::Relations].map(|kind| delete(user_key(kind, &id))));
        }
    }

    fn compact_links(&mut self, now: Timestamp) {
        for number in self.links.numbers(|link| link.has_old_questions(now)) {
            self.with_link(number, now, now, None, |link, turn| link.withdraw_old_questions(turn));
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

    /// What nobody has wanted to know for long, and could not say so, is forgotten; compaction takes the rows.
    fn expire_remotes(&mut self, now: Timestamp) {
        for number in self.links.numbers(|_| true) {
            let mut expired = 0;
            self.with_link(number, now, now, None, |link, _| expired = link.expire(now));
            self.chores.totals.expired += expired;
        }
    }

    fn audit_users(&mut self, now: Timestamp) {
        let is_due = self.chores.take_slice(0);
        for number in self.users.numbers(|member| is_due(&member.id)) {
            self.with_user(number, now, now, None, |me, user, turn| user.audit(me, turn));
        }
    }

    fn audit_links(&mut self, now: Timestamp) {
        let is_due = self.chores.take_slice(1);
        for number in self.links.numbers(|_| true) {
            self.with_link(number, now, now, None, |link, turn| link.audit(is_due, turn));
        }
    }

    /// Whoever was given up is tried, one after the other over the short watchdog's time.
    fn probe_links(&mut self, now: Timestamp) {
        let dead = self.links.numbers(|link| link.is_dead(now, &self.settings));
        let (count, short_ms) = (dead.len() as u64, self.settings.short_ms);
        self.chores.totals.probed += count;
        for (nth, number) in (0..).zip(dead) {
            self.with_link(number, now, now, None, |link, turn| link.probe(short_ms * nth / count.max(1), turn));
        }
    }
}
