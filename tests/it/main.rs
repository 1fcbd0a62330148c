//! Everything that needs more than one module: one binary, so that it links once.

#![allow(unreachable_pub, reason = "a test binary is its own world")]

mod bus;
mod cli;
mod machines;
mod ops;
mod store;
mod support;
mod tidy;
