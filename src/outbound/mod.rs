//! Step 4, out: takes transactions from `presence.outbound`, sends each as signed HTTP until it is answered or too old, and says
//! what became of it to the link that made it.
//!
//! [`sender`] is the loop around the queue, [`courier`] carries one transaction; [`resolve`], [`sign`], [`keys`] and [`http`] are
//! what they need, and what the edge needs as well to check peers' signatures.

pub mod courier;
pub mod http;
pub mod keys;
pub mod resolve;
pub mod sender;
pub mod sign;
