//! Stories as text: what people and servers do, and beneath each line what leaves the servers because of it.
//!
//! `tests/stories/*.story` are read, played on pure machines in simulated time, and written again with what really left; a story
//! that differs from its file fails. `ROLLCALL_BLESS=1 cargo test --test it script` rewrites the files instead, so that a diff
//! shows what changed. docs/stories.md describes the format.

mod act;
mod parse;
mod show;
mod world;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use self::world::World;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stories");
/// In front of what a story prints.
const INDENT: &str = "    ";

#[test]
#[expect(clippy::disallowed_methods, reason = "the tests' own switch: there is no configuration to hold it")]
fn stories_end_as_they_are_written() {
    let bless = std::env::var_os("ROLLCALL_BLESS").is_some();
    let files = files();
    assert!(files.len() > 10, "the stories are gone");
    let mut failures = String::new();
    for file in files {
        let written = fs::read_to_string(&file).unwrap();
        let played = play(&file, &written);
        if bless {
            fs::write(&file, played).unwrap();
        } else if played != written {
            let _ = writeln!(failures, "{}:\n{}", file.display(), difference(&written, &played));
        }
    }
    assert!(failures.is_empty(), "ROLLCALL_BLESS=1 rewrites the expectations.\n{failures}");
}

#[test]
fn a_story_that_ends_otherwise_is_told_from_its_file() {
    let story = "servers a b\n@john:a lists @alice:b\nadvance 10s\n    nothing\n";
    let played = play(Path::new("made up"), story);
    assert!(played != story && difference(story, &played).contains("-     nothing"), "{played}");
    assert_eq!(play(Path::new("made up"), &played), played);
}

/// All stories, in order.
pub fn files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "story"));
    files.sort();
    files
}

/// The story with what really left beneath each line.
fn play(file: &Path, story: &str) -> String {
    let mut world = World::default();
    let mut played = String::new();
    for (number, line) in story.lines().enumerate() {
        if line.starts_with(INDENT) {
            continue;
        }
        let _ = writeln!(played, "{line}");
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let act = parse::act(line).unwrap_or_else(|error| panic!("{}:{}: {error}: {line}", file.display(), number + 1));
        act::carry_out(&mut world, act);
        for said in world.take_said() {
            let _ = writeln!(played, "{INDENT}{said}");
        }
    }
    played
}

/// Lines that only one of both has, in place.
fn difference(written: &str, played: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (written.lines().collect(), played.lines().collect());
    let same_start = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let rest = old.len().min(new.len()) - same_start;
    let same_end = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(old, new)| old == new).count();
    let mut out = String::new();
    if let Some(before) = same_start.checked_sub(1) {
        let _ = writeln!(out, "  {}", old[before]);
    }
    for line in &old[same_start..old.len() - same_end] {
        let _ = writeln!(out, "- {line}");
    }
    for line in &new[same_start..new.len() - same_end] {
        let _ = writeln!(out, "+ {line}");
    }
    out
}
