//! What people said, independent of what any server made of it: their statuses, and their words on who may see them.

use std::collections::BTreeMap;

use rollcall::config::ListAccept;
use rollcall::model::{Timestamp, UserId};

use super::plan::{Make, Plan};

/// Orders what one user said: the newest counts.
pub type Order = (Timestamp, String);

/// See the module.
pub struct Truth {
    servers: Vec<Make>,
    /// Of every status: whose it is, and since when there has been such a one, ms.
    tokens: Vec<(UserId, u64)>,
    newest: BTreeMap<UserId, (Order, usize)>,
    words: BTreeMap<(UserId, UserId), Words>,
    /// Refusals on their way, by the number of the reply: who refuses whom, and since when.
    refusals: BTreeMap<u64, (UserId, UserId, u64)>,
}

/// Of one user on one observer.
#[derive(Default, Clone)]
struct Words {
    list: Option<(bool, Order)>,
    answer: Option<(bool, Order)>,
    was_listed: bool,
    was_unlisted: bool,
    was_refused: bool,
    /// When something was said last that may let the observer see, ms.
    yes_at: Option<u64>,
    /// When a refusal was applied last, ms.
    no_at: Option<u64>,
}

/// Whether an observer sees a user once all is quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    Yes,
    No,
    /// It depends on what came before what.
    Perhaps,
}

impl Truth {
    pub fn new(plan: &Plan) -> Self {
        let servers = plan.servers.clone();
        Self { servers, tokens: Vec::new(), newest: BTreeMap::new(), words: BTreeMap::new(), refusals: BTreeMap::new() }
    }

    /// A status that nobody ever had, as its message.
    pub fn new_token(&mut self, user: &UserId, now: u64) -> usize {
        self.tokens.push((user.clone(), now));
        self.tokens.len() - 1
    }

    pub fn status_set(&mut self, user: &UserId, token: usize, order: Order) {
        let known = self.newest.get(user);
        if known.is_none_or(|(newest, _)| *newest < order) {
            self.newest.insert(user.clone(), (order, token));
        }
    }

    /// The last status that the user set, as its message, and when.
    pub fn newest_message(&self, user: &UserId) -> Option<(String, u64)> {
        self.newest.get(user).map(|(_, token)| (message(*token), self.tokens[*token].1))
    }

    /// The first status that the user set, as its message.
    pub fn oldest_message(&self, user: &UserId) -> Option<String> {
        self.tokens.iter().position(|(of, _)| of == user).map(message)
    }

    pub fn listed(&mut self, user: &UserId, target: &UserId, on: bool, order: Order, now: u64) {
        let words = self.words.entry((user.clone(), target.clone())).or_default();
        if words.list.as_ref().is_none_or(|(_, known)| *known < order) {
            words.list = Some((on, order));
        }
        words.was_listed |= on;
        words.was_unlisted |= !on;
        if on {
            words.yes_at = Some(now);
        }
    }

    /// `reply`: of the word that will say that it is applied.
    pub fn answered(
        &mut self,
        user: &UserId,
        observer: &UserId,
        allow: bool,
        order: Order,
        now: u64,
        reply: Option<u64>,
    ) {
        let words = self.words.entry((user.clone(), observer.clone())).or_default();
        if words.answer.as_ref().is_none_or(|(_, known)| *known < order) {
            words.answer = Some((allow, order));
        }
        words.was_refused |= !allow;
        match reply {
            _ if allow => words.yes_at = Some(now),
            Some(reply) => drop(self.refusals.insert(reply, (user.clone(), observer.clone(), now))),
            None => {}
        }
    }

    pub fn applied(&mut self, reply: u64, now: u64) {
        let Some((user, observer, since)) = self.refusals.remove(&reply) else { return };
        let words = self.words.entry((user, observer)).or_default();
        if words.yes_at.is_none_or(|yes| yes < since) {
            words.no_at = Some(now);
        }
    }

    /// A server forgot what was said of late: whoever was allowed once may be allowed again.
    pub fn forgotten(&mut self, server: usize) {
        let name = self.servers[server].name.clone();
        self.refusals.retain(|_, (user, ..)| !user.belongs_to(&name));
        for (_, words) in self.words.iter_mut().filter(|((user, _), _)| user.belongs_to(&name)) {
            words.no_at = None;
        }
    }

    /// Since when nobody at a server has been allowed to see `user`, as far as can be known for certain.
    pub fn hidden_since(&self, user: &UserId, from: usize, at: usize) -> Option<u64> {
        let observer_server = &self.servers[at].name;
        if self.servers[from].accept == ListAccept::Everyone || self.servers[from].shaky {
            return None;
        }
        let words = self.words.iter().filter(|((of, by), _)| of == user && by.belongs_to(observer_server));
        words.map(|(_, words)| words.hidden_since()).try_fold(0, |since, hidden| Some(since.max(hidden?)))
    }

    /// The same of one observer.
    pub fn hidden_from_since(&self, user: &UserId, from: usize, observer: &UserId) -> Option<u64> {
        if self.servers[from].accept == ListAccept::Everyone || self.servers[from].shaky {
            return None;
        }
        self.words.get(&(user.clone(), observer.clone())).map_or(Some(0), Words::hidden_since)
    }

    /// Whether a message may be known to those from whom its user has been hidden since then.
    pub fn is_older(&self, message: Option<&str>, hidden_since: u64) -> bool {
        match message.and_then(token) {
            Some(token) => self.tokens[token].1 <= hidden_since && hidden_since > 0,
            None => hidden_since > 0,
        }
    }

    pub fn lists(&self, user: &UserId, target: &UserId) -> bool {
        self.words.get(&(user.clone(), target.clone())).is_some_and(|words| matches!(words.list, Some((true, _))))
    }

    /// Once all that was said has arrived.
    pub fn sees(&self, observer: &UserId, user: &UserId, from: usize) -> Sees {
        let Make { accept, symmetric, shaky, .. } = &self.servers[from];
        let words = self.words.get(&(user.clone(), observer.clone())).cloned().unwrap_or_default();
        // A refusal of the other's ends the entry by which this one lets them.
        let theirs = self.words.get(&(observer.clone(), user.clone()));
        let ended = theirs.is_some_and(|theirs| theirs.was_refused);
        // At the same server it is also taken back by whom it was given to.
        let taken_back = observer.server_str() == user.server_str() && theirs.is_some_and(|theirs| theirs.was_unlisted);
        let shares = |since: Option<&Order>| matches!(&words.list, Some((true, order)) if since.is_none_or(|since| order > since));
        match &words.answer {
            _ if *shaky => Sees::Perhaps,
            // A refusal ends the other's entry, and a later yes that nobody asks for does not bring it back.
            Some((true, _)) if words.was_refused || taken_back => Sees::Perhaps,
            Some((true, _)) => Sees::Yes,
            Some((false, since)) if shares(Some(since)) => Sees::Perhaps,
            // An entry that came after the refusal may have been answered to, before it went again.
            Some((false, since)) if words.list.as_ref().is_some_and(|(_, order)| order > since) => Sees::Perhaps,
            Some((false, _)) => Sees::No,
            None if *accept == ListAccept::Everyone => Sees::Yes,
            None if ended && words.was_listed => Sees::Perhaps,
            None if shares(None) && *symmetric => Sees::Yes,
            None if shares(None) && *accept == ListAccept::Reciprocal => Sees::Yes,
            None if words.was_listed => Sees::Perhaps,
            None => Sees::No,
        }
    }
}

impl Words {
    fn hidden_since(&self) -> Option<u64> {
        match (self.yes_at, self.no_at) {
            (None, _) => Some(0),
            (Some(yes), Some(no)) if no > yes => Some(no),
            _ => None,
        }
    }
}

pub fn message(token: usize) -> String {
    format!("#{token}")
}

/// The number of a status by its message.
pub fn token(message: &str) -> Option<usize> {
    message.strip_prefix('#')?.parse().ok()
}
