//! `--window`: how long changes are gathered.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rollcall::config::duration;

/// A duration within the bounds of `batch.window`, and how it was written.
#[derive(Debug, Clone)]
pub(super) struct Window {
    text: String,
    length: Duration,
}

impl Window {
    /// The shortest and the longest.
    const BOUNDS: [Duration; 2] = [Duration::from_millis(10), Duration::from_mins(10)];

    /// In ms.
    pub(super) fn ms(&self) -> u64 {
        u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let length = duration(text)?;
        let [shortest, longest] = Self::BOUNDS;
        if !(shortest..=longest).contains(&length) {
            return Err("must be from 10ms to 10m".into());
        }
        Ok(Self { text: text.into(), length })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_bounds() {
        assert_eq!("2s".parse::<Window>().unwrap().ms(), 2000);
        for bad in ["0s", "9ms", "11m", "1", "soon", "-1s"] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
    }
}
