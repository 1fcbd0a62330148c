//! The edge at work: connections are let in, their requests answered, and all of it ends in good order.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use super::door::{Door, Guest};
use super::tls::Certificates;
use super::{EdgeState, router};
use crate::config::ConnectionsConfig;
use crate::lifecycle;

/// A request's head in bytes: what a connection may fill before anything is known of it.
const MAX_HEAD: usize = 32 << 10;
/// After a stop, how long clients have to take the rest of their streams, and the queues to confirm that sessions are left.
const CLOSING: Duration = Duration::from_secs(3);
/// How long requests under way have beyond that: more than `bus.confirm_timeout` is by default.
const FINISHING: Duration = Duration::from_secs(12);

/// Serves until `stop`, then ends the streams and finishes the requests that are under way. Clients that do not take the rest of
/// their stream, or are slow to say what they want, hold nobody up for long.
pub async fn serve(listener: TcpListener, edge: Arc<EdgeState>, stop: CancellationToken) -> io::Result<()> {
    let address = listener.local_addr()?;
    edge.auth.check(address).map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, error))?;
    tracing::info!(%address, "edge listening");
    let (certificates, tls) = edge.tls.lock().await.take().unzip();
    let door = Door::new(listener, tls, &edge.config);
    let keeping = keep_fresh(certificates)?;
    let desk = Desk::new(edge.clone(), stop);
    tokio::select! {
        () = desk.attend(door) => {}
        never = keeping => match never {},
    }
    edge.streams.close();
    let _unsettled = timeout(CLOSING, edge.streams.settled()).await;
    Ok(())
}

/// Does nothing else, for as long as the edge serves.
fn keep_fresh(certificates: Option<Certificates>) -> io::Result<impl Future<Output = Infallible>> {
    let reloads = certificates.is_some().then(lifecycle::reloads).transpose()?;
    Ok(async {
        match certificates.zip(reloads) {
            Some((certificates, reloads)) => certificates.keep_fresh(reloads).await,
            None => std::future::pending().await,
        }
    })
}

/// Where requests are answered.
struct Desk {
    edge: Arc<EdgeState>,
    router: Router,
    http: http1::Builder,
    /// Requests whose head was read and whose answer has not begun.
    requests: TaskTracker,
    stop: CancellationToken,
}

impl Desk {
    fn new(edge: Arc<EdgeState>, stop: CancellationToken) -> Self {
        let http = http(&edge.config.connections);
        Self { router: router(edge.clone()), edge, http, requests: TaskTracker::new(), stop }
    }

    async fn attend(self, mut door: Door) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                guest = door.accept() => drop(connections.spawn(self.answer(guest))),
                Some(_) = connections.join_next() => {}
                () = self.stop.cancelled() => break,
            }
        }
        drop(door);
        self.close(connections).await;
    }

    /// One connection, until it ends.
    fn answer(&self, guest: Guest) -> impl Future<Output = ()> + use<> {
        let Guest { pipe, remote, place } = guest;
        let (router, requests, stop) = (self.router.clone(), self.requests.clone(), self.stop.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(remote);
            requests.track_future(router.clone().call(request))
        });
        let connection = self.http.serve_connection(TokioIo::new(pipe), service);
        async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(address = %remote.address, %error, "a connection broke off");
            }
            drop(place);
        }
    }

    /// Waits for the connections' own ends, but for the slow ones' only while they have something to be answered.
    async fn close(self, mut connections: JoinSet<()>) {
        self.edge.streams.close();
        let all_ended = async { while connections.join_next().await.is_some() {} };
        let answered = async {
            sleep(CLOSING).await;
            self.requests.close();
            let _unfinished = timeout(FINISHING, self.requests.wait()).await;
        };
        tokio::select! {
            () = all_ended => {}
            () = answered => tracing::debug!("connections are cut off that do not end"),
        }
    }
}

/// An idle connection costs no less than one that dribbles, so both have the same time.
fn http(config: &ConnectionsConfig) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(config.head_timeout).max_buf_size(MAX_HEAD);
    http
}
