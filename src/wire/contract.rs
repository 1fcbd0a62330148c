//! The JSON contract.
