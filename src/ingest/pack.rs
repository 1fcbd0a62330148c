//! Deliveries → messages.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use crate::bus::{Delivery, Exchange, Outgoing, Token};
use crate::model::{Timestamp, TraceId};
use crate::wire::contract::{self, Context, Parsed, Routed, Source};
use crate::wire::envelope::{self, Job, Packer, Packet};
use crate::wire::reject::{Reject, class};

use super::Ingest;

/// The queue that ingest's dead letters name as their origin.
pub(super) const ORIGIN: &str = "inbound";
/// After so many bytes of bodies other tasks get a turn.
const TURN_BYTES: usize = 256 << 10;

/// Hands a body's signals to the packer, as part of `trace` if there is one, and counts them. What is rejected comes back, for
/// [`dead_letter`], but for what servers say that are not listened to: that is dropped.
pub fn pack(parsed: Parsed, trace: Option<TraceId>, packer: &mut Packer) -> Vec<Reject> {
    for mut routed in parsed.signals {
        metrics::counter!("rollcall_events_total", "type" => routed.kind()).increment(1);
        if let Some(trace) = trace {
            routed.set_trace(trace);
        }
        match routed {
            Routed::User(signal) => packer.user(signal),
            Routed::Peer(signal) => packer.peer(signal),
        }
    }
    let (denied, invalid): (Vec<_>, Vec<_>) =
        parsed.rejects.into_iter().partition(|reject| reject.class == class::DENIED);
    for Reject { reason, .. } in &denied {
        tracing::debug!(reason, "ingest: an event is dropped");
    }
    count("denied", denied.len());
    count("invalid", invalid.len());
    invalid
}

fn count(kind: &'static str, events: usize) {
    if events > 0 {
        metrics::counter!("rollcall_events_total", "type" => kind).increment(events as u64);
    }
}

/// A message to `presence.dead` that says why, and from which queue it came. Counts it.
pub fn dead_letter(reject: Reject, origin: &'static str, trace: Option<TraceId>) -> Outgoing {
    metrics::counter!("rollcall_dead_letters_total", "origin" => origin, "reason" => reject.class).increment(1);
    let mut message = Outgoing::new(Exchange::Dead, "", reject.body);
    message.headers.reason = Some(reject.reason);
    message.headers.origin = Some(origin.into());
    message.headers.trace = trace;
    message
}

/// What comes of a run.
#[derive(Default)]
pub(super) struct Packed {
    pub(super) messages: Vec<Outgoing>,
    /// Beats and jobs, to be published after the messages.
    pub(super) broadcasts: Vec<Outgoing>,
    /// Of deliveries that are done with when that is confirmed.
    pub(super) tokens: Vec<Token>,
    pub(super) aside: Aside,
}

/// What could not be understood. While no dead letters are taken, only this waits.
#[derive(Default)]
pub(super) struct Aside {
    pub(super) letters: Vec<Outgoing>,
    /// Of deliveries that had such a part.
    pub(super) tokens: Vec<Token>,
}

pub(super) async fn pack_run(ingest: &Ingest, deliveries: Vec<Delivery>) -> Packed {
    let mut packing = Packing::new(ingest.partitions);
    let mut bytes = 0;
    for delivery in deliveries {
        bytes += delivery.body.len();
        packing.add(ingest, delivery);
        if bytes > TURN_BYTES {
            bytes = 0;
            tokio::task::yield_now().await;
        }
    }
    packing.finish(ingest.partitions)
}

struct Packing {
    packer: Packer,
    tokens: Vec<Token>,
    aside: Aside,
    /// The newest of each worker: after a backlog the older ones say nothing more.
    beats: BTreeMap<Box<str>, Timestamp>,
    jobs: Vec<Job>,
}

impl Packing {
    fn new(partitions: u16) -> Self {
        Self {
            packer: Packer::new(partitions),
            tokens: Vec::new(),
            aside: Aside::default(),
            beats: BTreeMap::new(),
            jobs: Vec::new(),
        }
    }

    fn add(&mut self, ingest: &Ingest, delivery: Delivery) {
        let (now, trace) = (ingest.clock.now(), delivery.headers.trace);
        let rejects = match Source::from_routing_key(&delivery.routing_key) {
            Some(key) => {
                let (local, policy) = (ingest.local.clone(), ingest.policy.clone());
                let context = Context { local, now, key, policy };
                let parsed = guarded(&delivery.body, |body| contract::parse(body, &context));
                follow(trace, &parsed);
                pack(parsed, trace, &mut self.packer)
            }
            None => self.internal(&delivery, now).err().into_iter().collect(),
        };
        let tokens = if rejects.is_empty() { &mut self.tokens } else { &mut self.aside.tokens };
        tokens.push(delivery.token);
        self.aside.letters.extend(rejects.into_iter().map(|reject| dead_letter(reject, ORIGIN, trace)));
    }

    fn internal(&mut self, delivery: &Delivery, now: Timestamp) -> Result<(), Reject> {
        if &*delivery.routing_key != "beat" {
            let reason = format!("unknown routing key {:?}", delivery.routing_key);
            return Err(Reject { body: delivery.body.clone(), reason, class: class::TYPE });
        }
        match contract::parse_internal(&delivery.body, now)? {
            Packet::Beat { worker, at } => {
                let newest = self.beats.entry(worker).or_default();
                *newest = at.max(*newest);
            }
            Packet::Job(job) if !self.jobs.contains(&job) => self.jobs.push(job),
            _ => {}
        }
        Ok(())
    }

    fn finish(self, partitions: u16) -> Packed {
        let beats = self.beats.into_iter().map(|(worker, at)| Packet::Beat { worker, at });
        let jobs = self.jobs.into_iter().map(Packet::Job);
        let broadcasts = beats.chain(jobs).flat_map(|packet| envelope::broadcast(&packet, partitions)).collect();
        Packed { messages: self.packer.finish(false), broadcasts, tokens: self.tokens, aside: self.aside }
    }
}

/// A mistake in the parser costs the body that shows it, not the process.
pub(super) fn guarded(body: &Bytes, parse: impl FnOnce(&[u8]) -> Parsed) -> Parsed {
    // A panic leaves nothing half done: parsing changes nothing but its own result.
    catch_unwind(AssertUnwindSafe(|| parse(body))).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
        let reason = format!("the parser failed: {}", words.unwrap_or("without a word"));
        tracing::error!(reason, bytes = body.len(), "ingest: a body is put aside");
        Parsed { signals: Vec::new(), rejects: vec![Reject { body: body.clone(), reason, class: class::PANIC }] }
    })
}

fn follow(trace: Option<TraceId>, parsed: &Parsed) {
    let Some(trace) = trace else { return };
    let (signals, rejects) = (parsed.signals.len(), parsed.rejects.len());
    tracing::debug_span!("ingest", trace_id = %trace)
        .in_scope(|| tracing::debug!(signals, rejects, "taken off the inbound queue"));
}
