//! The integration tests: one binary, real parts.

mod federation;
mod store;
