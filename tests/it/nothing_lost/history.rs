//! What was said, what arrived, and what is wrong between the two.

use std::collections::{BTreeMap, HashMap, HashSet};

use axum::body::Bytes;
use serde::Deserialize;
use tokio::time::Instant;

/// What one edge knows of what it said: for each user, numbers that count up from 1.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger(BTreeMap<String, Said>);

/// The numbers of one user.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said {
    /// The newest that the edge tried to say. It may have been taken or not.
    pub(super) attempted: u64,
    /// The newest that was confirmed: it must arrive, or a newer one in its place.
    pub(super) confirmed: u64,
}

/// One transaction as it came in, also when it came before.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) at: Instant,
    pub(super) txn_id: String,
    pub(super) body: Bytes,
}

impl Ledger {
    pub(super) fn of(users: impl IntoIterator<Item = String>) -> Self {
        Self(users.into_iter().map(|user| (user, Said::default())).collect())
    }

    /// The next number of `user`: call before it is said.
    pub(super) fn attempt(&mut self, user: &str) -> u64 {
        let said = self.0.get_mut(user).unwrap();
        said.attempted += 1;
        said.attempted
    }

    pub(super) fn confirm(&mut self, user: &str, number: u64) {
        let said = self.0.get_mut(user).unwrap();
        said.confirmed = said.confirmed.max(number);
    }

    /// Users whose newest confirmed number did not arrive, nor a newer one.
    pub(super) fn missing(&self, arrivals: &[Arrival]) -> Vec<String> {
        let newest = Check::of(self, arrivals).newest;
        let arrived = |user: &str| newest.get(user).copied().unwrap_or(0);
        let late = self.0.iter().filter(|(user, said)| arrived(user) < said.confirmed);
        late.map(|(user, said)| format!("{user}: {} arrived, {said:?}", arrived(user))).collect()
    }
}

/// Everything that is wrong; nothing, if nothing was lost, reordered or made up.
pub(super) fn complaints(ledger: &Ledger, arrivals: &[Arrival]) -> Vec<String> {
    let mut complaints = Check::of(ledger, arrivals).complaints;
    complaints.extend(ledger.missing(arrivals).into_iter().map(|user| format!("lost: {user}")));
    complaints
}

/// How many of the arrivals had come before.
pub(super) fn repeats(arrivals: &[Arrival]) -> usize {
    let ids: HashSet<_> = arrivals.iter().map(|arrival| &arrival.txn_id).collect();
    arrivals.len() - ids.len()
}

/// A reader of arrivals that believes nothing. Repeats of a transaction count once: a server answers them from memory.
struct Check<'a> {
    ledger: &'a Ledger,
    bodies: HashMap<&'a str, &'a Bytes>,
    newest: HashMap<String, u64>,
    seq: (u64, u64),
    complaints: Vec<String>,
}

impl<'a> Check<'a> {
    fn of(ledger: &'a Ledger, arrivals: &'a [Arrival]) -> Self {
        let (bodies, newest) = (HashMap::new(), HashMap::new());
        let mut check = Self { ledger, bodies, newest, seq: (0, 0), complaints: Vec::new() };
        for arrival in arrivals {
            check.take(arrival);
        }
        check
    }

    fn take(&mut self, arrival: &'a Arrival) {
        let Arrival { txn_id, body, .. } = arrival;
        match self.bodies.insert(txn_id, body) {
            Some(before) if before == body => return,
            Some(_) => self.complaints.push(format!("{txn_id}: one id, two contents")),
            None => {}
        }
        match serde_json::from_slice::<Transaction>(body) {
            Ok(transaction) => self.read(txn_id, transaction),
            Err(error) => self.complaints.push(format!("{txn_id}: unreadable: {error}")),
        }
    }

    fn read(&mut self, txn_id: &str, transaction: Transaction) {
        let seq = transaction.edus.iter().find_map(|edu| edu.content.rollcall.as_ref()).map(|extension| extension.seq);
        match seq {
            Some(seq) if seq > self.seq => self.seq = seq,
            _ => self.complaints.push(format!("{txn_id}: seq {seq:?} after {:?}", self.seq)),
        }
        for push in transaction.edus.into_iter().flat_map(|edu| edu.content.push) {
            self.push(txn_id, push);
        }
    }

    fn push(&mut self, txn_id: &str, push: Push) {
        let Push { user_id, status_msg } = push;
        let attempted = self.ledger.0.get(&user_id).map(|said| said.attempted);
        // Before the first status there is no message.
        let number = status_msg.as_deref().map_or(Some(0), |text| text.parse().ok());
        let Some(number) = number.filter(|number| attempted.is_some_and(|attempted| *number <= attempted)) else {
            return self.complaints.push(format!("{txn_id}: {user_id} never said {status_msg:?}"));
        };
        let newest = self.newest.get(&user_id).copied().unwrap_or(0);
        if number < newest {
            self.complaints.push(format!("{txn_id}: {user_id} goes back from {newest} to {number}"));
        } else {
            self.newest.insert(user_id, number);
        }
    }
}

#[derive(Deserialize)]
struct Transaction {
    edus: Vec<Edu>,
}

#[derive(Deserialize)]
struct Edu {
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    push: Vec<Push>,
    rollcall: Option<Extension>,
}

#[derive(Deserialize)]
struct Push {
    user_id: String,
    status_msg: Option<String>,
}

#[derive(Deserialize)]
struct Extension {
    seq: (u64, u64),
}

/// The checker, against histories of each kind that it must not believe.
mod tests {
    use serde_json::json;

    use super::*;

    const USER: &str = "@u:a.example";

    fn arrival(txn_id: &str, seq: u64, user: &str, message: Option<&str>) -> Arrival {
        let push = json!([{ "user_id": user, "presence": "online", "status_msg": message }]);
        let content = json!({ "push": push, "rollcall": { "v": 1, "seq": [7, seq] } });
        let body = json!({ "edus": [{ "edu_type": "m.presence", "content": content }] });
        Arrival { at: Instant::now(), txn_id: txn_id.into(), body: body.to_string().into() }
    }

    /// Three were said and two confirmed; each arrived, and one of them twice.
    fn good() -> (Ledger, Vec<Arrival>) {
        let mut ledger = Ledger::of([USER.to_owned()]);
        (0..3).for_each(|_| assert_ne!(ledger.attempt(USER), 0));
        ledger.confirm(USER, 2);
        let arrivals = vec![
            arrival("t0", 1, USER, None),
            arrival("t1", 2, USER, Some("1")),
            arrival("t2", 3, USER, Some("2")),
            arrival("t1", 2, USER, Some("1")),
            arrival("t3", 4, USER, Some("3")),
        ];
        (ledger, arrivals)
    }

    fn complains(tamper: impl FnOnce(&mut Vec<Arrival>), of: &str) {
        let (ledger, mut arrivals) = good();
        tamper(&mut arrivals);
        let complaints = complaints(&ledger, &arrivals);
        assert!(complaints.iter().any(|complaint| complaint.contains(of)), "no word of {of:?}: {complaints:?}");
    }

    #[test]
    fn a_good_history_is_believed() {
        let (ledger, mut arrivals) = good();
        assert_eq!(complaints(&ledger, &arrivals), [""; 0]);
        assert_eq!(repeats(&arrivals), 1);
        arrivals.truncate(3);
        assert_eq!(complaints(&ledger, &arrivals), [""; 0], "what was never confirmed need not arrive");
    }

    #[test]
    fn a_loss_is_seen() {
        complains(|arrivals| arrivals.truncate(2), "lost: @u:a.example: 1 arrived");
        complains(Vec::clear, "lost: @u:a.example: 0 arrived");
    }

    #[test]
    fn one_id_with_two_contents_is_seen() {
        complains(|arrivals| arrivals[3] = arrival("t1", 2, USER, Some("2")), "t1: one id, two contents");
    }

    #[test]
    fn an_older_status_in_a_new_transaction_is_seen() {
        complains(
            |arrivals| arrivals.push(arrival("t4", 5, USER, Some("2"))),
            "t4: @u:a.example goes back from 3 to 2",
        );
        complains(|arrivals| arrivals.push(arrival("t4", 5, USER, None)), "t4: @u:a.example goes back from 3 to 0");
    }

    #[test]
    fn what_nobody_said_is_seen() {
        complains(|arrivals| arrivals.push(arrival("t4", 5, USER, Some("4"))), "t4: @u:a.example never said");
        complains(|arrivals| arrivals.push(arrival("t4", 5, USER, Some("cake"))), "t4: @u:a.example never said");
        complains(|arrivals| arrivals.push(arrival("t4", 5, "@x:a.example", None)), "t4: @x:a.example never said");
    }

    #[test]
    fn a_seq_that_does_not_grow_is_seen() {
        complains(|arrivals| arrivals.push(arrival("t4", 4, USER, Some("3"))), "t4: seq");
        complains(|arrivals| arrivals.swap(1, 2), "t1: seq");
    }

    #[test]
    fn an_unreadable_transaction_is_seen() {
        complains(|arrivals| arrivals[4].body = "{}".into(), "t3: unreadable");
    }
}
