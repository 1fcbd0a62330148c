//! Integration tests, one binary.

mod bus;
mod support;
