//! What a link has only while something is going on: nearly all are idle nearly always, and do without.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::permits::Permits;
use super::remind::Words;
use super::served::Others;
use super::window::Window;
use crate::core::rarely::Rare;
use crate::core::rows::SentRow;
use crate::model::{Serial, Timestamp, UserId};
use crate::store::RowChange;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Busy {
    pub(super) window: Window,
    /// What the live transaction holds.
    pub(super) live: Option<SentRow>,
    /// Our promised users whose status the peer should have been told and was not yet, and up to which change.
    pub(super) owed: BTreeMap<UserId, Serial>,
    /// When the owed were last asked for.
    pub(super) asked_at: Timestamp,
    pub(super) others: Others,
    /// The peer's users whom it must be asked to push, or to push no longer.
    pub(super) pending: BTreeSet<Box<str>>,
    /// Those whom the peer was asked to push and is to be asked again.
    pub(super) again: BTreeSet<Box<str>>,
    /// Those whom the peer did not say since it was asked again, because it holds that we hold something else of them.
    pub(super) doubtful: BTreeSet<Box<str>>,
    /// The peer's users whom it pushes though nobody here watches them: it is to hear so.
    pub(super) unwanted: BTreeSet<Box<str>>,
    pub(super) permits: Permits,
    pub(super) words: Words,
    /// Whose turn it was last, where a transaction has not room for everything that waits.
    pub(super) turn: usize,
    pub(super) dirty: Dirty,
}

impl Busy {
    /// How many polls and unpolls wait.
    pub(super) fn asks(&self) -> usize {
        self.pending.len() + self.again.len() + self.unwanted.len()
    }
}

/// Which rows no longer say what the machine knows.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) state: bool,
    pub(super) served: BTreeSet<UserId>,
    pub(super) remotes: Vec<Box<str>>,
    pub(super) rows: Vec<RowChange>,
}

impl Rare for Busy {
    fn none() -> &'static Self {
        static NONE: LazyLock<Busy> = LazyLock::new(Busy::default);
        &NONE
    }

    fn is_none(&self) -> bool {
        let asks = self.asks() > 0;
        let doubts = !self.doubtful.is_empty();
        let tells = self.window.opened().is_some() || self.window.len() > 0 || !self.owed.is_empty();
        let written = !self.dirty.state
            && self.dirty.served.is_empty()
            && self.dirty.remotes.is_empty()
            && self.dirty.rows.is_empty();
        let says = self.words.are_ready() || !self.permits.is_idle();
        !asks && !doubts && !tells && !says && written && self.live.is_none() && self.others.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Link, RemoteRow};
    use super::*;
    use crate::model::ServerName;

    #[test]
    fn a_restored_link_that_is_idle_holds_nothing_more() {
        let [local, peer] = ["a.example", "b.example"].map(|name| ServerName::parse(name).unwrap());
        let mut link = Link::new(&local, peer);
        link.restore_remote(&UserId::parse("@bob:b.example").unwrap(), RemoteRow::default(), Timestamp(1));
        link.begin_permits(Timestamp(1));
        assert!(link.busy.is_resting());
        link.busy.dirty.state = true;
        link.busy.rest();
        assert!(!link.busy.is_resting(), "a row is to be written");
        link.take_rows(&mut Vec::new());
        assert!(link.busy.is_resting());
    }

    #[test]
    fn a_link_takes_little_room() {
        assert!(size_of::<Link>() <= 256, "{}", size_of::<Link>());
    }
}
