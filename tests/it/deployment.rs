//! Dockerfile and compose.yaml, read: neither runs without an engine, but what they name can be looked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What compose puts secrets under (Compose specification, services, secrets).
const SECRETS: &str = "/run/secrets/";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The Dockerfile's instructions and their arguments; what goes on over several lines is one.
fn instructions() -> Vec<(String, Vec<String>)> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let take_apart = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        words.next().map(|name| (name, words.collect()))
    };
    lines.filter_map(take_apart).collect()
}

fn arguments(name: &str) -> Vec<Vec<String>> {
    instructions().into_iter().filter(|(instruction, _)| instruction == name).map(|(_, words)| words).collect()
}

/// A line of compose.yaml: where it stands, such as `services.rabbitmq.image`, and its value. Entries of lists stand where the list does.
fn compose() -> Vec<(String, String)> {
    let (mut path, mut found) = (Vec::<(usize, String)>::new(), Vec::new());
    for line in read("compose.yaml").lines() {
        let text = line.trim_start();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let indent = line.len() - text.len();
        path.retain(|(outer, _)| *outer < indent);
        let place = |path: &[(usize, String)]| {
            let names: Vec<&str> = path.iter().map(|(_, name)| name.as_str()).collect();
            names.join(".")
        };
        if let Some(entry) = text.strip_prefix("- ") {
            found.push((place(&path), entry.trim_matches('"').to_owned()));
        } else {
            let (name, value) = text.split_once(':').unwrap_or_else(|| panic!("what is {line:?}?"));
            path.push((indent, name.to_owned()));
            found.push((place(&path), with_defaults(value.trim())));
        }
    }
    found
}

/// `${NAME:-default}` as it is where nobody sets anything.
fn with_defaults(value: &str) -> String {
    let mut parts = value.split("${");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (variable, rest) = part.split_once('}').expect("a closed brace");
        text += variable.split_once(":-").unwrap_or_else(|| panic!("{variable} has no default")).1;
        text += rest;
    }
    text
}

fn value(place: &str) -> String {
    let found = compose().into_iter().find(|(here, _)| here == place);
    found.unwrap_or_else(|| panic!("compose.yaml has no {place}")).1
}

#[test]
fn the_image_is_made_of_files_that_are_there_and_get_there() {
    let ignore = read(".dockerignore");
    let sent: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let mut copied = Vec::new();
    for mut words in arguments("COPY").into_iter().filter(|words| !words[0].starts_with("--from=")) {
        words.pop().expect("a destination");
        copied.append(&mut words);
    }
    assert!(copied.len() > 3, "{copied:?}");
    for file in copied.iter().map(String::as_str) {
        assert!(root().join(file).exists(), "the Dockerfile copies {file}");
        assert!(sent.contains(&file), ".dockerignore holds {file} back");
    }
    for file in sent {
        assert!(copied.iter().any(|copied| copied == file), ".dockerignore lets {file} by and nobody wants it");
    }
    // Outside of src, and compiled in.
    assert!(copied.iter().any(|file| file == "config/default.toml"));
}

#[test]
fn images_are_of_a_version_and_the_compiler_is_the_one_that_is_required() {
    let from = arguments("FROM");
    let mut images: Vec<String> = from.iter().map(|words| words[0].clone()).collect();
    let compiler = images[0].clone();
    images.extend(compose().into_iter().filter(|(place, _)| place.ends_with(".image")).map(|(_, image)| image));
    assert!(images.len() > 3, "{images:?}");
    for image in &images {
        let tag = image.split_once(':').map_or("", |(_, tag)| tag);
        assert!(tag.starts_with(|first: char| first.is_ascii_digit()), "{image} may be another one tomorrow");
    }
    let manifest = read("Cargo.toml");
    let (_, required) = manifest.split_once("rust-version = \"").expect("a rust-version");
    let (required, _) = required.split_once('"').unwrap();
    assert!(compiler.starts_with(&format!("rust:{required}-")), "{compiler}");
    assert!(read("README.md").contains(&format!("Rust {required}")), "the README names another version of Rust");
}

#[test]
fn nothing_runs_as_root() {
    let users = arguments("USER");
    let (user, _) = users.last().expect("a user")[0].split_once(':').expect("with a group");
    assert!(user.parse::<u32>().expect("a number") > 0);
    for (place, value) in compose() {
        assert!(!place.ends_with(".user") && !place.ends_with(".privileged"), "{place}: {value}");
        // Official images begin as root and leave it behind in the start of theirs, which these would replace.
        assert!(!place.ends_with(".command") && !place.ends_with(".entrypoint"), "{place}: {value}");
    }
}

#[test]
fn what_compose_names_is_there() {
    assert_eq!(value("services.rollcall.build"), ".");
    let all = compose();
    let is_set = |place: &str| all.iter().any(|(here, _)| here == place);
    for (place, value) in all.iter().filter(|(_, value)| !value.is_empty()) {
        if place.ends_with(".file") || place.ends_with(".volumes") && value.starts_with('.') {
            let file = value.split(':').next().unwrap_or_default();
            assert!(root().join(file).exists(), "{place}: {value}");
        } else if place.starts_with("services.") && place.ends_with(".volumes") {
            let volume = value.split(':').next().unwrap_or_default();
            assert!(is_set(&format!("volumes.{volume}")), "{place}: {value}");
        } else if place.starts_with("services.") && place.ends_with(".secrets") {
            assert!(is_set(&format!("secrets.{value}")), "{place}: {value}");
        }
    }
}

/// The broker lets in whoever the address names.
#[test]
fn the_broker_s_password_is_the_one_that_rollcall_shows() {
    let of_broker = |name: &str| value(&format!("services.rabbitmq.environment.RABBITMQ_DEFAULT_{name}"));
    let expected = format!("amqp://{}:{}@127.0.0.1:5672\n", of_broker("USER"), of_broker("PASS"));
    assert_eq!(read(&value("secrets.bus_url.file")), expected);
}

/// Asks the loader itself, with the environment that the container has.
#[test]
fn what_the_container_is_configured_with_is_valid() {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for word in arguments("ENV").into_iter().flatten() {
        let (name, value) = word.split_once('=').expect("NAME=value");
        variables.insert(name.to_owned(), value.to_owned());
    }
    for (place, value) in compose() {
        if let Some(name) = place.strip_prefix("services.rollcall.environment.") {
            variables.insert(name.to_owned(), value);
        }
    }
    for value in variables.values_mut() {
        if let Some(secret) = value.strip_prefix(SECRETS) {
            *value = root().join(self::value(&format!("secrets.{secret}.file"))).display().to_string();
        }
    }
    assert!(variables.contains_key("ROLLCALL_DATA_DIR") && variables.len() > 2, "{variables:?}");
    // One that is not there stays a mistake.
    assert!(!check(&variables, Some(("ROLLCALL_NO__SUCH", "key"))).0);
    let (valid, complaints) = check(&variables, None);
    assert!(valid, "{complaints}");
}

fn check(variables: &BTreeMap<String, String>, more: Option<(&str, &str)>) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    let output = command.arg("check").env_clear().envs(variables).envs(more).output().expect("the binary was built");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn compose_is_read_as_it_is_written() {
    assert_eq!(with_defaults("amqp://${A:-b}:${C:-d}@e"), "amqp://b:d@e");
    assert_eq!(value("services.rabbitmq.image"), "rabbitmq:4-management");
    let ports: Vec<_> = compose().into_iter().filter(|(place, _)| place == "services.rabbitmq.ports").collect();
    assert_eq!(ports.len(), 4, "the key and its three entries: {ports:?}");
}

/// The image is built of Cargo.toml and src: a target without a path would be looked for.
#[test]
fn the_manifest_is_understood_where_tests_and_benches_are_left_out() {
    let manifest = read("Cargo.toml");
    let targets: Vec<&str> = manifest.split("\n[[").skip(1).collect();
    assert!(targets.len() >= 3, "{targets:?}");
    for target in targets {
        assert!(target.lines().any(|line| line.starts_with("path = ")), "no path: [[{target}");
    }
}
