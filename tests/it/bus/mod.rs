//! The bus: one contract, held by every implementation.

mod amqp;
mod contract;
mod embedded;
mod faults;
mod operators;
mod tls;
mod transfer;
mod unconfirmed;
mod updates;
