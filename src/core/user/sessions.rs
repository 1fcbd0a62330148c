//! Which devices care about the presence list, and at which edges (C4). Sets, never counters: a session is named by device and edge.

use super::Session;
use crate::core::device::supersedes;
use crate::core::settings::Settings;
use crate::core::signal::{SessionAction, Stamp};
use crate::model::{DeviceId, Timestamp};

/// The longest lease, ms. Whatever started earlier has ended, so that an end needs to be remembered no longer.
const LEASE_MAX_MS: u64 = 3_600_000;

/// Starts or ends sessions of `device`; `until` is when a lease ends, 0 for an end. Whether anything changed.
pub(super) fn apply(
    sessions: &mut Vec<Session>,
    device: &DeviceId,
    action: SessionAction,
    until: Timestamp,
    stamp: &Stamp,
    now: Timestamp,
) -> bool {
    let was_stopped = |session: &Session| {
        let stop = session.device == *device && session.edge.is_none() && session.until == Timestamp(0);
        stop && !supersedes(stamp, &session.stamp, now)
    };
    if sessions.iter().any(was_stopped) {
        return false;
    }
    let (edge, ended) = match action {
        SessionAction::Start { edge, .. } => (edge, false),
        SessionAction::Leave { edge } => (Some(edge), false),
        SessionAction::Stop => (None, end_everywhere(sessions, device, stamp, now)),
    };
    put(sessions, Session { device: device.clone(), until, edge, stamp: stamp.clone() }, now) || ended
}

/// Begins or renews the session of a device that was heard of `at` some time, without a stamp: whatever is said of sessions counts more.
/// A device that ended its own has none for as long as that is remembered. Whether anything changed.
pub(super) fn imply(sessions: &mut Vec<Session>, device: DeviceId, at: Timestamp, now: Timestamp) -> bool {
    let until = at.plus(Settings::IMPLIED_LEASE_MS);
    if until <= now {
        return false;
    }
    match sessions.iter_mut().find(|session| session.device == device && session.edge.is_none()) {
        Some(session) if session.until == Timestamp(0) || session.until >= until => false,
        Some(session) => {
            session.until = until;
            true
        }
        None => put(sessions, Session { device, until, edge: None, stamp: Stamp::default() }, now),
    }
}

/// Forgets what has ended; whether there was any. An end is remembered for as long as a start of before it might run.
pub(super) fn forget(sessions: &mut Vec<Session>, now: Timestamp) -> bool {
    let before = sessions.len();
    sessions.retain(|session| session.until > now || now.since(session.stamp.ts) < LEASE_MAX_MS);
    sessions.len() < before
}

/// The device is gone: forgets those that are not newer than that.
pub(super) fn depart(sessions: &mut Vec<Session>, device: &DeviceId, stamp: &Stamp, now: Timestamp) {
    let is_newer = |session: &Session| {
        let is_implied = session.stamp == Stamp::default();
        let implied_later = session.until.minus(Settings::IMPLIED_LEASE_MS) > stamp.ts;
        if is_implied { implied_later } else { !supersedes(stamp, &session.stamp, now) }
    };
    sessions.retain(|session| session.device != *device || is_newer(session));
}

fn end_everywhere(sessions: &mut [Session], device: &DeviceId, stamp: &Stamp, now: Timestamp) -> bool {
    let is_older = |session: &&mut Session| {
        session.device == *device && session.edge.is_some() && supersedes(stamp, &session.stamp, now)
    };
    let older = sessions.iter_mut().filter(is_older).map(|session| {
        session.until = Timestamp(0);
        session.stamp = stamp.clone();
    });
    older.count() > 0
}

fn put(sessions: &mut Vec<Session>, new: Session, now: Timestamp) -> bool {
    let is_same = |session: &Session| session.device == new.device && session.edge == new.edge;
    match sessions.iter().position(is_same) {
        Some(at) if !supersedes(&new.stamp, &sessions[at].stamp, now) => return false,
        Some(at) => sessions[at] = new,
        None => {
            forget(sessions, now);
            if sessions.len() >= Settings::MAX_DEVICES {
                let oldest = (0..sessions.len()).min_by_key(|at| sessions[*at].until).unwrap_or(0);
                sessions.swap_remove(oldest);
            }
            sessions.push(new);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(10_000_000);

    fn act(sessions: &mut Vec<Session>, ms: u64, action: SessionAction) -> bool {
        let stamp = Stamp { ts: NOW.plus(ms), id: "x".into() };
        let until = if matches!(action, SessionAction::Start { .. }) { stamp.ts.plus(60_000) } else { Timestamp(0) };
        let device = DeviceId::parse("PHONE").unwrap();
        apply(sessions, &device, action, until, &stamp, NOW.plus(1_000))
    }

    fn start(edge: Option<&str>) -> SessionAction {
        SessionAction::Start { lease_ms: 60_000, edge: edge.map(Into::into) }
    }

    fn leave(edge: &str) -> SessionAction {
        SessionAction::Leave { edge: edge.into() }
    }

    fn live(sessions: &[Session]) -> Vec<&str> {
        let live = sessions.iter().filter(|session| session.until > NOW);
        let mut edges: Vec<_> = live.map(|session| session.edge.as_deref().unwrap_or("-")).collect();
        edges.sort_unstable();
        edges
    }

    /// A client that comes back at another edge: the old one notices its end late, and ends nothing but its own.
    #[test]
    fn an_edge_ends_its_own_session_alone() {
        let mut sessions = Vec::new();
        for (ms, action) in [(0, start(Some("a"))), (10, start(Some("b"))), (20, leave("a")), (15, start(Some("a")))] {
            act(&mut sessions, ms, action);
        }
        assert_eq!(live(&sessions), ["b"], "what came late is older than the end");
        assert!(act(&mut sessions, 30, start(None)), "as a read of the list does");
        assert_eq!(live(&sessions), ["-", "b"]);
    }

    #[test]
    fn a_stop_ends_all_that_is_older() {
        let mut sessions = Vec::new();
        for (ms, action) in [(0, start(Some("a"))), (5, start(None)), (30, start(Some("c"))), (20, SessionAction::Stop)]
        {
            act(&mut sessions, ms, action);
        }
        assert_eq!(live(&sessions), ["c"]);
        assert!(!act(&mut sessions, 10, start(Some("d"))), "older than the stop");
        assert!(act(&mut sessions, 40, start(Some("d"))));
        assert_eq!(live(&sessions), ["c", "d"]);
    }

    #[test]
    fn ends_are_forgotten_when_nothing_older_can_live() {
        let mut sessions = Vec::new();
        for n in 0..200u64 {
            act(&mut sessions, 0, leave(&format!("e{n}")));
        }
        assert_eq!(sessions.len(), Settings::MAX_DEVICES);
        let late = Stamp { ts: NOW.plus(2 * LEASE_MAX_MS), id: "x".into() };
        let device = DeviceId::parse("WEB").unwrap();
        assert!(apply(&mut sessions, &device, start(None), late.ts.plus(60_000), &late, late.ts));
        assert_eq!(sessions.len(), 1);
    }
}
