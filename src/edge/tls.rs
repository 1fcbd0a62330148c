//! The edge's certificates (`edge.tls`): read at the start, and again when the files change or SIGHUP comes.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::TlsConfig;

/// Why the edge cannot speak TLS. Nothing that this prints holds a part of a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} holds no {what}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Each file is right, but they do not fit together.
    #[error("edge.tls: {0}")]
    Unfit(String),
}

/// The certificates in use.
pub(crate) struct Certificates {
    config: TlsConfig,
    files: Files,
    current: watch::Sender<Arc<ServerConfig>>,
}

/// What the files hold.
#[derive(PartialEq, Eq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Certificates {
    /// Reads the files for the first time.
    pub(crate) fn load(config: &TlsConfig) -> Result<(Self, watch::Receiver<Arc<ServerConfig>>), TlsError> {
        let files = Files::read(config)?;
        let (current, receiver) = watch::channel(Arc::new(files.server_config(config)?));
        Ok((Self { config: config.clone(), files, current }, receiver))
    }

    /// Reads them again whenever `reloads` changes or `edge.tls.reload` has passed. Files that are wrong change nothing: perhaps only
    /// one of them has been replaced yet.
    pub(crate) async fn keep_fresh(mut self, mut reloads: watch::Receiver<u64>) -> Infallible {
        let mut ticks = interval(self.config.reload);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = reloads.changed() => {}
            }
            match self.refresh() {
                Ok(true) => tracing::info!("new TLS certificates are in use"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the TLS certificates stay as they are"),
            }
        }
    }

    /// Whether there was something new.
    fn refresh(&mut self) -> Result<bool, TlsError> {
        let files = Files::read(&self.config)?;
        if files == self.files {
            return Ok(false);
        }
        self.current.send_replace(Arc::new(files.server_config(&self.config)?));
        self.files = files;
        Ok(true)
    }
}

impl Files {
    fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self {
            cert: read(&config.cert)?,
            key: read(&config.key)?,
            client_ca: config.client_ca.as_deref().map(read).transpose()?,
        })
    }

    /// HTTP/1.1 over TLS 1.2 or 1.3.
    fn server_config(&self, config: &TlsConfig) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Unfit(error.to_string()))?;
        let builder = match (&self.client_ca, &config.client_ca) {
            (Some(pem), Some(path)) => {
                // Nobody has to show a certificate: whoever does shows a good one.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem, path)?), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| content(path, "root certificates", &error))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let key =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| content(&config.key, "private key", &error))?;
        let mut server = builder
            .with_single_cert(certificates(&self.cert, &config.cert)?, key)
            .map_err(|error| TlsError::Unfit(error.to_string()))?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(server)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::File { path: path.into(), source })
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| content(path, "certificates", &error))?;
    if certificates.is_empty() {
        return Err(content(path, "certificates", &"there is none"));
    }
    Ok(certificates)
}

fn roots(pem: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, path)? {
        roots.add(certificate).map_err(|error| content(path, "root certificates", &error))?;
    }
    Ok(roots)
}

fn content(path: &Path, what: &'static str, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::Content { path: path.into(), what, reason: reason.to_string() }
}
