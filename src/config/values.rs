//! Texts to values: durations, sizes, addresses of brokers, cron expressions.

use std::time::Duration;

use tokio_cron_scheduler::Job;

use super::{BusUrl, Secret};

/// Units of durations, in ms; `ms` stands before `m` and `s`, which it ends and begins with.
const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 24 * 3_600_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// Parses `500ms`, `5s`, `1m`, `1h`, `7d`.
///
/// # Errors
/// What a duration looks like, as a sentence's end.
pub fn duration(text: &str) -> Result<Duration, String> {
    with_unit(text, &DURATION_UNITS)
        .map(Duration::from_millis)
        .ok_or_else(|| "is not a duration such as \"500ms\", \"5s\", \"1m\", \"1h\" or \"7d\"".into())
}

/// Parses `512KiB`, `1MiB` or a plain number of bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .or_else(|| with_unit(text, &SIZE_UNITS))
        .ok_or_else(|| "is not a size such as 4096, \"512KiB\" or \"1MiB\"".into())
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    // u64's own parser takes a leading plus, which no example shows.
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A duration as it would be written, in the largest unit that holds it whole.
pub(super) fn display_duration(duration: &Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fits = |(_, factor): &&(&str, u64)| ms >= *factor && ms % factor == 0;
    let (unit, factor) = DURATION_UNITS.iter().rev().find(fits).unwrap_or(&DURATION_UNITS[0]);
    format!("{}{unit}", ms / factor)
}

/// Where the queues are, from one text or several.
pub(super) fn bus_url(urls: Vec<String>) -> Result<BusUrl, String> {
    match urls.as_slice() {
        [] => Err("is empty: give \"embedded:\" or amqp(s) addresses".into()),
        [one] if one == "embedded:" => Ok(BusUrl::Embedded),
        several if several.len() > 16 => Err("has more than 16 addresses".into()),
        several => several
            .iter()
            .try_for_each(|url| amqp_url(url))
            .map(|()| BusUrl::Amqp(urls.into_iter().map(Secret::new).collect())),
    }
}

fn amqp_url(url: &str) -> Result<(), String> {
    if url == "embedded:" {
        return Err("mixes \"embedded:\" with other addresses".into());
    }
    if !url.starts_with("amqp://") && !url.starts_with("amqps://") {
        return Err("is neither \"embedded:\" nor an amqp:// or amqps:// address".into());
    }
    // The parser takes such an address for `localhost`, in silence.
    if url.contains("@[") || url.contains("//[") {
        return Err("has a literal IPv6 address, which cannot be connected to: give a host name".into());
    }
    // The parser's own words may quote the address, password and all.
    let parsed: lapin::uri::AMQPUri = url
        .parse()
        .map_err(|_| "is not an AMQP address such as \"amqp://user:password@host:5672/vhost\"".to_owned())?;
    if parsed.vhost.is_empty() {
        return Err("ends in \"/\", which means a vhost with an empty name: write \"/%2f\" or nothing".into());
    }
    Ok(())
}

/// `url` with its user's password covered; anything that does not look like a URL is covered whole.
pub(super) fn cover_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return if url == "embedded:" { url.into() } else { "***".into() };
    };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}"),
        None => url.into(),
    }
}

/// Checks a cron expression with the very parser that will run it: six fields, seconds first.
///
/// # Errors
/// What an expression looks like, as a sentence's end.
pub fn check_cron(expression: &str) -> Result<(), String> {
    Job::new_async(expression, |_, _| Box::pin(async {}))
        .map(drop)
        .map_err(|_| "is not a cron expression with seconds such as \"0 */5 * * * *\"".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, ms) in [("500ms", 500), ("5s", 5000), ("1m", 60_000), ("1h", 3_600_000), ("7d", 604_800_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(display_duration(&Duration::from_millis(ms)), text);
        }
        assert_eq!(display_duration(&Duration::ZERO), "0ms");
        for text in ["", "5", "s", "-1s", "+1s", "1.5s", "1 s", "5w", "99999999999999999999d", "18446744073709551615d"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read() {
        assert_eq!(size("512KiB"), Ok(524_288));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("7B"), Ok(7));
        assert!(size("512KB").is_err());
    }

    #[test]
    fn bus_addresses() {
        assert!(matches!(bus_url(vec!["embedded:".into()]), Ok(BusUrl::Embedded)));
        let two = vec!["amqp://a".into(), "amqps://u:p@b:5671/%2f?heartbeat=5".into()];
        assert!(matches!(bus_url(two), Ok(BusUrl::Amqp(urls)) if urls.len() == 2));
        for bad in ["", "http://a", "amqp://a:port", "amqp://a/", "amqp://[::1]:5672", "amqp://u:p@[::1]", "embeded:"] {
            assert!(bus_url(vec![bad.into()]).is_err(), "{bad}");
        }
        assert!(bus_url(vec!["amqp://a".into(), "embedded:".into()]).is_err());
    }

    #[test]
    fn passwords_are_covered() {
        assert_eq!(cover_password("amqp://me:se@cret@host:1/v"), "amqp://***@host:1/v");
        assert_eq!(cover_password("amqp://host"), "amqp://host");
        assert_eq!(cover_password("me:secret@host"), "***");
    }

    #[test]
    fn cron_needs_seconds() {
        assert_eq!(check_cron("*/2 * * * * *"), Ok(()));
        assert!(check_cron("* * * * *").is_err());
        assert!(check_cron("every so often").is_err());
    }
}
