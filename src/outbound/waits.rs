//! How long a sender waits before it asks a peer again.

use std::time::Duration;

use axum::http::HeaderValue;
use serde::Deserialize;

use super::http;
use crate::model::Timestamp;

/// A longer wait than this is not lengthened any further.
const MAX_BEYOND: Duration = Duration::from_secs(60);

/// How long an answer asks to wait: `retry_after_ms` of its body, or else its `Retry-After`, in seconds or as a date.
pub(super) fn patience(answer: &[u8], header: Option<&HeaderValue>, now: Timestamp) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Limited {
        retry_after_ms: Option<u64>,
    }
    let body = serde_json::from_slice::<Limited>(answer).ok().and_then(|limited| limited.retry_after_ms);
    let header = || {
        let text = header?.to_str().ok()?.trim();
        text.parse().ok().map(Duration::from_secs).or_else(|| http::until(text, now))
    };
    body.map(Duration::from_millis).or_else(header)
}

/// Somewhat more than was asked for, never less: so that whoever was told the same does not come at the same moment.
pub(super) fn beyond(asked: Duration) -> Duration {
    asked.min(MAX_BEYOND).mul_f64(fastrand::f64() / 4.0)
}

/// Exponential back-off, each wait between half and the whole of its step, so that what failed together does not return together.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    step: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { step: min.min(max), max }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.step.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.step = (self.step * 2).min(self.max);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_its_bound() {
        let mut pause = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for whole in [1.0, 2.0, 4.0, 5.0, 5.0] {
            let wait = pause.next().as_secs_f64();
            assert!((whole / 2.0..=whole).contains(&wait), "{wait} of {whole}");
        }
    }

    #[test]
    fn what_failed_together_does_not_return_together() {
        let first = || Backoff::new(Duration::from_secs(1), Duration::from_secs(5)).next();
        let waits: std::collections::BTreeSet<_> = (0..100).map(|_| first()).collect();
        assert!(waits.len() > 50, "{} different waits", waits.len());
    }

    #[test]
    fn patience_is_the_body_s_then_the_header_s() {
        let now = Timestamp(1_795_400_000_500);
        let patience = |body: &[u8], header: &str| patience(body, Some(&HeaderValue::from_str(header).unwrap()), now);
        assert_eq!(patience(br#"{"retry_after_ms":70}"#, "9"), Some(Duration::from_millis(70)));
        assert_eq!(patience(b"<html>", "9"), Some(Duration::from_secs(9)));
        assert_eq!(patience(b"{}", "Mon, 23 Nov 2026 02:13:23 GMT"), Some(Duration::from_millis(2_500)));
        assert_eq!(patience(b"{}", "Mon, 23 Nov 2020 02:13:23 GMT"), Some(Duration::ZERO));
        assert_eq!(patience(b"{}", "soon"), None);
    }

    #[test]
    fn nobody_comes_sooner_than_asked_nor_much_later() {
        for _ in 0..100 {
            assert!(beyond(Duration::from_secs(4)) <= Duration::from_secs(1));
            assert!(beyond(Duration::from_secs(100_000)) <= MAX_BEYOND / 4);
        }
    }
}
