//! Deliveries under way, and their receipts, gathered for a moment: peers that were told in one run answer within a few milliseconds
//! of each other, and a message costs the broker and us the same however many receipts it holds. Each queue's are told by themselves:
//! one that takes nothing keeps none of the others waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep_until};

use crate::bus::Token;
use crate::core::signal::{Addressed, PeerSignal};
use crate::model::{Partition, ServerName};

/// How long a receipt waits for others, while other deliveries are under way.
const GATHER: Duration = Duration::from_millis(20);
/// So many wait for no more.
const ENOUGH: usize = 256;

/// What came of a delivery.
pub(super) struct Done {
    /// To be acknowledged, once its receipt is confirmed.
    pub(super) token: Token,
    /// What its link is to hear.
    pub(super) receipt: Option<Receipt>,
}

/// What a link hears of its transaction.
pub(super) type Receipt = Addressed<ServerName, PeerSignal>;

/// Deliveries that are sent, then told, and are to be acknowledged then. Bounded by whoever adds them.
pub(super) struct UnderWay<'a, F, T> {
    partitions: u16,
    requests: FuturesUnordered<F>,
    gathered: Vec<Done>,
    /// When what is gathered leaves.
    due: Instant,
    telling: FuturesUnordered<BoxFuture<'a, Option<Vec<Token>>>>,
    tell: T,
}

impl<'a, F, T, P> UnderWay<'a, F, T>
where
    F: Future<Output = Option<Done>>,
    T: Fn(Vec<Receipt>) -> P,
    P: Future<Output = bool> + Send + 'a,
{
    /// `tell` publishes receipts to the links of one of so many partitions, and says whether they are confirmed.
    pub(super) fn new(partitions: u16, tell: T) -> Self {
        let (requests, telling) = Default::default();
        Self { partitions, requests, gathered: Vec::new(), due: Instant::now(), telling, tell }
    }

    /// Sees one more delivery to its end; a future that says `None` leaves it unacknowledged.
    pub(super) fn push(&self, request: F) {
        self.requests.push(request);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.gathered.is_empty() && self.telling.is_empty()
    }

    /// Waits until something is done, and says what is to be acknowledged; `None`: nothing is under way. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Vec<Token>> {
        while !self.is_empty() {
            tokio::select! {
                biased;
                Some(tokens) = self.telling.next(), if !self.telling.is_empty() => return Some(self.and_others(tokens)),
                Some(done) = self.requests.next(), if !self.requests.is_empty() => self.gather(done),
                () = sleep_until(self.due), if !self.gathered.is_empty() => self.leave(),
            }
        }
        None
    }

    fn gather(&mut self, done: Option<Done>) {
        if self.gathered.is_empty() {
            self.due = Instant::now() + GATHER;
        }
        self.gathered.extend(done);
        if self.requests.is_empty() || self.gathered.len() >= ENOUGH {
            self.leave();
        }
    }

    /// Begins to tell what is gathered, and leaves the rest. What a bus has begun to publish it goes on with, though nobody waits for it.
    pub(super) fn abandon(mut self) {
        self.leave();
        while let Some(Some(_)) = self.telling.next().now_or_never() {}
    }

    /// Begins to tell what is gathered.
    fn leave(&mut self) {
        let mut queues: BTreeMap<Option<Partition>, (Vec<Token>, Vec<Receipt>)> = BTreeMap::new();
        for Done { token, receipt } in self.gathered.drain(..) {
            let partition = receipt.as_ref().map(|receipt| Partition::of(receipt.to.as_str(), self.partitions));
            let (tokens, receipts) = queues.entry(partition).or_default();
            tokens.push(token);
            receipts.extend(receipt);
        }
        for (partition, (tokens, receipts)) in queues {
            let told = partition.map(|_| (self.tell)(receipts));
            self.telling.push(Box::pin(async {
                let is_told = match told {
                    Some(told) => told.await,
                    None => true,
                };
                is_told.then_some(tokens)
            }));
        }
    }

    /// With what else is to be acknowledged already.
    fn and_others(&mut self, first: Option<Vec<Token>>) -> Vec<Token> {
        let mut tokens = first.unwrap_or_default();
        while let Some(told) = self.telling.next().now_or_never().flatten() {
            tokens.extend(told.unwrap_or_default());
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use tokio::time::sleep;

    use super::*;
    use crate::core::signal::Outcome;
    use crate::model::Timestamp;

    /// A delivery to `peer` that is answered after so many ms.
    async fn answered(peer: &str, ms: u64) -> Option<Done> {
        sleep(Duration::from_millis(ms)).await;
        let signal = PeerSignal::Receipt { txn_id: "1".into(), outcome: Outcome::Delivered, retry_after_ms: None };
        let to = ServerName::parse(peer).unwrap();
        let receipt = Some(Addressed { to, at: Timestamp(1), reply: None, trace: None, signal });
        Some(Done { token: Token(ms), receipt })
    }

    /// How many receipts are told together of deliveries that are answered then, and what is acknowledged together.
    async fn told(answers: &[u64], is_confirmed: bool) -> (Vec<usize>, Vec<Vec<u64>>) {
        let told = Rc::new(RefCell::new(Vec::new()));
        let tell = |receipts: Vec<Receipt>| {
            told.borrow_mut().push(receipts.len());
            async move { is_confirmed }
        };
        let mut under_way = UnderWay::new(1, tell);
        answers.iter().for_each(|ms| under_way.push(answered("b.example", *ms)));
        let mut acknowledged = Vec::new();
        while let Some(tokens) = under_way.next().await {
            acknowledged.push(tokens.into_iter().map(|Token(tag)| tag).collect());
        }
        drop(under_way);
        (told.take(), acknowledged)
    }

    /// One peer of each of two partitions.
    fn peers() -> [String; 2] {
        let names = |partition| {
            let is_there = move |name: &String| Partition::of(name, 2) == Partition(partition);
            (0..).map(|n| format!("{n}.example")).find(is_there).unwrap()
        };
        [names(0), names(1)]
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_takes_nothing_keeps_no_other_waiting() {
        let peers = peers();
        let refused = Partition::of(&peers[1], 2);
        let mut under_way = UnderWay::new(2, |receipts: Vec<Receipt>| async move {
            if Partition::of(receipts[0].to.as_str(), 2) == refused {
                std::future::pending::<()>().await;
            }
            true
        });
        for (peer, ms) in [(&peers[0], 1), (&peers[1], 2), (&peers[0], 3)] {
            under_way.push(answered(peer, ms));
        }
        assert_eq!(under_way.next().await, Some(vec![Token(1), Token(3)]));
        let next = tokio::time::timeout(Duration::from_secs(60), under_way.next()).await;
        assert!(next.is_err() && !under_way.is_empty(), "the other one is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gathered_is_told_though_the_subscription_is_lost() {
        let told = AtomicUsize::new(0);
        let mut under_way = UnderWay::new(1, async |receipts: Vec<Receipt>| {
            told.fetch_add(receipts.len(), Relaxed);
            true
        });
        under_way.push(answered("b.example", 1));
        under_way.push(answered("b.example", 1_000));
        assert!(tokio::time::timeout(Duration::from_millis(5), under_way.next()).await.is_err());
        under_way.abandon();
        assert_eq!(told.load(Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_come_together_are_told_together() {
        let (told, acknowledged) = told(&[1, 5, 9, 50, 51, 300], true).await;
        assert_eq!(told, [3, 2, 1]);
        assert_eq!(acknowledged, [vec![1, 5, 9], vec![50, 51], vec![300]]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_waits_for_nobody() {
        let begun = Instant::now();
        assert_eq!(told(&[7], true).await.0, [1]);
        assert!(begun.elapsed() < Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_message_waits_for_nobody() {
        let mut answers = vec![1; 2 * ENOUGH];
        answers.push(1_000);
        assert_eq!(told(&answers, true).await.0, [ENOUGH, ENOUGH, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_confirmed_is_not_acknowledged() {
        let (told, acknowledged) = told(&[1, 2], false).await;
        assert_eq!((told, acknowledged.concat()), (vec![2], vec![]));
    }
}
