//! What the tests are made of.

pub mod broker;
pub mod pair;
pub mod process;
