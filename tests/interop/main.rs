//! Stories with real Synapse homeservers, played by Python (see `docs/interop.md`): this hands over to it.
//!
//! Arguments are parts of stories' names, as with other tests; options of the test harness mean nothing here.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/interop-venv/bin/python");
    assert!(python.exists(), "Synapse is not installed ({}): tests/run installs it", python.display());
    // The test process becomes Python: whoever ends it ends the stories, and what they started.
    let error = Command::new(python)
        .arg("-B")
        .arg(root.join("tests/interop"))
        .args(["--rollcall", env!("CARGO_BIN_EXE_rollcall")])
        .args(parts(std::env::args().skip(1)))
        .exec();
    panic!("Python does not start: {error}");
}

/// What of a test harness's arguments are parts of names.
fn parts(mut arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut parts = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--skip" | "--test-threads" | "--color" | "--format" => drop(arguments.next()),
            option if option.starts_with('-') => {}
            _ => parts.push(argument),
        }
    }
    parts
}
