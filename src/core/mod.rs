//! The pure core: no I/O, no clock, no randomness. Time comes in as an argument, effects go out as data.
//!
//! [`Machines`] holds the machines of one partition: a [`user::User`] a local user, a [`link::Link`] a peer. The shell
//! (see [`crate::worker`]) hands signals in, then takes [`Effects`] out and carries them out in one order:
//! commit the rows together with the outputs, publish the outputs, acknowledge the inputs.

mod deadlines;
pub mod device;
pub mod digest;
pub mod effect;
mod holds;
pub mod link;
mod machines;
mod rarely;
pub mod rows;
pub mod settings;
#[allow(missing_docs, reason = "fields bear the names of the contract in docs/wire.md")]
pub mod signal;
pub mod user;

pub use effect::{Effects, Flush, FlushReason, Lapse, Output, Transaction, Update};
pub use holds::HoldId;
pub use machines::{Hour, JobTotals, Machines, PassedOver, RestoreError, Totals};
pub use settings::Settings;
