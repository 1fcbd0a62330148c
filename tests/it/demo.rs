//! The demo, run as anybody runs it: its figures are counted, so they can be held to something.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;

/// Eight seconds of demo, and an overloaded machine's start and end.
const PATIENCE: Duration = Duration::from_secs(120);

/// The numbers of the summary's lines that begin with `label`, in order.
fn numbers(summary: &str, label: &str) -> Vec<Vec<f64>> {
    let lines = summary.lines().filter_map(|line| line.strip_prefix(label)?.strip_prefix(' '));
    lines.map(|line| line.split([' ', ':']).filter_map(|word| word.replace(',', "").parse().ok()).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_save_most_messages_and_know_the_newest() {
    let command = tokio::task::spawn_blocking(|| {
        Command::new(env!("CARGO_BIN_EXE_rollcall"))
            .args(["demo", "--seconds", "8", "--users", "60", "--window", "1s"])
            .env_clear()
            .output()
            .unwrap()
    });
    let output = timeout(PATIENCE, command).await.expect("it ends by itself").unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    // Not a terminal: nothing is drawn in place.
    assert!(!text.contains('\x1b'), "{text}");
    let (_, summary) = text.split_once("on its way").unwrap_or_else(|| panic!("no summary:\n{text}"));

    assert!(numbers(summary, "in")[0][0] > 180.0, "60 users listed, polled and came online:\n{summary}");
    let out = numbers(summary, "out");
    assert_eq!(out.len(), 2, "{summary}");
    for direction in &out {
        let (transactions, entries) = (direction[0], direction[1]);
        assert!(transactions > 0.0 && entries >= transactions, "{summary}");
    }
    let (transactions, entries) = (out[0][0] + out[1][0], out[0][1] + out[1][1]);
    let (instead, saved) = (numbers(summary, "instead")[0][0], &numbers(summary, "saved")[0]);
    assert!((saved[0] - instead / transactions).abs() < 0.06, "{summary}");
    assert!(saved[0] > 1.0 && saved[1] > 1.0 && entries > 0.0, "{summary}");
    for arrived in numbers(summary, "arrived") {
        assert!(arrived[1] > 0.0 && arrived[0] == arrived[1], "every status arrived, both ways:\n{summary}");
    }
    assert_eq!(numbers(summary, "arrived").len(), 2, "{summary}");
}

#[test]
fn a_window_that_is_none_is_a_mistake_of_the_command_line() {
    let demo = Command::new(env!("CARGO_BIN_EXE_rollcall")).args(["demo", "--window", "soon"]).output().unwrap();
    let errors = String::from_utf8_lossy(&demo.stderr);
    assert_eq!(demo.status.code(), Some(2), "{errors}");
    assert!(errors.contains("--window") && errors.contains("duration"), "{errors}");
}

#[test]
fn it_says_what_it_does_before_it_does_it_and_can_be_stopped_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_rollcall"))
        // The introductions alone take minutes.
        .args(["demo", "--window", "10m", "--users", "20"])
        .env_clear()
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let said: Vec<String> = lines.by_ref().take(2).map(Result::unwrap).collect();
    assert!(Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap().success());
    assert_eq!(demo.wait().unwrap().code(), Some(1));
    assert_eq!(said[0], "20 simulated users on a.example and b.example, windows of 10m");
    assert!(said[1].starts_with("introducing 20 users"), "{said:?}");
}
