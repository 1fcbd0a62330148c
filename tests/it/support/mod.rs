//! What tests stand on: real parts, started privately.

pub(crate) mod broker;
