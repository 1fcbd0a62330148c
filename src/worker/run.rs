//! One run of deliveries: from bytes to machines, and what is left to do afterwards.

use std::any::Any;
use std::collections::BTreeMap;

use metrics::counter;

use super::owner::Ended;
use crate::bus::{Delivery, Exchange, Outgoing, Queue, Token};
use crate::core::signal::{Addressed, PeerSignal};
use crate::core::{HoldId, Machines};
use crate::model::Timestamp;
use crate::wire::envelope::{EnvelopeError, Packet, decode, encode};

/// A delivery and what it says.
pub(super) struct Taken {
    pub(super) delivery: Delivery,
    pub(super) packet: Result<Packet, EnvelopeError>,
}

impl From<Delivery> for Taken {
    fn from(delivery: Delivery) -> Self {
        let packet = decode(&delivery.body).map(Packet::renewed);
        Self { delivery, packet }
    }
}

impl Taken {
    /// About how many bytes it takes in memory, its own and what its signals keep.
    pub(super) fn bytes(&self) -> usize {
        self.delivery.body.len() + self.packet.as_ref().map_or(0, Packet::weight)
    }

    /// Whether what comes next may rest on it.
    pub(super) fn is_wish(&self) -> bool {
        matches!(&self.packet, Ok(Packet::Links(signals)) if signals.iter().any(|signal| signal.signal.is_wish()))
    }

    /// Whether a link stands still until this is handled, or will `by` then.
    pub(super) fn is_urgent(&self, machines: &Machines, by: Timestamp) -> bool {
        let is_waited_for = |signal: &Addressed<_, _>| {
            matches!(signal.signal, PeerSignal::Receipt { .. }) && machines.is_held_up(by, &signal.to)
        };
        matches!(&self.packet, Ok(Packet::Peers(signals)) if signals.iter().any(is_waited_for))
    }
}

/// A delivery of the batching exchange that waits for its windows.
pub(super) struct Held {
    pub(super) token: Token,
    pub(super) bytes: usize,
}

/// What a run of deliveries leaves to do once its effects are committed and published.
#[derive(Default)]
pub(super) struct Run {
    pub(super) tokens: Vec<Token>,
    pub(super) replies: BTreeMap<String, Vec<u64>>,
    pub(super) dead: Vec<Outgoing>,
    /// How many signals were handled, without beats and jobs.
    pub(super) signals: usize,
    /// A delivery could not be handled: nothing of this run counts, and the ownership ends so.
    pub(super) ends: Option<Ended>,
}

/// What became of one packet.
pub(super) enum Applied {
    /// To be acknowledged after the commit.
    Done,
    /// To be acknowledged when its hold is released.
    Held,
    /// It lay on a queue where it does not belong.
    Misplaced,
}

pub(super) fn apply(machines: &mut Machines, queue: &Queue, now: Timestamp, hold: HoldId, packet: Packet) -> Applied {
    match (queue, packet) {
        (Queue::Users(_), Packet::Users(signals)) => {
            for (signal, trace_id) in signals.iter().filter_map(|signal| Some((signal, signal.trace?))) {
                tracing::debug!(%trace_id, user = %signal.to, "user handles");
            }
            machines.handle_users(now, signals);
        }
        (Queue::Peers(_), Packet::Peers(signals)) => {
            for (signal, trace_id) in signals.iter().filter_map(|signal| Some((signal, signal.trace?))) {
                tracing::debug!(%trace_id, peer = %signal.to, "link handles");
            }
            machines.handle_peers(now, signals);
        }
        (Queue::Batch(_), Packet::Links(signals)) => {
            machines.handle_batch(now, hold, signals);
            return Applied::Held;
        }
        (Queue::Users(_), Packet::Beat { at, .. }) => machines.handle_users_beat(now, at),
        (Queue::Peers(_), Packet::Beat { at, .. }) => machines.handle_peers_beat(now, at),
        (Queue::Users(_), Packet::Job(job)) => machines.handle_users_job(now, job),
        (Queue::Peers(_), Packet::Job(job)) => machines.handle_peers_job(now, job),
        _ => return Applied::Misplaced,
    }
    Applied::Done
}

/// How many signals it holds for whose sake it is worth to wait for more: beats and jobs come however little happens.
pub(super) fn signals(packet: &Packet) -> usize {
    match packet {
        Packet::Beat { .. } | Packet::Job(_) => 0,
        packet => packet.len(),
    }
}

pub(super) fn replies_wanted(packet: &Packet) -> Vec<u64> {
    match packet {
        Packet::Users(signals) => signals.iter().filter_map(|signal| signal.reply).collect(),
        Packet::Peers(signals) => signals.iter().filter_map(|signal| signal.reply).collect(),
        Packet::Batch(_) | Packet::Links(_) | Packet::Beat { .. } | Packet::Job(_) => Vec::new(),
    }
}

pub(super) fn is_suspect(delivery: &Delivery) -> bool {
    delivery.is_suspect() && delivery.queue.exchange() != Exchange::Batch
}

pub(super) fn dead_letter(delivery: &Delivery, reason: &str) -> Outgoing {
    tracing::error!(queue = %delivery.queue, reason, "dead letter");
    let origin = delivery.queue.exchange().name();
    counter!("rollcall_dead_letters_total", "origin" => origin, "reason" => "internal").increment(1);
    let mut message = Outgoing::new(Exchange::Dead, "", delivery.body.clone());
    message.headers = delivery.headers.clone();
    message.headers.reply_to = None;
    message.headers.reason = Some(reason.to_owned());
    message.headers.origin = Some(delivery.queue.to_string());
    message
}

/// A packet that made a machine panic: its signals again, each by itself, so that the guilty one is found and takes nobody with it;
/// a single one is a dead letter.
pub(super) fn isolate(delivery: &Delivery, reason: &str) -> Vec<Outgoing> {
    let singles = decode(&delivery.body).map(Packet::singles).unwrap_or_default();
    if singles.len() < 2 {
        return vec![dead_letter(delivery, reason)];
    }
    tracing::error!(queue = %delivery.queue, signals = singles.len(), reason, "taking a packet apart");
    let again = |packet: &Packet| {
        let mut message = Outgoing::new(delivery.queue.exchange(), &*delivery.routing_key, encode(packet));
        message.headers.trace = delivery.headers.trace;
        message
    };
    singles.iter().map(again).collect()
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::core::Settings;
    use crate::core::signal::{LinkSignal, Multicast, Outcome};
    use crate::model::{Partition, Presence, Serial, ServerName, Status, UserId};
    use crate::wire::envelope::Job;

    fn taken(signals: Vec<PeerSignal>) -> Taken {
        let to = ServerName::parse("b.example").unwrap();
        let address = |signal| Addressed { to: to.clone(), at: Timestamp(1), reply: None, trace: None, signal };
        Taken::from(Delivery {
            queue: Queue::Peers(Partition(0)),
            routing_key: "0".into(),
            body: encode(&Packet::Peers(signals.into_iter().map(address).collect())),
            headers: Default::default(),
            redelivered: false,
            returns: 0,
            token: Token(1),
        })
    }

    #[test]
    fn beats_and_jobs_make_nobody_wait() {
        let beat = Packet::Beat { worker: "w".into(), at: Timestamp(1) };
        assert_eq!([beat, Packet::Job(Job::Audit)].each_ref().map(signals), [0, 0]);
        assert_eq!(signals(&taken(vec![PeerSignal::Heard, PeerSignal::Heard]).packet.unwrap()), 2);
    }

    #[test]
    fn that_somebody_watches_is_handled_at_once() {
        let (user, serial) = (|id| UserId::parse(id).unwrap(), Serial { epoch: 1, counter: 1 });
        let (observer, target) = (user("@bob:a.example"), user("@alice:b.example"));
        let watch = LinkSignal::Watch { observer: observer.clone(), target, on: true, accepted: false, serial };
        let is_wish = |signal| {
            let to = ServerName::parse("b.example").unwrap();
            let signal = Multicast { to: vec![to], at: Timestamp(1), trace: None, signal };
            let packet = Ok(Packet::Links(vec![signal]));
            Taken { packet, ..taken(Vec::new()) }.is_wish()
        };
        assert!(is_wish(watch) && !is_wish(LinkSignal::Hide { user: observer, serial }));
    }

    #[test]
    fn only_a_receipt_that_a_window_waits_for_is_urgent() {
        let (now, peer) = (Timestamp(9_000), ServerName::parse("b.example").unwrap());
        let mut settings = Settings::from(&Config::from_toml("data_dir = \"/nowhere\"").unwrap());
        settings.max_entries = 1;
        let mut machines = Machines::new(ServerName::parse("a.example").unwrap(), settings, 1);
        let receipt = || PeerSignal::Receipt { txn_id: "1".into(), outcome: Outcome::Delivered, retry_after_ms: None };
        let is_urgent = |machines: &Machines, signals| taken(signals).is_urgent(machines, now);
        assert!(!is_urgent(&machines, vec![receipt()]), "nothing waits");
        for name in ["one", "other"] {
            let user = UserId::parse(&format!("@{name}:a.example")).unwrap();
            let status = Status { presence: Presence::Online, ..Status::default() };
            let serial = Serial { epoch: 1, counter: 1 };
            let signal = LinkSignal::Change { user, status, serial, promise: true };
            machines.handle_batch(now, 1, vec![Multicast { to: vec![peer.clone()], at: now, trace: None, signal }]);
        }
        assert!(!is_urgent(&machines, vec![PeerSignal::Transaction(Box::default()), PeerSignal::Heard]));
        assert!(is_urgent(&machines, vec![PeerSignal::Heard, receipt()]));
    }
}
