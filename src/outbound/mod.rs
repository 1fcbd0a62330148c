//! Transactions out.
