//! A client of server-sent events on a bare socket: it reads when it is told to, and not before.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Far beyond what anything here takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Small, so that what is not read soon waits at the server.
const RECEIVE_BUFFER: u32 = 8 << 10;

/// Bytes that are read at once, at least.
const READ: usize = 16 << 10;

/// One answer of the edge, being read.
pub struct EventStream {
    pub status: u16,
    /// Status line and headers, lower-cased.
    pub head: String,
    socket: TcpStream,
    raw: Vec<u8>,
    text: Vec<u8>,
}

impl EventStream {
    /// `GET /_rollcall/v1/users/{user}/stream` of the edge at `base` (`http://…`), for `device`.
    pub async fn open(base: &str, user: &str, device: &str) -> Self {
        Self::ask(base, user, &format!("Authorization: Bearer {user}|{device}\r\n")).await
    }

    /// The same with other headers.
    pub async fn ask(base: &str, user: &str, headers: &str) -> Self {
        let address = base.strip_prefix("http://").unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
        let mut socket = socket.connect(address.parse().unwrap()).await.unwrap();
        let request = format!("GET /_rollcall/v1/users/{user}/stream HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self { status: 0, head: String::new(), socket, raw: Vec::new(), text: Vec::new() };
        let head = stream.until(b"\r\n\r\n").await.expect("a head");
        stream.head = String::from_utf8(head).unwrap().to_lowercase();
        stream.status = stream.head.split(' ').nth(1).unwrap().parse().unwrap();
        stream
    }

    /// The next line, without its end; `None`: it is over.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            let size = String::from_utf8(self.until(b"\r\n").await?).unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            while self.raw.len() < size + 2 {
                self.fill().await?;
            }
            self.text.extend(self.raw.drain(..size));
            self.raw.drain(..2);
            if size == 0 {
                return None;
            }
        }
    }

    /// The next object; signs of life are passed over. `None`: it is over.
    pub async fn data(&mut self) -> Option<Value> {
        loop {
            if let Some(data) = self.line().await?.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }

    /// Reads until somebody's event is as it should be; its content.
    pub async fn until_event(&mut self, sender: &str, should: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let reading = async {
            loop {
                let message = self.data().await.expect("it goes on");
                let events = message["events"].as_array().unwrap();
                if let Some(event) = events.iter().find(|event| event["sender"] == sender) {
                    last = event["content"].clone();
                    if should(&last) {
                        return;
                    }
                }
            }
        };
        let outcome = timeout(PATIENCE, reading).await;
        assert!(outcome.is_ok(), "the last of {sender}: {last}");
        last
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.raw.windows(end.len()).position(|window| window == end) {
                let found = self.raw.drain(..at).collect();
                self.raw.drain(..end.len());
                return Some(found);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Option<()> {
        self.raw.reserve(READ);
        let reading = timeout(PATIENCE, self.socket.read_buf(&mut self.raw)).await;
        let count = reading.expect("something within the deadline").unwrap_or(0);
        (count > 0).then_some(())
    }
}
