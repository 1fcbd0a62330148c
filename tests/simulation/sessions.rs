//! Who has a session, as they and their devices said: without one nobody is to be polled for them (E1).

use std::collections::BTreeMap;

use rollcall::model::UserId;

/// For so long a device that was heard of has one, ms.
const IMPLIED_MS: u64 = 120_000;

/// See the module.
#[derive(Default)]
pub struct Sessions {
    devices: BTreeMap<UserId, BTreeMap<&'static str, Session>>,
}

/// A device's. Times are ms since the world began.
#[derive(Default)]
struct Session {
    until: u64,
    /// Until when the longest lasts that ever was begun.
    longest: u64,
    is_stopped: bool,
}

impl Sessions {
    pub fn begun(&mut self, user: &UserId, device: &'static str, until: u64) {
        let session = self.device(user, device);
        session.is_stopped = false;
        session.prolong(until);
    }

    pub fn heard(&mut self, user: &UserId, device: &'static str, now: u64) {
        let session = self.device(user, device);
        if !session.is_stopped {
            session.prolong(now + IMPLIED_MS);
        }
    }

    pub fn stopped(&mut self, user: &UserId, device: &'static str, now: u64) {
        let session = self.device(user, device);
        session.is_stopped = true;
        session.until = session.until.min(now);
    }

    /// A server is as it was before some of that was said: what was stopped may go on.
    pub fn forgotten(&mut self, is_of_server: impl Fn(&UserId) -> bool) {
        let devices = self.devices.iter_mut().filter(|(user, _)| is_of_server(user));
        for session in devices.flat_map(|(_, devices)| devices.values_mut()) {
            session.is_stopped = false;
            session.until = session.longest;
        }
    }

    /// Whether the user had a session then, or later.
    pub fn lasts(&self, user: &UserId, then: u64) -> bool {
        self.devices.get(user).is_some_and(|devices| devices.values().any(|session| session.until >= then))
    }

    fn device(&mut self, user: &UserId, device: &'static str) -> &mut Session {
        self.devices.entry(user.clone()).or_default().entry(device).or_default()
    }
}

impl Session {
    fn prolong(&mut self, until: u64) {
        self.until = self.until.max(until);
        self.longest = self.longest.max(until);
    }
}
