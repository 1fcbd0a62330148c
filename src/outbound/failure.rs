//! Why sending to a peer came to nothing, by class: few and fixed, because they are metric labels.

use std::error::Error;
use std::io;

use reqwest::StatusCode;

use super::dns::DnsError;

/// A class of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Its name leads nowhere.
    Dns,
    /// Nobody takes the connection.
    Connect,
    /// Somebody does, but proves to be no one that we trust, or speaks no TLS.
    Tls,
    /// It takes too long.
    Timeout,
    /// It answers that we are wrong, or ask too much.
    Http4xx,
    /// It answers that it cannot.
    Http5xx,
    /// It lies at addresses that `federation.allow_private` does not list.
    RefusedAddress,
    /// Anything else.
    Other,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Http4xx,
        Self::Http5xx,
        Self::RefusedAddress,
        Self::Other,
    ];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Http4xx => "http_4xx",
            Self::Http5xx => "http_5xx",
            Self::RefusedAddress => "refused_address",
            Self::Other => "other",
        }
    }

    /// Of a request that got no answer.
    pub(super) fn of_request(error: &reqwest::Error) -> Self {
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(cause) = next {
            if let Some(class) = of_cause(cause) {
                return class;
            }
            next = cause.source();
        }
        match error {
            error if error.is_timeout() => Self::Timeout,
            error if error.is_connect() => Self::Connect,
            _ => Self::Other,
        }
    }

    /// Of an answer that is no success.
    pub(super) fn of_status(status: StatusCode) -> Self {
        match status {
            status if status.is_client_error() => Self::Http4xx,
            status if status.is_server_error() => Self::Http5xx,
            _ => Self::Other,
        }
    }

    /// Of a name that was looked up.
    pub(super) fn of_name(error: &DnsError) -> Self {
        match error {
            DnsError::OutOfReach(_) => Self::RefusedAddress,
            DnsError::Nothing(_) | DnsError::Failed { .. } => Self::Dns,
        }
    }
}

fn of_cause(cause: &(dyn Error + 'static)) -> Option<Failure> {
    if let Some(error) = cause.downcast_ref() {
        return Some(Failure::of_name(error));
    }
    if cause.is::<rustls::Error>() {
        return Some(Failure::Tls);
    }
    // What an I/O error is made of is no source of it: its own source is that one's.
    of_cause(cause.downcast_ref::<io::Error>()?.get_ref()?)
}
