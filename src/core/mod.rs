//! The pure core: no I/O, no clock, no randomness. Time comes in as an argument, effects go out as data.

#[allow(missing_docs, reason = "fields bear the names of the contract in docs/wire.md")]
pub mod signal;
