//! Operations: health, metrics, status, the dashboard, dead letters.

pub mod dead;
pub mod http;
pub mod metrics;
pub mod status;
pub mod tools;
