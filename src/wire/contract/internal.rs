//! What rollcall itself puts onto `presence.inbound`, under routing key `beat`: the clock of a worker, and jobs that are due.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::wire::envelope::{Job, Packet};
use crate::wire::json::Object;
use crate::wire::reject::{Fault, Reject, class};

/// Bytes of such a message: they are ours, and small.
const MAX: usize = 4 << 10;

#[derive(Serialize, Deserialize)]
struct Message<'a> {
    v: u8,
    #[serde(flatten)]
    body: Body<'a>,
    ts: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Body<'a> {
    Beat { worker: std::borrow::Cow<'a, str> },
    Job { job: Job },
}

/// A worker's clock, to be published with routing key `beat`.
pub fn encode_beat(worker: &str, at: Timestamp) -> Bytes {
    encode(Body::Beat { worker: worker.into() }, at)
}

/// A job that is due, to be published with routing key `beat`.
pub fn encode_job(job: Job, at: Timestamp) -> Bytes {
    encode(Body::Job { job }, at)
}

/// Reads what [`encode_beat`] or [`encode_job`] wrote. A clock that runs ahead of `now` counts as `now`: it must not expire anybody.
pub fn parse_internal(body: &[u8], now: Timestamp) -> Result<Packet, Reject> {
    let fault = |class, text: String| Reject { body: Bytes::copy_from_slice(body), reason: text, class };
    if body.len() > MAX {
        return Err(fault(class::SIZE, format!("the beat has {} bytes, at most {MAX} are allowed", body.len())));
    }
    let Object(message) = serde_json::from_slice::<Object<Message<'_>>>(body)
        .map_err(|error| fault(class::JSON, format!("not a beat or job: {error}")))?;
    if message.v != 1 {
        return Err(fault(class::FIELD, Fault::must("v", "1", message.v).text));
    }
    Ok(match message.body {
        Body::Beat { worker } => Packet::Beat { worker: (*worker).into(), at: Timestamp(message.ts).min(now) },
        Body::Job { job } => Packet::Job(job),
    })
}

fn encode(body: Body<'_>, at: Timestamp) -> Bytes {
    serde_json::to_vec(&Message { v: 1, body, ts: at.0 }).expect("plain structs become JSON").into()
}
