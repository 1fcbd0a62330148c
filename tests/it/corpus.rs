//! What strangers can make us read: the functions that `cargo fuzz` runs (tests/fuzz), over its seeds and over mutations of them.

#[path = "../fuzz/checks/mod.rs"]
mod checks;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;

use checks::{CHECKS, Check};

/// Seeds of one target at least; each input that a fuzzer found is one more.
const SEEDS_MIN: usize = 5;
/// Changes of one seed.
const CHANGES: usize = 6;
/// Mutations that are tried, unless `PROPTEST_CASES` asks for more.
const CASES: u32 = 4_000;

fn seeds_of(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn every_seed_and_every_found_input_holds() {
    for (target, check) in CHECKS {
        let seeds = seeds_of(target);
        assert!(seeds.len() >= SEEDS_MIN, "{target} has {} seeds", seeds.len());
        for (path, seed) in seeds {
            let outcome = std::panic::catch_unwind(|| check(&seed));
            assert!(outcome.is_ok(), "{} does not hold", path.display());
        }
    }
}

#[test]
fn every_check_has_a_target_and_a_folder_of_seeds() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let checks: BTreeSet<String> = CHECKS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("targets"), checks);
    assert_eq!(names("seeds"), checks);
}

/// What a fuzzer does to a seed, without knowing what it reaches.
#[derive(Debug, Clone)]
enum Change {
    /// Another byte.
    Set(Index, u8),
    /// Bytes go.
    Cut(Index, Index),
    /// Something that stands elsewhere stands here, too.
    Copy(Index, Index, Index),
    /// Something that is odd in JSON, in headers or in numbers.
    Insert(Index, &'static str),
}

const ODD: &[&str] = &[
    "null",
    "[]",
    "{}",
    "\"",
    "\\u0000",
    "\\ud800",
    "-1",
    "1e999",
    "18446744073709551616",
    "0.1",
    ",",
    "[[[[[[[[",
    "\n\n",
    "=",
    "@",
    ":",
    "\u{0}",
    "é",
    "\u{202e}",
];

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = any::<Index>;
    let change = prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), at()).prop_map(|(from, to)| Change::Cut(from, to)),
        (at(), at(), at()).prop_map(|(from, to, at)| Change::Copy(from, to, at)),
        (at(), proptest::sample::select(ODD)).prop_map(|(at, text)| Change::Insert(at, text)),
    ];
    proptest::collection::vec(change, 1..=CHANGES)
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let at = |index: &Index| index.index(bytes.len() + 1);
        let between = |one: &Index, other: &Index| at(one).min(at(other))..at(one).max(at(other));
        match change {
            Change::Set(place, byte) => {
                let place = at(place);
                if let Some(old) = bytes.get_mut(place) {
                    *old = *byte;
                }
            }
            Change::Cut(from, to) => drop(bytes.drain(between(from, to))),
            Change::Copy(from, to, place) => {
                let (copy, place) = (bytes[between(from, to)].to_vec(), at(place));
                bytes.splice(place..place, copy);
            }
            Change::Insert(place, text) => drop(bytes.splice(at(place)..at(place), text.bytes())),
        }
    }
    bytes
}

fn checks_with_seeds() -> impl Strategy<Value = (Check, Vec<u8>)> {
    let all =
        CHECKS.iter().flat_map(|(target, check)| seeds_of(target).into_iter().map(move |(_, seed)| (*check, seed)));
    proptest::sample::select(all.collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(CASES), ..ProptestConfig::default() })]

    #[test]
    fn every_changed_seed_holds((check, seed) in checks_with_seeds(), changes in changes()) {
        check(&changed(seed, &changes));
    }

    #[test]
    fn any_bytes_hold(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for (_, check) in CHECKS {
            check(&bytes);
        }
    }
}
