//! The confirms of one channel, all seen in one place.
//!
//! The broker returns a message that no queue took before it confirms it. lapin puts returns into a line and hands one to each confirm
//! that it resolves, whosever that is. So what a confirm carries says nothing of its own message, and one that carries nothing says
//! only that the line was empty: its message's return, if there was one, went to a confirm resolved before. Therefore one task writes
//! all messages of a channel, each with a number that its return names, and looks at all confirms that are there before it says what
//! became of any. A confirm that carries another's return may have left its own in the line: it waits until a later one carries
//! nothing, or none is under way.
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
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::headers;
use crate::bus::{Exchange, Outgoing};
use crate::lifecycle;

/// A message and its way.
pub(super) struct Letter {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) message: Outgoing,
    /// Its place among what is unconfirmed.
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
}

impl Confirms {
    /// At most `window` letters have permits.
    pub(super) fn new(channel: Channel, window: usize) -> Self {
        let (letters, incoming) = mpsc::channel(window);
        lifecycle::spawn("broker confirms", look(channel, incoming));
        Self { letters }
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
    let (carried, setback) = match confirmation {
        Ok(Confirmation::Ack(returned)) => (returned, None),
        Ok(Confirmation::Nack(returned)) => (returned, Some("refused by the broker".into())),
        Ok(Confirmation::NotRequested) => (None, Some("the channel is not in confirm mode".into())),
        Err(error) => (None, Some(error.to_string())),
    };
    Seen { number, of: (told, permit), carried: carried.map(|returned| number_of(&returned)), setback }
}

/// Which message came back; 0, which is none's, if it does not say.
fn number_of(returned: &BasicReturnMessage) -> u64 {
    metrics::counter!("rollcall_bus_returned_total").increment(1);
    returned.properties.message_id().as_ref().and_then(|id| id.as_str().parse().ok()).unwrap_or(0)
}

/// A confirm, or that there will be none.
struct Seen<L> {
    number: u64,
    of: L,
    /// Which message's return came with it.
    carried: Option<u64>,
    setback: Option<String>,
}

/// What is not settled yet.
struct Ledger<L> {
    /// Came back; their own confirms were not seen yet.
    returned: HashSet<u64>,
    /// Confirmed with another's return, while their own may be in the line.
    unsure: Vec<(u64, L)>,
}

impl<L> Default for Ledger<L> {
    fn default() -> Self {
        Self { returned: HashSet::new(), unsure: Vec::new() }
    }
}

impl<L> Ledger<L> {
    /// What becomes of whom, after all these were seen, in any order, and all that were resolved before them. `is_idle`: no other is
    /// under way.
    fn settle(&mut self, seen: Vec<Seen<L>>, is_idle: bool) -> Vec<(L, Fate)> {
        self.returned.extend(seen.iter().filter_map(|seen| seen.carried));
        let is_line_empty = is_idle || seen.iter().any(|seen| seen.carried.is_none() && seen.setback.is_none());
        let mut settled = Vec::with_capacity(seen.len());
        for (number, of) in std::mem::take(&mut self.unsure) {
            match self.returned.remove(&number) {
                true => settled.push((of, Fate::Unroutable)),
                false if is_line_empty => settled.push((of, Fate::Taken)),
                false => self.unsure.push((number, of)),
            }
        }
        for Seen { number, of, carried, setback } in seen {
            match (self.returned.remove(&number), setback) {
                (true, _) => settled.push((of, Fate::Unroutable)),
                (false, Some(setback)) => settled.push((of, Fate::Again(setback))),
                (false, None) if carried.is_none() || is_idle => settled.push((of, Fate::Taken)),
                (false, None) => self.unsure.push((number, of)),
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
        Seen { number, of: number, carried, setback: None }
    }

    fn settle(ledger: &mut Ledger<u64>, seen: Vec<Seen<u64>>, is_idle: bool) -> Vec<(u64, bool)> {
        let settled = ledger.settle(seen, is_idle).into_iter();
        settled.map(|(number, fate)| (number, fate == Fate::Taken)).collect()
    }

    #[test]
    fn what_came_back_with_another_s_confirm_is_told_to_whom_it_belongs() {
        let mut ledger = Ledger::default();
        // Resolved at once, in any order.
        assert_eq!(settle(&mut ledger, vec![seen(1, None), seen(2, Some(1))], false), [(1, false)]);
        assert_eq!(settle(&mut ledger, vec![seen(3, Some(4))], false), [], "2 and 3 may have come back, too");
        assert_eq!(settle(&mut ledger, vec![seen(4, None)], false), [(2, true), (3, true), (4, false)]);
    }

    #[test]
    fn two_that_are_confirmed_crosswise_have_both_come_back() {
        let mut ledger = Ledger::default();
        assert_eq!(settle(&mut ledger, vec![seen(2, Some(1))], false), []);
        assert_eq!(settle(&mut ledger, vec![seen(1, Some(2))], true), [(2, false), (1, false)]);
        assert_eq!(settle(&mut ledger, vec![seen(3, None)], true), [(3, true)]);
    }

    #[test]
    fn one_that_is_unsure_waits_for_no_longer_than_others_are_under_way() {
        let mut ledger = Ledger::default();
        assert_eq!(settle(&mut ledger, vec![seen(1, Some(3))], false), []);
        let refused = Seen { setback: Some("refused".into()), ..seen(2, None) };
        assert_eq!(settle(&mut ledger, vec![refused], false), [(2, false)]);
        assert_eq!(settle(&mut ledger, vec![seen(3, None)], true), [(1, true), (3, false)]);
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
