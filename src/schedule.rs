//! Periodic jobs.
