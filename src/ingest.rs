//! JSON in.
