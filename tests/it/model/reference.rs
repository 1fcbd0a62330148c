//! What should come of what people do, once all of it has arrived. No queues, no windows, no links: facts.

use std::collections::{BTreeMap, BTreeSet};

use rollcall::model::{Presence, Timestamp};

use super::Operation;

/// A device that was not heard of for so long is offline; an idle one is unavailable after this. Both wait until they have settled.
const OFFLINE_MS: u64 = 60_000 + SETTLE_MS;
const IDLE_MS: u64 = 300_000 + SETTLE_MS;
const SETTLE_MS: u64 = 5_000;
/// Who was heard of cares about the list for so long: the lease that this implies, and the linger.
const CARES_MS: u64 = 120_000 + 30_000;

/// See the module. Under `list.accept = "everyone"`, without `list.symmetric`.
#[derive(Default)]
pub struct Reference {
    devices: BTreeMap<(usize, usize), Device>,
    messages: BTreeMap<usize, u8>,
    watching: BTreeSet<usize>,
    /// When who was heard of.
    heard: BTreeMap<usize, Timestamp>,
    lists: BTreeSet<(usize, usize)>,
    /// Who refuses whom.
    refused: BTreeSet<(usize, usize)>,
    /// Whose entry of whom is older than a refusal of theirs.
    distrusted: BTreeSet<(usize, usize)>,
}

#[derive(Default, Clone, Copy)]
struct Device {
    set: Option<Presence>,
    /// By activity since it was set.
    implied: Option<Presence>,
    heard: Timestamp,
    idle_since: Option<Timestamp>,
}

impl Reference {
    pub fn perform(&mut self, now: Timestamp, operation: &Operation) {
        match *operation {
            Operation::Set { user, device, presence, message } => {
                self.devices.insert((user, device), Device { set: Some(presence), heard: now, ..Device::default() });
                self.messages.insert(user, message);
            }
            Operation::Activity { user, device, implied } => {
                let device = self.devices.entry((user, device)).or_default();
                device.heard = now;
                device.implied = Some(implied.unwrap_or(Presence::Online));
                self.heard.insert(user, now);
            }
            Operation::Idle { user, device, on } => {
                let device = self.devices.entry((user, device)).or_default();
                device.heard = now;
                device.idle_since = on.then_some(now);
            }
            Operation::Session { user, on: true } => drop(self.watching.insert(user)),
            Operation::Session { user, on: false } => drop(self.watching.remove(&user)),
            Operation::List { user, target, on } if user != target => {
                self.list(user, target, on);
            }
            Operation::Answer { user, observer, allow } if user != observer => {
                if allow {
                    self.refused.remove(&(user, observer));
                } else {
                    self.refused.insert((user, observer));
                    self.distrusted.insert((user, observer));
                    self.lists.remove(&(observer, user));
                }
            }
            _ => {}
        }
    }

    /// Whoever was refused is refused again, unless the other lists them since: then they are let.
    fn list(&mut self, user: usize, target: usize, on: bool) {
        self.lists.remove(&(user, target));
        if !on {
            return;
        }
        self.distrusted.remove(&(user, target));
        let trusted = self.lists(target, user) && !self.distrusted.contains(&(target, user));
        if trusted || !self.refused.contains(&(target, user)) {
            self.refused.remove(&(target, user));
            self.lists.insert((user, target));
        }
    }

    /// Presence and message.
    pub fn status(&self, user: usize, now: Timestamp) -> (Presence, Option<String>) {
        let devices = self.devices.iter().filter(|((of, _), _)| *of == user);
        let presence = devices.filter_map(|(_, device)| device.presence(now)).max().unwrap_or(Presence::Offline);
        (presence, self.messages.get(&user).map(u8::to_string))
    }

    /// Nobody ever heard of the user: whether that is unknown or offline is nobody's business.
    pub fn was_never_there(&self, user: usize) -> bool {
        !self.devices.iter().any(|((of, _), device)| *of == user && device.chosen().is_some())
    }

    pub fn lists(&self, user: usize, target: usize) -> bool {
        self.lists.contains(&(user, target))
    }

    /// Whether somebody at `server` has a session, or was heard of, and lists `target`.
    pub fn watches(&self, server: usize, target: usize, now: Timestamp) -> bool {
        let heard = self.heard.iter().filter(|(_, at)| now.since(**at) < CARES_MS).map(|(user, _)| user);
        self.watching.iter().chain(heard).any(|user| user / 2 == server && self.lists(*user, target))
    }
}

impl Device {
    fn chosen(&self) -> Option<Presence> {
        match self.set {
            None | Some(Presence::Online) => self.implied.or(self.set),
            explicit => explicit,
        }
    }

    fn presence(&self, now: Timestamp) -> Option<Presence> {
        let set = self.chosen()?;
        if now.since(self.heard) >= OFFLINE_MS {
            return Some(Presence::Offline);
        }
        let idle = self.idle_since.is_some_and(|since| now.since(since) >= IDLE_MS);
        Some(if idle && set == Presence::Online { Presence::Unavailable } else { set })
    }
}
