//! HTTPS servers made for tests, with certificates of an authority of the test's own, and what they were asked.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rollcall::outbound::http::install_crypto;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A certificate authority that nobody else trusts.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        install_crypto();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("root.pem"), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(parameters, key), folder }
    }

    /// For `federation.extra_roots`.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// What a server of these names (or addresses) shows.
    fn identity(&self, names: &[&str]) -> ServerConfig {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap()
    }
}

/// A request that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The name that the client wanted a certificate for; none for an address.
    pub(crate) sni: Option<String>,
    /// The `Host` header.
    pub(crate) host: String,
    /// The path.
    pub(crate) path: String,
}

type Answer = (StatusCode, Vec<(HeaderName, String)>, String);

#[derive(Default)]
struct Shared {
    connections: Mutex<usize>,
    asked: Mutex<Vec<Asked>>,
    answers: Mutex<HashMap<String, Answer>>,
    /// Paths whose answers come byte by byte, for ever.
    dribbling: Mutex<HashSet<String>>,
}

/// A server on loopback. Whatever no answer was given for is 200 `{}`, but `.well-known` is 404.
pub(crate) struct Https {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Https {
    /// Listens on `address` (port 0: a free one) with a certificate for `names`.
    pub(crate) async fn start(authority: &Authority, address: &str, names: &[&str]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let acceptor = TlsAcceptor::from(Arc::new(authority.identity(names)));
        let listener = TlsListener { listener, acceptor, shared: shared.clone() };
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let service = router.into_make_service_with_connect_info::<Sni>();
        let task = rollcall::lifecycle::spawn("https", async move { axum::serve(listener, service).await.unwrap() });
        Self { address, shared, task }
    }

    /// What `path` is answered from now on.
    pub(crate) fn say(&self, path: &str, status: u16, headers: &[(&str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), (*value).to_owned())).collect();
        let answer = (StatusCode::from_u16(status).unwrap(), headers, body.to_owned());
        self.shared.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// The answer of `path` begins at once and never ends.
    pub(crate) fn dribble(&self, path: &str) {
        self.shared.dribbling.lock().unwrap().insert(path.to_owned());
    }

    /// It says that `server` stands in for it.
    pub(crate) fn delegate(&self, server: &str) {
        self.say("/.well-known/matrix/server", 200, &[], &format!(r#"{{"m.server": "{server}"}}"#));
    }

    /// Connections that came in, whatever became of them.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap()
    }

    /// Requests that came in.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How often `path` was asked for.
    pub(crate) fn asked_for(&self, path: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path == path).count()
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Sni(Option<String>);

impl Connected<IncomingStream<'_, TlsListener>> for Sni {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        Self(stream.io().get_ref().1.server_name().map(Into::into))
    }
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.listener.accept().await.unwrap();
            *self.shared.connections.lock().unwrap() += 1;
            // Whoever does not like the certificate is gone.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(Sni(sni)): ConnectInfo<Sni>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.path().to_owned();
    let host = parts.headers["host"].to_str().unwrap().to_owned();
    shared.asked.lock().unwrap().push(Asked { sni, host, path: path.clone() });
    if shared.dribbling.lock().unwrap().contains(&path) {
        return super::peer::dribble();
    }
    let known = shared.answers.lock().unwrap().get(&path).cloned();
    let usual = || match path.starts_with("/.well-known/") {
        true => (StatusCode::NOT_FOUND, Vec::new(), String::new()),
        false => (StatusCode::OK, Vec::new(), "{}".to_owned()),
    };
    let (status, headers, body) = known.unwrap_or_else(usual);
    let headers: HeaderMap = headers.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect();
    (status, headers, body).into_response()
}
