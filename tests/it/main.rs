//! The integration tests: one binary, real parts.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the reason")]

mod contract;
mod federation;
mod store;
