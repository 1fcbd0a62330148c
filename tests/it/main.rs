//! Everything that needs more than one module: one binary, so that it links once.

#![allow(unreachable_pub, reason = "a test binary is its own world")]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the reason")]

mod bus;
mod cli;
mod conformance;
mod contract;
mod corpus;
mod demo;
mod deployment;
mod federation;
mod first_session;
mod machines;
mod model;
mod nothing_lost;
mod ops;
mod preflight;
mod script;
mod secrets;
mod store;
mod stories;
mod support;
mod tidy;
