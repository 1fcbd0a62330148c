//! Traffic of the same working day as others published it, messages and bytes a second over its eight hours.
//!
//! Two domains of `users` users each, `contacts` remote contacts a user, all of them online for one session of eight hours.

/// A session, in seconds.
pub const SESSION_S: f64 = 8.0 * 3600.0;

/// Messages and bytes a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Messages, stanzas or transactions a second.
    pub messages: f64,
    /// Bytes a second; not published for every model.
    pub bytes: Option<f64>,
}

/// What a model is asked about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    /// Users of each domain.
    pub users: f64,
    /// Contacts of each user in the other domain.
    pub contacts: f64,
    /// Status changes of each user an hour.
    pub changes_per_hour: f64,
}

impl Case {
    fn changes(self) -> f64 {
        8.0 * self.changes_per_hour
    }
}

/// SIP/SIMPLE without optimisation (draft-ietf-simple-interdomain-scaling-analysis-03): a subscription costs 9 SUBSCRIBE/200 and
/// 8r+7 NOTIFY/200 pairs; SUBSCRIBE 450 B, 200 OK 370 B, NOTIFY 500 B and a document of 350 B.
pub fn simple(case: Case) -> Rate {
    let (subscribes, notifies) = (9.0, case.changes() + 7.0);
    let pairs = 2.0 * case.users * case.contacts;
    let messages = 2.0 * (subscribes + notifies) * pairs;
    let bytes = (subscribes * (450.0 + 370.0) + notifies * (500.0 + 350.0 + 370.0)) * pairs;
    Rate { messages: messages / SESSION_S, bytes: Some(bytes / SESSION_S) }
}

/// The same with that draft's dialog and NOTIFY optimisations; messages only.
pub fn dialog_notify(case: Case) -> Rate {
    let messages = 2.0 * (9.0 + 1.0 + case.contacts * (case.changes() - 2.0)) * 2.0 * case.users;
    Rate { messages: messages / SESSION_S, bytes: None }
}

/// XMPP (draft-saintandre-xmpp-presence-analysis-00): 2Uc(8r+3) stanzas of 200 B.
pub fn xmpp(case: Case) -> Rate {
    let stanzas = 2.0 * case.users * case.contacts * (case.changes() + 3.0) / SESSION_S;
    Rate { messages: stanzas, bytes: Some(stanzas * 200.0) }
}

/// What no batching pipeline can do without: an entry of 110 B a change and peer, IDs of 31 B at sign-on and sign-off, statuses in
/// answer, 1 kB of HTTP a transaction, and a transaction at most every `window_s` seconds a direction with at most 5,000 entries.
/// `extension_b`: bytes that each transaction holds besides.
pub fn floor(case: Case, window_s: f64, extension_b: f64) -> Rate {
    let entries = 2.0 * case.users * (case.changes() + case.contacts) / SESSION_S;
    let ids = 4.0 * case.users * case.contacts / SESSION_S;
    let each_way = entries / 2.0 * window_s;
    let transactions = 2.0 * each_way.min(1.0).max(each_way / 5_000.0) / window_s;
    let bytes = entries * 110.0 + ids * 31.0 + transactions * (1_000.0 + extension_b);
    Rate { messages: transactions, bytes: Some(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASIC: Case = Case { users: 20_000.0, contacts: 4.0, changes_per_hour: 3.0 };

    #[test]
    fn simple_is_what_its_draft_counts() {
        let rate = simple(BASIC);
        assert_eq!((rate.messages * SESSION_S).round(), 12_800_000.0);
        assert_eq!((rate.bytes.unwrap() * SESSION_S).round(), 7_232_000_000.0);
    }

    /// The draft's four figures, kB/s.
    #[test]
    fn xmpp_is_what_its_draft_counts() {
        let cases = [(20_000.0, 4.0, 3.0), (20_000.0, 20.0, 3.0), (60_000.0, 10.0, 3.0), (10_000_000.0, 10.0, 6.0)];
        let rates = cases.map(|(users, contacts, changes_per_hour)| {
            (xmpp(Case { users, contacts, changes_per_hour }).bytes.unwrap() / 1e3).round()
        });
        assert_eq!(rates, [30.0, 150.0, 225.0, 70_833.0]);
    }

    #[test]
    fn a_transaction_of_the_floor_holds_no_more_than_it_may() {
        let many = Case { users: 10_000_000.0, contacts: 10.0, changes_per_hour: 6.0 };
        let rate = floor(many, 10.0, 0.0);
        assert!(rate.messages > 2.0 / 10.0, "{}", rate.messages);
        assert_eq!(floor(BASIC, 10.0, 0.0).messages, 0.2);
    }
}
