//! Whose fault it is when many peers fall silent at once: ours, until one of them is heard again.

use super::Machines;
use crate::core::link::{Link, Standing};
use crate::model::Timestamp;

/// Fewer links than this say nothing about us.
const FEWEST: usize = 10;
/// Peers that still speak and are asked to prove that it is not us.
const WITNESSES: usize = 3;

/// Counts the links with watchdogs, and those whose peer is silent.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    guarding: usize,
    silent: usize,
    /// More than half fell silent, and nobody has proved yet that we can be heard.
    is_on: bool,
    /// Since when, by the horizon.
    since: Timestamp,
    /// Somebody did, then.
    proved: Timestamp,
    /// Looked at when the present signal is done.
    is_proved: bool,
}

impl Suspicion {
    /// Nobody is given up meanwhile.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// A link changed.
    pub(super) fn note(&mut self, before: Standing, after: Standing) {
        self.guarding += usize::from(after.guards);
        self.guarding -= usize::from(before.guards);
        self.silent += usize::from(after.silent);
        self.silent -= usize::from(before.silent);
        // A silent peer that is heard again, or an answer to a reminder.
        self.is_proved |= self.is_on && (before.silent && !after.silent || after.answers > before.answers);
    }
}

impl Machines {
    /// Looks at the facts after links were looked at.
    pub(super) fn judge_ourselves(&mut self, now: Timestamp) {
        let Suspicion { guarding, silent, is_on, proved, is_proved, .. } = self.suspicion;
        if is_on && is_proved {
            self.forgive_everybody(now);
        } else if !is_on && guarding >= FEWEST && silent > guarding / 2 && self.may_suspect(proved) {
            (self.suspicion.is_on, self.suspicion.since) = (true, self.peers_horizon);
            self.ask_witnesses(now);
        }
        self.suspicion.is_proved = false;
    }

    /// Who was found able to be heard is not suspected again before the others had all their chances.
    fn may_suspect(&self, proved: Timestamp) -> bool {
        let chances = u64::from(self.settings.tries) + 2;
        self.peers_horizon.since(proved) > self.settings.short_ms.saturating_mul(chances)
    }

    /// What went unanswered meanwhile was our fault: the silent get all their chances again, one after the other.
    fn forgive_everybody(&mut self, now: Timestamp) {
        self.suspicion.is_on = false;
        self.suspicion.proved = self.peers_horizon;
        let silent = self.links.numbers(|link| link.standing().silent);
        self.remind_in_turn(now, silent, Some(self.suspicion.since));
    }

    fn ask_witnesses(&mut self, now: Timestamp) {
        let speaks = |link: &Link| link.standing().guards && !link.standing().silent;
        let mut speaking = self.links.numbers(speaks);
        speaking.truncate(WITNESSES);
        self.remind_in_turn(now, speaking, None);
    }

    /// Spreads reminders to these evenly over the short watchdog's time from now on, each somewhere within its own part of it: other
    /// partitions begin at the same moment. Their silence is `forgiven` from about then on.
    pub(super) fn remind_in_turn(&mut self, now: Timestamp, links: Vec<u32>, forgiven: Option<Timestamp>) {
        let (count, short_ms) = (links.len() as u64, self.settings.short_ms);
        for (nth, number) in (0..).zip(links) {
            let part = |nth| short_ms * nth / count.max(1);
            self.with_link(number, now, now, None, |link, turn| {
                if let Some(since) = forgiven {
                    link.forgive(turn.now, since, turn.settings);
                }
                // The horizon is the last owner's, if we have just begun: by that, all that was missed would be due at once.
                let within = link.spread(nth, (part(nth + 1) - part(nth)).saturating_sub(1));
                link.remind_later(turn.now, part(nth) + within);
            });
        }
    }
}
