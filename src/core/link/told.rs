//! Our users that the peer was promised, and what it was told of each last: enough to say in few bytes what it should hold, as of any
//! of the last transactions.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::core::digest::{Buckets, Sum};
use crate::core::rarely::Rare;
use crate::model::{Serial, UserId};

/// Transactions whose changes can be undone: what is on its way is no mismatch.
const RECENT: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Told {
    users: BTreeMap<UserId, Last>,
    /// The last transactions, oldest first.
    recent: Vec<Recent>,
}

/// What the peer was told of one user last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Last {
    /// Of the user's machine.
    pub(super) serial: Serial,
    /// See [`crate::core::digest::weight`]; 0: nothing yet.
    pub(super) weight: u128,
}

/// What a transaction changed.
#[derive(Debug)]
struct Recent {
    seq: Serial,
    /// The weights before it.
    before: BTreeMap<UserId, u128>,
}

impl Rare for Told {
    fn none() -> &'static Self {
        static NONE: Told = Told { users: BTreeMap::new(), recent: Vec::new() };
        &NONE
    }

    fn is_none(&self) -> bool {
        self.users.is_empty() && self.recent.is_empty()
    }
}

impl Told {
    pub(super) fn contains(&self, user: &UserId) -> bool {
        self.users.contains_key(user)
    }

    pub(super) fn get(&self, user: &UserId) -> Option<Last> {
        self.users.get(user).copied()
    }

    /// The newest change of `user` that a transaction held.
    pub(super) fn serial(&self, user: &UserId) -> Option<Serial> {
        self.users.get(user).map(|last| last.serial)
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    pub(super) fn users(&self) -> impl Iterator<Item = &UserId> {
        self.users.keys()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&UserId, Last)> {
        self.users.iter().map(|(user, last)| (user, *last))
    }

    /// Promises `user`, of whom nothing is told yet.
    pub(super) fn promise(&mut self, user: UserId) {
        self.users.entry(user).or_default();
    }

    pub(super) fn restore(&mut self, user: UserId, weight: u128) {
        self.users.entry(user).or_default().weight = weight;
    }

    /// Restores what a transaction of before held of a promised user; whether it is one.
    pub(super) fn restore_serial(&mut self, user: &UserId, serial: Serial) -> bool {
        let Some(last) = self.users.get_mut(user) else { return false };
        last.serial = last.serial.max(serial);
        true
    }

    /// Ends the promise: no sum of any time counts this user any longer. Whether there was one.
    pub(super) fn remove(&mut self, user: &UserId) -> bool {
        for recent in &mut self.recent {
            recent.before.remove(user);
        }
        self.users.remove(user).is_some()
    }

    /// A new transaction begins, which [`Told::tell`] fills. Where nobody is promised there is nothing to remember.
    pub(super) fn begin(&mut self, seq: Serial) {
        if self.users.is_empty() {
            return self.recent.clear();
        }
        if self.recent.len() >= RECENT {
            self.recent.remove(0);
        }
        // Mostly one or two, of very many links.
        self.recent.reserve_exact(1);
        self.recent.push(Recent { seq, before: BTreeMap::new() });
    }

    /// The transaction holds this of `user`; whether they are promised.
    pub(super) fn tell(&mut self, user: &UserId, serial: Serial, weight: u128) -> bool {
        let Some(last) = self.users.get_mut(user) else { return false };
        if let Some(recent) = self.recent.last_mut()
            && let Entry::Vacant(entry) = recent.before.entry(user.clone())
        {
            entry.insert(last.weight);
        }
        *last = Last { serial, weight };
        true
    }

    /// What the peer should hold after our last transaction.
    pub(super) fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        for last in self.users.values().filter(|last| last.weight != 0) {
            sum.add(last.weight);
        }
        sum
    }

    /// What the peer should hold after transaction `as_of`; `None`: that was too long ago.
    pub(super) fn sum_at(&self, as_of: Serial) -> Option<Sum> {
        let mut sum = Sum::default();
        self.each_at(as_of, |_, weight| sum.add(weight))?;
        Some(sum)
    }

    /// The same by bucket.
    pub(super) fn buckets_at(&self, as_of: Serial) -> Option<Buckets> {
        let mut buckets = Buckets::default();
        self.each_at(as_of, |user, weight| buckets.add(user, weight))?;
        Some(buckets)
    }

    /// The peer has come so far: what was before is not asked for any longer.
    pub(super) fn forget_before(&mut self, as_of: Serial) {
        self.recent.retain(|recent| recent.seq >= as_of);
        self.recent.shrink_to_fit();
    }

    fn each_at(&self, as_of: Serial, mut each: impl FnMut(&UserId, u128)) -> Option<()> {
        let mut before: BTreeMap<&UserId, u128> = BTreeMap::new();
        if !self.users.is_empty() && !self.recent.iter().any(|recent| recent.seq == as_of) {
            return None;
        }
        for recent in self.recent.iter().rev().take_while(|recent| recent.seq > as_of) {
            before.extend(recent.before.iter().map(|(user, weight)| (user, *weight)));
        }
        for (user, last) in &self.users {
            let weight = before.get(user).copied().unwrap_or(last.weight);
            if weight != 0 {
                each(user, weight);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(&format!("@{name}:a.example")).unwrap()
    }

    fn seq(counter: u64) -> Serial {
        Serial { epoch: 1, counter }
    }

    fn told(rounds: &[&[(&str, u128)]]) -> Told {
        let mut told = Told::default();
        for (round, entries) in (1..).zip(rounds) {
            entries.iter().for_each(|(name, _)| told.promise(user(name)));
            told.begin(seq(round));
            for (name, weight) in *entries {
                assert!(told.tell(&user(name), seq(round), *weight));
            }
        }
        told
    }

    #[test]
    fn a_sum_of_before_is_what_it_was_then() {
        let told = told(&[&[("a", 1), ("b", 10)], &[("a", 2)], &[("a", 3), ("c", 100)]]);
        let sums = [1, 2, 3].map(|n| told.sum_at(seq(n)).map(|sum| (sum.count, sum.digest)));
        assert_eq!(sums, [Some((2, 11)), Some((2, 12)), Some((3, 113))]);
        assert_eq!(told.sum_at(seq(3)), Some(told.sum()));
        assert_eq!(told.sum_at(seq(9)), None);
    }

    #[test]
    fn whose_promise_ended_is_in_no_sum() {
        let mut told = told(&[&[("a", 1), ("b", 10)], &[("a", 2)]]);
        assert!(told.remove(&user("a")));
        assert_eq!(told.sum_at(seq(1)).map(|sum| sum.digest), Some(10));
        told.promise(user("a"));
        assert_eq!(told.sum_at(seq(2)).map(|sum| sum.count), Some(1), "promised anew, and not told yet");
    }

    #[test]
    fn who_was_promised_nobody_holds_nothing_at_any_time() {
        let mut told = told(&[&[]]);
        assert!(told.recent.is_empty(), "there may be very many such links");
        assert_eq!(told.sum_at(seq(1)).map(|sum| sum.count), Some(0));
        told.promise(user("a"));
        assert_eq!(told.sum_at(seq(1)), None);
    }

    #[test]
    fn what_is_long_ago_is_not_known() {
        let rounds: Vec<&[(&str, u128)]> = vec![&[("a", 1)]; RECENT + 1];
        let told = told(&rounds);
        assert_eq!(told.sum_at(seq(1)), None);
        assert!(told.sum_at(seq(2)).is_some());
    }
}
