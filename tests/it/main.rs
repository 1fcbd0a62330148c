//! Integration tests, one binary.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the reason")]

mod bus;
mod support;
