//! The machines of one kind: found by name, and by a number that is theirs for as long as they exist.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table;
use slab::Slab;

/// A machine that bears its name.
pub(super) trait Named {
    /// What it is found by.
    type Name: Hash + Eq;

    /// Its name.
    fn name(&self) -> &Self::Name;
}

/// See the module. Iterates in the order of numbers, which is that of coming as long as none goes: no hash decides what happens.
#[derive(Debug)]
pub(super) struct Table<M> {
    entries: Slab<Entry<M>>,
    /// Numbers alone: the names are with the machines, where whoever looks for one goes next.
    numbers: HashTable<u32>,
    hasher: FixedState,
}

/// What comparing needs, then the machine.
#[derive(Debug)]
#[repr(C)]
struct Entry<M> {
    hash: u64,
    machine: M,
}

impl<M> Default for Table<M> {
    fn default() -> Self {
        Self { entries: Slab::new(), numbers: HashTable::new(), hasher: FixedState::default() }
    }
}

impl<M: Named> Table<M> {
    pub(super) fn number(&self, key: &M::Name) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.numbers.find(hash, |number| is_of(&self.entries, *number, hash, key)).copied()
    }

    /// The numbers of many. Each step is a loop of its own, so short that the processor waits for the memory of many at once: with a
    /// million machines, that is what finding one takes.
    pub(super) fn numbers_of<'k>(&self, keys: impl Iterator<Item = &'k M::Name> + Clone) -> Vec<Option<u32>>
    where
        M::Name: 'k,
    {
        let hashes: Vec<u64> = keys.clone().map(|key| self.hasher.hash_one(key)).collect();
        // A few bits of the hash are right, so nearly always all are.
        let guesses: Vec<Option<u32>> = hashes.iter().map(|hash| self.numbers.find(*hash, |_| true).copied()).collect();
        let is_likely = |(guess, hash): (&Option<u32>, &u64)| {
            guess.is_some_and(|number| self.entries.get(number as usize).is_some_and(|entry| entry.hash == *hash))
        };
        let likely: Vec<bool> = guesses.iter().zip(&hashes).map(is_likely).collect();
        let found = keys.zip(hashes).zip(guesses).zip(likely).map(|(((key, hash), guess), likely)| match guess {
            Some(number) if likely && self.is_of(number, key) => Some(number),
            Some(_) => self.numbers.find(hash, |number| is_of(&self.entries, *number, hash, key)).copied(),
            None => None,
        });
        found.collect()
    }

    /// The number of `key`'s machine, and whether it came to be by this.
    pub(super) fn number_or_insert(&mut self, key: &M::Name, make: impl FnOnce() -> M) -> (u32, bool) {
        let hash = self.hasher.hash_one(key);
        let entries = &mut self.entries;
        let found = self.numbers.entry(
            hash,
            |number| is_of(entries, *number, hash, key),
            |number| entries.get(*number as usize).map_or(0, |entry| entry.hash),
        );
        match found {
            hash_table::Entry::Occupied(found) => (*found.get(), false),
            hash_table::Entry::Vacant(free) => {
                let machine = make();
                debug_assert!(machine.name() == key);
                let number = entries.insert(Entry { hash, machine });
                let number = u32::try_from(number).expect("fewer machines than fit into memory");
                free.insert(number);
                (number, true)
            }
        }
    }

    /// Removes a machine. Its number may be given to another.
    pub(super) fn remove(&mut self, number: u32) -> Option<M> {
        let Entry { hash, machine } = self.entries.try_remove(number as usize)?;
        if let Ok(found) = self.numbers.find_entry(hash, |known| *known == number) {
            found.remove();
        }
        Some(machine)
    }

    pub(super) fn get(&self, number: u32) -> Option<&M> {
        self.entries.get(number as usize).map(|entry| &entry.machine)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut M> {
        self.entries.get_mut(number as usize).map(|entry| &mut entry.machine)
    }

    /// Whether `number` is of `key`'s machine.
    pub(super) fn is_of(&self, number: u32, key: &M::Name) -> bool {
        self.get(number).is_some_and(|machine| machine.name() == key)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &M)> {
        self.entries.iter().map(|(number, entry)| (number as u32, &entry.machine))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut M)> {
        self.entries.iter_mut().map(|(number, entry)| (number as u32, &mut entry.machine))
    }

    /// Of those for which `which` holds.
    pub(super) fn numbers(&self, which: impl Fn(&M) -> bool) -> Vec<u32> {
        self.iter().filter(|(_, machine)| which(machine)).map(|(number, _)| number).collect()
    }
}

fn is_of<M: Named>(entries: &Slab<Entry<M>>, number: u32, hash: u64, key: &M::Name) -> bool {
    entries.get(number as usize).is_some_and(|entry| entry.hash == hash && entry.machine.name() == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name and what else there is.
    #[derive(Debug, PartialEq)]
    struct Pair<K, V>(K, V);

    impl<K: Hash + Eq, V> Named for Pair<K, V> {
        type Name = K;

        fn name(&self) -> &K {
            &self.0
        }
    }

    #[test]
    fn a_number_is_of_one_machine_for_as_long_as_it_exists() {
        let mut table = Table::default();
        for key in ["a", "b", "c"] {
            assert!(table.number_or_insert(&key, || Pair(key, key.to_uppercase())).1, "{key}");
        }
        let number = table.number(&"b").unwrap();
        assert_eq!(table.number_or_insert(&"b", || Pair("b", String::new())), (number, false));
        assert_eq!(table.remove(number), Some(Pair("b", "B".to_owned())));
        assert_eq!((table.number(&"b"), table.get(number)), (None, None));
        assert_eq!(table.remove(number), None);
        assert_eq!(table.number_or_insert(&"d", || Pair("d", "D".to_owned())), (number, true), "given to another");
        let all: Vec<_> = table.iter().map(|(_, Pair(key, value))| (*key, &**value)).collect();
        assert_eq!(all, [("a", "A"), ("d", "D"), ("c", "C")]);
    }

    #[test]
    fn many_are_found_after_the_table_has_grown() {
        let mut table = Table::default();
        for key in 0..10_000_u32 {
            assert_eq!(table.number_or_insert(&key, || Pair(key, ())), (key, true));
        }
        assert!((0..10_000).all(|key| table.number(&key) == Some(key)));
        assert_eq!(table.len(), 10_000);
        // So many that guesses by a few bits of a hash are wrong at times.
        let keys: Vec<u32> = (0..20_000).collect();
        let expected: Vec<_> = keys.iter().map(|key| (*key < 10_000).then_some(*key)).collect();
        assert_eq!(table.numbers_of(keys.iter()), expected);
    }
}
