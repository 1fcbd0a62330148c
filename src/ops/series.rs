//! Begins every series whose labels are known beforehand at 0: `increase()` sees the first event only of a series that is there.

use metrics::{Label, counter};

use super::metrics::{Kind, METRICS};
use crate::bus::{Exchange, Topology};
use crate::core::FlushReason;
use crate::core::signal::Outcome;
use crate::outbound::failure::Failure;
use crate::schedule;
use crate::wire::contract;
use crate::wire::reject::class;

/// Those that every process has.
pub(super) fn begin() {
    for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Counter && metric.labels.is_empty()) {
        counter!(metric.name).increment(0);
    }
    each("rollcall_events_total", "type", contract::kinds().chain(["invalid", "denied"]));
    each("rollcall_published_total", "exchange", Exchange::ALL.map(Exchange::name));
    each("rollcall_published_bytes_total", "exchange", Exchange::ALL.map(Exchange::name));
    for name in ["rollcall_windows_total", "rollcall_window_entries_total", "rollcall_window_bytes_total"] {
        each(name, "reason", FlushReason::ALL.map(FlushReason::as_str));
    }
    each("rollcall_receipts_total", "outcome", Outcome::ALL.map(Outcome::as_str).into_iter().chain(["denied"]));
    each("rollcall_job_runs_total", "job", schedule::NAMES);
    each("rollcall_job_findings_total", "job", ["expire", "audit", "probe"]);
    each("rollcall_passed_over_total", "bound", ["list", "served", "polls"]);
    each("rollcall_updates_dropped_total", "reason", ["nobody", "unreadable", "overflow"]);
    each("rollcall_connections_refused_total", "by", ["all", "address"]);
    each("rollcall_limited_total", "by", ["user", "address"]);
    each("rollcall_send_failures_total", "reason", Failure::ALL.map(Failure::as_str));
    dead_letters();
}

/// Those of a deployment with so many partitions.
pub(super) fn begin_queues(partitions: u16) {
    let topology = Topology { prefix: String::new(), partitions };
    each("rollcall_redeliveries_total", "queue", topology.queues().iter().map(ToString::to_string));
}

fn dead_letters() {
    let begin = |origin: &'static str, reason: &'static str| {
        counter!("rollcall_dead_letters_total", "origin" => origin, "reason" => reason).increment(0);
    };
    for origin in [Exchange::Inbound.name(), "federation"] {
        class::ALL.into_iter().for_each(|reason| begin(origin, reason));
    }
    for exchange in [Exchange::Users, Exchange::Peers, Exchange::Batch] {
        begin(exchange.name(), "internal");
    }
    begin(Exchange::Outbound.name(), "undecodable");
}

fn each<T: Into<metrics::SharedString>>(name: &'static str, label: &'static str, values: impl IntoIterator<Item = T>) {
    for value in values {
        counter!(name, vec![Label::new(label, value)]).increment(0);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    /// Codes and routes are the one pair that is not known beforehand.
    const UNKNOWN: [&str; 1] = ["rollcall_http_requests_total"];

    #[test]
    fn every_counter_is_there_before_anything_happens() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            begin();
            begin_queues(2);
        });
        let scrape = recorder.handle().render();
        for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Counter && !UNKNOWN.contains(&metric.name)) {
            let first = metric.labels.split(',').next().unwrap();
            let begun = match first {
                "" => format!("\n{} 0\n", metric.name),
                label => format!("\n{}{{{label}=\"", metric.name),
            };
            assert!(scrape.contains(&begun), "{} is not begun", metric.name);
        }
        assert!(scrape.contains(r#"rollcall_dead_letters_total{origin="inbound",reason="json"} 0"#), "{scrape}");
        assert!(scrape.contains(r#"rollcall_send_failures_total{reason="refused_address"} 0"#), "{scrape}");
        assert!(scrape.contains(r#"rollcall_redeliveries_total{queue="users.1"} 0"#), "{scrape}");
    }
}
