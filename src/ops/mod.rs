//! Operations: health, metrics, status, the dashboard, dead letters.

pub mod dead;
pub mod http;
pub mod metrics;
mod process;
pub mod readiness;
mod series;
pub mod start;
pub mod status;
pub mod tools;
