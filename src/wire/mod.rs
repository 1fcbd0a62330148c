//! Encodings: [`contract`] is the edges' JSON, [`matrix`] the federation's EDUs, [`envelope`] our internal bincode, [`outbound`]
//! what senders take.

pub mod contract;
pub mod envelope;
pub mod matrix;
pub mod outbound;
