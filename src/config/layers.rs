//! Layers: compiled-in defaults, then the file, then the environment. Keys that nobody knows are mistakes, found here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use figment::providers::{Env, Format, Toml};
use figment::util::nest;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{ConfigError, ConfigErrors};

/// `config/default.toml`: every key with its default, and what it governs.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The largest configuration file that is read: 4 MiB (10,000 entries of `federation.resolve` fit thrice).
const FILE_MAX: u64 = 4 << 20;

/// What the process's environment says, secrets included: it is never printed.
#[derive(Default)]
pub(super) struct Environment {
    /// `ROLLCALL_*`: what follows the prefix in lower case, and the text.
    pub(super) variables: Vec<(String, String)>,
    /// Where a user's data belongs (XDG base directory specification).
    pub(super) data_home: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment: the one lawful place. `ROLLCALL_CONFIG` names the file and is no key in it (the command line reads it);
    /// `ROLLCALL_TEST_*` belongs to the tests and is left alone, and so is what an orchestrator sets of a service of our name.
    #[expect(clippy::disallowed_methods, reason = "the one lawful look into the environment")]
    pub(super) fn of_process() -> Self {
        let variables = Env::prefixed("ROLLCALL_")
            .iter()
            .map(|(name, text)| (name.into_string(), text))
            .filter(|(name, _)| name != "config" && !name.starts_with("test_") && !tells_of_a_service(name))
            .collect();
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data_home = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
        Self { variables, data_home }
    }
}

/// Whether Kubernetes, or a linked container, says by this where a service called `rollcall` is: `ROLLCALL_SERVICE_HOST`,
/// `ROLLCALL_PORT_8470_TCP_ADDR`, …
pub(super) fn tells_of_a_service(name: &str) -> bool {
    let service = name.starts_with("service_host") || name.starts_with("service_port");
    service || name == "port" || name.starts_with("port_") || name == "name"
}

/// The defaults alone.
pub(super) fn defaults() -> Figment {
    Figment::from(Layer { place: "the defaults".into(), dict: default_dict() })
}

/// The dotted keys that exist.
pub(super) fn known_keys() -> BTreeSet<String> {
    let mut keys = BTreeMap::new();
    collect_leaves(&default_dict(), "", &mut keys);
    keys.into_keys().collect()
}

/// All layers on each other. Mistakes are added to `errors`.
pub(super) fn stack(file: Option<(&str, &str)>, environment: &Environment, errors: &mut Vec<ConfigError>) -> Figment {
    let mut stack = Stack { figment: defaults(), known: known_keys(), errors };
    if let Some((name, text)) = file {
        stack.add_file(name, text);
    }
    for (name, text) in &environment.variables {
        stack.add_variable(name, text);
    }
    stack.figment
}

/// Reads a configuration file, at most [`FILE_MAX`] bytes of it.
pub(super) fn read(path: &Path) -> Result<String, ConfigErrors> {
    let failed = |reason: String| {
        ConfigErrors(vec![ConfigError { key: String::new(), reason, given: None, place: path.display().to_string() }])
    };
    let length = std::fs::metadata(path).map_err(|error| failed(format!("cannot be read: {error}")))?.len();
    if length > FILE_MAX {
        return Err(failed(format!("has {length} bytes, more than {FILE_MAX}")));
    }
    std::fs::read_to_string(path).map_err(|error| failed(format!("cannot be read: {error}")))
}

struct Stack<'a> {
    figment: Figment,
    known: BTreeSet<String>,
    errors: &'a mut Vec<ConfigError>,
}

impl Stack<'_> {
    fn add_file(&mut self, name: &str, text: &str) {
        match Toml::from_str::<Dict>(text) {
            Ok(dict) => self.add(&format!("file {name}"), &dict),
            Err(error) => {
                // Its full text quotes the line, which may hold a password.
                let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
                let reason = format!("is not TOML: {} in line {line}", error.message());
                self.errors.push(ConfigError { key: String::new(), reason, given: None, place: name.into() });
            }
        }
    }

    fn add_variable(&mut self, name: &str, text: &str) {
        let place = format!("environment variable ROLLCALL_{}", name.to_ascii_uppercase());
        // Texts stay texts (a token of digits is no number), each reader parses what it needs; lists and tables are TOML.
        let value = match text.as_bytes().first() {
            Some(b'[' | b'{') => text.parse().expect("figment's value parser takes every text"),
            _ => Value::from(text),
        };
        let key = name.replace("__", ".");
        let nested = nest(&key, value).into_dict().expect("a key is not empty, so it nests into a dictionary");
        self.add(&place, &nested);
    }

    fn add(&mut self, place: &str, dict: &Dict) {
        let mut leaves = BTreeMap::new();
        collect_leaves(dict, "", &mut leaves);
        let mut layer = Layer { place: place.into(), dict: Dict::new() };
        for (key, value) in leaves {
            if self.known.contains(&key) {
                insert(&mut layer.dict, &key, value);
            } else {
                let reason = unknown(&key, &self.known);
                self.errors.push(ConfigError { key, reason, given: None, place: place.into() });
            }
        }
        self.figment = std::mem::take(&mut self.figment).merge(layer);
    }
}

/// One source of values, named as its mistakes are to be reported.
struct Layer {
    place: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.place.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

fn default_dict() -> Dict {
    Toml::from_str(DEFAULTS).expect("the compiled-in defaults are TOML: a test reads them")
}

/// Flattens sections into dotted keys. `federation.resolve` is one value: its keys are server names.
fn collect_leaves(dict: &Dict, prefix: &str, leaves: &mut BTreeMap<String, Value>) {
    for (name, value) in dict {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Dict(_, inner) if key != "federation.resolve" => collect_leaves(inner, &key, leaves),
            leaf => drop(leaves.insert(key, leaf.clone())),
        }
    }
}

fn insert(dict: &mut Dict, key: &str, value: Value) {
    let Some((section, rest)) = key.split_once('.') else {
        dict.insert(key.into(), value);
        return;
    };
    let section = dict.entry(section.into()).or_insert_with(|| Value::from(Dict::new()));
    if let Value::Dict(_, inner) = section {
        insert(inner, rest, value);
    }
}

fn unknown(key: &str, known: &BTreeSet<String>) -> String {
    let within = format!("{key}.");
    if known.iter().any(|candidate| candidate.starts_with(&within)) {
        return "is a section, not a value".into();
    }
    let nearest = known.iter().map(|candidate| (distance(key, candidate), candidate)).min();
    match nearest {
        Some((distance, candidate)) if distance <= 1 + key.len() / 4 => {
            format!("unknown key; did you mean {candidate}?")
        }
        _ => "unknown key".into(),
    }
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn unknown_keys_get_a_suggestion() {
        let known = known_keys();
        assert_eq!(unknown("sever_name", &known), "unknown key; did you mean server_name?");
        assert_eq!(unknown("edge.lisen", &known), "unknown key; did you mean edge.listen?");
        assert_eq!(unknown("bus", &known), "is a section, not a value");
        assert_eq!(unknown("zzzzzzzzzzzz", &known), "unknown key");
    }
}
