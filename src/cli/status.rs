//! `rollcall status`: asks the running process, because it alone knows what an embedded bus holds in flight.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rollcall::config::Config;
use rollcall::core::Hour;
use rollcall::ops::status::{PartitionStatus, QueueStatus, Status};

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
    /// Print again every second, until interrupted
    #[arg(long)]
    watch: bool,
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
        print(args.json, &answer)?;
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
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

fn print(json: bool, answer: &[u8]) -> Result<()> {
    let status: Status = serde_json::from_slice(answer).context("what answers is no rollcall")?;
    if json {
        return out::line(&serde_json::to_string(&status)?);
    }
    let mut rows = vec![cells(["queue", "ready", "unacked", "consumers"])];
    rows.extend(status.queues.iter().map(queue));
    out::table("<>>>", &rows)?;
    out::line("")?;
    let mut rows = vec![cells(["partition", "owner", "epoch", "lag"])];
    rows.extend(status.partitions.iter().map(partition));
    out::table("<<>>", &rows)?;
    out::line("")?;
    let links = &status.links;
    let [total, unknown, owed] = [links.total, links.unknown, links.owed].map(number);
    out::line(&format!("links: {total}, unknown: {unknown}, owing: {owed}"))?;
    if !status.hours.is_empty() {
        out::line("")?;
        let mut rows = vec![HOUR_HEADS.map(Into::into).into()];
        rows.extend(status.hours.iter().map(hour));
        out::table("<>>>>>>>", &rows)?;
    }
    status.errors.iter().try_for_each(|error| out::line(&format!("missing: {error}")))
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
    let lag = partition.lag_ms.map_or_else(|| "-".into(), |ms| format!("{ms} ms"));
    vec![partition.partition.to_string(), owner, partition.epoch.to_string(), lag]
}

fn cells(texts: [&str; 4]) -> Vec<String> {
    texts.map(Into::into).into()
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "-".into(), |number| number.to_string())
}
