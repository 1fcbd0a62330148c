//! Step 4, out: takes transactions from `presence.outbound`, sends each as signed HTTP until it is answered or too old, and says
//! what became of it to the link that made it.
//!
//! | module | what |
//! |---|---|
//! | [`sender`] | the loop around the queue; `receipts`: what is under way, and what is told of it |
//! | [`courier`] | carries one transaction; `lanes`: one at a time to each peer; `coding`: gzip for those who take it; `trouble`: what is known of peers that fail; `turns`: whose request is next; `waits`: how long to wait; `kept`: to whom connections are |
//! | [`failure`] | why they do |
//! | [`sign`], [`keys`] | say who we are, and check who others are |
//! | [`peers`] | the way to a server: what the operator says ([`resolve`]), else [`discovery`] with [`well_known`] and [`dns`] |
//! | [`clients`], [`http`], [`reach`] | connections: their bounds, and where they may go |

pub mod clients;
pub(crate) mod coding;
pub mod courier;
pub mod discovery;
pub mod dns;
pub mod failure;
pub mod http;
mod kept;
pub mod keys;
mod lanes;
pub mod peers;
pub mod reach;
mod receipts;
pub mod resolve;
pub mod sender;
pub mod sign;
mod trouble;
mod turns;
mod waits;
pub mod well_known;
