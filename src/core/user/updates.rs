//! What a user's own clients are to know of others (P1, W2b), gathered for `clients.window`, or between two sessions until the second
//! begins. In memory only: nothing here is a promise, and after a restart all of it is asked for anew.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64;

use super::{Turn, User};
use crate::core::deadlines::Armed;
use crate::core::effect::{Output, Update};
use crate::core::settings::Settings;
use crate::model::{Serial, Status, Timestamp, UserId};

/// See the module. Comes to be when a session has an edge to tell, and lasts for as long as the links watch.
#[derive(Debug, Default)]
pub(in crate::core) struct Updates {
    /// By listed user: bounded by the list.
    news: BTreeMap<UserId, News>,
    /// When what is gathered leaves.
    due: Option<Timestamp>,
    /// When everybody is asked anew.
    rewatch_at: Option<Timestamp>,
    pub(in crate::core) armed: Armed,
}

/// The newest of one user.
#[derive(Debug, Default)]
struct News {
    /// Of the last that was heard, so that nothing older follows it.
    serial: Serial,
    /// What clients were not told yet, and when that was known.
    untold: Option<(Status, Timestamp)>,
}

impl Updates {
    /// A clock that stepped back must not hold anything up.
    pub(super) fn trust_clock(&mut self, now: Timestamp, settings: &Settings) {
        self.due = self.due.map(|at| at.min(now.plus(settings.clients_window_ms)));
        self.rewatch_at = self.rewatch_at.map(|at| at.min(now.plus(Settings::REWATCH_MS)));
    }

    /// When [`User::push_updates`] is wanted next, by the clock.
    pub(in crate::core) fn poll_timeout(&self) -> Option<Timestamp> {
        [self.due, self.rewatch_at].into_iter().flatten().min()
    }
}

impl User {
    /// News of somebody. The newest counts; it is let go where nobody waits for it.
    pub(super) fn update(&mut self, of: UserId, known: (Status, Timestamp), serial: Serial, turn: &Turn<'_>) {
        if !self.relations.hears_of(&of) {
            return;
        }
        let Some(updates) = self.updates(turn) else { return };
        let news = updates.news.entry(of).or_default();
        if news.serial < serial {
            *news = News { serial, untold: Some(known) };
            updates.due.get_or_insert(turn.now.plus(turn.settings.clients_window_ms));
        }
    }

    /// Where news is gathered, if anybody waits for it or did and may come back.
    fn updates(&mut self, turn: &Turn<'_>) -> Option<&mut Updates> {
        if self.updates.is_none() && self.has_edge(turn.horizon) {
            self.updates = Some(Box::default());
        }
        self.updates.as_deref_mut()
    }

    /// Somebody is on the list no longer: clients are to forget what they knew.
    pub(super) fn forget_news(&mut self, of: &UserId, turn: &Turn<'_>) {
        let Some(updates) = self.updates(turn) else { return };
        updates.news.entry(of.clone()).or_default().untold = Some((Status::default(), turn.now));
        updates.due.get_or_insert(turn.now.plus(turn.settings.clients_window_ms));
    }

    /// A session began, of a user for whom the links watch all along.
    pub(super) fn resume_updates(&mut self, me: &UserId, turn: &mut Turn<'_>) {
        match &mut self.updates {
            Some(updates) if updates.news.values().any(|news| news.untold.is_some()) => {
                updates.due.get_or_insert(turn.now.plus(turn.settings.clients_window_ms));
            }
            Some(_) => {}
            None => self.watch_list(me, true, turn),
        }
    }

    /// Looks at the clock: what was gathered for long enough leaves, to each edge with a session.
    pub(in crate::core) fn push_updates(&mut self, me: &UserId, turn: &mut Turn<'_>) {
        let edges = self.edges(turn.horizon);
        let Some(updates) = &mut self.updates else { return };
        updates.armed = Armed::default();
        let due = updates.due.take_if(|due| *due <= turn.now).is_some();
        let rewatch = updates.rewatch_at.take_if(|at| *at <= turn.now).is_some();
        if edges.is_empty() {
            // What was not asked for anew is not known.
            self.updates.take_if(|_| rewatch || !self.state.watching);
            return;
        }
        if due {
            let news = updates.news.iter_mut();
            let events: Vec<(UserId, Status, Timestamp)> =
                news.filter_map(|(of, news)| news.untold.take().map(|(status, at)| (of.clone(), status, at))).collect();
            let relations = &self.relations;
            updates.news.retain(|of, _| relations.lists(of).is_some());
            for edge in &edges {
                turn.outputs.extend(events.chunks(Settings::MAX_UPDATE_EVENTS).map(|events| {
                    let (edge, observer, events) = (edge.clone(), me.clone(), events.to_vec());
                    Output::Update(Update { edge, observer, at: turn.now, events })
                }));
            }
        }
        if rewatch && self.state.watching {
            self.watch_list(me, true, turn);
        }
    }

    /// After a restart: what clients were to be told is gone with the memory, so it is asked for again, soon.
    pub(in crate::core) fn ask_anew(&mut self, me: &UserId, now: Timestamp, horizon: Timestamp) {
        if self.state.watching && self.has_edge(horizon) {
            let spread = xxh3_64(me.as_str().as_bytes()) % Settings::REWATCH_MS;
            self.updates.get_or_insert_default().rewatch_at = Some(now.plus(spread));
        }
    }

    pub(super) fn has_edge(&self, horizon: Timestamp) -> bool {
        self.state.sessions.iter().any(|session| session.until > horizon && session.edge.is_some())
    }

    /// Edges with a session that lasts, each once.
    fn edges(&self, horizon: Timestamp) -> BTreeSet<Box<str>> {
        let live = self.state.sessions.iter().filter(|session| session.until > horizon);
        live.filter_map(|session| session.edge.clone()).collect()
    }
}
