//! Encodings: [`contract`] is the edges' JSON, [`matrix`] the federation's EDUs, [`envelope`] our internal bincode, [`outbound`]
//! what senders take, [`update`] what clients are told. What cannot be read becomes a [`reject::Reject`].

pub mod contract;
pub mod envelope;
mod json;
pub mod matrix;
pub mod outbound;
pub mod reject;
mod shape;
pub mod update;
