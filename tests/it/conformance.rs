//! Holds docs/conformance.md to the code: every row of both tables is there, and every name in it exists.

use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const ROWS: [&str; 26] = [
    "E1", "E2", "E3", "E4", "E5", "E6", "E7", "W1", "W2", "W2b", "W3", "W4", "W5", "W6", "W7", "W8", "C1", "C2", "C3",
    "C4", "C5", "C6", "S1", "S2", "S3", "P1",
];
/// How many behaviours of the first implementation there are.
const BEHAVIOURS: usize = 24;
/// The one that is deliberately not there.
const WITH_ROOMS: &str = "whoever shares a room can read it";

/// The rows of the table that begins with this column, cell by cell.
fn rows<'a>(text: &'a str, column: &str) -> Vec<Vec<&'a str>> {
    let lines = text.lines().skip_while(|line| !line.starts_with(&format!("| {column} |"))).skip(2);
    let lines = lines.take_while(|line| line.starts_with("| "));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Everything that could hold a test.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// What is wrong with the tables.
fn faults(text: &str) -> Vec<String> {
    let root = Path::new(ROOT);
    let mut code = String::new();
    sources(&root.join("src"), &mut code);
    sources(&root.join("tests"), &mut code);
    let mut faults = faults_of_rows(text, &code);
    faults.extend(faults_of_behaviours(text, &code));
    faults
}

fn faults_of_rows(text: &str, code: &str) -> Vec<String> {
    let rows = rows(text, "row");
    let mut faults = Vec::new();
    let told: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    if told != ROWS {
        faults.push(format!("the rows are {told:?}"));
    }
    for row in &rows {
        let [name, _, places, tests] = row.as_slice() else {
            faults.push(format!("{row:?} has not four cells"));
            continue;
        };
        let missing = names(places).filter(|place| !Path::new(ROOT).join(place).is_file());
        faults.extend(missing.map(|missing| format!("{name}: {missing} does not exist")));
        faults.extend(missing_tests(name, tests, code));
        if !names(tests).any(|test| test.ends_with(".story")) {
            faults.push(format!("{name}: no story"));
        }
    }
    faults
}

fn faults_of_behaviours(text: &str, code: &str) -> Vec<String> {
    let rows = rows(text, "behaviour");
    let mut faults = Vec::new();
    if rows.len() != BEHAVIOURS {
        faults.push(format!("{} behaviours", rows.len()));
    }
    for row in &rows {
        let [behaviour, tests] = row.as_slice() else {
            faults.push(format!("{row:?} has not two cells"));
            continue;
        };
        faults.extend(missing_tests(behaviour, tests, code));
        if names(tests).next().is_none() && *behaviour != WITH_ROOMS {
            faults.push(format!("{behaviour}: no test"));
        }
    }
    faults
}

/// Stories and test functions that a cell names and nobody has.
fn missing_tests(name: &str, tests: &str, code: &str) -> Vec<String> {
    let exists = |test: &&str| match test.ends_with(".story") {
        true => Path::new(ROOT).join("tests/stories").join(test).is_file(),
        false => code.contains(&format!("fn {test}(")),
    };
    names(tests).filter(|test| !exists(test)).map(|test| format!("{name}: {test} does not exist")).collect()
}

#[test]
fn the_tables_name_what_exists() {
    let table = fs::read_to_string(Path::new(ROOT).join("docs/conformance.md")).unwrap();
    assert_eq!(faults(&table), Vec::<String>::new());
}

#[test]
fn a_name_that_does_not_exist_is_found() {
    let table = fs::read_to_string(Path::new(ROOT).join("docs/conformance.md")).unwrap();
    let wrong = table.replace("restart.story", "gone.story").replace("src/reader.rs", "src/gone.rs");
    let wrong = wrong.replace("`a_backlog_gives_nobody_up`", "`gone`").replace("| P1 |", "| P2 |");
    assert_eq!(faults(&wrong).len(), 4, "{:?}", faults(&wrong));
}

#[test]
fn a_behaviour_that_nothing_shows_is_found() {
    let table = fs::read_to_string(Path::new(ROOT).join("docs/conformance.md")).unwrap();
    let wrong = table.replace("`each_watcher_once.story` |\n| a push", "none |\n| a push");
    let wrong = wrong.replace("stops its updates | `local_drop.story`", "stops its updates | `gone.story`");
    let wrong = wrong.replace("| also those of a user", "- also those of a user");
    assert_eq!(faults(&wrong).len(), 3, "{:?}", faults(&wrong));
}
