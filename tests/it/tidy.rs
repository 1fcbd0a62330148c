//! House rules that no lint keeps.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rollcall::config::DEFAULTS;
use rollcall::ops::metrics::METRICS;

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;

/// What may stand beside the sources at the top.
const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".clippy.toml",
    ".dockerignore",
    ".git",
    ".github",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "benches",
    "compose.yaml",
    "config",
    "deny.toml",
    "docs",
    "src",
    "target",
    "tests",
];

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn is_under(&self, place: &str) -> bool {
        self.path.starts_with(root().join("src").join(place))
    }

    /// The text without comments and without what follows the unit tests' beginning.
    fn code(&self) -> String {
        let text = self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    collect(&root().join("src"), &mut sources);
    assert!(sources.len() > 20, "the sources were found");
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a readable source");
            sources.push(Source { path, text });
        }
    }
}

fn none<T: std::fmt::Debug>(offenders: &[T], rule: &str) {
    assert!(offenders.is_empty(), "{rule}:\n{offenders:#?}");
}

#[test]
fn files_fit_into_a_head() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, _)| *lines > FILE_LINES)
        .collect();
    none(&long, "files of more than 400 lines ask for another room");
}

#[test]
fn functions_fit_onto_a_screen() {
    let long: Vec<_> = sources()
        .iter()
        .flat_map(|source| functions(&source.text).into_iter().map(|(name, lines)| (source.path.clone(), name, lines)))
        .filter(|(_, _, lines)| *lines > FUNCTION_LINES)
        .collect();
    none(&long, "functions of more than 70 lines");
}

/// Functions and their lines: rustfmt closes a function at the indentation at which it opened it.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        if !has_body(&lines[start..]) {
            continue;
        }
        let close = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let end = lines[start..].iter().position(|line| *line == close);
        found.push((name, end.map_or(1, |lines| lines + 1)));
    }
    found
}

/// Whether a signature opens a body over several lines, instead of ending there.
fn has_body(lines: &[&str]) -> bool {
    lines.iter().find(|line| line.ends_with(['{', ';', '}'])).is_some_and(|line| line.ends_with('{'))
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub")
            || matches!(*word, "in" | "async" | "const")
            || word.ends_with(')') && word.starts_with('s')
    });
    let name = words.next().filter(|word| *word == "fn").and_then(|_| words.next())?;
    Some(name.split(['(', '<']).next().unwrap_or(name).to_owned())
}

#[test]
fn the_scanner_sees_functions() {
    let text = "pub(super) async fn a(\n    x: u8,\n) {\n    one();\n}\nimpl B {\n    const fn c<T>() {\n        d();\n    }\n    fn e();\n    fn f() {}\n}\n";
    assert_eq!(functions(text), [("a".to_owned(), 5), ("c".to_owned(), 3)]);
}

#[test]
fn the_core_is_pure() {
    let banned =
        ["tokio", "SystemTime", "Instant", "fastrand", "rand::", "std::net", "std::fs", "sqlx", "lapin", "async fn"];
    let impure: Vec<_> = sources()
        .iter()
        .filter(|source| source.is_under("core"))
        .flat_map(|source| {
            banned.iter().filter(|word| source.code().contains(**word)).map(|word| (source.path.clone(), *word))
        })
        .collect();
    none(&impure, "core knows neither time, chance nor the outside");
}

/// `{error:#}` prints a whole chain: a cause that stands in the text, too, would be said twice.
#[test]
fn errors_say_their_causes_once() {
    let repeated: Vec<_> = sources()
        .iter()
        .flat_map(|source| repeated_causes(&source.code()).into_iter().map(|text| (source.path.clone(), text)))
        .collect();
    none(&repeated, "errors whose text repeats their source");
}

/// Texts of errors that have a source and name it.
fn repeated_causes(code: &str) -> Vec<String> {
    let parts = code.split("#[error(").skip(1).map(|part| {
        let (text, rest) = part.split_once(")]").unwrap_or((part, ""));
        // Up to the next variant's text, which begins the next part.
        (text, rest.split("\n}").next().unwrap_or_default())
    });
    let names_it = |text: &str| ["{source", "{0", "(.0)", "(source)"].iter().any(|name| text.contains(name));
    let has_one = |body: &str| ["#[from]", "#[source]", "source: "].iter().any(|mark| body.contains(mark));
    parts.filter(|(text, body)| names_it(text) && has_one(body)).map(|(text, _)| text.to_owned()).collect()
}

#[test]
fn the_scanner_sees_causes_that_are_said_twice() {
    let text = "#[error(\"{0}\")]\nA(#[from] X),\n#[error(transparent)]\nB(#[from] Y),\n#[error(\"{path}: {source}\")]\nC { source: Z },\n\
                #[error(\"{0}\")]\nD(String),\n}\nstruct E { source: X }";
    assert_eq!(repeated_causes(text), ["\"{0}\"", "\"{path}: {source}\""]);
}

#[test]
fn one_file_knows_bincode() {
    let others: Vec<_> = sources()
        .into_iter()
        .filter(|source| !source.path.ends_with("wire/envelope.rs") && source.code().contains("bincode::"))
        .map(|source| source.path)
        .collect();
    none(&others, "bincode stays in wire/envelope.rs");
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    let words = ["TODO", "FIXME", "XXX", "dbg!("];
    let later: Vec<_> = sources()
        .iter()
        .flat_map(|source| source.text.lines().map(|line| (source.path.clone(), line.to_owned())).collect::<Vec<_>>())
        .filter(|(_, line)| words.iter().any(|word| line.contains(word)))
        .collect();
    none(&later, "what is missing stands in the README");
}

#[test]
fn the_top_level_is_as_ordered() {
    let strays: Vec<_> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    none(&strays, "top-level files that nobody ordered");
}

#[test]
fn the_manual_and_the_code_name_the_same_keys() {
    let code: String = sources().iter().filter(|source| source.is_under("config")).map(Source::code).collect();
    let manual = keys_of_the_manual();
    let unread: Vec<_> = manual.iter().filter(|key| !code.contains(&format!("\"{key}\""))).collect();
    none(&unread, "keys that config/default.toml explains and nobody reads");
    let sections: BTreeSet<&str> =
        manual.iter().filter_map(|key| key.split_once('.')).map(|(section, _)| section).collect();
    let unexplained: Vec<_> = code
        .split('"')
        .filter(|text| text.split_once('.').is_some_and(|(section, rest)| sections.contains(section) && is_key(rest)))
        .filter(|text| !manual.contains(*text))
        .collect();
    none(&unexplained, "keys that are read and stand in no manual");
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '_' | '.'))
}

fn keys_of_the_manual() -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.insert(format!("{section}{key}"));
        }
    }
    keys
}

#[test]
fn every_key_of_the_manual_is_explained() {
    let mut before = "";
    for line in DEFAULTS.lines() {
        if line.contains(" = ") && !line.starts_with('#') {
            assert!(before.starts_with("# "), "no comment above {line:?}");
        }
        before = line;
    }
}

#[test]
fn every_metric_that_is_counted_is_in_the_table() {
    let table: BTreeSet<String> = METRICS.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(table.len(), METRICS.len(), "each once");
    let unknown: Vec<_> = counted().difference(&table).cloned().collect();
    none(&unknown, "metrics that ops/metrics.rs does not describe");
}

#[test]
fn every_metric_in_the_table_is_counted() {
    let counted = counted();
    let idle: Vec<_> = METRICS.iter().map(|metric| metric.name).filter(|name| !counted.contains(*name)).collect();
    none(&idle, "metrics that nobody counts");
}

#[test]
fn every_metric_is_in_the_manual_of_operations() {
    let manual = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let missing: Vec<_> =
        METRICS.iter().map(|metric| metric.name).filter(|name| !manual.contains(&format!("`{name}"))).collect();
    none(&missing, "metrics that docs/operations.md does not explain");
}

#[test]
fn every_test_that_the_security_table_names_exists() {
    let table = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let named = tests_named(&table);
    assert!(named.len() > 20, "the table was found");
    let mut all = sources();
    collect(&root().join("tests"), &mut all);
    let there: BTreeSet<String> = all.iter().flat_map(|source| tests_in(&source.text)).collect();
    let missing: Vec<_> = named.into_iter().filter(|name| !there.contains(name)).collect();
    none(&missing, "tests that docs/security.md names and nobody wrote");
}

/// What stands between backticks in the last column of a table.
fn tests_named(document: &str) -> Vec<String> {
    let rows = document.lines().filter_map(|line| line.trim().strip_suffix('|')?.rsplit_once('|'));
    rows.flat_map(|(_, tests)| tests.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The functions that follow a `#[test]` or a `#[tokio::test…]`.
fn tests_in(text: &str) -> Vec<String> {
    let is_mark = |line: &str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let marks = lines.iter().enumerate().filter(|(_, line)| is_mark(line));
    marks.filter_map(|(at, _)| lines[at + 1..].iter().find_map(|line| function_name(line))).collect()
}

#[test]
fn the_table_s_scanner_sees_tests_and_only_them() {
    assert_eq!(tests_named("| x `y` | `a_b`, `c` |\n|---|---|\n`d`"), ["a_b", "c"]);
    assert_eq!(tests_in("#[test]\nfn a() {\n}\nfn b() {\n}\n#[tokio::test(x)]\nasync fn c() {\n"), ["a", "c"]);
}

/// Names in quotes, in every source but the table's own.
fn counted() -> BTreeSet<String> {
    // Neither says what it is, nor begins it at 0.
    let tables = ["ops/metrics.rs", "ops/series.rs"];
    let others = sources().into_iter().filter(|source| !tables.iter().any(|table| source.path.ends_with(table)));
    others.flat_map(|source| names(&source.code())).collect()
}

fn names(code: &str) -> Vec<String> {
    let quoted = code.split('"').filter(|text| text.starts_with("rollcall_"));
    quoted.filter(|text| text.chars().all(|c| c.is_ascii_lowercase() || c == '_')).map(Into::into).collect()
}
