//! W7: reminders to 10,000 peers stay spread, whatever brings their watchdogs into step. Nothing but the long one expires here.

use rollcall::core::Settings;
use rollcall::core::signal::{Extension, Inbound, PeerSignal, Reminder};
use rollcall::model::ServerName;

use crate::support::herd::{Herd, Peers, peer};
use crate::support::pair::settings;

const LINKS: usize = 10_000;
const THIRD_S: u64 = 20 * 60;
/// By which reminders come once an hour: beyond that, a short period of half an hour and eight windows are left for mending.
const LONG_MS: u64 = (3_600 + 1_800 + 8 * 5) * 1_000;

/// A server and its peers, which all began at the same moment.
struct Links {
    herd: Herd,
    peers: Vec<ServerName>,
}

impl Links {
    fn new() -> Self {
        let mut herd = Herd::new(Settings { long_ms: LONG_MS, ..settings() }, LINKS);
        herd.pass(60, |_| Peers::Answer);
        Self { herd, peers: (0..LINKS).map(peer).collect() }
    }

    /// An hour in which everything happens that could bring the links into step: each 20 minutes all peers are heard at one moment,
    /// once by a reminder, which resets both watchdogs; and the server restarts, if it is to.
    fn hour(&mut self, restarts: bool) {
        self.herd.reminders.clear();
        for third in 0..3 {
            self.herd.pass(THIRD_S, |_| Peers::Answer);
            for peer in &self.peers {
                if third == 1 {
                    remind(&mut self.herd, peer);
                } else {
                    self.herd.server.peer(self.herd.now, peer, PeerSignal::Heard);
                }
            }
            if restarts && third == 0 {
                self.herd.server.restart(self.herd.now);
            }
        }
    }

    /// The last hour's reminders in bins of a minute: the peak is at most 1.3 times the mean.
    #[expect(clippy::print_stdout, reason = "the figures, with --nocapture")]
    fn judge(&self, hour: &str) {
        let (peak, mean) = self.herd.peak_and_mean(self.herd.now.minus(3 * THIRD_S * 1_000), 60);
        println!(
            "{LINKS} links, {hour}: {peak} reminders in the busiest minute, {mean:.1} in the mean: {:.2}",
            peak as f64 / mean
        );
        assert!((150.0..185.0).contains(&mean), "each once an hour: {mean}");
        assert!(peak as f64 <= 1.3 * mean, "{peak} in one minute, {mean} in the mean");
    }
}

fn remind(herd: &mut Herd, peer: &ServerName) {
    let reminder = Some(Reminder { id: "theirs".into(), ..Reminder::default() });
    let extension = Some(Extension { reminder, ..Extension::default() });
    herd.says(peer, Inbound { extension, ..Inbound::default() });
}

/// In the first hour after a cold start, and in the one after everything that a week has.
#[test]
fn long_watchdogs_of_many_links_expire_evenly_spread() {
    let mut links = Links::new();
    links.hour(false);
    links.judge("the first hour");
    links.herd.server.restart(links.herd.now);
    // Its own reminders take half an hour.
    for _ in 0..2 {
        links.herd.pass(950, |_| Peers::Answer);
        links.peers.iter().for_each(|peer| remind(&mut links.herd, peer));
    }
    links.hour(false);
    links.judge("after a restart and reminders of all peers at one moment");
}

/// A week of it: `cargo test --release --test it simulated_week -- --ignored --nocapture`.
#[test]
#[ignore = "1.7 million reminders: minutes, and in a debug build half an hour"]
fn long_watchdogs_are_spread_at_the_end_of_a_simulated_week() {
    let mut links = Links::new();
    for hour in 0..7 * 24 {
        links.hour(hour % 24 == 2);
    }
    links.judge("the last hour of a week");
}
