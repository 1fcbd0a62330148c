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
    let parts = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    // The test process becomes Python: whoever ends it ends the stories, and what they started.
    let error = Command::new(python)
        .arg("-B")
        .arg(root.join("tests/interop"))
        .args(["--rollcall", env!("CARGO_BIN_EXE_rollcall")])
        .args(parts)
        .exec();
    panic!("Python does not start: {error}");
}
