//! `rollcall demo`, and how it looks: drawn in place on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rollcall::config::LogConfig;
use rollcall::demo::{ACTS, Arrived, Demo, Figures, NAMES, Options, Traffic};
use rollcall::ops::metrics;
use rollcall::{lifecycle, telemetry};
use tokio::time::{Instant, interval, sleep_until};

use super::out;
use super::window::Window;

/// How often the picture on a terminal is drawn.
const FRAME: Duration = Duration::from_millis(500);
/// How often a line is written elsewhere.
const LINE: Duration = Duration::from_secs(2);
/// What the log shows. That one of the two servers ends before the other is no news.
const QUIET: &str = "warn,rollcall::outbound::trouble=error";
/// Nobody watches for longer: a year.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End after so many seconds of traffic; without: at Ctrl-C. Before it the users are introduced to each other, for about four
    /// windows; after it their last words may take two windows and 15 s to arrive
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=31_536_000))]
    seconds: Option<u32>,
    /// Simulated users, over both servers
    #[arg(
        long,
        value_name = "N",
        default_value_t = 300,
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(u16).range(2..=10_000)
    )]
    users: u16,
    /// For how long changes are gathered before they leave together
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    window: Window,
}

pub(super) async fn run(args: &Args) -> Result<()> {
    telemetry::start(&LogConfig { json: false, filter: QUIET.into() })?;
    let mut signals = lifecycle::signals().context("cannot listen for signals")?;
    let options = Options { users: args.users, window: args.window.to_string() };
    let mut screen = Screen::new();
    greet(args)?;
    let metrics = metrics::install()?;
    let mut demo = tokio::select! {
        demo = Box::pin(Demo::start(&options, &metrics)) => demo?,
        _ = signals.recv() => bail!("stopped before the users knew each other"),
    };
    let end = Instant::now() + args.seconds.map_or(FOREVER, |seconds| Duration::from_secs(seconds.into()));
    let mut ticker = interval(screen.period());
    loop {
        tokio::select! {
            _ = signals.recv() => break,
            () = sleep_until(end) => break,
            failure = demo.failure() => return Err(failure),
            _ = ticker.tick() => screen.show(&demo.figures())?,
        }
    }
    out::line("the crowd goes home; what was said last is still on its way …")?;
    tokio::select! {
        ended = Box::pin(demo.stop()) => {
            let (figures, arrived) = ended?;
            summarize(&figures, &arrived)
        }
        _ = signals.recv() => bail!("stopped before the end"),
    }
}

fn greet(args: &Args) -> Result<()> {
    let Args { users, window, .. } = args;
    out::line(&format!("{users} simulated users on {} and {}, windows of {window}", NAMES[0], NAMES[1]))?;
    out::line(&format!("introducing {users} users to each other, for about four windows …\n"))
}

struct Screen {
    in_place: bool,
    /// Lines of the picture that stands there.
    drawn: usize,
}

impl Screen {
    fn new() -> Self {
        Self { in_place: stdout().is_terminal(), drawn: 0 }
    }

    fn period(&self) -> Duration {
        if self.in_place { FRAME } else { LINE }
    }

    fn show(&mut self, figures: &Figures) -> Result<()> {
        if !self.in_place {
            return out::line(&short(figures));
        }
        if self.drawn > 0 {
            out::line(&format!("\x1b[{}A\r", self.drawn + 1))?;
        }
        let picture = picture(figures);
        self.drawn = picture.len();
        // Each line ends with what deletes the rest of the one that stood there.
        picture.iter().try_for_each(|line| out::line(&format!("{line}\x1b[K")))
    }
}

fn short(figures: &Figures) -> String {
    format!(
        "{:>4}s  in {}  held {}  out {} transactions, {}  instead {}  saved {}",
        figures.elapsed.as_secs(),
        number(figures.events()),
        number(figures.held.iter().sum()),
        number(figures.transactions()),
        bytes(figures.bytes()),
        number(figures.changes),
        times(figures.saved_messages()),
    )
}

fn picture(figures: &Figures) -> Vec<String> {
    let acts: Vec<_> = ACTS.iter().zip(figures.acts).map(|(act, count)| format!("{act} {}", number(count))).collect();
    let open = figures.held.iter().filter(|held| **held > 0).count();
    let held = number(figures.held.iter().sum());
    let (messages, size) = (times(figures.saved_messages()), times(figures.saved_bytes()));
    vec![
        format!("time      {} s", figures.elapsed.as_secs()),
        format!("in        {} ({})", number(figures.events()), acts.join(", ")),
        format!("gathered  {held} messages held for {open} open windows"),
        sent(NAMES, &figures.sent[0]),
        sent([NAMES[1], NAMES[0]], &figures.sent[1]),
        instead(figures),
        format!("saved     {messages} messages, {size} bytes"),
    ]
}

/// What one message for each change and watching server would have cost.
fn instead(figures: &Figures) -> String {
    let changes = number(figures.changes);
    match figures.one_entry_request() {
        _ if figures.changes == 0 => "instead   -".into(),
        None => format!("instead   {changes} transactions: one for each change"),
        Some(one) => {
            let all = bytes(one * figures.changes);
            format!("instead   {changes} transactions of {one} bytes, {all}: one for each change")
        }
    }
}

fn sent([from, to]: [&str; 2], traffic: &Traffic) -> String {
    let Traffic { transactions, entries, head_bytes, body_bytes, .. } = *traffic;
    let noun = if transactions == 1 { "transaction" } else { "transactions" };
    let [transactions, entries] = [transactions, entries].map(number);
    format!("out       {from} → {to}: {transactions} {noun}, {entries} entries, {}", bytes(head_bytes + body_bytes))
}

fn summarize(figures: &Figures, arrived: &[Arrived; 2]) -> Result<()> {
    out::line("")?;
    // Nothing is gathered any more.
    let mut lines = picture(figures).into_iter().filter(|line| !line.starts_with("gathered"));
    lines.try_for_each(|line| out::line(&line))?;
    for ([from, to], arrived) in [NAMES, [NAMES[1], NAMES[0]]].into_iter().zip(arrived) {
        let Arrived { read, newest } = arrived;
        out::line(&format!("arrived   {from} → {to}: {newest} of {read} statuses read there are the newest"))?;
    }
    Ok(())
}

/// With separators between thousands.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(0x10_0000)),
    }
}

fn times(times: Option<f64>) -> String {
    times.map_or_else(|| "-".into(), |times| format!("{times:.1} ×"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([512, 1536, 3 << 20].map(bytes), ["512 B", "1.5 KiB", "3.0 MiB"]);
        assert_eq!((times(None), times(Some(7.04))), ("-".into(), "7.0 ×".into()));
    }

    #[test]
    fn a_demo_too_short_to_count_a_change_claims_nothing() {
        let sent = [Traffic { transactions: 2, entries: 8, polls: 4, head_bytes: 900, body_bytes: 900 }; 2];
        let elapsed = Duration::from_secs(4);
        let figures = Figures { elapsed, acts: [9; 5], changes: 0, held: [0; 2], sent, one_entry_body: 300 };
        let picture = picture(&figures);
        assert!(picture.contains(&"instead   -".into()), "{picture:?}");
        assert!(picture.contains(&"saved     - messages, - bytes".into()), "{picture:?}");
    }
}
