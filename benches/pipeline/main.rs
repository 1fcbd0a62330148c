//! `cargo bench --bench pipeline`: the whole pipeline beside the bare broker, in one run against one private RabbitMQ.
//!
//! (a) publishes and consumes events on one quorum queue at once, through lapin alone, with confirms and batched
//! acknowledgement, one event a message. (b) publishes the same bodies to `presence.inbound` of a real `rollcall serve`
//! (ingest and worker) and counts until every user is in a transaction on `presence.outbound`; the first window of every
//! destination counts neither in events nor in time. Beside (a) stands the same by the exchange and the queue that edges publish to:
//! the first hop of (b) without rollcall. Then (b) with arrays, and the embedded bus, fed and drained by HTTP.
//!
//! Each begins once the broker has come to rest.
//!
//! `-- --events N` sets the events of (a) and (b), of which arrays get twice as many, and the embedded bus an eighth and twice as many;
//! `--peers N` sets the servers that watch: the more there are, the smaller the packs in which changes travel to their links.

#![allow(clippy::print_stdout, reason = "the figures")]

#[path = "../../tests/it/support/broker.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests")]
mod broker;
#[path = "../../tests/it/support/certificates.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared with the tests")]
mod certificates;
mod embedded;
mod load;
mod meter;
#[path = "../../tests/it/support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod process;
mod rabbitmq;
mod raw;

use load::Load;

/// As the command has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Events of one measurement of (a) and of (b).
const EVENTS: usize = 300_000;
/// Peers that watch.
const PEERS: usize = 8;
/// Events of one array.
const ARRAY: usize = 50;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(measure(option("--events", EVENTS), option("--peers", PEERS)));
}

fn option(name: &str, default: usize) -> usize {
    let arguments: Vec<String> = std::env::args().collect();
    let given = arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} takes a number")))
}

async fn measure(events: usize, peers: usize) {
    println!("{events} users, watched by {peers} peers; one event each");
    let broker = broker::Broker::start().await;
    let raw_before = raw::measure(&broker.url(), events).await;
    print("(a) raw lapin, one event a message", &raw_before);
    meter::at_rest(&broker.url()).await;
    let single = rabbitmq::measure(&broker.url(), "single", &Load::new(events, peers, 1)).await;
    print("(b) pipeline, one event a message", &single);
    meter::at_rest(&broker.url()).await;
    let arrays = rabbitmq::measure(&broker.url(), "arrays", &Load::new(events * 2, peers, ARRAY)).await;
    print("(b) pipeline, arrays of 50", &arrays);
    meter::at_rest(&broker.url()).await;
    let raw_after = raw::measure(&broker.url(), events).await;
    print("(a) again", &raw_after);
    meter::at_rest(&broker.url()).await;
    print("(a) by the declared exchange and queue", &raw::first_hop(&broker.url(), events).await);
    drop(broker);
    let bare = f64::midpoint(raw_before.rate, raw_after.rate);
    println!("one event a message: (b) / (a) = {:.2}", single.rate / bare);
    println!("arrays of {ARRAY}:        (b) / (a) = {:.2}", arrays.rate / bare);
    print(
        "embedded bus over HTTP, one event a request",
        &embedded::measure("single", &Load::new(events / 8, peers, 1)).await,
    );
    print(
        "embedded bus over HTTP, arrays of 50",
        &embedded::measure("arrays", &Load::new(events * 2, peers, ARRAY)).await,
    );
}

/// What one measurement found.
struct Measured {
    /// Events a second.
    rate: f64,
    /// CPU seconds per 10,000 events: broker, rollcall, and this process, which is the edge in front and the sender behind. With
    /// all cores busy, their sum bounds the rate.
    cpu: [Option<f64>; 3],
    /// Resident set at the end, MiB: broker, rollcall.
    rss: [Option<f64>; 2],
    /// Messages between rollcall's own parts, and commits, per 10,000 events.
    packed: Option<rabbitmq::Packed>,
}

fn print(what: &str, measured: &Measured) {
    let figure = |value: Option<f64>, unit: &str| value.map_or("-".to_owned(), |value| format!("{value:.3} {unit}"));
    println!(
        "{what:46} {:>9.0} events/s   CPU/10k: broker {}, rollcall {}, bench {}   RSS: broker {}, rollcall {}",
        measured.rate,
        figure(measured.cpu[0], "s"),
        figure(measured.cpu[1], "s"),
        figure(measured.cpu[2], "s"),
        figure(measured.rss[0], "MiB"),
        figure(measured.rss[1], "MiB"),
    );
    if let Some(packed) = &measured.packed {
        println!("{:46} messages and commits/10k:{packed}", "");
    }
}
