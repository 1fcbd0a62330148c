//! rollcall: federated presence for Matrix as a message-queue pipeline.
//!
//! Data flows front to back; this is the map:
//!
//! | step | module | in → out |
//! |---|---|---|
//! | 1 | [`edge`] | HTTP requests → signals, confirmed by the bus |
//! | 2 | [`ingest`] | the JSON contract of foreign edges → signals; bad input → dead letters |
//! | 3 | [`worker`] | the loop around the machines: lease, take, handle, commit, publish, acknowledge |
//! | | [`core`] | pure machines: users, links, windows; time is an argument |
//! | 4 | [`outbound`] | transactions → signed HTTP → receipts |
//!
//! Beneath them: [`bus`] (RabbitMQ or embedded), [`store`] (SQLite), [`wire`] (every encoding), [`model`] (the words).
//! Around them: [`app`], [`config`], [`preflight`], [`lifecycle`], [`telemetry`], [`clock`], [`pace`], [`schedule`], [`ops`],
//! [`policy`]; [`demo`] shows two at work,
//! [`simulate`] counts a working day of many.

pub mod app;
pub mod bus;
pub mod clock;
pub mod config;
pub mod core;
pub mod demo;
pub mod edge;
pub mod ingest;
pub mod lifecycle;
pub mod model;
pub mod ops;
pub mod outbound;
pub mod pace;
mod pem;
pub mod policy;
pub mod preflight;
pub mod reader;
pub mod schedule;
pub mod simulate;
pub mod store;
pub mod telemetry;
pub mod wire;
pub mod worker;
