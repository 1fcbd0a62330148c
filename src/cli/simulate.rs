//! `rollcall simulate`: a working day between servers, counted, beside what others published for it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::error::ErrorKind;
use rollcall::simulate::models::{self, Rate, SESSION_S};
use rollcall::simulate::plot::{Bar, Group, svg};
use rollcall::simulate::targets::{Bound, Target, targets};
use rollcall::simulate::{Outcome, Scenario, Traffic, run as simulate};

use super::out;
use super::window::Window;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Users of the local server, and as many on its peers together; without: three published cases
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = number(2, 1_000_000))]
    users: Option<u32>,
    /// Contacts of each user on the other side, fewer than users
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        requires = "users",
        allow_negative_numbers = true,
        value_parser = number(1, 1_000)
    )]
    contacts: u32,
    /// Status changes of each user an hour
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        requires = "users",
        allow_negative_numbers = true,
        value_parser = number(1, 1_000)
    )]
    changes: u32,
    /// Servers that the contacts are on, no more than users
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        requires = "users",
        allow_negative_numbers = true,
        value_parser = number(1, 1_000)
    )]
    peers: u32,
    /// For how long changes are gathered before they leave together
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    window: Window,
    /// The same seed gives the same day
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    seed: u64,
    /// Draw it, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

fn number(least: i64, most: i64) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(least..=most)
}

pub(super) fn run(args: &Args) -> Result<()> {
    let mut days = Vec::new();
    let scenarios = scenarios(args)?;
    // What comes takes minutes.
    args.plot.as_deref().map_or(Ok(()), must_be_writable)?;
    for scenario in scenarios {
        let outcome = simulate(&scenario);
        days.push(Day::new(scenario, outcome));
    }
    out::line(
        "A working day of 8 h between two sides, all directions; a second, bytes with heads and answers. \
         SIMPLE, XMPP: as published.\nFloor: no batching pipeline does with less (its entries are 110 B, without watchdogs). \
         Watchdogs: reminders and their answers.\n",
    )?;
    out::table("<>>>>>>>", &days.iter().fold(vec![heads()], |rows, day| [rows, day.rows()].concat()))?;
    if let Some(path) = &args.plot {
        let groups: Vec<Group> = days.iter().map(Day::bars).collect();
        let title = format!("Presence between two sides, windows of {}", args.window);
        fs::write(path, svg(&title, &groups)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    // The bounds are for the published cases: what others make up may be too small for them.
    if args.users.is_some() { Ok(()) } else { judge(&days) }
}

/// What it holds stays until there is something to write.
fn must_be_writable(path: &Path) -> Result<()> {
    match File::options().write(true).create(true).truncate(false).open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(wrong(&format!("--plot: cannot write {}: {error}", path.display()))),
    }
}

/// A mistake on the command line that only shows when it is looked at as a whole.
fn wrong(what: &str) -> anyhow::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{what}\n")).into()
}

/// Says how the days compare with what they are held to.
fn judge(days: &[Day]) -> Result<()> {
    let judged: Vec<(&str, Target)> =
        days.iter().flat_map(|day| day.targets().into_iter().map(|target| (&*day.scenario.name, target))).collect();
    if judged.is_empty() {
        return Ok(());
    }
    out::line("")?;
    let heads = ["held to", "", "times", "bound", ""].map(Into::into).into();
    out::table(
        "<<>>>",
        &judged.iter().fold(vec![heads], |rows, (name, target)| [rows, vec![verdict(name, target)]].concat()),
    )?;
    let missed = judged.iter().filter(|(_, target)| !target.is_met()).count();
    match missed {
        0 => Ok(()),
        1 => bail!("one of these bounds is missed"),
        _ => bail!("{missed} of these bounds are missed"),
    }
}

fn verdict(name: &str, target: &Target) -> Vec<String> {
    let bound = match target.bound {
        Bound::AtMost(most) => format!("≤ {most}"),
        Bound::AtLeast(least) => format!("≥ {least}"),
    };
    let word = if target.is_met() { "held" } else { "missed" };
    vec![name.into(), target.name.into(), format!("{:.2}", target.measured), bound, word.into()]
}

fn scenarios(args: &Args) -> Result<Vec<Scenario>> {
    let window_ms = args.window.ms();
    let Some(users) = args.users else {
        return Ok(Scenario::published(window_ms, args.seed).into());
    };
    if args.contacts >= users || args.peers > users {
        let [contacts, peers] =
            [(args.contacts, "contact"), (args.peers, "peer")].map(|(n, what)| counted(n as usize, what));
        let given = format!("given {users} users, {contacts}, {peers}");
        return Err(wrong(&format!("--contacts must be less than --users, and --peers not more ({given})")));
    }
    Ok(vec![Scenario {
        name: format!("{users} users"),
        users: users as usize,
        contacts: args.contacts as usize,
        changes_per_hour: args.changes,
        peers: args.peers as usize,
        window_ms,
        seed: args.seed,
    }])
}

/// A scenario, what it came to, and what the models say.
struct Day {
    scenario: Scenario,
    outcome: Outcome,
    simple: Rate,
    dialog_notify: Rate,
    xmpp: Rate,
    /// Published for one peer.
    floor: Option<Rate>,
}

impl Day {
    fn new(scenario: Scenario, outcome: Outcome) -> Self {
        let case = scenario.case();
        let floor = models::floor(case, scenario.window_ms as f64 / 1000.0, outcome.extension_mean());
        Self {
            simple: models::simple(case),
            dialog_notify: models::dialog_notify(case),
            xmpp: models::xmpp(case),
            floor: (scenario.peers == 1).then_some(floor),
            scenario,
            outcome,
        }
    }

    fn targets(&self) -> Vec<Target> {
        targets(&self.scenario, &self.outcome)
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let Scenario { name, contacts, peers, .. } = &self.scenario;
        let name = format!("{name}, {}, {}", counted(*contacts, "contact"), counted(*peers, "peer"));
        let mut rows = vec![
            [vec![name], vec![String::new(); 7]].concat(),
            self.row("  SIMPLE", self.simple),
            self.row("  SIMPLE, dialog and NOTIFY optimised", self.dialog_notify),
            self.row("  XMPP", self.xmpp),
        ];
        rows.extend(self.floor.map(|floor| self.row("  floor, with the rollcall object", floor)));
        let Outcome { presence, watchdogs, .. } = &self.outcome;
        let mut ours = self.row("  rollcall", rate(presence));
        let per_s = |count: u64| format!("{:.2}", count as f64 / SESSION_S);
        ours[4..6].clone_from_slice(&[per_s(presence.entries), per_s(presence.ids)]);
        let watchdogs = rate(watchdogs);
        ours[6..].clone_from_slice(&[format!("{:.4}", watchdogs.messages), kilobytes(watchdogs, 4)]);
        rows.push(ours);
        rows
    }

    /// Messages and bytes a second, and how many times those of rollcall's presence these bytes are.
    fn row(&self, name: &str, rate: Rate) -> Vec<String> {
        let ours = self.outcome.presence.bytes() as f64 / SESSION_S;
        let times = rate.bytes.map(|bytes| format!("{:.2}", bytes / ours)).unwrap_or_default();
        let figures = vec![name.into(), format!("{:.3}", rate.messages), kilobytes(rate, 2), times];
        [figures, vec![String::new(); 4]].concat()
    }

    fn bars(&self) -> Group {
        let watchdogs = rate(&self.outcome.watchdogs);
        let bars = [
            ("SIMPLE", Some(self.simple)),
            ("XMPP", Some(self.xmpp)),
            ("floor", self.floor),
            ("rollcall", Some(rate(&self.outcome.presence))),
            ("its watchdogs", Some(watchdogs)),
        ];
        let bar = |(label, rate): (&str, Option<Rate>)| {
            rate.and_then(|rate| rate.bytes).map(|bytes_per_s| Bar { label: label.into(), bytes_per_s })
        };
        Group { name: self.scenario.name.clone(), bars: bars.into_iter().filter_map(bar).collect() }
    }
}

/// `1 peer`, `2 peers`.
fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn heads() -> Vec<String> {
    ["", "messages/s", "kB/s", "× rollcall", "statuses/s", "IDs/s", "watchdogs: messages/s", "kB/s"]
        .map(Into::into)
        .into()
}

fn kilobytes(rate: Rate, digits: usize) -> String {
    rate.bytes.map(|bytes| format!("{:.digits$}", bytes / 1e3)).unwrap_or_default()
}

fn rate(traffic: &Traffic) -> Rate {
    Rate { messages: traffic.transactions as f64 / SESSION_S, bytes: Some(traffic.bytes() as f64 / SESSION_S) }
}
