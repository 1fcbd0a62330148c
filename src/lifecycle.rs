//! Tasks and their end. One owner of shutdown: the first signal drains, the second or a time-out stops hard.
//!
//! [`Tasks`] holds what the process lives for. Whichever of them ends first without being asked takes the process down with a
//! failing exit code: a supervisor restarts processes, not halves of them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

/// After a hard stop, tasks have this long to notice before they are dropped where they stand.
const HARD_GRACE: Duration = Duration::from_secs(2);

/// What the spans of tasks are called.
const TASK: &str = "task";

/// Starts a named task: the one lawful `tokio::spawn`. Its panic is logged with the name.
#[expect(clippy::disallowed_methods, reason = "the one lawful spawn")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(span_of(name)))
}

/// The same for one of several tasks of a name, in a `span` that tells which.
#[expect(clippy::disallowed_methods, reason = "spawn, with another span")]
pub fn spawn_in<F>(span: Span, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(span))
}

/// A task that another one starts stands alone; one that a request starts belongs to it.
fn span_of(task: &'static str) -> Span {
    let within_task = Span::current().metadata().is_some_and(|span| span.name() == TASK);
    if within_task { tracing::info_span!(parent: None, TASK, task) } else { tracing::info_span!(TASK, task) }
}

/// The two stages of an end. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Take no more, flush, confirm, acknowledge, leave.
    pub soft: CancellationToken,
    /// Leave now: what is unacknowledged comes again.
    pub hard: CancellationToken,
}

/// Why the process ends with a failure.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A task ended although nobody asked it to.
    #[error("{0} ended by itself")]
    Ended(&'static str),
    /// A task failed.
    #[error("{0}: {1}")]
    Failed(&'static str, String),
    /// A task panicked; the panic itself was printed.
    #[error("{0} panicked")]
    Panicked(&'static str),
    /// The drain took too long or was cut short; these tasks had not finished.
    #[error("stopped hard, unfinished: {}", .0.join(", "))]
    Hard(Vec<&'static str>),
}

/// What the process lives for: named tasks, each of which ends only when [`Shutdown`] asks for it.
#[derive(Debug, Default)]
pub struct Tasks {
    shutdown: Shutdown,
    set: JoinSet<Result<(), String>>,
    names: HashMap<Id, &'static str>,
    failure: Option<Failure>,
}

impl Tasks {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What tasks listen to.
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Starts a task that must live until a shutdown is asked for. Its error ends the process.
    pub fn spawn<F, E>(&mut self, name: &'static str, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display,
    {
        let task = async move { future.await.map_err(|error| format!("{error:#}")) };
        let handle = self.set.spawn(task.instrument(span_of(name)));
        self.names.insert(handle.id(), name);
    }

    /// Lives until a signal arrives or a task ends, then drains for `drain_timeout` at most; a second signal cuts that short.
    ///
    /// # Errors
    /// The first failure: a task that ended early, failed, panicked or had to be stopped hard.
    pub async fn run_until_stopped(
        mut self,
        mut signals: mpsc::Receiver<&'static str>,
        drain_timeout: Duration,
    ) -> Result<(), Failure> {
        self.live(&mut signals).await;
        self.shutdown.soft.cancel();
        if !self.drain(&mut signals, Instant::now() + drain_timeout).await {
            self.stop_hard().await;
        }
        match self.failure {
            None => tracing::info!("stopped: nothing was left undone"),
            Some(_) => tracing::info!("stopped after a failure"),
        }
        self.failure.map_or(Ok(()), Err)
    }

    /// Returns when the first signal arrives, a task ends, or somebody cancels the token.
    async fn live(&mut self, signals: &mut mpsc::Receiver<&'static str>) {
        let soft = self.shutdown.soft.clone();
        tokio::select! {
            // In this order: a task that ends at once because it was asked to has not ended by itself.
            biased;
            () = soft.cancelled() => tracing::info!("draining, as asked"),
            Some(signal) = signals.recv() => tracing::info!("{signal}: draining; another signal stops at once"),
            Some(ended) = self.set.join_next_with_id() => self.note(ended, false),
        }
    }

    /// Waits for the tasks' own ends. `false`: it took too long, or another signal came.
    async fn drain(&mut self, signals: &mut mpsc::Receiver<&'static str>, deadline: Instant) -> bool {
        loop {
            tokio::select! {
                ended = timeout_at(deadline, self.set.join_next_with_id()) => match ended {
                    Ok(Some(ended)) => self.note(ended, true),
                    Ok(None) => return true,
                    Err(_) => {
                        tracing::warn!("the drain took too long");
                        return false;
                    }
                },
                Some(signal) = signals.recv() => {
                    tracing::warn!("{signal} again: stopping at once");
                    return false;
                }
            }
        }
    }

    async fn stop_hard(&mut self) {
        let mut unfinished: Vec<_> = self.names.values().copied().collect();
        unfinished.sort_unstable();
        self.fail(Failure::Hard(unfinished));
        self.shutdown.hard.cancel();
        let deadline = Instant::now() + HARD_GRACE;
        while let Ok(Some(ended)) = timeout_at(deadline, self.set.join_next_with_id()).await {
            self.note(ended, true);
        }
        self.set.shutdown().await;
    }

    fn note(&mut self, ended: Result<(Id, Result<(), String>), JoinError>, asked: bool) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let name = self.names.remove(&id).unwrap_or("a task");
        match ended {
            Ok((_, Ok(()))) if asked => tracing::debug!(task = name, "ended"),
            Ok((_, Ok(()))) => self.fail(Failure::Ended(name)),
            Ok((_, Err(error))) => self.fail(Failure::Failed(name, error)),
            Err(_) => self.fail(Failure::Panicked(name)),
        }
    }

    /// The first failure is the cause; later ones are mostly its consequences.
    fn fail(&mut self, failure: Failure) {
        tracing::error!(%failure);
        self.failure.get_or_insert(failure);
    }
}

/// Calls `reload` at each SIGHUP, until `stop`. From the moment of the call SIGHUP ends nothing any more.
///
/// # Errors
/// The operating system's, when the handler cannot be installed.
pub fn on_hangup(
    stop: CancellationToken,
    mut reload: impl FnMut() + Send + 'static,
) -> io::Result<impl Future<Output = Result<(), Infallible>> + Send + 'static> {
    let mut hangups = signal(SignalKind::hangup())?;
    Ok(async move {
        while let Some(Some(())) = stop.run_until_cancelled(hangups.recv()).await {
            tracing::info!("SIGHUP: reading again");
            reload();
        }
        Ok(())
    })
}

/// SIGTERM and SIGINT, as they arrive. Call it once: a signal is kept until it is asked for.
///
/// # Errors
/// The operating system's, when a handler cannot be installed.
pub fn signals() -> io::Result<mpsc::Receiver<&'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Two are all that anybody acts on; more are dropped with the sender's wait.
    let (sender, receiver) = mpsc::channel(2);
    spawn("signals", async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = sender.closed() => return,
            };
            if sender.send(name).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// How often SIGHUP came: whoever keeps something that can be read anew does so when the number changes. From the first call on
/// SIGHUP no longer ends the process. Every call has a count of its own.
///
/// # Errors
/// The operating system's, when the handler cannot be installed.
pub fn reloads() -> io::Result<watch::Receiver<u64>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (sender, receiver) = watch::channel(0);
    spawn("reloads", async move {
        loop {
            tokio::select! {
                _ = hangup.recv() => sender.send_modify(|count| *count += 1),
                () = sender.closed() => return,
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    async fn until(token: CancellationToken) -> Result<(), &'static str> {
        token.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn the_first_signal_drains() {
        let (signals, receiver) = mpsc::channel(2);
        let mut tasks = Tasks::new();
        tasks.spawn("patient", until(tasks.shutdown().soft));
        signals.send("SIGTERM").await.unwrap();
        tasks.run_until_stopped(receiver, LONG).await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_leaves_at_once_when_asked_is_no_failure() {
        for _ in 0..32 {
            let (_signals, receiver) = mpsc::channel(2);
            let mut tasks = Tasks::new();
            let stop = tasks.shutdown().soft;
            tasks.spawn("prompt", until(stop.clone()));
            stop.cancel();
            // The task has ended before anybody looks.
            tokio::task::yield_now().await;
            tasks.run_until_stopped(receiver, LONG).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_second_signal_stops_hard() {
        let (signals, receiver) = mpsc::channel(2);
        let mut tasks = Tasks::new();
        tasks.spawn("stubborn", until(tasks.shutdown().hard));
        signals.send("SIGTERM").await.unwrap();
        signals.send("SIGTERM").await.unwrap();
        let started = Instant::now();
        let failure = tasks.run_until_stopped(receiver, LONG).await.unwrap_err();
        assert_eq!(failure.to_string(), "stopped hard, unfinished: stubborn");
        assert!(started.elapsed() < LONG);
    }

    #[tokio::test]
    async fn sighup_is_heard_by_all_who_asked() {
        let (mut one, mut other) = (reloads().unwrap(), reloads().unwrap());
        let me = std::process::id().to_string();
        assert!(std::process::Command::new("kill").args(["-HUP", &me]).status().unwrap().success());
        for count in [&mut one, &mut other] {
            tokio::time::timeout(LONG, count.changed()).await.unwrap().unwrap();
            assert_eq!(*count.borrow(), 1);
        }
    }

    #[tokio::test]
    async fn a_drain_has_an_end_even_for_a_task_that_hears_nothing() {
        let (_signals, receiver) = mpsc::channel(2);
        let mut tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending::<Result<(), &str>>());
        tasks.shutdown().soft.cancel();
        let started = Instant::now();
        let failure = tasks.run_until_stopped(receiver, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(failure, Failure::Hard(names) if names == ["deaf"]));
        assert!(started.elapsed() >= HARD_GRACE);
    }

    #[tokio::test]
    async fn a_task_that_ends_takes_the_others_with_it() {
        for (name, expected) in
            [("ends", "ends ended by itself"), ("fails", "fails: no luck"), ("dies", "dies panicked")]
        {
            let (_signals, receiver) = mpsc::channel(2);
            let mut tasks = Tasks::new();
            tasks.spawn("patient", until(tasks.shutdown().soft));
            tasks.spawn(name, async move {
                match name {
                    "ends" => Ok(()),
                    "fails" => Err("no luck"),
                    _ => panic!("as the test wants it"),
                }
            });
            let failure = tasks.run_until_stopped(receiver, LONG).await.unwrap_err();
            assert_eq!(failure.to_string(), expected);
        }
    }
}
