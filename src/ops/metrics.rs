//! Every metric, in one table: names, labels and meanings are an interface to dashboards and alerts.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::series;

/// What a metric does over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows; falls to 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counted in buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, as Prometheus shows it.
    pub name: &'static str,
    /// What it does over time.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// Its labels, separated by commas.
    pub labels: &'static str,
    /// What it says.
    pub help: &'static str,
}

/// A window is seconds long, an overload minutes.
const FLUSH_BUCKETS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 4.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 300.0];
/// From an SSD's sync to a disk in trouble.
const COMMIT_BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// From a look into memory to the longest wait for the store.
const REQUEST_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From the same rack to the default time-out.
const SEND_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// One is no grouping at all.
const GROUP_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0];

const fn counter(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Count, labels, help }
}

const fn bytes(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Bytes, labels, help }
}

const fn gauge(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit: Unit::Count, labels, help }
}

const fn seconds(name: &'static str, buckets: &'static [f64], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram(buckets), unit: Unit::Seconds, labels: "", help }
}

/// All of them.
pub const METRICS: &[Metric] = &[
    gauge("rollcall_build_info", "version", "1, for the version that runs"),
    gauge("rollcall_up", "part", "1 if the broker or the store answered at the last look, else 0"),
    counter(
        "rollcall_events_total",
        "type",
        "Events that edges sent, by type; invalid: refused; denied: of peers not listened to",
    ),
    counter("rollcall_dead_letters_total", "origin,reason", "Messages put aside as dead letters, by where and why"),
    gauge("rollcall_queue_messages", "queue,state", "Messages in a queue: ready, or unacked where the bus tells"),
    gauge("rollcall_queue_consumers", "queue", "Consumers of a queue"),
    counter("rollcall_published_total", "exchange", "Messages that this process published and the bus confirmed"),
    bytes(
        "rollcall_published_bytes_total",
        "exchange",
        "Bytes of the bodies of messages that this process published and the bus confirmed",
    ),
    counter("rollcall_redeliveries_total", "queue", "Deliveries that had been delivered before"),
    Metric {
        name: "rollcall_partition_lag_seconds",
        kind: Kind::Gauge,
        unit: Unit::Seconds,
        labels: "partition",
        help: "How far a partition's horizon lies behind the clock",
    },
    gauge("rollcall_partition_epoch", "partition", "The newest epoch of a partition: each change is a new owner"),
    gauge("rollcall_partitions_owned", "", "Partitions that this process owns"),
    gauge(
        "rollcall_links",
        "state",
        "Links of the partitions that this process owns: all, unknown (the peer was given up), or owed something",
    ),
    counter("rollcall_windows_total", "reason", "Windows closed: due, entries, bytes, pressure or drain"),
    counter("rollcall_window_entries_total", "reason", "Entries that left in windows, by why the windows closed"),
    bytes(
        "rollcall_window_bytes_total",
        "reason",
        "Bytes of transaction that left in windows, by why the windows closed",
    ),
    counter(
        "rollcall_receipts_total",
        "outcome",
        "What became of transactions; denied: not sent, for federation.outbound denies the peer",
    ),
    seconds("rollcall_edge_to_flush_seconds", FLUSH_BUCKETS, "From an event at the edge to the window that took it"),
    counter("rollcall_commits_total", "", "Runs committed"),
    counter("rollcall_commit_rows_total", "", "Rows written by committed runs"),
    bytes("rollcall_commit_bytes_total", "", "Bytes written by committed runs"),
    seconds("rollcall_commit_seconds", COMMIT_BUCKETS, "From handing a run to the store to its word"),
    counter("rollcall_job_runs_total", "job", "Periodic jobs started"),
    counter(
        "rollcall_job_findings_total",
        "job",
        "What periodic jobs found to do: users forgotten (expire), repairs (audit), peers tried (probe)",
    ),
    counter(
        "rollcall_passed_over_total",
        "bound",
        "What a fixed bound left no room for: entries of a list (list), users of whom one peer is told (served), or whom one of its \
         transactions asks for (polls)",
    ),
    counter(
        "rollcall_changes_withheld_total",
        "",
        "Changes that peers are told of later: their users change again and again",
    ),
    counter("rollcall_updates_sent_total", "", "Messages with updates that workers sent to edges"),
    counter("rollcall_updates_received_total", "", "Messages with updates that this edge took"),
    counter(
        "rollcall_updates_dropped_total",
        "reason",
        "Messages with updates that went to no stream: nobody, unreadable or, of the embedded bus, overflow",
    ),
    counter("rollcall_updates_coalesced_total", "", "Updates that gave way to a newer one before the client took them"),
    gauge("rollcall_streams", "", "Streams of updates that are open"),
    counter("rollcall_stream_events_total", "", "Events that clients of streams took, those of their lists included"),
    counter("rollcall_stream_overflows_total", "", "Times that too much waited for a client, who gets its list again"),
    gauge("rollcall_connections", "", "Connections to this edge that are open"),
    counter(
        "rollcall_connections_refused_total",
        "by",
        "Connections closed as they came: all places were taken, or those of one address",
    ),
    counter("rollcall_http_requests_total", "route,code", "Requests that the edge answered"),
    Metric {
        name: "rollcall_http_request_seconds",
        kind: Kind::Histogram(REQUEST_BUCKETS),
        unit: Unit::Seconds,
        labels: "route,method",
        help: "From a request at the edge to the head of its answer",
    },
    counter(
        "rollcall_limited_total",
        "by",
        "Requests that the edge refused because a user or an address asked too much",
    ),
    counter(
        "rollcall_send_failures_total",
        "reason",
        "Requests with transactions to peers that failed, by why: each attempt counts",
    ),
    seconds("rollcall_send_seconds", SEND_BUCKETS, "One request to a peer, from connecting to its answer"),
    bytes(
        "rollcall_sent_bytes_total",
        "",
        "Bytes of transaction sent to peers, as they travelled (gzip or not), repeats included",
    ),
    gauge("rollcall_bus_blocked", "", "1 while the broker takes no messages because it is short of memory or disk"),
    counter("rollcall_bus_connections_lost_total", "", "Connections to the broker that were lost and replaced"),
    counter("rollcall_bus_returned_total", "", "Messages that the broker gave back because no queue took them"),
    counter(
        "rollcall_replies_dropped_total",
        "",
        "Words that a write is applied which nobody took off the bus in time",
    ),
    counter(
        "rollcall_dead_letters_dropped_total",
        "",
        "Dead letters of the embedded bus that were too old or too many",
    ),
    counter("rollcall_store_transactions_total", "", "Database transactions of the group commit"),
    Metric {
        name: "rollcall_store_group_jobs",
        kind: Kind::Histogram(GROUP_BUCKETS),
        unit: Unit::Count,
        labels: "",
        help: "Commits, publishes and acknowledgements that shared one database transaction",
    },
];

/// Installs the recorder for the whole process, describes every metric and begins every series that is known beforehand. Call it once.
///
/// # Errors
/// When a recorder was installed before.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let Kind::Histogram(buckets) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.into()), buckets)?;
        }
    }
    let handle = builder.install_recorder()?;
    METRICS.iter().for_each(describe);
    series::begin();
    Ok(handle)
}

fn describe(metric: &Metric) {
    match metric.kind {
        Kind::Counter => describe_counter!(metric.name, metric.unit, metric.help),
        Kind::Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
        Kind::Histogram(_) => describe_histogram!(metric.name, metric.unit, metric.help),
    }
}
