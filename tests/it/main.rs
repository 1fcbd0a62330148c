//! The integration tests: one binary, real parts.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail their test")]

mod store;
