//! Foreign edges, in another language and with another AMQP library: `tests/edge.py` publishes, `tests/homeserver.py` sends for us.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/edge.py");
const HOMESERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/homeserver.py");

/// Publishes `bodies` (none with a line break) with routing key `key` on the broker at `url`, and waits for the confirms.
pub async fn publish(url: &str, prefix: &str, key: &str, bodies: &[String]) {
    let count = bodies.len();
    let input: String = bodies.iter().map(|body| format!("{body}\n")).collect();
    let arguments = [url, prefix, key].map(str::to_owned);
    let said = tokio::task::spawn_blocking(move || run(&arguments, &input)).await.unwrap();
    assert_eq!(said, format!("confirmed {count}\n"));
}

fn run(arguments: &[String], input: &str) -> String {
    let mut child = Command::new("python3")
        .arg(SCRIPT)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 is missing: tests/run installs it");
    // It may end before it has read all; then its last words tell more than the broken pipe does.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `tests/homeserver.py` at work: the edge of a homeserver that sends for us. Ends with this value, or with the process.
pub struct HomeserverEdge(Child);

impl HomeserverEdge {
    /// Takes what lies on `<prefix>outbound` of the broker at `url` and hands it to the homeserver at `homeserver`.
    pub fn start(url: &str, prefix: &str, homeserver: &str) -> Self {
        let arguments = [HOMESERVER, url, prefix, homeserver];
        let child = Command::new("python3").args(arguments).stdin(Stdio::piped()).spawn();
        Self(child.expect("python3 is missing: tests/run installs it"))
    }
}

impl Drop for HomeserverEdge {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
