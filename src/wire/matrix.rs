//! EDUs.
