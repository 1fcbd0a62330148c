//! What the tests are made of.

pub mod broker;
pub mod certificates;
pub mod edge;
pub mod fleet;
pub mod herd;
pub mod pair;
pub mod person;
pub mod process;
pub mod rows;
pub mod sse;
pub mod tap;
