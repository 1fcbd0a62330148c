//! `edge.stream.*`: push to clients.

use std::time::Duration;

use super::reader::Reader;

/// `edge.stream.*`: streams of updates to clients.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// How many this edge holds open.
    pub max: usize,
    /// How many of them for one user.
    pub per_user: usize,
    /// How much waits for a client that does not keep up, bytes.
    pub buffer: usize,
    /// How often an idle one gets a comment.
    pub heartbeat: Duration,
    /// For how long a client may take nothing.
    pub stall_max: Duration,
}

pub(super) fn stream(r: &mut Reader<'_>) -> StreamConfig {
    StreamConfig {
        max: r.number("edge.stream.max", 1..=1_000_000),
        per_user: r.number("edge.stream.per_user", 1..=1_000),
        buffer: r.size("edge.stream.buffer", 4 << 10..=16 << 20),
        heartbeat: r.duration("edge.stream.heartbeat", ("1s", "5m")),
        stall_max: r.duration("edge.stream.stall_max", ("1s", "1h")),
    }
}
