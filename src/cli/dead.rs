//! `rollcall dead`: undeliverable messages.

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use rollcall::bus::{Bus, SharedBus};
use rollcall::config::Config;
use rollcall::ops::dead::{DeadLetter, DeadLetters, HELD_MAX};
use rollcall::ops::tools::GuestBus;

use super::out;

/// How much of a body a line of the list shows, in characters.
const PREVIEW: usize = 60;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List them, oldest first
    List {
        /// At most so many, 1 to 2000
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=i64::from(HELD_MAX)))]
        limit: u16,
    },
    /// Print one whole
    Show {
        /// Its number in the list, or the beginning of its ID
        name: String,
    },
    /// Put them back into the queue that they came from
    Replay(Selection),
    /// Delete them
    Drop(Selection),
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Selection {
    /// Numbers in the list, or beginnings of IDs; IDs stay right when others look, too
    names: Vec<String>,
    /// Every one (at most 2000 at once)
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Replay,
    Drop,
}

pub(super) async fn run(command: &Command, config: &Config) -> Result<()> {
    let guest = GuestBus::open(config, "dead").await?;
    let result = act(command, guest.bus()).await;
    guest.close().await;
    result
}

async fn act(command: &Command, bus: &SharedBus) -> Result<()> {
    let limit = if let Command::List { limit } = command { *limit } else { HELD_MAX };
    let mut letters = DeadLetters::hold(&**bus, limit).await.context("cannot look at the dead letters")?;
    match command {
        Command::List { .. } => list(&letters),
        Command::Show { name } => show(&letters, name),
        Command::Replay(selection) => settle(&mut letters, &**bus, selection, Act::Replay).await,
        Command::Drop(selection) => settle(&mut letters, &**bus, selection, Act::Drop).await,
    }
}

fn list(letters: &DeadLetters) -> Result<()> {
    let mut rows = vec![["", "id", "origin", "bytes", "reason", "body"].map(String::from).to_vec()];
    rows.extend(letters.list().enumerate().map(|(position, letter)| row(position, letter)));
    if rows.len() == 1 {
        return out::line("there are no dead letters");
    }
    out::table("><<><<", &rows)?;
    match letters.remaining() {
        0 => Ok(()),
        more => out::line(&format!("and {more} more")),
    }
}

fn row(position: usize, letter: &DeadLetter) -> Vec<String> {
    let body = String::from_utf8_lossy(&letter.body);
    let preview: String = body.chars().take(PREVIEW).map(|c| if c.is_control() { '·' } else { c }).collect();
    vec![
        position.to_string(),
        letter.id.clone(),
        text(letter.origin.as_ref()),
        letter.body.len().to_string(),
        text(letter.reason.as_ref()),
        preview,
    ]
}

fn show(letters: &DeadLetters, name: &str) -> Result<()> {
    let positions = letters.find(name)?;
    let letter = letters.list().nth(positions[0]).expect("find gives at least one position, of what is held");
    out::line(&format!("id: {}", letter.id))?;
    out::line(&format!("origin: {}", text(letter.origin.as_ref())))?;
    out::line(&format!("reason: {}", text(letter.reason.as_ref())))?;
    out::line(&format!("trace: {}", text(letter.trace.map(|trace| trace.traceparent()).as_ref())))?;
    out::line("")?;
    match std::str::from_utf8(&letter.body) {
        Ok(body) => out::line(body),
        Err(_) => letter.body.chunks(32).try_for_each(|chunk| out::line(&hex(chunk))),
    }
}

async fn settle(letters: &mut DeadLetters, bus: &dyn Bus, selection: &Selection, act: Act) -> Result<()> {
    let mut failed = 0;
    let positions = select(letters, selection)?;
    for position in &positions {
        let result = match act {
            Act::Replay => letters.replay(bus, *position).await,
            Act::Drop => letters.discard(*position).await,
        };
        if let Err(error) = result {
            failed += 1;
            out::error(&format!("{position}: {error}"));
        }
    }
    let done = if act == Act::Replay { "put back" } else { "dropped" };
    out::line(&format!("{} {done}", positions.len() - failed))?;
    if selection.all && letters.remaining() > 0 {
        out::line(&format!("{} more are there: say it again", letters.remaining()))?;
    }
    if failed > 0 { bail!("{failed} of {} failed", positions.len()) } else { Ok(()) }
}

fn select(letters: &DeadLetters, selection: &Selection) -> Result<Vec<usize>> {
    if selection.all {
        return Ok((0..letters.list().len()).collect());
    }
    let mut positions = Vec::new();
    for name in &selection.names {
        positions.extend(letters.find(name)?);
    }
    positions.sort_unstable();
    positions.dedup();
    Ok(positions)
}

fn text(value: Option<&String>) -> String {
    value.cloned().unwrap_or_else(|| "-".into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
