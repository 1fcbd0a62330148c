use std::time::Duration;

use super::layers::{self, Environment};
use super::reader::Reader;
use super::*;

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment {
        variables: variables.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect(),
        data_home: Some("/home/somebody/.local/share".into()),
    }
}

fn mistakes(file: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let errors = sections::build(Some(("a.toml", file)), &environment(variables)).unwrap_err();
    errors.0.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_set_is_valid_and_harmless() {
    let config = sections::build(None, &environment(&[])).unwrap();
    assert_eq!(config.server_name.as_str(), "rollcall.localhost");
    assert!(config.edge.listen.ip().is_loopback() && config.ops.listen.ip().is_loopback());
    assert!(matches!(config.bus.url, BusUrl::Embedded));
    assert_eq!(config.store.path, PathBuf::from("/home/somebody/.local/share/rollcall/rollcall.db"));
    assert_eq!(config.batch.max_bytes, 512 << 10);
}

#[test]
fn every_key_of_the_manual_is_read_and_no_other() {
    let mut errors = Vec::new();
    let mut reader = Reader::new(layers::defaults(), &mut errors);
    sections::config(&mut reader, &environment(&[]));
    let read: Vec<String> = reader.keys_read().iter().map(ToString::to_string).collect();
    assert_eq!(read, layers::known_keys().into_iter().collect::<Vec<_>>());
    assert_eq!(errors, []);
}

#[test]
fn the_environment_stands_above_the_file() {
    let file = "partitions = 4\n[bus]\nurl = [\"amqp://a\", \"amqp://b\"]\n[batch]\nwindow = \"1s\"";
    let variables = [
        ("partitions", "8"),
        ("bus__prefix", "t."),
        ("edge__events_token", "1234567890123456"),
        ("bus__prefetch", "10"),
    ];
    let config = sections::build(Some(("a.toml", file)), &environment(&variables)).unwrap();
    assert_eq!((config.partitions, config.bus.prefix.as_str(), config.bus.prefetch), (8, "t.", 10));
    assert!(matches!(config.bus.url, BusUrl::Amqp(urls) if urls == ["amqp://a", "amqp://b"].map(Secret::new)));
    assert_eq!(config.batch.window, Duration::from_secs(1));
    assert_eq!(config.edge.events_token, Some(Secret::new("1234567890123456")));
}

#[test]
fn lists_and_tables_come_from_the_environment_too() {
    let variables = [
        ("bus__url", r#"["amqp://a", "amqp://b"]"#),
        ("federation__resolve", r#"{"b.example:8448"="http://127.0.0.1:1/"}"#),
    ];
    let config = sections::build(None, &environment(&variables)).unwrap();
    assert!(matches!(config.bus.url, BusUrl::Amqp(urls) if urls.len() == 2));
    let name = ServerName::parse("b.example:8448").unwrap();
    assert_eq!(config.federation.resolve[&name], "http://127.0.0.1:1");
}

#[test]
fn mistakes_come_all_at_once_with_key_reason_and_place() {
    let file = "server_name = \"not a name\"\npartitions = 0\nsigning_kye = \"x\"\nbus = \"amqp://a\"\n\
                [edge]\nlisten = \"0.0.0.0:80\"\n[store]\nurl = \"postgres://me:secret@host/db\"\n\
                [batch]\nwindow = 5\n[schedule]\nbeat = \"* * * * *\"";
    let found = mistakes(file, &[("batch__max_bytes", "1TB"), ("log__filter", "rollcall=loud")]);
    let expected = [
        "signing_kye: unknown key; did you mean signing_key? (in file a.toml)",
        "bus: is a section, not a value (in file a.toml)",
        "partitions: must be from 1 to 1024 (given 0, in file a.toml)",
        "edge.listen: must be a loopback address while edge.auth is \"dev\", which believes everybody (given \"0.0.0.0:80\", in file a.toml)",
        "store.url: PostgreSQL is not supported in this version: use \"sqlite:<file>\" (given \"postgres://***@host/db\", in file a.toml)",
        "batch.window: is not a text: put it in quotes (given 5, in file a.toml)",
        "batch.max_bytes: is not a size such as 4096, \"512KiB\" or \"1MiB\" (given \"1TB\", in environment variable ROLLCALL_BATCH__MAX_BYTES)",
        "schedule.beat: is not a cron expression with seconds such as \"0 */5 * * * *\" (given \"* * * * *\", in file a.toml)",
    ];
    for line in expected {
        assert!(found.iter().any(|found| found == line), "missing: {line}\nfound: {found:#?}");
    }
    assert!(found.iter().any(|line| line.starts_with("server_name: is no server name: ")), "{found:#?}");
    assert!(found.iter().any(|line| line.starts_with("log.filter: is not a tracing filter: ")), "{found:#?}");
    assert_eq!(found.len(), expected.len() + 2, "{found:#?}");
}

#[test]
fn secrets_are_never_repeated() {
    let file = "[bus]\nurl = [\"amqp://me:sesame@host/\", \"sesame\"]\n[edge]\nevents_token = \"sesame\"";
    let found = mistakes(file, &[]);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|line| !line.contains("sesame")), "{found:#?}");
}

#[test]
fn secrets_come_from_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (urls, token) = (write("urls", "amqp://a\namqp://me:sesame@b\n"), write("token", "open-sesame-open\n"));
    let variables = [("bus__url_file", urls.as_str()), ("edge__events_token_file", token.as_str())];
    let config = sections::build(None, &environment(&variables)).unwrap();
    assert!(matches!(config.bus.url, BusUrl::Amqp(urls) if urls[1].expose() == "amqp://me:sesame@b"));
    assert_eq!(config.edge.events_token, Some(Secret::new("open-sesame-open")));

    let bad = write("bad", "sesame");
    let found = mistakes(
        "[edge]\nevents_token = \"sesame-sesame-sesame\"",
        &[
            ("edge__events_token_file", bad.as_str()),
            ("edge__federation_secret_file", bad.as_str()),
            ("bus__url_file", bad.as_str()),
        ],
    );
    for key in [
        "edge.events_token: must not be set beside",
        "edge.events_token_file: ",
        "edge.federation_secret_file: ",
        "bus.url_file: ",
    ] {
        assert!(found.iter().any(|line| line.starts_with(key)), "{key}: {found:#?}");
    }
    assert!(found.len() == 4 && found.iter().all(|line| !line.contains("sesame")), "{found:#?}");
}

#[test]
fn combinations_are_checked() {
    let file = "[batch]\nwindow = \"20s\"\n[federation]\nbackoff_min = \"1h\"\n[watchdog]\nlong = \"90s\"\n\
                [edge]\nauth = \"whoami\"\nfederation = \"trusted\"\n[edge.tls]\ncert = \"a.pem\"\n[edge.stream]\nmax = 30000\n[bus.tls]\nkey = \"b.pem\"\n[ops]\nlisten = \"127.0.0.1:8470\"";
    let found = mistakes(file, &[]);
    for key in [
        "batch.hold_max",
        "federation.backoff_max",
        "watchdog.long",
        "edge.tls.cert",
        "edge.federation",
        "edge.connections.max",
        "homeserver.url",
        "bus.tls.cert",
        "ops.listen",
    ] {
        assert!(found.iter().any(|line| line.starts_with(&format!("{key}: must "))), "{key}: {found:#?}");
    }
    assert_eq!(found.len(), 9, "{found:#?}");
}

#[test]
fn bad_members_of_resolve_are_named() {
    let found = mistakes("[federation.resolve]\n\"b.example\" = \"ftp://b\"\n\"c_d?\" = \"https://c\"", &[]);
    assert!(found.iter().any(|line| line.starts_with("federation.resolve.b.example: is not an http")), "{found:#?}");
    assert!(found.iter().any(|line| line.starts_with("federation.resolve.c_d?: ")), "{found:#?}");
}

#[test]
fn networks_and_patterns_are_checked_and_named() {
    let file = "[federation]\nallow_private = [\"10.0.0.0/8\", \"10.0.0.0/33\"]\n\
                [federation.inbound]\ndeny = [\"b.example\", \"@b\"]\n[federation.outbound]\nallow = \"*\"";
    let found = mistakes(file, &[]);
    for part in [
        "federation.allow_private: has \"10.0.0.0/33\", which is neither a network",
        "federation.inbound.deny: has \"@b\", which is neither a server name",
        "federation.outbound.allow: is not a list",
    ] {
        assert!(found.iter().any(|line| line.starts_with(part)), "{part}: {found:#?}");
    }
    assert_eq!(found.len(), 3, "{found:#?}");
    let variables = [("federation__allow_private", r#"["fd00::/8", "10.1.2.3"]"#)];
    let config = sections::build(None, &environment(&variables)).unwrap();
    let shown: Vec<_> = config.federation.allow_private.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["fd00::/8", "10.1.2.3/32"]);
}

#[test]
fn a_homeserver_s_edge_needs_a_bus_that_it_can_reach() {
    assert!(mistakes("federation.via = \"edge\"", &[])[0].starts_with("federation.via: must be \"http\""));
    let variables = [("federation__via", "edge"), ("bus__url", "amqp://a")];
    assert_eq!(sections::build(None, &environment(&variables)).unwrap().federation.via, FederationVia::Edge);
}

#[test]
fn without_a_home_the_data_directory_must_be_set() {
    let errors = Config::from_toml("").unwrap_err();
    assert_eq!(errors.0[0].key, "data_dir");
    assert!(Config::from_toml("data_dir = \"/tmp/x\"").is_ok());
}

#[test]
fn a_broken_file_is_one_mistake() {
    let found = mistakes("partitions = ", &[]);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("a.toml: is not TOML: ") && found[0].ends_with(" in line 1"), "{found:?}");
}

#[test]
fn what_an_orchestrator_says_of_a_service_of_our_name_is_no_key() {
    use super::layers::tells_of_a_service;
    for name in ["port", "port_8470_tcp", "port_8470_tcp_addr", "service_host", "service_port", "service_port_http"] {
        assert!(tells_of_a_service(name), "{name}");
    }
    let keys = super::layers::known_keys();
    assert!(!keys.iter().any(|key| tells_of_a_service(&key.replace('.', "__"))), "a key of ours would be passed over");
    assert!(!tells_of_a_service("partitons"));
}
