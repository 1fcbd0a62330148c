//! The bus: one contract, held by every implementation.

mod amqp;
mod contract;
mod faults;
// The embedded bus's place: a module `embedded` with a `contract::Deployment` of its own and `contract::tests!`.
