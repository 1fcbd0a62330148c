//! What a day is held to beside the models: bounds for two sides that gather for ten seconds.

use super::models::{self, SESSION_S};
use super::{Outcome, Scenario};

/// The window that the bounds are for, ms.
pub const WINDOW_MS: u64 = 10_000;
/// The one bound that rests on how many users there are.
pub(super) const SIMPLE_MESSAGES: &str = "SIMPLE's messages";

/// One bound, and what was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// What is compared.
    pub name: &'static str,
    /// How many times as much.
    pub measured: f64,
    /// How many times as much it may, or has to be.
    pub bound: Bound,
}

/// A side to be on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Target {
    /// Whether it is on the right side.
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.measured <= most,
            Bound::AtLeast(least) => self.measured >= least,
        }
    }
}

/// What `outcome` is held to; nothing, where no bound was set: for several peers, or another window.
pub fn targets(scenario: &Scenario, outcome: &Outcome) -> Vec<Target> {
    if scenario.peers != 1 || scenario.window_ms != WINDOW_MS {
        return Vec::new();
    }
    let (case, total) = (scenario.case(), outcome.total());
    let floor = models::floor(case, scenario.window_ms as f64 / 1000.0, outcome.extension_mean());
    let (simple, xmpp) = (models::simple(case), models::xmpp(case));
    let times = |model: Option<f64>, ours: u64| model.unwrap_or(0.0) * SESSION_S / ours.max(1) as f64;
    let over_floor = 1.0 / times(floor.bytes, outcome.presence.bytes());
    let target = |name, measured, bound| Target { name, measured, bound };
    vec![
        target("bytes, without watchdogs, of the floor's", over_floor, Bound::AtMost(1.1)),
        target(SIMPLE_MESSAGES, times(Some(simple.messages), total.transactions), Bound::AtLeast(1_000.0)),
        target("SIMPLE's bytes", times(simple.bytes, total.bytes()), Bound::AtLeast(45.0)),
        target("XMPP's bytes", times(xmpp.bytes, total.bytes()), Bound::AtLeast(5.5)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_has_a_side() {
        let target = |measured, bound| Target { name: "", measured, bound }.is_met();
        assert!(target(1.1, Bound::AtMost(1.1)) && !target(1.2, Bound::AtMost(1.1)));
        assert!(target(45.0, Bound::AtLeast(45.0)) && !target(44.0, Bound::AtLeast(45.0)));
    }

    #[test]
    fn bounds_are_for_one_peer_and_one_window() {
        let [basic, ..] = Scenario::published(WINDOW_MS, 1);
        let count = |scenario: &Scenario| targets(scenario, &Outcome::default()).len();
        assert_eq!(count(&basic), 4);
        assert_eq!(count(&Scenario { peers: 2, ..basic.clone() }), 0);
        assert_eq!(count(&Scenario { window_ms: 5_000, ..basic }), 0);
    }
}
