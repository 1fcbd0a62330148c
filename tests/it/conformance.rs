//! Holds docs/conformance.md to the code: every row is there, and every name in it exists.

use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const ROWS: [&str; 26] = [
    "E1", "E2", "E3", "E4", "E5", "E6", "E7", "W1", "W2", "W2b", "W3", "W4", "W5", "W6", "W7", "W8", "C1", "C2", "C3",
    "C4", "C5", "C6", "S1", "S2", "S3", "P1",
];

/// The table's rows, cell by cell.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| row"));
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

/// What is wrong with a table.
fn faults(table: &str) -> Vec<String> {
    let root = Path::new(ROOT);
    let mut code = String::new();
    sources(&root.join("src"), &mut code);
    sources(&root.join("tests"), &mut code);
    let rows = rows(table);
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
        let missing_places = names(places).filter(|place| !root.join(place).is_file());
        let exists = |test: &&str| match test.ends_with(".story") {
            true => root.join("tests/stories").join(test).is_file(),
            false => code.contains(&format!("fn {test}(")),
        };
        let missing = missing_places.chain(names(tests).filter(|test| !exists(test)));
        faults.extend(missing.map(|missing| format!("{name}: {missing} does not exist")));
        if !names(tests).any(|test| test.ends_with(".story")) {
            faults.push(format!("{name}: no story"));
        }
    }
    faults
}

#[test]
fn the_table_names_what_exists() {
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
