//! A hop between the servers that counts what passes. Signatures name servers and paths, not addresses, so they hold across it.

use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, HOST};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use reqwest::Client;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Traffic;
use crate::edge::inflate::{Coding, inflate, inflated_len};
use crate::outbound::http::read_answer;

/// More than `batch.max_bytes` may ever be.
const BODY_MAX: usize = 8 << 20;
const TRANSACTIONS: &str = "/_matrix/federation/v1/send/";

/// The way to one server.
pub(super) struct Hop {
    client: Client,
    target: String,
    traffic: Mutex<Traffic>,
    permissions: AtomicU64,
}

#[derive(Deserialize)]
struct Transaction {
    edus: Vec<Edu>,
}

#[derive(Deserialize)]
struct Edu {
    #[serde(default)]
    edu_type: String,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    push: Vec<IgnoredAny>,
    #[serde(default)]
    poll: Vec<IgnoredAny>,
}

impl Hop {
    /// Towards the base URL `target`.
    pub(super) fn new(client: Client, target: String) -> Self {
        Self { client, target, traffic: Mutex::default(), permissions: AtomicU64::new(0) }
    }

    /// How many questions and answers passed: who may see whom.
    pub(super) fn permissions(&self) -> u64 {
        self.permissions.load(Ordering::Relaxed)
    }

    /// Counts traffic anew.
    pub(super) fn forget(&self) {
        *self.traffic.lock().unwrap_or_else(PoisonError::into_inner) = Traffic::default();
    }

    /// What passed so far.
    pub(super) fn traffic(&self) -> Traffic {
        *self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, parts: &Parts, body: &[u8]) {
        if !parts.uri.path().starts_with(TRANSACTIONS) {
            return;
        }
        let transaction = serde_json::from_slice(&content(parts, body));
        let edus = transaction.map_or_else(|_| Vec::new(), |transaction: Transaction| transaction.edus);
        let entries: usize = edus.iter().map(|edu| edu.content.push.len()).sum();
        let permissions = edus.iter().filter(|edu| edu.edu_type.starts_with("m.presence_")).count();
        self.permissions.fetch_add(permissions as u64, Ordering::Relaxed);
        let polls: usize = edus.iter().map(|edu| edu.content.poll.len()).sum();
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.transactions += 1;
        traffic.entries += entries as u64;
        traffic.polls += polls as u64;
        traffic.head_bytes += head_len(parts) as u64;
        traffic.body_bytes += body.len() as u64;
    }

    async fn forward(&self, mut parts: Parts, body: Bytes) -> Result<Response, String> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("{}{path}", self.target);
        // Those two are this hop's own to say.
        parts.headers.remove(HOST);
        parts.headers.remove(CONTENT_LENGTH);
        let request = self.client.request(parts.method, url).headers(parts.headers).body(body);
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let kept = [header::CONTENT_TYPE, header::ACCEPT_ENCODING];
        let kept = kept.map(|name| answer.headers().get(&name).cloned().map(|value| (name, value)));
        let body = read_answer(answer).await.map_err(|error| error.to_string())?;
        let mut response = (status, Body::from(body)).into_response();
        response.headers_mut().extend(kept.into_iter().flatten());
        Ok(response)
    }
}

/// Serves until `stop`, then finishes what is under way.
pub(super) async fn serve(listener: TcpListener, hop: Arc<Hop>, stop: CancellationToken) -> io::Result<()> {
    let router = Router::new().fallback(pass).with_state(hop);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn pass(State(hop): State<Arc<Hop>>, request: Request) -> Result<Response, StatusCode> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_MAX).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
    hop.note(&parts, &body);
    hop.forward(parts, body).await.map_err(|error| {
        tracing::warn!(error, "the hop cannot reach its server");
        StatusCode::BAD_GATEWAY
    })
}

/// What a body says, whatever its coding.
fn content<'b>(parts: &Parts, body: &'b [u8]) -> Cow<'b, [u8]> {
    match Coding::of(&parts.headers) {
        Ok(Coding::Gzip) => {
            inflated_len(body, BODY_MAX).and_then(|length| inflate(body, length)).unwrap_or_default().into()
        }
        _ => body.into(),
    }
}

/// Bytes of request line and headers as HTTP/1.1 writes them.
fn head_len(parts: &Parts) -> usize {
    let target = parts.uri.path_and_query().map_or(1, |path| path.as_str().len());
    let line = parts.method.as_str().len() + " ".len() + target + " HTTP/1.1\r\n".len();
    let headers = parts.headers.iter().map(|(name, value)| name.as_str().len() + ": \r\n".len() + value.len());
    line + headers.sum::<usize>() + "\r\n".len()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::outbound::coding::{GZIP, gzip};

    #[test]
    fn a_head_is_as_long_as_it_is_written() {
        let text = "PUT /_matrix/federation/v1/send/1 HTTP/1.1\r\nhost: b.example\r\ncontent-length: 2\r\n\r\n";
        let request = Request::put("/_matrix/federation/v1/send/1").header(HOST, "b.example").header(CONTENT_LENGTH, 2);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(head_len(&parts), text.len());
    }

    #[test]
    fn transactions_are_counted_and_nothing_else() {
        let hop = Hop::new(crate::outbound::http::client(super::super::PATIENCE).unwrap(), "http://127.0.0.1:1".into());
        let parts = |path: &str| Request::put(path).body(()).unwrap().into_parts().0;
        hop.note(&parts("/_matrix/key/v2/server"), b"{}");
        assert_eq!(hop.traffic(), Traffic::default());
        let body = br#"{"edus": [{"content": {"push": [{}, {}], "poll": ["@a:b"]}}, {"edu_type": "m.presence_accept", "content": {}}]}"#;
        let send = parts("/_matrix/federation/v1/send/1");
        hop.note(&send, body);
        let Traffic { transactions, entries, polls, body_bytes, .. } = hop.traffic();
        assert_eq!((transactions, entries, polls, body_bytes), (1, 2, 1, body.len() as u64));
        assert_eq!(hop.permissions(), 1);
        let in_gzip = gzip(body);
        let mut coded = send;
        coded.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(GZIP));
        hop.note(&coded, &in_gzip);
        let again = hop.traffic();
        assert_eq!((again.entries, again.body_bytes), (4, (body.len() + in_gzip.len()) as u64), "as it travelled");
    }
}
