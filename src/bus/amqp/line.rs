//! One connection to the broker, replaced by the next address's when it dies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use lapin::runtime::default_runtime;
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, ConnectionStatus, Event};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::bus::BusError;
use crate::config::{BusTls, Secret};
use crate::{lifecycle, pem};

/// Seconds between heartbeats, unless the address says otherwise: a dead peer is noticed within two of them, well inside a lease.
const HEARTBEAT_S: u16 = 5;
/// Milliseconds that a TCP connection may take, unless the address says otherwise.
const TCP_TIMEOUT_MS: u64 = 5_000;
/// How long an address may take altogether, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection's farewell may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The first pause before reconnecting, in milliseconds; random, so that many processes do not come back at once.
const FIRST_PAUSE_MS: std::ops::RangeInclusive<u64> = 100..=500;
/// Pauses double up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a blocked connection is asked whether it has ended: lapin tells of most ends by an event, but not of all, and somebody waits.
const BLOCKED_INTERVAL: Duration = Duration::from_millis(250);
/// How often any other is, for whose end nobody waits here: being woken costs more than the question.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Where a broker is. Displays without password.
pub(super) struct Address(AMQPUri);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.0.scheme, self.0.authority.host, self.0.authority.port)
    }
}

/// Parses `bus.url`. Errors never repeat what was given: it may hold a password.
pub(super) fn parse_addresses(urls: &[Secret]) -> Result<Arc<[Address]>, BusError> {
    if urls.is_empty() {
        return Err(BusError::Other("bus.url names no address".into()));
    }
    urls.iter().enumerate().map(|(index, url)| parse_address(index, url.expose())).collect()
}

fn parse_address(index: usize, url: &str) -> Result<Address, BusError> {
    let wrong = || format!("address {} of bus.url is not of the form amqp://user:password@host:port/vhost", index + 1);
    let mut uri: AMQPUri = url.parse().map_err(|_| BusError::Other(wrong()))?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
    uri.query.connection_timeout.get_or_insert(TCP_TIMEOUT_MS);
    Ok(Address(uri))
}

/// A connection that was alive when it was handed out.
pub(super) struct Live {
    connection: Connection,
    blocked: watch::Receiver<bool>,
}

impl Live {
    /// The connection itself.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether the broker stopped reading from it, short of memory or disk.
    pub(super) fn is_blocked(&self) -> bool {
        *self.blocked.borrow()
    }

    /// Waits until the broker reads from it, or it is dead.
    pub(super) async fn unblocked(&self) {
        // An error says that its watcher is gone, because the connection is: whoever writes next hears it.
        let _ = self.blocked.clone().wait_for(|blocked| !blocked).await;
    }

    /// Says farewell to the broker. A connection that is only forgotten would live on, with its thread, for as long as any of its
    /// channels does.
    pub(super) async fn close(&self) {
        let farewell = self.connection.close(200, "rollcall needs it no longer".into());
        let _ = timeout(CLOSE_TIMEOUT, farewell).await;
    }

    fn is_usable(&self) -> bool {
        self.connection.status().connected()
    }
}

/// See the module.
pub(super) struct Line {
    /// Whose connection the broker's lists say that it is.
    client: String,
    /// What it is for.
    purpose: &'static str,
    addresses: Arc<[Address]>,
    tls: BusTls,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<Arc<Live>>,
    /// Counts addresses tried, over and over.
    next: usize,
    /// Failures since the last success.
    failures: u32,
    not_before: Option<Instant>,
}

impl Line {
    /// Connects to the first address that answers; an error holds each one's reason.
    pub(super) async fn connect(
        client: &str,
        purpose: &'static str,
        addresses: Arc<[Address]>,
        tls: BusTls,
    ) -> Result<Self, BusError> {
        let line = Self { client: client.into(), purpose, addresses, tls, state: Mutex::default() };
        let mut state = line.state.lock().await;
        let mut reasons = Vec::new();
        for address in line.addresses.iter() {
            // It may take a while, and nobody has heard of us yet.
            tracing::info!(connection = purpose, %address, "connecting to the broker");
            match line.try_next(&mut state).await {
                Ok(_) => {
                    drop(state);
                    return Ok(line);
                }
                Err(reason) => reasons.push(reason),
            }
        }
        Err(BusError::Unreachable(reasons.join("; ")))
    }

    /// The live connection; waits for one as long as it takes. Callers share one attempt. Cancel-safe.
    pub(super) async fn live(&self) -> Arc<Live> {
        let mut state = self.state.lock().await;
        loop {
            if let Some(live) = state.live.as_ref().filter(|live| live.is_usable()) {
                return Arc::clone(live);
            }
            self.prepare(&mut state);
            if let Some(moment) = state.not_before {
                sleep_until(moment).await;
            }
            match self.try_next(&mut state).await {
                Ok(live) => return live,
                Err(reason) => tracing::warn!(connection = self.purpose, %reason, "cannot reconnect to the broker yet"),
            }
        }
    }

    /// Like [`Self::live`]; after `patience` an error says so.
    pub(super) async fn live_within(&self, patience: Duration) -> Result<Arc<Live>, String> {
        timeout(patience, self.live()).await.map_err(|_| format!("no connection within {patience:?}"))
    }

    /// Gives a connection up that no longer does its work, though it looks alive. It is the caller's to close.
    pub(super) fn condemn(&self, live: &Arc<Live>) {
        // Somebody who holds the lock is connecting anew already.
        let Ok(mut state) = self.state.try_lock() else { return };
        if state.live.as_ref().is_some_and(|current| Arc::ptr_eq(current, live)) {
            self.prepare(&mut state);
        }
    }

    /// Says farewell to the broker.
    pub(super) async fn close(&self) {
        let live = self.state.lock().await.live.take();
        if let Some(live) = live {
            live.close().await;
        }
    }

    /// Forgets a dead connection, so that its successor is awaited with a pause.
    fn prepare(&self, state: &mut State) {
        if state.live.take().is_some() {
            tracing::warn!(connection = self.purpose, "connection to the broker lost");
            metrics::counter!("rollcall_bus_connections_lost_total").increment(1);
            state.not_before = Some(Instant::now() + pause(0));
        }
    }

    async fn try_next(&self, state: &mut State) -> Result<Arc<Live>, String> {
        let address = &self.addresses[state.next % self.addresses.len()];
        state.next = state.next.wrapping_add(1);
        // Set before the attempt: one that is cancelled counts as failed.
        state.failures = state.failures.saturating_add(1);
        state.not_before =
            Some(Instant::now() + pause(state.failures / u32::try_from(self.addresses.len()).unwrap_or(1)));
        let live = Arc::new(self.open(address).await.map_err(|reason| format!("{address}: {reason}"))?);
        tracing::info!(connection = self.purpose, %address, "connected to the broker");
        state.failures = 0;
        state.live = Some(Arc::clone(&live));
        Ok(live)
    }

    async fn open(&self, address: &Address) -> Result<Live, String> {
        let tls = read_tls(&self.tls)?;
        let runtime = default_runtime().map_err(|error| error.to_string())?;
        let connecting = Connection::connect_uri_with_config(address.0.clone(), self.properties(), tls, runtime);
        let connection = timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| format!("no answer within {CONNECT_TIMEOUT:?}"))?
            .map_err(|error| error.to_string())?;
        let (sender, blocked) = watch::channel(false);
        let watching = watch_over(self.purpose, connection.status().clone(), connection.events_listener(), sender);
        lifecycle::spawn("broker connection", watching);
        Ok(Live { connection, blocked })
    }

    /// What the broker's lists of connections show.
    fn properties(&self) -> ConnectionProperties {
        ConnectionProperties::default()
            .with_connection_name(format!("{} {}", self.client, self.purpose).into())
            .with_client_property("product".into(), env!("CARGO_PKG_NAME").into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into())
    }
}

fn pause(failures: u32) -> Duration {
    let first = Duration::from_millis(fastrand::u64(FIRST_PAUSE_MS));
    first.saturating_mul(1 << failures.min(6)).min(LONGEST_PAUSE)
}

/// The files of `bus.tls`, as they are now: small ones, and connecting is rare.
fn read_tls(tls: &BusTls) -> Result<OwnedTLSConfig, String> {
    let cert_chain = match &tls.ca {
        Some(path) => Some(String::from_utf8(pem::read(path)?).map_err(|_| format!("{} is no PEM", path.display()))?),
        None => None,
    };
    let identity = match &tls.identity {
        Some((cert, key)) => Some(OwnedIdentity::PKCS8 { pem: pem::read(cert)?, key: pem::read(key)? }),
        None => None,
    };
    Ok(OwnedTLSConfig { identity, cert_chain })
}

/// Tells whether the connection is blocked, until it ends.
async fn watch_over(
    purpose: &'static str,
    status: ConnectionStatus,
    events: impl Stream<Item = Event>,
    blocked: watch::Sender<bool>,
) {
    let mut events = std::pin::pin!(events);
    while status.connected() {
        let glance = if *blocked.borrow() { BLOCKED_INTERVAL } else { STATUS_INTERVAL };
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(connection = purpose, %reason, "the broker blocks publishes");
                    report_blocked(&blocked, true);
                }
                Some(Event::ConnectionUnblocked) => {
                    tracing::warn!(connection = purpose, "the broker takes publishes again");
                    report_blocked(&blocked, false);
                }
                Some(_) => {}
                None => break,
            },
            () = sleep(glance) => {}
        }
    }
    if *blocked.borrow() {
        report_blocked(&blocked, false);
    }
}

fn report_blocked(blocked: &watch::Sender<bool>, now: bool) {
    metrics::gauge!("rollcall_bus_blocked").set(f64::from(u8::from(now)));
    blocked.send_replace(now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_a_heartbeat_unless_they_have_one() {
        let parsed = parse_addresses(&["amqp://a", "amqp://b?heartbeat=9"].map(Secret::new)).unwrap();
        let heartbeats: Vec<_> = parsed.iter().map(|address| address.0.query.heartbeat).collect();
        assert_eq!(heartbeats, [Some(HEARTBEAT_S), Some(9)]);
    }

    #[test]
    fn no_text_holds_a_password() {
        let bad = ["http://me:secret@host", "secret", "amqp://me:secret@host:port"];
        for url in bad {
            let error = parse_addresses(&[Secret::new(url)]).err().unwrap().to_string();
            assert!(error.starts_with("address 1 of bus.url") && !error.contains("secret"), "{error}");
        }
        let good = parse_addresses(&[Secret::new("amqps://me:secret@host/v")]).unwrap();
        assert_eq!(good[0].to_string(), "amqps://host:5671");
    }

    #[test]
    fn pauses_grow_up_to_a_bound() {
        assert!(FIRST_PAUSE_MS.contains(&u64::try_from(pause(0).as_millis()).unwrap()));
        assert!((0..100).all(|failures| pause(failures) <= LONGEST_PAUSE));
        assert_eq!(pause(100), LONGEST_PAUSE);
    }
}
