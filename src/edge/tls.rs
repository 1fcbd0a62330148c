//! The edge's certificates (`edge.tls`): read at the start, and again when the files change or SIGHUP comes.

use std::convert::Infallible;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::TlsConfig;
use crate::pem;

const CERT: &str = "edge.tls.cert";
const KEY: &str = "edge.tls.key";
const CLIENT_CA: &str = "edge.tls.client_ca";

/// Why the edge cannot speak TLS. Nothing that this prints holds a part of a private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct TlsError {
    /// The key of the configuration that names the file; `edge.tls`, if each file is right, but they do not fit together.
    pub key: &'static str,
    /// What is wrong with the file, path and all.
    pub reason: String,
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
            cert: at(CERT, pem::read(&config.cert))?,
            key: at(KEY, pem::read(&config.key))?,
            client_ca: config.client_ca.as_deref().map(|path| at(CLIENT_CA, pem::read(path))).transpose()?,
        })
    }

    /// HTTP/1.1 over TLS 1.2 or 1.3.
    fn server_config(&self, config: &TlsConfig) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| unfit(&error))?;
        let builder = match (&self.client_ca, &config.client_ca) {
            (Some(text), Some(path)) => {
                let roots = at(CLIENT_CA, pem::roots(text, path))?;
                // Nobody has to show a certificate: whoever does shows a good one.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| pem::lacks(path, "root certificates", &error));
                builder.with_client_cert_verifier(at(CLIENT_CA, verifier)?)
            }
            _ => builder.with_no_client_auth(),
        };
        let key = at(KEY, pem::private_key(&self.key, &config.key))?;
        let chain = at(CERT, pem::certificates(&self.cert, &config.cert))?;
        let mut server = builder.with_single_cert(chain, key).map_err(|error| unfit(&error))?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(server)
    }
}

/// Everything that is wrong with the files, as they are now.
pub(crate) fn mistakes(config: &TlsConfig) -> Vec<TlsError> {
    let cert = pem::read(&config.cert).and_then(|text| pem::certificates(&text, &config.cert));
    let key = pem::read(&config.key).and_then(|text| pem::private_key(&text, &config.key));
    let roots = config.client_ca.iter().map(|path| pem::read(path).and_then(|text| pem::roots(&text, path)));
    let mut mistakes: Vec<_> = [at(CERT, cert).err(), at(KEY, key).err()].into_iter().flatten().collect();
    mistakes.extend(roots.filter_map(|roots| at(CLIENT_CA, roots).err()));
    if mistakes.is_empty() {
        mistakes.extend(Certificates::load(config).err());
    }
    mistakes
}

fn at<T>(key: &'static str, result: Result<T, String>) -> Result<T, TlsError> {
    result.map_err(|reason| TlsError { key, reason })
}

fn unfit(error: &rustls::Error) -> TlsError {
    TlsError { key: "edge.tls", reason: error.to_string() }
}
