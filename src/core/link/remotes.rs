//! The users of a peer that are known: mostly one or two, of very many links.

use std::collections::BTreeMap;

use super::remote::Remote;

/// As many are kept side by side, without a tree.
const FEW: usize = 8;

/// See the module. In the order of localparts.
#[derive(Debug)]
pub(super) enum Remotes {
    Few(Vec<(Box<str>, Remote)>),
    #[expect(clippy::box_collection, reason = "so that few take the room of a `Vec`, not more")]
    Many(Box<BTreeMap<Box<str>, Box<Remote>>>),
}

impl Default for Remotes {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Remotes {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get(&self, localpart: &str) -> Option<&Remote> {
        match self {
            Self::Few(few) => few.iter().find(|(known, _)| **known == *localpart).map(|(_, remote)| remote),
            Self::Many(many) => many.get(localpart).map(|remote| &**remote),
        }
    }

    pub(super) fn get_mut(&mut self, localpart: &str) -> Option<&mut Remote> {
        match self {
            Self::Few(few) => few.iter_mut().find(|(known, _)| **known == *localpart).map(|(_, remote)| remote),
            Self::Many(many) => many.get_mut(localpart).map(|remote| &mut **remote),
        }
    }

    pub(super) fn get_or_default(&mut self, localpart: &str) -> &mut Remote {
        self.make_room(localpart);
        match self {
            Self::Few(few) => {
                let at = few.binary_search_by(|(known, _)| (**known).cmp(localpart)).unwrap_or_else(|at| {
                    few.reserve_exact(1);
                    few.insert(at, (localpart.into(), Remote::default()));
                    at
                });
                &mut few[at].1
            }
            Self::Many(many) => many.entry(localpart.into()).or_default(),
        }
    }

    /// Who grew once stays a tree.
    fn make_room(&mut self, localpart: &str) {
        let Self::Few(few) = self else { return };
        if few.len() == FEW && few.iter().all(|(known, _)| **known != *localpart) {
            let all = std::mem::take(few).into_iter().map(|(known, remote)| (known, Box::new(remote)));
            *self = Self::Many(Box::new(all.collect()));
        }
    }

    pub(super) fn remove(&mut self, localpart: &str) {
        match self {
            Self::Few(few) => few.retain(|(known, _)| **known != *localpart),
            Self::Many(many) => drop(many.remove(localpart)),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Remote)> {
        let (few, many) = match self {
            Self::Few(few) => (&few[..], None),
            Self::Many(many) => (&[][..], Some(many)),
        };
        let few = few.iter().map(|(localpart, remote)| (&**localpart, remote));
        few.chain(many.into_iter().flat_map(|many| many.iter()).map(|(localpart, remote)| (&**localpart, &**remote)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Remote)> {
        let (few, many) = match self {
            Self::Few(few) => (&mut few[..], None),
            Self::Many(many) => (&mut [][..], Some(many)),
        };
        let few = few.iter_mut().map(|(localpart, remote)| (&**localpart, remote));
        let many = many.into_iter().flat_map(|many| many.iter_mut());
        few.chain(many.map(|(localpart, remote)| (&**localpart, &mut **remote)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::link::remote::Polled;

    #[test]
    fn few_and_many_are_alike() {
        let mut remotes = Remotes::default();
        let names: Vec<String> = (0..2 * FEW).map(|n| format!("user{:02}", n * 7 % (2 * FEW))).collect();
        for (nth, name) in names.iter().enumerate() {
            assert!(remotes.get(name).is_none());
            remotes.get_or_default(name).polled = Polled::Yes;
            assert!(remotes.get_or_default(name).polled == Polled::Yes, "found again");
            assert_eq!(remotes.len(), nth + 1);
            assert_eq!(matches!(remotes, Remotes::Few(_)), nth < FEW);
            let mut sorted: Vec<&str> = names[..=nth].iter().map(|name| &**name).collect();
            sorted.sort_unstable();
            assert!(remotes.iter().map(|(name, _)| name).eq(sorted.iter().copied()));
            assert!(remotes.iter_mut().map(|(name, _)| name).eq(sorted.iter().copied()));
        }
        for name in &names {
            assert!(remotes.get_mut(name).is_some_and(|remote| remote.polled == Polled::Yes));
            remotes.remove(name);
            assert!(remotes.get(name).is_none());
        }
        assert!(remotes.is_empty());
    }

    #[test]
    fn one_user_costs_one_allocation_beside_the_name() {
        let mut remotes = Remotes::default();
        remotes.get_or_default("user");
        let Remotes::Few(few) = &remotes else { panic!("{remotes:?}") };
        assert_eq!(few.capacity(), 1);
        assert!(
            size_of::<Remotes>() <= 24 && size_of::<Remote>() <= 96,
            "{} {}",
            size_of::<Remotes>(),
            size_of::<Remote>()
        );
    }
}
