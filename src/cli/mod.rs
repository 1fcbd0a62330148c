//! The command line. Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.

mod dead;
mod demo;
mod key;
mod out;
mod serve;
mod simulate;
mod status;
mod topology;
mod window;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use rollcall::config::{Config, ConfigErrors, Roles};
use rollcall::edge::StartError;
use rollcall::ops::tools::OpenError;
use rollcall::outbound::keys::KeyError;
use rollcall::outbound::peers::PeersError;
use rollcall::preflight;
use rollcall::store::StoreError;

const WRONG: u8 = 2;
/// How long a command that is done waits for what blocks a thread of its own.
const FAREWELL: Duration = Duration::from_secs(1);

/// Federated presence for Matrix as a message-queue pipeline.
#[derive(Debug, Parser)]
#[command(name = "rollcall", version)]
struct Cli {
    /// Configuration file; without one: defaults and the environment (`ROLLCALL_SECTION__KEY`)
    #[arg(long, global = true, value_name = "FILE", env = "ROLLCALL_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the pipeline until SIGTERM or SIGINT
    Serve {
        /// The stages that this process runs, of edge, ingest, worker, sender
        #[arg(long, default_value_t = Roles::ALL)]
        roles: Roles,
    },
    /// Check the configuration, and the files and folders that it names, and print every mistake at once; makes nothing
    Check {
        /// The stages of the process that it is for, of edge, ingest, worker, sender
        #[arg(long, default_value_t = Roles::ALL)]
        roles: Roles,
    },
    /// Show queues, partitions and links of a running process
    Status(status::Args),
    /// Show, declare or export exchanges and queues
    #[command(subcommand)]
    Topology(topology::Command),
    /// Look at undeliverable messages, put them back or drop them
    #[command(subcommand)]
    Dead(dead::Command),
    /// Make signing keys
    #[command(subcommand)]
    Key(key::Command),
    /// Watch two local servers federate, with simulated users; reads no configuration
    Demo(demo::Args),
    /// Count the traffic of a working day between servers, in simulated time; reads no configuration
    Simulate(simulate::Args),
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Where even this cannot be printed, the code has to do.
            let _ = usage.print();
            return u8::try_from(usage.exit_code()).unwrap_or(WRONG).into();
        }
    };
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn execute(cli: Cli) -> Result<()> {
    // Read by each command that wants it: the demo wants none.
    let config = || Config::load(cli.config.as_deref());
    match cli.command {
        Command::Check { roles } => check(&config()?, roles),
        Command::Key(command) => key::run(&command, &config()?),
        Command::Topology(topology::Command::Show) => topology::show(&config()?),
        Command::Topology(topology::Command::Export { vhost }) => topology::export(&config()?, &vhost),
        Command::Topology(topology::Command::Declare) => block_on(topology::declare(&config()?)),
        Command::Status(args) => block_on(status::run(&args, &config()?)),
        Command::Dead(command) => block_on(dead::run(&command, &config()?)),
        Command::Serve { roles } => block_on(serve::run(config()?, roles)),
        Command::Demo(args) => block_on(demo::run(&args)),
        Command::Simulate(args) => simulate::run(&args),
    }
}

/// Whatever is wrong with the values was said when they were read.
fn check(config: &Config, roles: Roles) -> Result<()> {
    preflight::check(config, roles)?;
    out::line("the configuration is valid")?;
    let mut folders = preflight::folders_to_make(config).into_iter();
    folders.try_for_each(|folder| out::line(&format!("the first start makes the folder {}", folder.display())))
}

/// What says how many threads the runtime has.
const THREADS: &str = "TOKIO_WORKER_THREADS";

/// Threads of the runtime. Half as many as there are processors, unless somebody says otherwise: each connection to the broker has a thread
/// beside them, and so has SQLite, and at rates where they are not all busy to wake one another is a part of what they cost.
#[expect(clippy::disallowed_methods, reason = "the runtime's own variable, which no configuration of ours repeats")]
fn threads() -> Result<usize> {
    match std::env::var(THREADS) {
        Ok(said) => {
            let said: std::num::NonZeroUsize = said.parse().with_context(|| format!("{THREADS} is {said:?}"))?;
            Ok(said.get())
        }
        Err(_) => Ok(std::thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2))),
    }
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(threads()?).enable_all().build().context("cannot start")?;
    // Boxed, because commands' futures are large and main's stack is not for them.
    let done = runtime.block_on(Box::pin(work));
    // The system's look-up of a name cannot be called off, and nobody waits for its answer any longer.
    runtime.shutdown_timeout(FAREWELL);
    done
}

fn report(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        // Whoever read the output has seen enough.
        return ExitCode::SUCCESS;
    }
    if let Some(usage) = error.downcast_ref::<clap::Error>() {
        // As above.
        let _ = usage.print();
    } else if let Some(mistakes) = error.downcast_ref::<ConfigErrors>() {
        out::error(&mistakes.to_string());
    } else {
        out::error(&format!("rollcall: {error:#}"));
    }
    if error.chain().any(needs_a_person) { WRONG.into() } else { ExitCode::FAILURE }
}

/// Whether what is given is wrong, or what it names, so that another try would end as this one did.
fn needs_a_person(error: &(dyn std::error::Error + 'static)) -> bool {
    // What is wrapped transparently is not in the chain of causes itself.
    let store = match error.downcast_ref() {
        Some(OpenError::Store(store)) => Some(store),
        _ => error.downcast_ref(),
    };
    matches!(store, Some(StoreError::Unusable(_)))
        || error.is::<clap::Error>()
        || error.is::<ConfigErrors>()
        || error.is::<KeyError>()
        || error.is::<StartError>()
        || error.is::<PeersError>()
}
