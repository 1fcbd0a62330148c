//! What is wrong with what the configuration names is said before anything starts, by the real binary: each mistake by its key, its
//! cause once, with the exit code that says whether a restart helps.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use rollcall::model::ServerName;
use rollcall::store::Store as _;
use rollcall::store::sqlite::{Mode, Sqlite};

use crate::cli::{home, rollcall, text};

/// Any port, so that nobody is in the way.
const LISTENERS: [(&str, &str); 2] =
    [("ROLLCALL_EDGE__LISTEN", "127.0.0.1:0"), ("ROLLCALL_OPS__LISTEN", "127.0.0.1:0")];

fn serve(home: &Path, variables: &[(&str, &str)]) -> Output {
    rollcall(home, &[&LISTENERS[..], variables].concat(), &["serve"])
}

/// Fails with this code, and with something like this on the last line.
fn assert_ends(output: &Output, code: i32, start: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.lines().last().is_some_and(|line| line.starts_with(start)), "no {start:?} in: {said}");
}

#[test]
fn a_configured_key_is_never_made_up() {
    let home = home();
    let path = home.path().join("typo/signing.key");
    let variables = [("ROLLCALL_SIGNING_KEY", path.to_str().unwrap())];
    let expected = format!("signing_key: there is no file {0}: correct the path, or make a key with ", path.display());
    for arguments in ["check", "serve"] {
        assert_ends(&rollcall(home.path(), &variables, &[arguments]), 2, &expected);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "{arguments} makes nothing");
    }
    assert!(rollcall(home.path(), &variables, &["key", "generate"]).status.success());
    assert!(rollcall(home.path(), &variables, &["check"]).status.success());
}

#[test]
fn check_and_serve_find_every_mistake_in_what_is_named() {
    let home = home();
    let at = |name: &str| home.path().join(name).display().to_string();
    fs::write(home.path().join("garbage"), "sesame, open").unwrap();
    let config = format!(
        r#"
signing_key = "/dev/null"
data_dir = "{garbage}/data"
store.url = "sqlite:{garbage}"
bus.url = "amqps://localhost"
bus.tls.ca = "/nowhere/ca.pem"
edge.tls.cert = "/nowhere/cert.pem"
edge.tls.key = "{garbage}"
federation.extra_roots = ["{garbage}"]
federation.resolve = {{ "b.example" = "https://b/path" }}
"#,
        garbage = at("garbage")
    );
    fs::write(home.path().join("bad.toml"), config).unwrap();
    for command in ["check", "serve"] {
        let output = rollcall(home.path(), &LISTENERS, &[command, "--config", &at("bad.toml")]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        let nowhere = "No such file or directory (os error 2)";
        for expected in [
            format!("bus.tls.ca: cannot read /nowhere/ca.pem: {nowhere}"),
            format!("edge.tls.cert: cannot read /nowhere/cert.pem: {nowhere}"),
            format!("edge.tls.key: {} holds no private key: ", at("garbage")),
            format!("federation.extra_roots: {} holds no certificates: ", at("garbage")),
            "federation.resolve: b.example: ".to_owned(),
            "signing_key: /dev/null is no key file: it is not a regular file".to_owned(),
            format!("store.url: {} is no SQLite database", at("garbage")),
        ] {
            assert!(said.lines().any(|line| line.starts_with(&expected)), "no {expected:?} in: {said}");
        }
        assert!(said.lines().count() == 7 && !said.contains("sesame"), "{said}");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2, "nothing was made");
}

#[test]
fn folders_that_cannot_be_made_are_named() {
    let home = home();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let (data, store) =
        (file.join("data").display().to_string(), format!("sqlite:{}/other/rollcall.db", file.display()));
    let variables = [("ROLLCALL_DATA_DIR", data.as_str())];
    let reason = format!("cannot make files in {}: not a directory", file.display());
    assert_ends(&rollcall(home.path(), &variables, &["check"]), 2, &format!("data_dir: {reason}"));
    assert_ends(&serve(home.path(), &variables), 2, &format!("data_dir: {reason}"));
    let variables = [("ROLLCALL_STORE__URL", store.as_str())];
    assert_ends(&rollcall(home.path(), &variables, &["check"]), 2, &format!("store.url: {reason}"));
}

#[test]
fn an_ipv6_address_of_the_broker_is_a_mistake_of_the_configuration() {
    let variables = [("ROLLCALL_BUS__URL", "amqp://[::1]:5672")];
    assert_ends(&rollcall(home().path(), &variables, &["check"]), 2, "bus.url: has a literal IPv6 address");
}

#[test]
fn roles_apart_need_a_broker() {
    let home = home();
    for command in ["check", "serve"] {
        let output = rollcall(home.path(), &LISTENERS, &[command, "--roles", "edge"]);
        assert_ends(&output, 2, "bus.url: \"embedded:\" keeps its queues in one process");
    }
}

#[tokio::test]
async fn a_store_of_another_make_is_a_mistake_of_the_configuration() {
    let home = home();
    let path = home.path().join("rollcall.db");
    let store = Sqlite::open(&path, Mode::Owner).await.unwrap();
    store.prepare(&ServerName::parse("rollcall.localhost").unwrap(), 16).await.unwrap();
    let folder = home.path().display().to_string();
    let variables = [("ROLLCALL_DATA_DIR", folder.as_str()), ("ROLLCALL_PARTITIONS", "4")];
    assert_ends(&serve(home.path(), &variables), 1, "rollcall: another process works on ");
    store.close().await;
    drop(store);
    let refused = serve(home.path(), &variables);
    assert_ends(&refused, 2, "rollcall: store.url: cannot use ");
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(complaint.contains("it was made for partitions = 16, the configuration says 4"), "{complaint}");

    fs::write(&path, "this is no database, and longer than a header ".repeat(300)).unwrap();
    assert_ends(&rollcall(home.path(), &variables, &["dead", "list"]), 2, "rollcall: store.url: cannot use ");
}

#[test]
fn an_address_that_is_taken_may_be_free_later() {
    let home = home();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = serve(home.path(), &[("ROLLCALL_OPS__LISTEN", &address)]);
    assert_ends(&output, 1, &format!("rollcall: ops.listen: cannot listen on {address}: "));
}
