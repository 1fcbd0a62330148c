//! The encodings that others rely on: edges' JSON, EDUs, and the bytes of the envelope.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic, helpers of tests too")]

mod bad_input;
mod fuzz;
mod golden;
mod schemas;

use rollcall::model::{ServerName, Timestamp};
use rollcall::policy::Policy;
use rollcall::wire::contract::{Context, Parsed, Source, parse};

const NOW: Timestamp = Timestamp(1_795_400_060_000);

fn context(key: Source) -> Context {
    Context { local: ServerName::parse("a.example").unwrap(), now: NOW, key, policy: Policy::everybody() }
}

fn read(key: Source, body: &str) -> Parsed {
    parse(body.as_bytes(), &context(key))
}
