//! The presence EDUs of federation: read leniently ([`parse_edus`]), written so that every server takes them
//! ([`build_transaction`]).

mod build;
mod digest;
mod edu;
mod parse;

pub use build::{MAX_EDU_BYTES, MAX_EDU_ENTRIES, MAX_EDUS, TransactionContent, build_transaction, entry_size};
pub use parse::{MAX_REJECTS, parse_edus};

/// The greatest integer that JSON carries safely (Matrix spec, canonical JSON).
const MAX_INTEGER: u64 = (1 << 53) - 1;
/// Bytes of a status message; what is longer is cut, because the presence beside it still counts.
const MESSAGE_MAX: usize = 1 << 10;
/// Device types of a user, and the bytes of each.
const DEVICE_TYPES_MAX: usize = 8;
const DEVICE_TYPE_BYTES: usize = 32;

#[cfg(test)]
mod tests;
