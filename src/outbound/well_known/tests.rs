use super::*;
use crate::clock::SystemClock;
use crate::outbound::dns::Dns;

const NOW: Timestamp = Timestamp(1_795_400_000_000);

fn name(text: &str) -> ServerName {
    ServerName::parse(text).unwrap()
}

fn seconds(headers: &[(&'static str, &str)]) -> u64 {
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    lifetime(&headers, NOW).as_secs()
}

#[test]
fn an_answer_is_good_for_as_long_as_its_headers_say() {
    assert_eq!(seconds(&[("cache-control", "max-age=7200")]), 7_200);
    assert_eq!(seconds(&[("cache-control", "public, Max-Age=\"7200\"")]), 7_200);
    assert_eq!(seconds(&[("cache-control", "max-age=7200"), ("age", "1200")]), 6_000);
    assert_eq!(seconds(&[("cache-control", "public"), ("cache-control", "max-age=7200")]), 7_200);
    // Two hours after NOW; max-age comes first.
    assert_eq!(seconds(&[("expires", "Mon, 23 Nov 2026 04:13:20 GMT")]), 7_200);
    assert_eq!(seconds(&[("expires", "Mon, 23 Nov 2026 04:13:20 GMT"), ("cache-control", "max-age=900")]), 900);
}

#[test]
fn an_answer_without_such_headers_is_good_for_a_day() {
    assert_eq!(seconds(&[]), 24 * 3600);
    assert_eq!(seconds(&[("cache-control", "public")]), 24 * 3600);
}

#[test]
fn no_answer_is_good_for_more_than_two_days() {
    assert_eq!(seconds(&[("cache-control", "max-age=31536000")]), 48 * 3600);
    assert_eq!(seconds(&[("expires", "Mon, 23 Nov 2099 04:13:20 GMT")]), 48 * 3600);
}

#[test]
fn an_answer_that_must_not_be_kept_is_kept_for_five_minutes() {
    for header in ["no-store", "no-cache", "max-age=0", "max-age=1", "max-age=nonsense", "max-age=900, no-store"] {
        assert_eq!(seconds(&[("cache-control", header)]), 300, "{header}");
    }
    assert_eq!(seconds(&[("cache-control", "max-age=900"), ("cache-control", "no-store")]), 300);
    assert_eq!(seconds(&[("cache-control", "max-age=900"), ("age", "9000")]), 300);
    assert_eq!(seconds(&[("expires", "0")]), 300);
    assert_eq!(seconds(&[("expires", "Mon, 23 Nov 2020 04:13:20 GMT")]), 300);
}

fn delegate_for(seconds: u64) -> Answer {
    Answer::Delegate(name("m.b.example"), Duration::from_secs(seconds))
}

#[test]
fn an_entry_is_fresh_until_its_time_and_no_longer() {
    let entry = Entry::after(delegate_for(7_200), None, NOW);
    assert!(entry.is_fresh(NOW) && entry.is_fresh(NOW.plus(7_199_999)));
    assert!(!entry.is_fresh(NOW.plus(7_200_000)));
    assert!(!entry.is_fresh(Timestamp(0)), "a clock that was set back");
}

#[test]
fn that_there_is_no_delegate_is_remembered_for_an_hour() {
    let mut known = None;
    for hours in 0..3 {
        let now = NOW.plus(HOUR_MS * hours);
        let entry = Entry::after(Answer::None, known, now);
        assert_eq!((entry.delegate.clone(), entry.until), (None, now.plus(HOUR_MS)));
        known = Some(entry);
    }
}

#[test]
fn a_host_that_somebody_stood_in_for_within_two_days_is_asked_again_after_five_minutes() {
    let mut entry = Entry::after(delegate_for(300), None, NOW);
    let mut now = entry.until;
    let next = |answer, entry: Entry, now| {
        let entry = Entry::after(answer, Some(entry), now);
        assert_eq!(entry.delegate, None);
        entry
    };
    while now < NOW.plus(MAX_LIFETIME_MS) {
        entry = next(Answer::None, entry, now);
        assert_eq!(entry.until, now.plus(5 * MINUTE_MS), "{}", now.since(NOW));
        now = entry.until;
        // Also if it cannot be asked in between.
        entry = next(Answer::Failed, entry, now);
        now = entry.until;
    }
    assert_eq!(next(Answer::None, entry.clone(), now).until, now.plus(HOUR_MS));
    let again = Entry::after(delegate_for(300), Some(entry), now);
    assert_eq!(next(Answer::None, again, now).until, now.plus(5 * MINUTE_MS), "it counts anew");
}

#[test]
fn who_cannot_be_asked_is_asked_ever_more_rarely_up_to_once_an_hour() {
    let (mut now, mut entry) = (NOW, None);
    for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
        let next = Entry::after(Answer::Failed, entry, now);
        assert_eq!(next.until, now.plus(MINUTE_MS * minutes));
        now = next.until;
        entry = Some(next);
    }
    let mended = Entry::after(Answer::None, entry, now);
    assert_eq!(
        Entry::after(Answer::Failed, Some(mended), now).until,
        now.plus(MINUTE_MS),
        "a success forgets failures"
    );
}

#[test]
fn the_last_word_of_who_cannot_be_asked_holds_for_two_days_at_most() {
    let mut entry = Entry::after(delegate_for(300), None, NOW);
    let mut now = NOW;
    while now < NOW.plus(MAX_LIFETIME_MS) {
        assert_eq!(entry.delegate, Some(name("m.b.example")), "{}", now.since(NOW));
        now = entry.until;
        entry = Entry::after(Answer::Failed, Some(entry), now);
    }
    assert_eq!(entry.delegate, None);
}

#[tokio::test]
async fn hosts_are_remembered_up_to_a_bound() {
    let clients = Clients::new(&Dns::of_servers(&[]).unwrap(), TIMEOUT, 0, &[], &[]).unwrap();
    let well_known = WellKnown::new(Arc::new(clients), Arc::new(SystemClock), TIMEOUT);
    for n in 0..MAX_HOSTS + 100 {
        well_known.known.insert(format!("{n}.example"), Entry::after(Answer::None, None, NOW)).await;
    }
    well_known.known.run_pending_tasks().await;
    assert!(well_known.known.entry_count() <= MAX_HOSTS);
}

#[test]
fn documents_name_a_server_or_nobody() {
    assert_eq!(delegate(br#"{"m.server": "m.b.example:443", "x": 1}"#), Some(name("m.b.example:443")));
    for bad in
        ["", "[]", "{}", "<html>", r#"{"m.server": 5}"#, r#"{"m.server": "https://b.example"}"#, r#"{"m.server": ""}"#]
    {
        assert_eq!(delegate(bad.as_bytes()), None, "{bad}");
    }
}
