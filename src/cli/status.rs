//! `rollcall status`: asks the running process, because it alone knows what an embedded bus holds in flight.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rollcall::config::Config;
use rollcall::core::Hour;
use rollcall::ops::readiness::{BROKER, Check, STORE};
use rollcall::ops::status::{About, PartitionStatus, QueueStatus, Status};

use super::out;

/// How long the process may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most that an answer may hold: thousands of queues fit.
const ANSWER_MAX: usize = 16 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show empty queues, too
    #[arg(long)]
    all: bool,
    /// Print again every second, until interrupted
    #[arg(long)]
    watch: bool,
    /// Fail unless ready, as /readyz says it
    #[arg(long, conflicts_with = "watch")]
    ready: bool,
}

pub(super) async fn run(args: &Args, config: &Config) -> Result<()> {
    // The client wants a provider even for plain HTTP; that one is installed already is no mistake.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let url = format!("http://{}/status", config.ops.listen);
    loop {
        let answer = ask(&client, &url).await?;
        if args.watch && !args.json {
            // Clears the terminal and goes to its top.
            out::line("\x1b[2J\x1b[H")?;
        }
        let status: Status = serde_json::from_slice(&answer).context("what answers is no rollcall")?;
        match args.json {
            true => out::line(&serde_json::to_string(&status)?)?,
            false => print(&status, args.all)?,
        }
        if !args.watch {
            // For scripts and health checks: it is printed, and yet not as it should be.
            return match faults(&status, args.ready) {
                faults if faults.is_empty() => Ok(()),
                faults => bail!("{}", faults.join("; ")),
            };
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What the exit code tells: what could not be learnt, or with `ready` every check that fails, as `/readyz` has it. What that lets pass does
/// not make an unhealthy container of a healthy one.
fn faults(status: &Status, ready: bool) -> Vec<String> {
    let learnt = |check: &&Check| ready || [BROKER, STORE].contains(&check.name.as_str());
    let failing = status.checks.iter().filter(learnt).filter(|check| !check.ok);
    failing.map(|check| format!("{}: {}", check.name, check.detail)).collect()
}

async fn ask(client: &reqwest::Client, url: &str) -> Result<Vec<u8>> {
    let nobody = |error| {
        anyhow!(
            "no rollcall answers at {url} ({}): is `rollcall serve` running with this configuration?",
            cause(&error)
        )
    };
    let mut response = client.get(url).send().await.map_err(nobody)?;
    if !response.status().is_success() {
        bail!("what answers at {url} is no rollcall: it says {}", response.status());
    }
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if answer.len() + chunk.len() > ANSWER_MAX {
            bail!("what answers at {url} is no rollcall: more than {ANSWER_MAX} bytes");
        }
        answer.extend_from_slice(&chunk);
    }
    Ok(answer)
}

/// The innermost one: those around it say the same in general.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn print(status: &Status, all: bool) -> Result<()> {
    summarize(status)?;
    let shown: Vec<_> = status.queues.iter().filter(|queue| all || !is_empty(queue)).collect();
    if !shown.is_empty() {
        out::line("")?;
        let mut rows = vec![cells(["queue", "ready", "unacked", "consumers"])];
        rows.extend(shown.iter().copied().map(queue));
        out::table("<>>>", &rows)?;
    }
    match status.queues.len() - shown.len() {
        0 => {}
        empty => out::line(&format!("{empty} queues are empty (--all shows them)"))?,
    }
    out::line("")?;
    let mut rows = vec![cells(["partition", "owner", "epoch", "lag"])];
    rows.extend(status.partitions.iter().map(partition));
    out::table("<<>>", &rows)?;
    if !status.hours.is_empty() {
        out::line("")?;
        let mut rows = vec![HOUR_HEADS.map(Into::into).into()];
        rows.extend(status.hours.iter().map(hour));
        out::table("<>>>>>>>", &rows)?;
    }
    Ok(())
}

/// What somebody who is woken at night wants to know first.
fn summarize(status: &Status) -> Result<()> {
    let About { server, version, roles, bus, .. } = &status.about;
    let links = &status.links;
    let [total, unknown, owed] = [links.total, links.unknown, links.owed].map(number);
    let line = |name: &str, text: String| vec![name.to_owned(), text];
    out::table(
        "<<",
        &[
            line("server", format!("{server}, rollcall {version}")),
            line("ready", readiness(status)),
            line("roles", roles.clone()),
            line("bus", bus.clone()),
            line("dead letters", number(status.dead())),
            line("messages", format!("{} in all other queues", number(status.depth()))),
            line("slowest lag", milliseconds(status.lag_ms())),
            line("links", format!("{total}, unknown: {unknown}, owing: {owed}")),
        ],
    )
}

fn readiness(status: &Status) -> String {
    if status.ready {
        return "yes".into();
    }
    let failing = status.checks.iter().filter(|check| !check.ok);
    let reasons: Vec<_> = failing.map(|check| format!("{}: {}", check.name, check.detail)).collect();
    format!("no: {}", reasons.join("; "))
}

fn is_empty(queue: &QueueStatus) -> bool {
    queue.ready == 0 && queue.unacked.unwrap_or_default() == 0
}

fn milliseconds(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".into(), |ms| format!("{ms} ms"))
}

/// UTC: the machine that asks may be elsewhere.
const HOUR_HEADS: [&str; 8] = ["hour, UTC", "events", "heard", "sent", "statuses", "KiB", "failed", "given up"];

fn hour(hour: &Hour) -> Vec<String> {
    let of_day = hour.start.0 / 3_600_000 % 24;
    let counts =
        [hour.events, hour.heard, hour.transactions, hour.statuses, hour.bytes / 1024, hour.failed, hour.given_up];
    let mut cells = vec![format!("{of_day:02}:00")];
    cells.extend(counts.map(|count| count.to_string()));
    cells
}

fn queue(queue: &QueueStatus) -> Vec<String> {
    vec![queue.name.clone(), queue.ready.to_string(), number(queue.unacked), queue.consumers.to_string()]
}

fn partition(partition: &PartitionStatus) -> Vec<String> {
    let owner = partition.owner.clone().unwrap_or_else(|| "nobody".into());
    vec![partition.partition.to_string(), owner, partition.epoch.to_string(), milliseconds(partition.lag_ms)]
}

fn cells(texts: [&str; 4]) -> Vec<String> {
    texts.map(Into::into).into()
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "-".into(), |number| number.to_string())
}
