//! A private RabbitMQ: free ports, its own data directory, nothing left behind even when the tests are killed.
//!
//! `ROLLCALL_TEST_AMQP` (an AMQP address) replaces the shared broker; tests that break their broker start a private one all the same.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

use super::certificates::{Authority, Identity, write};

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CTL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
const NODE: &str = include_str!("node.sh");
/// A node takes 6 s on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// The address of the broker that this process's tests share. Each test takes queue names of its own.
pub(crate) async fn shared_url() -> String {
    static SHARED: OnceCell<Broker> = OnceCell::const_new();
    if let Some(url) = given_url() {
        return url;
    }
    SHARED.get_or_init(Broker::start).await.url()
}

#[expect(clippy::disallowed_methods, reason = "the tests' own switch: there is no configuration to hold it")]
fn given_url() -> Option<String> {
    std::env::var("ROLLCALL_TEST_AMQP").ok()
}

/// A RabbitMQ node of one's own. Ends with this value, or with the process.
pub(crate) struct Broker {
    port: u16,
    directory: PathBuf,
    keeper: Mutex<Keeper>,
}

/// The shell that owns the node: it kills the node when its standard input ends.
struct Keeper {
    shell: Child,
    answers: BufReader<ChildStdout>,
}

impl Broker {
    /// Starts a node and waits until it speaks AMQP.
    pub(crate) async fn start() -> Self {
        assert!(Path::new(SERVER).exists(), "RabbitMQ is not installed ({SERVER}): tests/run installs it");
        let broker = Self::prepare(|_| String::new());
        broker.restart().await;
        broker
    }

    /// Starts a node that also speaks TLS on the port that is returned: shows `identity`, and talks to nobody without a certificate of
    /// `clients`.
    pub(crate) async fn start_with_tls(identity: &Identity, clients: &Authority) -> (Self, u16) {
        let [port] = free_ports();
        let broker = Self::prepare(|folder| {
            let (cert, key) = identity.write(folder, "broker");
            let ca = write(folder, "clients.pem", &clients.pem());
            let [cert, key, ca] = [cert, key, ca].map(|path| path.display().to_string());
            format!(
                "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.certfile = {cert}\nssl_options.keyfile = {key}\n\
                 ssl_options.cacertfile = {ca}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n"
            )
        });
        broker.restart().await;
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < deadline, "RabbitMQ speaks no TLS:\n{}", broker.console());
            sleep(Duration::from_millis(100)).await;
        }
        (broker, port)
    }

    /// `amqp://…`
    pub(crate) fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.port)
    }

    /// Ends the node as a power failure would.
    pub(crate) fn kill9(&self) {
        self.command("kill");
    }

    /// Stops the node as an overloaded machine would: connections stay, and nobody answers.
    pub(crate) fn pause(&self) {
        self.command("pause");
    }

    /// Ends [`Self::pause`].
    pub(crate) fn resume(&self) {
        self.command("resume");
    }

    /// Starts the node again on the same port with the same data.
    pub(crate) async fn restart(&self) {
        self.command("start");
        let deadline = Instant::now() + START_TIMEOUT;
        while !speaks_amqp(self.port).await {
            assert!(Instant::now() < deadline, "RabbitMQ did not start within {START_TIMEOUT:?}:\n{}", self.console());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// `rabbitmqctl arguments…`; panics if it fails. Takes seconds.
    pub(crate) async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("bash");
        command.args(["-c", r#". "$0/env"; exec "$@""#]).arg(&self.directory).arg(CTL).arg("-q").args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "rabbitmqctl: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// `configure` gets the node's folder, and returns its `rabbitmq.conf`.
    fn prepare(configure: impl FnOnce(&Path) -> String) -> Self {
        let directory = tempfile::Builder::new().prefix("rollcall-broker-").tempdir().unwrap().keep();
        write(&directory, "rabbitmq.conf", &configure(&directory));
        let [port, dist, epmd] = free_ports();
        let mut shell = Command::new("bash")
            .args(["-c", NODE, "node.sh"])
            .arg(&directory)
            .args([port, dist, epmd].map(|port| port.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(shell.stdout.take().unwrap());
        Self { port, directory, keeper: Mutex::new(Keeper { shell, answers }) }
    }

    fn command(&self, command: &str) {
        let mut keeper = self.keeper.lock().unwrap();
        writeln!(keeper.shell.stdin.as_mut().unwrap(), "{command}").unwrap();
        let mut answer = String::new();
        keeper.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "the broker's keeper is gone");
    }

    fn console(&self) -> String {
        std::fs::read_to_string(self.directory.join("console")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let keeper = self.keeper.get_mut().unwrap();
        drop(keeper.shell.stdin.take());
        keeper.shell.wait().unwrap();
    }
}

/// Below the range that the kernel gives to outgoing connections: nobody takes a port while whoever listens
/// on it is down.
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = Vec::new();
    while ports.len() < N {
        let candidate = fastrand::u16(15_000..32_000);
        if !ports.contains(&candidate) && free(&candidate) {
            ports.push(candidate);
        }
    }
    ports.try_into().unwrap()
}

/// Whether a protocol header is answered by a method frame (`connection.start`).
async fn speaks_amqp(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        stream.read_u8().await
    };
    matches!(timeout(Duration::from_secs(2), ask).await, Ok(Ok(1)))
}
