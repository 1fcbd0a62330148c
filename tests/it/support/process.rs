//! The real binary, run as an operator runs it: a configuration file, loopback, data of its own. Killed with its handle.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rollcall::outbound::http::client;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::broker::free_ports;

/// Nothing on an overloaded machine takes as long.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// One server's place: configuration, data, addresses. Survives the process.
pub struct Place {
    /// Its Matrix name.
    pub name: String,
    /// Its edge, `127.0.0.1:port`.
    pub edge: String,
    /// Its operations listener, `127.0.0.1:port`.
    pub ops: String,
    /// Few by default: each costs the broker three queues.
    pub partitions: u16,
    directory: TempDir,
}

/// A running `rollcall serve`.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Place {
    /// A server called `name`, with free ports, quick windows and few partitions. `extra` is appended to the configuration; a
    /// `batch.window` in it replaces ours.
    pub fn new(name: &str, bus: &str, extra: &str) -> Self {
        let [edge, ops] = free_addresses();
        let place = Self {
            name: name.to_owned(),
            edge,
            ops,
            partitions: 4,
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        place.configure(bus, extra);
        place
    }

    /// Writes the configuration anew. `bus` is `embedded:` or an AMQP address; queue names begin with the server's name. Windows
    /// are of a second, unless `extra` has another `batch.window`.
    pub fn configure(&self, bus: &str, extra: &str) {
        let Self { name, edge, ops, partitions, .. } = self;
        let window = if extra.contains("batch.window") { "" } else { r#"batch.window = "1s""# };
        let data = self.directory.path().display();
        let text = format!(
            r#"
server_name = "{name}"
data_dir = "{data}"
partitions = {partitions}
bus.url = "{bus}"
bus.prefix = "{name}."
edge.listen = "{edge}"
ops.listen = "{ops}"
{window}
{extra}
"#
        );
        std::fs::write(self.config(), text).expect("a writable directory");
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("rollcall.toml")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `http://…` of the edge.
    pub fn url(&self) -> String {
        format!("http://{}", self.edge)
    }

    /// Starts it and waits until it is ready.
    pub async fn serve(&self) -> Process {
        self.serve_roles("edge,ingest,worker,sender").await
    }

    /// The same with some stages only.
    pub async fn serve_roles(&self, roles: &str) -> Process {
        let process = self.spawn(roles, &[]);
        process.ready(&self.ops).await;
        process
    }

    /// Starts it with these environment variables and waits until it is ready.
    pub async fn serve_in(&self, environment: &[(&str, &str)]) -> Process {
        let process = self.spawn("edge,ingest,worker,sender", environment);
        process.ready(&self.ops).await;
        process
    }

    /// `rollcall arguments… --config …` to its end; what it printed. Fails if it did.
    pub async fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
        command.args(arguments).arg("--config").arg(self.config()).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Starts it and waits for nothing.
    pub fn spawn(&self, roles: &str, environment: &[(&str, &str)]) -> Process {
        let log = self.directory.path().join("log");
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("a writable directory");
        let child = Command::new(env!("CARGO_BIN_EXE_rollcall"))
            .args(["serve", "--config"])
            .arg(self.config())
            .args(["--roles", roles])
            // The tests' own switches begin with ROLLCALL_ too, and would be taken for configuration.
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .spawn()
            .expect("the binary starts");
        Process { child, log }
    }
}

impl Process {
    /// Polls `/readyz` until it says yes.
    pub async fn ready(&self, ops: &str) {
        let deadline = Instant::now() + START_TIMEOUT;
        let url = format!("http://{ops}/readyz");
        let http = client(START_TIMEOUT).expect("a client");
        loop {
            let answer = http.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            assert!(Instant::now() < deadline, "not ready within {START_TIMEOUT:?}:\n{}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// `kill -9`: no drain, no goodbye.
    pub fn kill9(mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it has ended");
    }

    /// SIGHUP: read the configuration again.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    /// SIGINT: as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal("-INT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill(1)");
        assert!(sent.success());
    }

    /// SIGTERM; returns how it ended.
    pub async fn terminate(mut self) -> ExitStatus {
        self.signal("-TERM");
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("its own child") {
                return status;
            }
            assert!(Instant::now() < deadline, "still running:\n{}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its process ID.
    #[allow(dead_code, reason = "for the benchmarks, which share this file")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Different addresses that nobody listens on. Another process may take one before we do; then the start says so.
pub fn free_addresses<const N: usize>() -> [String; N] {
    free_ports().map(|port| format!("127.0.0.1:{port}"))
}
