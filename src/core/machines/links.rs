//! All links of a partition: found by name, and by a number that is theirs for as long as they exist.

use std::collections::HashMap;

use slab::Slab;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use crate::core::link::Link;
use crate::model::ServerName;

/// See the module. Iterates in the order of numbers, which is that of coming as long as none goes.
#[derive(Debug, Default)]
pub(super) struct Links {
    all: Slab<Link>,
    numbers: HashMap<ServerName, usize, Xxh3DefaultBuilder>,
}

impl Links {
    pub(super) fn number(&self, server: &ServerName) -> Option<usize> {
        self.numbers.get(server).copied()
    }

    /// The link to `server`, which comes to be if there is none.
    pub(super) fn number_or_new(&mut self, local: &ServerName, server: &ServerName) -> usize {
        if let Some(number) = self.number(server) {
            return number;
        }
        let number = self.all.insert(Link::new(local, server.clone()));
        self.numbers.insert(server.clone(), number);
        number
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Link> {
        self.all.get_mut(number)
    }

    /// Removes a link. Its number may be given to another.
    pub(super) fn remove(&mut self, number: usize) -> Option<Link> {
        let link = self.all.try_remove(number)?;
        self.numbers.remove(link.server());
        Some(link)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Link)> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Link)> {
        self.all.iter_mut()
    }

    /// Of those for which `which` holds.
    pub(super) fn numbers(&self, which: impl Fn(&Link) -> bool) -> Vec<usize> {
        self.iter().filter(|(_, link)| which(link)).map(|(number, _)| number).collect()
    }
}
