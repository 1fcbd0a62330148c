//! The loop around the machines.
