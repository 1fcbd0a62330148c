//! Where connections come in, over TCP or TLS over it, and who is at their other end.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::http::Extensions;
use axum::serve::{IncomingStream, Listener};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// TLS handshakes under way at once; further connections wait.
const MAX_HANDSHAKES: usize = 4_096;
/// How long one may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A listener whose connections are cut off when the other side takes nothing for too long.
pub(crate) struct Door {
    tcp: TcpListener,
    /// `None`: plain TCP.
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    handshakes: JoinSet<Option<(Pipe, SocketAddr)>>,
    stall_max: Duration,
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
    pub(crate) fn new(tcp: TcpListener, tls: Option<watch::Receiver<Arc<ServerConfig>>>, stall_max: Duration) -> Self {
        Self { tcp, tls, handshakes: JoinSet::new(), stall_max }
    }
}

impl Listener for Door {
    type Io = Pipe;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Pipe, SocketAddr) {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
                (stream, address) = Listener::accept(&mut self.tcp), if self.handshakes.len() < MAX_HANDSHAKES => {
                    cut_off_after(&stream, self.stall_max);
                    let Some(tls) = &self.tls else { return (Pipe::Plain(stream), address) };
                    // The newest certificates: those of before serve the connections that they began.
                    let config = tls.borrow().clone();
                    self.handshakes.spawn(shake_hands(config, stream, address));
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Lets the kernel end a connection whose other side takes nothing for so long, or is not there any more.
fn cut_off_after(connection: &TcpStream, stall_max: Duration) {
    if let Err(error) = SockRef::from(connection).set_tcp_user_timeout(Some(stall_max)) {
        tracing::debug!(%error, "a connection without its time-out");
    }
}

async fn shake_hands(config: Arc<ServerConfig>, stream: TcpStream, from: SocketAddr) -> Option<(Pipe, SocketAddr)> {
    match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => Some((Pipe::Tls(Box::new(stream)), from)),
        Ok(Err(error)) => {
            tracing::debug!(%from, %error, "no TLS");
            None
        }
        Err(_) => None,
    }
}

impl Connected<IncomingStream<'_, Door>> for Remote {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        let is_certified = match stream.io() {
            Pipe::Plain(_) => false,
            Pipe::Tls(stream) => stream.get_ref().1.peer_certificates().is_some(),
        };
        Self { address: stream.remote_addr().ip().to_canonical(), is_certified }
    }
}

impl Remote {
    /// Of a request that came through a [`Door`].
    pub(crate) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get::<ConnectInfo<Self>>().map(|info| info.0)
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
