//! What must hold of everything that strangers can make us read, whatever bytes come. Fuzzers and tests run the same functions.

pub mod contract;
pub mod envelope;
pub mod inflate;
pub mod keys;
pub mod transaction;
pub mod well_known;
pub mod x_matrix;

use rollcall::model::{ServerName, Timestamp};

/// Panics if something does not hold of these bytes.
pub type Check = fn(&[u8]);

/// Each, under the name of its target and of its folder of seeds.
pub const CHECKS: &[(&str, Check)] = &[
    ("contract", contract::check),
    ("envelope", envelope::check),
    ("inflate", inflate::check),
    ("keys", keys::check),
    ("transaction", transaction::check),
    ("well_known", well_known::check),
    ("x_matrix", x_matrix::check),
];

/// The time of receipt.
const NOW: Timestamp = Timestamp(1_795_400_000_000);
/// No sentence about bad input is longer: a name of 255 bytes and a value of 100 characters, escaped, and words.
const REASON_MAX: usize = 4 << 10;

fn server(name: &str) -> ServerName {
    ServerName::parse(name).expect("a literal")
}

/// The server that reads.
fn local() -> ServerName {
    server("a.example")
}

/// The server whose word it is.
fn peer() -> ServerName {
    server("b.example")
}
