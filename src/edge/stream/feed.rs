//! From the buffer to the client, as server-sent events (WHATWG HTML, 9.2). Made only when the connection has room for it: what the
//! client does not take stays in the buffer, where newer takes the place of older.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use metrics::counter;
use tokio::time::sleep;

use super::buffer::Next;
use super::registry::Open;
use crate::edge::EdgeState;
use crate::model::{Timestamp, UserId};
use crate::store::StoreError;
use crate::wire::update::{Shown, UpdateMessage};

/// Entries of a list that are read at once: a page takes the whole list's row and one question to the store.
const PAGE: usize = 256;
/// How long a list that cannot be read is let alone.
const READ_PAUSE: Duration = Duration::from_secs(1);
/// When clients whose stream ended are asked to come back, ms: random, so that those of an edge that stops do not come at once.
const RETRY_MS: std::ops::RangeInclusive<u64> = 1_000..=5_000;
/// A comment: nothing happened.
const HEARTBEAT: &str = ":\n\n";

struct Feed {
    edge: Arc<EdgeState>,
    open: Open,
    begun: bool,
}

/// The body of a stream's answer.
pub(super) fn body(edge: Arc<EdgeState>, open: Open) -> Body {
    Body::from_stream(stream::unfold(Feed { edge, open, begun: false }, async |mut feed| {
        let chunk = feed.next().await?;
        Some((Ok::<_, Infallible>(chunk), feed))
    }))
}

impl Feed {
    /// The next piece, as soon as there is one; `None`: the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        let end = self.open.stream().end.clone();
        loop {
            if end.is_cancelled() {
                return None;
            }
            match self.open.stream().next() {
                Next::Events(events) => return Some(self.write(events)),
                Next::Page(after) => match self.page(after.as_ref()).await {
                    Ok(events) => return Some(self.write(events)),
                    Err(error) => {
                        tracing::warn!(%error, "cannot read a list for its stream");
                        end.run_until_cancelled(sleep(READ_PAUSE)).await?;
                    }
                },
                Next::Nothing => tokio::select! {
                    () = end.cancelled() => return None,
                    () = self.open.stream().wake.notified() => {}
                    () = sleep(self.edge.streams.config.heartbeat) => return Some(Bytes::from_static(HEARTBEAT.as_bytes())),
                },
            }
        }
    }

    async fn page(&self, after: Option<&UserId>) -> Result<Vec<(UserId, Shown)>, StoreError> {
        let _turn = self.edge.streams.reads.acquire().await.expect("the semaphore is never closed");
        let now = self.edge.clock.now();
        let read = self.edge.reader.list_page(&self.open.user, after, PAGE, now).await?;
        let is_last = read.len() < PAGE;
        let shown = read.into_iter().map(|(of, _, known)| {
            let known_at = if known.stale_ms == 0 { Timestamp(0) } else { now.minus(known.stale_ms) };
            (of, Shown { status: known.status, known_at })
        });
        Ok(self.open.stream().page(shown.collect(), is_last))
    }

    fn write(&mut self, events: Vec<(UserId, Shown)>) -> Bytes {
        counter!("rollcall_stream_events_total").increment(events.len() as u64);
        let mut text = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            text.extend_from_slice(format!("retry: {}\n", fastrand::u64(RETRY_MS)).as_bytes());
        }
        for message in UpdateMessage::split(&self.open.user, events, self.edge.clock.now()) {
            // JSON has no line breaks of its own: one line holds it.
            text.extend_from_slice(b"data: ");
            text.append(&mut message.encode());
            text.extend_from_slice(b"\n\n");
        }
        text.into()
    }
}
