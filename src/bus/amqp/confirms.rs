//! The confirms of one channel, all seen in one place.
//!
//! The broker returns a message that no queue took before it confirms it. lapin puts returns into a line and hands the first to whichever
//! confirm it resolves next, whosever that is. So one task writes all messages of a channel, each with a number that its return names, and
//! looks at all confirms that are there before it says what became of any. Returns stand in the line by their numbers, so of a message that was
//! confirmed it is certain that it did not come back once a confirm was seen that carried nothing (the line was empty) or a later message's
//! return. Until then it waits; if the channel fails meanwhile, it is to be sent again.
//!
//! That one task writes is needed as well: lapin numbers a message and queues it in two steps, between which another thread's could
//! slip.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::stream::{FuturesUnordered, Stream, StreamExt as _};
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::headers;
use crate::bus::{Exchange, Outgoing};
use crate::lifecycle;

/// A message and its way.
pub(super) struct Letter {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) message: Outgoing,
    /// Its place among what is unconfirmed, from [`Confirms::room`].
    pub(super) permit: OwnedSemaphorePermit,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// A queue has it, or nobody minds that none does.
    Taken,
    /// It came back.
    Unroutable,
    /// It may be sent again.
    Again(String),
}

/// A channel in confirm mode that nobody else publishes on. Ends with the last of these.
pub(super) struct Confirms {
    letters: mpsc::Sender<(Letter, oneshot::Sender<Fate>)>,
    /// A channel that fails takes its window with it: what it owes keeps nobody waiting for the next one.
    window: Arc<Semaphore>,
    size: u32,
}

impl Confirms {
    /// At most `size` letters are unconfirmed.
    pub(super) fn new(channel: Channel, size: u32) -> Self {
        let (letters, incoming) = mpsc::channel(size as usize);
        lifecycle::spawn("broker confirms", look(channel, incoming));
        Self { letters, window: Arc::new(Semaphore::new(size as usize)), size }
    }

    /// Waits until one more may be unconfirmed.
    pub(super) async fn room(&self) -> OwnedSemaphorePermit {
        self.window.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Waits until nothing is unconfirmed.
    pub(super) async fn settled(&self) {
        let _all = self.window.acquire_many(self.size).await;
    }

    /// Sends a letter behind all that were given here before.
    pub(super) fn send(&self, letter: Letter) -> impl Future<Output = Fate> + use<> {
        let (told, fate) = oneshot::channel();
        // Whoever has a permit has room: this fails only when the task is gone, and then `told` is, too.
        let _ = self.letters.try_send((letter, told));
        async { fate.await.unwrap_or_else(|_| Fate::Again("the channel is gone".into())) }
    }
}

async fn look(channel: Channel, mut incoming: mpsc::Receiver<(Letter, oneshot::Sender<Fate>)>) {
    let mut ledger = Ledger::<(oneshot::Sender<Fate>, OwnedSemaphorePermit)>::default();
    let mut last = 0;
    let mut under_way = FuturesUnordered::new();
    loop {
        // Futures are first polled in the order in which they were pushed, and that first poll queues the frames.
        tokio::select! {
            biased;
            Some(first) = under_way.next() => {
                let mut seen = vec![first];
                seen.extend(all_ready(&mut under_way));
                for ((told, _permit), fate) in ledger.settle(seen, under_way.is_empty()) {
                    let _ = told.send(fate);
                }
            }
            letter = incoming.recv() => {
                let Some((letter, told)) = letter else { return };
                last += 1;
                under_way.push(send(&channel, last, letter, told));
            }
        }
    }
}

async fn send(
    channel: &Channel,
    number: u64,
    letter: Letter,
    told: oneshot::Sender<Fate>,
) -> Seen<(oneshot::Sender<Fate>, OwnedSemaphorePermit)> {
    let Letter { exchange, key, message, permit } = letter;
    // An edge that is gone is no failure, and nothing of its updates needs to reach a disk.
    let passing = message.exchange == Exchange::Updates;
    let options = BasicPublishOptions { mandatory: !passing, immediate: false };
    let properties = headers::properties(&message.headers, !passing).with_message_id(number.to_string().into());
    let confirmation = match channel.basic_publish(exchange, key, options, &message.body, properties).await {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    let (returned, word) = match confirmation {
        Ok(Confirmation::Ack(returned)) if passing => (returned, Word::Passed),
        Ok(Confirmation::Ack(returned)) => (returned, Word::Taken),
        Ok(Confirmation::Nack(returned)) => (returned, Word::Refused),
        Ok(Confirmation::NotRequested) => (None, Word::Failed("the channel is not in confirm mode".into())),
        Err(error) => (None, Word::Failed(error.to_string())),
    };
    Seen { number, of: (told, permit), carried: returned.map(|returned| number_of(&returned)), word }
}

/// Which message came back; 0, which is none's, if it does not say.
fn number_of(returned: &BasicReturnMessage) -> u64 {
    metrics::counter!("rollcall_bus_returned_total").increment(1);
    let number = returned.properties.message_id().as_ref().and_then(|id| id.as_str().parse().ok());
    number.unwrap_or_else(|| {
        let BasicReturnMessage { delivery, .. } = returned;
        tracing::error!(exchange = %delivery.exchange, routing_key = %delivery.routing_key, "what came back does not say which it is");
        0
    })
}

/// A confirm, or that there will be none.
struct Seen<L> {
    number: u64,
    of: L,
    /// Which message's return came with it.
    carried: Option<u64>,
    word: Word,
}

/// What the broker said of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// It has it, unless it came back.
    Taken,
    /// It has it, or not: it never comes back.
    Passed,
    Refused,
    /// Nothing, and it will not: the channel has failed.
    Failed(String),
}

impl<L> Seen<L> {
    /// Nothing stood in the line when this was resolved.
    fn found_line_empty(&self) -> bool {
        self.carried.is_none() && !matches!(self.word, Word::Failed(_))
    }
}

/// What is not settled yet.
struct Ledger<L> {
    /// Came back; their own confirms were not seen yet.
    returned: HashSet<u64>,
    /// The newest that came back: all before it that did have been seen to.
    newest: u64,
    /// Confirmed, while their returns may be in the line.
    unsure: Vec<(u64, L)>,
    /// What stands in the line will not be seen.
    is_broken: bool,
}

impl<L> Default for Ledger<L> {
    fn default() -> Self {
        Self { returned: HashSet::new(), newest: 0, unsure: Vec::new(), is_broken: false }
    }
}

impl<L> Ledger<L> {
    /// What becomes of whom, after all these were seen, in any order, and all that were resolved before them. `is_idle`: no other is
    /// under way.
    fn settle(&mut self, seen: Vec<Seen<L>>, is_idle: bool) -> Vec<(L, Fate)> {
        self.returned.extend(seen.iter().filter_map(|seen| seen.carried));
        self.newest = seen.iter().filter_map(|seen| seen.carried).fold(self.newest, u64::max);
        self.is_broken |= seen.iter().any(|seen| matches!(seen.word, Word::Failed(_)));
        // Those that are unsure were resolved before all of these.
        let mut is_line_empty = seen.iter().any(Seen::found_line_empty);
        let mut settled = Vec::with_capacity(seen.len());
        let before = std::mem::take(&mut self.unsure).into_iter().map(|(number, of)| (number, of, is_line_empty));
        let mut doubtful: Vec<_> = before.collect();
        for seen in seen {
            is_line_empty = seen.found_line_empty();
            let Seen { number, of, word, .. } = seen;
            match word {
                Word::Failed(reason) if !self.returned.contains(&number) => settled.push((of, Fate::Again(reason))),
                Word::Refused if !self.returned.contains(&number) => {
                    settled.push((of, Fate::Again("refused by the broker".into())));
                }
                word => doubtful.push((number, of, is_line_empty || word == Word::Passed)),
            }
        }
        for (number, of, is_sure) in doubtful {
            if self.returned.remove(&number) {
                settled.push((of, Fate::Unroutable));
            } else if is_sure || number < self.newest || is_idle && !self.is_broken {
                settled.push((of, Fate::Taken));
            } else if is_idle {
                settled.push((of, Fate::Again("the channel failed before it was known whether this came back".into())));
            } else {
                self.unsure.push((number, of));
            }
        }
        if is_idle {
            self.returned.clear();
        }
        settled
    }
}

/// All that is ready. `FuturesUnordered` may pause before it has looked at all, and wakes its task then: that is told apart from the end.
fn all_ready<F: Future>(under_way: &mut FuturesUnordered<F>) -> Vec<F::Output> {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let (mut under_way, mut context) = (pin!(under_way), Context::from_waker(&waker));
    let mut ready = Vec::new();
    loop {
        woken.0.store(false, Ordering::SeqCst);
        match under_way.as_mut().poll_next(&mut context) {
            Poll::Ready(Some(output)) => ready.push(output),
            Poll::Ready(None) => return ready,
            Poll::Pending if woken.0.load(Ordering::SeqCst) => {}
            Poll::Pending => return ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(number: u64, carried: Option<u64>) -> Seen<u64> {
        Seen { number, of: number, carried, word: Word::Taken }
    }

    fn failed(number: u64) -> Seen<u64> {
        Seen { word: Word::Failed("lost".into()), ..seen(number, None) }
    }

    /// By number: T for taken, U for unroutable, A for again.
    fn settle(ledger: &mut Ledger<u64>, seen: Vec<Seen<u64>>, is_idle: bool) -> String {
        let letter = |fate| match fate {
            Fate::Taken => 'T',
            Fate::Unroutable => 'U',
            Fate::Again(_) => 'A',
        };
        let settled = ledger.settle(seen, is_idle).into_iter();
        settled.map(|(number, fate)| format!("{number}{} ", letter(fate))).collect()
    }

    #[test]
    fn what_came_back_with_another_s_confirm_is_told_to_whom_it_belongs() {
        let mut ledger = Ledger::default();
        // Resolved at once, in any order: the return of 2, if there was one, may still be in the line.
        assert_eq!(settle(&mut ledger, vec![seen(1, None), seen(2, Some(1))], false), "1U ");
        assert_eq!(
            settle(&mut ledger, vec![seen(3, Some(4))], false),
            "2T 3T ",
            "else theirs would have come before that of 4"
        );
        assert_eq!(settle(&mut ledger, vec![seen(4, None)], false), "4U ");
    }

    #[test]
    fn two_that_are_confirmed_crosswise_have_both_come_back() {
        let mut ledger = Ledger::default();
        assert_eq!(settle(&mut ledger, vec![seen(2, Some(1))], false), "");
        assert_eq!(settle(&mut ledger, vec![seen(1, Some(2))], true), "2U 1U ");
        assert_eq!(settle(&mut ledger, vec![seen(3, None)], true), "3T ");
    }

    #[test]
    fn one_that_is_unsure_waits_for_no_longer_than_the_line_may_hold_something() {
        let mut ledger = Ledger::default();
        assert_eq!(settle(&mut ledger, vec![seen(2, Some(1))], false), "");
        let refused = Seen { word: Word::Refused, ..seen(3, None) };
        assert_eq!(settle(&mut ledger, vec![refused], false), "3A 2T ", "it found the line empty");
        assert_eq!(settle(&mut ledger, vec![seen(4, Some(1))], false), "");
        assert_eq!(settle(&mut ledger, vec![seen(5, Some(1))], true), "4T 5T ", "nothing else is under way");
    }

    #[test]
    fn what_never_comes_back_is_not_doubted() {
        let mut ledger = Ledger::default();
        let passing = Seen { word: Word::Passed, ..seen(2, Some(1)) };
        assert_eq!(settle(&mut ledger, vec![passing], false), "2T ");
        assert_eq!(settle(&mut ledger, vec![seen(1, None)], true), "1U ");
    }

    /// What stood in the line of a channel that failed is not seen any more.
    #[test]
    fn what_may_have_come_back_is_sent_again_if_the_channel_fails() {
        let mut ledger = Ledger::default();
        assert_eq!(settle(&mut ledger, vec![seen(2, Some(1))], false), "");
        assert_eq!(settle(&mut ledger, vec![failed(1), failed(3)], true), "3A 2A 1U ");
        let mut ledger = Ledger::default();
        assert_eq!(settle(&mut ledger, vec![seen(2, Some(1)), failed(1)], true), "2A 1U ");
    }

    #[test]
    fn all_that_is_ready_is_seen_however_often_others_are_woken_meanwhile() {
        let woken = |times: u32| {
            let mut left = times;
            std::future::poll_fn(move |context| {
                if left == 0 {
                    return Poll::Ready(());
                }
                left -= 1;
                context.waker().wake_by_ref();
                Poll::Pending
            })
        };
        let mut all: FuturesUnordered<_> = (0..100).map(|number| woken(number % 7)).collect();
        assert_eq!(all_ready(&mut all).len(), 100);
    }
}
