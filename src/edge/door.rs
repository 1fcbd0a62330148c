//! Where connections come in, over TCP or TLS over it, and who is at their other end.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Extensions;
use axum::serve::Listener;
use futures_util::FutureExt as _;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::places::{Place, Places};
use crate::config::EdgeConfig;

/// How long a TLS handshake may take at most.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A listener with a bounded number of connections, which are cut off when the other side takes nothing for too long.
pub(crate) struct Door {
    tcp: TcpListener,
    /// `None`: plain TCP.
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    /// As many as there are places.
    handshakes: JoinSet<Option<Guest>>,
    handshake_timeout: Duration,
    places: Places,
    stall_max: Duration,
}

/// A connection that was let in.
pub(crate) struct Guest {
    pub(crate) pipe: Pipe,
    pub(crate) remote: Remote,
    /// Taken for as long as the connection is open.
    pub(crate) place: Place,
}

/// A connection.
pub(crate) enum Pipe {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Who is at the other end of a request's connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote {
    pub(crate) address: IpAddr,
    /// Whether they showed a certificate of `edge.tls.client_ca`.
    pub(crate) is_certified: bool,
}

impl Door {
    pub(crate) fn new(tcp: TcpListener, tls: Option<watch::Receiver<Arc<ServerConfig>>>, config: &EdgeConfig) -> Self {
        let places = Places::new(&config.connections, config.trusted_proxies.clone());
        let handshake_timeout = HANDSHAKE_TIMEOUT.min(config.connections.head_timeout);
        Self { tcp, tls, handshakes: JoinSet::new(), handshake_timeout, places, stall_max: config.stream.stall_max }
    }

    /// The next connection; those for whom there is no place are closed. Dropping the future loses none.
    pub(crate) async fn accept(&mut self) -> Guest {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(guest)) = done {
                        return guest;
                    }
                }
                (stream, from) = Listener::accept(&mut self.tcp) => {
                    if let Some(guest) = self.receive(stream, from) {
                        return guest;
                    }
                }
            }
        }
    }

    /// `None`: it was closed, or has yet to shake hands.
    fn receive(&mut self, stream: TcpStream, from: SocketAddr) -> Option<Guest> {
        let address = from.ip().to_canonical();
        let place = self.places.take(address)?;
        cut_off_after(&stream, self.stall_max);
        let Some(tls) = &self.tls else {
            return Some(Guest { pipe: Pipe::Plain(stream), remote: Remote { address, is_certified: false }, place });
        };
        // The newest certificates: those of before serve the connections that they began.
        let config = tls.borrow().clone();
        let handshake = shake_hands(config, stream, address, place);
        self.handshakes.spawn(timeout(self.handshake_timeout, handshake).map(|done| done.ok().flatten()));
        None
    }
}

/// Lets the kernel end a connection whose other side takes nothing for so long, or is not there any more.
fn cut_off_after(connection: &TcpStream, stall_max: Duration) {
    if let Err(error) = SockRef::from(connection).set_tcp_user_timeout(Some(stall_max)) {
        tracing::debug!(%error, "a connection without its time-out");
    }
}

async fn shake_hands(config: Arc<ServerConfig>, stream: TcpStream, address: IpAddr, place: Place) -> Option<Guest> {
    match TlsAcceptor::from(config).accept(stream).await {
        Ok(stream) => {
            let is_certified = stream.get_ref().1.peer_certificates().is_some();
            Some(Guest { pipe: Pipe::Tls(Box::new(stream)), remote: Remote { address, is_certified }, place })
        }
        Err(error) => {
            tracing::debug!(%address, %error, "no TLS");
            None
        }
    }
}

impl Remote {
    /// Of a request that came through a [`Door`].
    pub(crate) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().copied()
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
