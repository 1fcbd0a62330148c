//! The embedded bus: rows in the store.
