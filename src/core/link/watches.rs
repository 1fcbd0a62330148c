//! Whom of the peer's users we watch, and who here is told of them.

use super::remote::Polled;
use super::{Link, Turn, UserSignal};
use crate::core::settings::Settings;
use crate::core::user::is_noticeable;
use crate::model::{Serial, Status, Timestamp, UserId};

impl Link {
    /// A local user watches one of the peer's, or does no longer. Only 0→1 and 1→0 travel (E1).
    pub(super) fn watch(
        &mut self,
        (observer, target): (UserId, &UserId),
        on: bool,
        accepted: bool,
        serial: Serial,
        turn: &mut Turn<'_>,
    ) {
        if !target.belongs_to(&self.server) {
            return;
        }
        let observer = turn.shared(observer);
        let remote = self.remotes.get_or_default(target.localpart());
        let was_wanted = remote.is_wanted();
        if !remote.observe(observer.clone(), on.then_some(accepted), serial, turn.now) {
            return;
        }
        self.wanted += u32::from(remote.is_wanted());
        self.wanted -= u32::from(was_wanted);
        super::mark(remote, target.localpart(), &mut self.busy.dirty.remotes);
        if turn.trace.is_some() {
            self.busy.window.note_trace(turn.trace);
        }
        self.reconsider(target.localpart(), turn.now);
        if on {
            self.tell(target.localpart(), |told| *told == observer, turn);
        }
    }

    /// What the peer says of one of its users. Remembered only if somebody here watches: strangers cannot fill our memory.
    pub(super) fn learn(&mut self, user: &UserId, status: Status, stamp: Option<Timestamp>, turn: &mut Turn<'_>) {
        let plain = !self.state.knows_permission();
        let Some(remote) = self
            .remotes
            .get_mut(user.localpart())
            // While the peer does not know yet that nobody watches any longer, somebody may again before it does.
            .filter(|remote| remote.is_wanted() || remote.polled != Polled::No || plain && remote.has_observers())
        else {
            return self.decline(user, turn.now);
        };
        let before = if self.state.believes(remote.known_at()) { remote.status() } else { Status::default() };
        if !remote.learn(status, stamp, turn.at) {
            return;
        }
        if self.busy.doubtful.contains(user.localpart()) {
            self.busy.doubtful.remove(user.localpart());
        }
        let news = is_noticeable(&before, &remote.status(), turn.settings.granularity_ms);
        let due = self.plain_due.get().unwrap_or(remote.heard_at().plus(turn.settings.plain_promise_ms));
        self.plain_due = due.into();
        super::mark(remote, user.localpart(), &mut self.busy.dirty.remotes);
        if news {
            self.tell_observers(user.localpart(), turn);
        }
    }

    /// Nobody here watches this user (any longer): a peer that speaks rollcall is told so, since it keeps account of its promises.
    fn decline(&mut self, user: &UserId, now: Timestamp) {
        let polled = self.remotes.get(user.localpart()).is_some_and(|remote| remote.polled != Polled::No);
        let listens = now.since(self.state.spoke) <= Settings::SPEAKS_MS;
        // What was polled is unpolled anyway.
        if listens && !polled && self.busy.unwanted.len() < Settings::MAX_UNWANTED {
            self.busy.unwanted.insert(user.localpart().into());
            self.busy.window.open(now);
        }
    }

    /// Tells everybody here who watches this user and may be shown it what is known.
    pub(super) fn tell_observers(&self, localpart: &str, turn: &mut Turn<'_>) {
        self.tell(localpart, |_| true, turn);
    }

    fn tell(&self, localpart: &str, whom: impl Fn(&UserId) -> bool, turn: &mut Turn<'_>) {
        let Some(remote) = self.remotes.get(localpart) else { return };
        if remote.known_at() == Timestamp(0) {
            return;
        }
        let of = UserId::from_parts(localpart, &self.server);
        let status = self.believed(remote.status(), remote.known_at());
        let known_at = remote.heard_at();
        for observer in remote.shown_to(!self.state.knows_permission()).filter(|observer| whom(observer)) {
            let serial = turn.next_serial();
            let update = UserSignal::Update { of: of.clone(), status: status.clone(), known_at, serial };
            turn.tell_user(observer.clone(), update);
        }
    }

    /// The peer turned out to know of permission: who was shown its users for want of it is shown them no longer.
    pub(super) fn conceal(&mut self, turn: &mut Turn<'_>) {
        for (localpart, remote) in self.remotes.iter_mut() {
            let asked: Vec<UserId> = remote.only_asked().cloned().collect();
            for observer in asked.into_iter().filter(|_| remote.known_at() > Timestamp(0)) {
                let of = UserId::from_parts(localpart, &self.server);
                let (known_at, serial) = (turn.now, turn.next_serial());
                turn.tell_user(observer, UserSignal::Update { of, status: Status::default(), known_at, serial });
            }
            if !remote.is_wanted() && remote.polled == Polled::No && remote.known_at() > Timestamp(0) {
                remote.forget();
                super::mark(remote, localpart, &mut self.busy.dirty.remotes);
            }
        }
    }

    /// Whether the peer must hear that we watch this user, or that we do no longer.
    pub(super) fn reconsider(&mut self, localpart: &str, now: Timestamp) {
        let Some(remote) = self.remotes.get(localpart) else { return };
        if remote.polled.suits(remote.is_wanted()) {
            if self.busy.pending.contains(localpart) {
                self.busy.pending.remove(localpart);
            }
        } else {
            self.busy.pending.insert(localpart.into());
            self.busy.window.open(now);
        }
    }

    /// At most so many users, in at most so many bytes, to be polled and unpolled.
    pub(super) fn take_pending(&mut self, entries: usize, bytes: usize) -> (Vec<UserId>, Vec<UserId>) {
        // `"@localpart:server",`
        let fixed = self.server.as_str().len() + 5;
        // A peer takes no more of each kind from one transaction.
        let most = entries.min(Settings::MAX_POLLS);
        let mut size = 0;
        let mut taken = Vec::new();
        for localpart in self.busy.pending.iter().chain(&self.busy.again).chain(&self.busy.unwanted).take(most) {
            size += localpart.len() + fixed;
            if size > bytes && !taken.is_empty() {
                break;
            }
            taken.push(localpart.clone());
        }
        let (mut polls, mut unpolls) = (Vec::new(), Vec::new());
        for localpart in taken {
            let was_pending = self.busy.pending.remove(&localpart);
            let again = self.busy.again.remove(&localpart);
            let was_unwanted = self.busy.unwanted.remove(&localpart);
            let wanted = self.remotes.get(&localpart).map(|remote| remote.is_wanted());
            // Somebody may have come to watch whom nobody wanted, or nobody knows any longer who was to be polled.
            let side = match wanted {
                Some(true) if was_pending || again => &mut polls,
                Some(false) if was_pending || was_unwanted => &mut unpolls,
                None if was_unwanted => &mut unpolls,
                _ => continue,
            };
            side.push(UserId::from_parts(&localpart, &self.server));
        }
        (polls, unpolls)
    }
}
