//! The real binary, as scripts and people run it.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use rollcall::model::ServerName;
use rollcall::store::Store as _;
use rollcall::store::sqlite::{Mode, Sqlite};
use tempfile::TempDir;

/// Runs `rollcall` with nothing in its environment but a home of its own and `variables`. One that does not end ends with 124.
pub fn rollcall(home: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new("timeout")
        .args(["120", env!("CARGO_BIN_EXE_rollcall")])
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .envs(variables.iter().copied())
        .output()
        .expect("the binary was built with the tests")
}

pub fn home() -> TempDir {
    tempfile::tempdir().expect("a directory for a test")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is text")
}

#[test]
fn check_prints_every_mistake_and_exits_with_2() {
    let home = home();
    let file = home.path().join("bad.toml");
    fs::write(&file, "partitions = 0\nsever_name = \"x\"\n[edge]\nlisten = \"0.0.0.0:1\"\n").unwrap();
    let variables = [("ROLLCALL_BATCH__WINDOW", "soon"), ("ROLLCALL_BUS__URL", "amqp://me:sesame@host:port")];
    let output = rollcall(home.path(), &variables, &["check", "--config", file.to_str().unwrap()]);
    let complaints = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{complaints}");
    for start in ["partitions: ", "sever_name: ", "edge.listen: ", "batch.window: ", "bus.url: "] {
        assert!(complaints.lines().any(|line| line.starts_with(start)), "no {start:?} in: {complaints}");
    }
    assert_eq!(complaints.lines().count(), 5, "{complaints}");
    assert!(complaints.contains("environment variable ROLLCALL_BATCH__WINDOW"), "{complaints}");
    assert!(complaints.contains(&format!("file {}", file.display())), "{complaints}");
    assert!(!complaints.contains("sesame"), "{complaints}");
}

#[test]
fn nothing_set_checks_well() {
    let home = home();
    let output = rollcall(home.path(), &[], &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let folder = home.path().join(".local/share/rollcall");
    let expected = format!("the configuration is valid\nthe first start makes the folder {}\n", folder.display());
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "checking leaves nothing behind");
}

#[test]
fn a_missing_file_is_named() {
    let output = rollcall(home().path(), &[], &["check", "--config", "/nowhere/at/all.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let expected = "/nowhere/at/all.toml: cannot be read: No such file or directory (os error 2)\n";
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn the_environment_may_name_the_file_and_the_command_line_has_the_last_word() {
    let home = home();
    let [bad, good] = [("bad.toml", "partitions = 0"), ("good.toml", "partitions = 1")].map(|(name, content)| {
        let path = home.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    });
    let check = |named: &str, arguments: &[&str]| rollcall(home.path(), &[("ROLLCALL_CONFIG", named)], arguments);
    let output = check(&bad, &["check"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains(&format!("file {bad}")), "{}", text(&output.stderr));
    assert_eq!(check(&good, &["check"]).status.code(), Some(0));
    assert_eq!(check(&bad, &["check", "--config", &good]).status.code(), Some(0));
    assert!(text(&check(&bad, &["--help"]).stdout).contains("ROLLCALL_CONFIG"));
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [&["severs"][..], &["serve", "--roles", "edge,wroker"], &["dead", "replay"], &[]] {
        let output = rollcall(home().path(), &[], arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(rollcall(home().path(), &[], &["--help"]).status.code(), Some(0));
}

#[test]
fn keys_are_for_their_owner_and_never_overwritten() {
    let home = home();
    let output = rollcall(home.path(), &[], &["key", "generate"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let path = home.path().join(".local/share/rollcall/signing.key");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let key = fs::read_to_string(&path).unwrap();
    let parts: Vec<_> = key.trim_end().split(' ').collect();
    assert!(matches!(parts[..], ["ed25519", version, seed] if version.starts_with("a_") && seed.len() == 43), "format");
    assert!(!text(&output.stdout).contains(parts[2]), "the secret is not printed");

    let again = rollcall(home.path(), &[], &["key", "generate"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&path).unwrap(), key);
}

#[test]
fn two_keys_differ() {
    let home = home();
    let read = |name: &str| {
        let path = home.path().join(name);
        assert!(rollcall(home.path(), &[], &["key", "generate", path.to_str().unwrap()]).status.success());
        fs::read_to_string(path).unwrap()
    };
    assert_ne!(read("one"), read("two"));
}

#[test]
fn the_exported_topology_is_what_a_broker_imports() {
    let variables = [("ROLLCALL_PARTITIONS", "4"), ("ROLLCALL_BUS__PREFIX", "t.")];
    let output = rollcall(home().path(), &variables, &["topology", "export", "--vhost", "v"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let definitions: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names = |kind: &str| -> BTreeSet<String> {
        let list = definitions[kind].as_array().expect("a list");
        assert!(list.iter().all(|entry| entry["vhost"] == "v"));
        list.iter().map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect()
    };
    let queues = names("queues");
    assert_eq!(queues.len(), 3 * 4 + 3);
    assert!(queues.contains("t.batch.3") && queues.contains("t.inbound"), "{queues:?}");
    assert_eq!(names("exchanges").len(), 7);
    for binding in definitions["bindings"].as_array().expect("a list") {
        assert!(queues.contains(binding["destination"].as_str().expect("a queue")), "{binding}");
    }
}

#[test]
fn the_shown_topology_gives_reasons() {
    let output = rollcall(home().path(), &[], &["topology", "show"]);
    let shown = text(&output.stdout);
    assert!(shown.contains("queue presence.users.0 to 3 (durable)"), "{shown}");
    assert!(shown.contains("x-delivery-limit = 50: "), "{shown}");
    assert!(shown.contains("alternate-exchange = presence.dead: "), "{shown}");
}

#[test]
fn without_a_store_tools_say_what_makes_one() {
    let home = home();
    for arguments in [&["dead", "list"][..], &["dead", "drop", "--all"], &["topology", "declare"]] {
        let output = rollcall(home.path(), &[], arguments);
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        let path = home.path().join(".local/share/rollcall/rollcall.db");
        assert!(
            complaint.starts_with(&format!("rollcall: store: there is no store at {} yet: ", path.display())),
            "{complaint}"
        );
        assert!(complaint.contains("`rollcall serve`") && complaint.contains("data_dir"), "{complaint}");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "asking leaves nothing behind");
}

#[tokio::test]
async fn serve_speaks_for_no_other_server_than_its_store_was_made_for() {
    let home = home();
    let store = Sqlite::open(&home.path().join("rollcall.db"), Mode::Owner).await.unwrap();
    store.prepare(&ServerName::parse("a.example").unwrap(), 4).await.unwrap();
    store.close().await;
    let variables = [
        ("ROLLCALL_SERVER_NAME", "b.example"),
        ("ROLLCALL_DATA_DIR", home.path().to_str().unwrap()),
        ("ROLLCALL_EDGE__LISTEN", "127.0.0.1:0"),
        ("ROLLCALL_OPS__LISTEN", "127.0.0.1:0"),
    ];
    let output = rollcall(home.path(), &variables, &["serve"]);
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    for part in ["rollcall.db", "server_name = \"a.example\"", "says \"b.example\""] {
        assert!(complaint.contains(part), "no {part} in: {complaint}");
    }
    assert!(output.stdout.is_empty(), "it began nothing");
}

#[test]
fn status_says_where_it_looked() {
    // Free a moment ago; whoever took it since is no rollcall either.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let output = rollcall(home().path(), &[("ROLLCALL_OPS__LISTEN", &address)], &["status", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let complaint = text(&output.stderr);
    assert!(complaint.contains(&address), "{complaint}");
    assert_eq!(complaint.matches("efused").count(), 1, "the cause, and once: {complaint}");
}

#[test]
fn a_day_that_cannot_be_is_a_mistake_of_the_command_line() {
    let home = home();
    let plot = home.path().join("nowhere/day.svg").display().to_string();
    for (arguments, part) in [
        (&["--contacts", "3"][..], "--users"),
        (&["--users", "5", "--contacts", "50"], "--contacts must be less than --users"),
        (&["--users", "5", "--contacts", "-3"], "-3 is not in 1..=1000"),
        (&["--window", "0s"], "from 10ms to 10m"),
        (&["--plot", &plot], &plot),
    ] {
        let output = rollcall(home.path(), &[], &[&["simulate"], arguments].concat());
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {complaint}");
        assert!(output.stdout.is_empty() && complaint.contains(part), "{arguments:?}: {complaint}");
    }
}

#[test]
fn a_day_that_somebody_made_up_is_counted_and_not_judged() {
    let home = home();
    let plot = home.path().join("day.svg").display().to_string();
    let arguments = ["simulate", "--users", "5", "--contacts", "2", "--plot", &plot];
    let output = rollcall(home.path(), &[], &arguments);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    assert!(said.contains("5 users, 2 contacts, 1 peer\n") && !said.contains("held to"), "{said}");
    assert!(fs::read_to_string(plot).unwrap().contains("<svg"));
}
