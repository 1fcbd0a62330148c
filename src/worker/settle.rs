//! What follows a run: commit, publish, acknowledge. Why in this order: see `owner.rs`.

use std::collections::VecDeque;

use metrics::{counter, histogram};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::outbox::{self, Haste, Leaving};
use super::owner::{Ended, Owner};
use super::run::Run;
use crate::bus::{Outgoing, PublishError, SubscriptionError, Token};
use crate::core::{Effects, HoldId, Lapse};
use crate::store::{Commit, Lease, RowChange};

/// The pause before a publish that failed is tried again.
pub(super) const PUBLISH_PAUSE: Duration = Duration::from_millis(200);
/// Committed runs whose messages are not confirmed. Beyond it the owner waits: their outbox rows and inputs are kept until then.
const FLIGHTS: usize = 8;
/// What is in no hurry waits while no more of what an owner may take is unacknowledged than one part in so many.
const PATIENT_PART: u16 = 4;
/// Peers that one line of the log names: many are given up at once when our own network fails.
const NAMED: usize = 10;

/// Runs that are committed and whose messages are on their way, oldest first.
#[derive(Default)]
pub(super) struct Flights(VecDeque<Flight>);

/// A run's messages on their way.
struct Flight {
    /// Of its outbox row.
    number: u64,
    /// What caused them.
    tokens: Vec<Token>,
    confirmed: oneshot::Receiver<()>,
}

/// Runs whose messages are confirmed, and those of all before them.
pub(super) struct Landed {
    number: u64,
    tokens: Vec<Token>,
}

impl Flights {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits for the oldest, and takes what else has landed by then. Cancel-safe. Must not be called when there are none.
    pub(super) async fn land(&mut self) -> Result<Landed, Ended> {
        let Some(oldest) = self.0.front_mut() else { return std::future::pending().await };
        (&mut oldest.confirmed).await.map_err(|_| Ended::lost("the bus is closed"))?;
        let mut landed = Landed { number: 0, tokens: Vec::new() };
        // The oldest has landed, and must not be asked again.
        let mut next = self.0.pop_front();
        while let Some(flight) = next {
            landed.number = flight.number;
            landed.tokens.extend(flight.tokens);
            next = self.0.pop_front_if(|flight| flight.confirmed.try_recv().is_ok());
        }
        Ok(landed)
    }
}

impl Owner<'_> {
    /// Commits, hands the messages over to be published, and acknowledges the inputs once they are.
    pub(super) async fn settle(&mut self, run: Run) -> Result<(), Ended> {
        let Run { mut tokens, replies, dead, ends, .. } = run;
        if let Some(ended) = ends {
            // Nothing of this run counts but what became of the guilty; the rest comes again.
            self.publish(&dead, None).await?;
            self.acknowledge(tokens).await?;
            return Err(ended);
        }
        let Effects { rows, outputs, released, flushes, lapses } = self.machines.take_effects();
        let leaving = outbox::pack(outputs, self.worker.partitions);
        // Also for updates alone: the commit is the fence, and a late owner tells nobody's client anything.
        if !rows.is_empty() || !leaving.is_empty() {
            self.commit(rows, &leaving.messages).await?;
        }
        self.pool.answer(replies);
        self.publish(&dead, None).await?;
        tokens.extend(released.iter().filter_map(|id| self.release(*id)));
        self.depart(leaving, tokens).await?;
        self.observe(&flushes);
        say_lapses(&lapses);
        Ok(())
    }

    async fn commit(&mut self, rows: Vec<RowChange>, messages: &[Outgoing]) -> Result<(), Ended> {
        let outbox = (!messages.is_empty()).then(|| {
            self.number += 1;
            (self.number, outbox::keep(messages))
        });
        let bytes = rows.iter().map(|row| row.value.as_ref().map_or(0, bytes::Bytes::len)).sum::<usize>();
        counter!("rollcall_commits_total").increment(1);
        counter!("rollcall_commit_rows_total").increment(rows.len() as u64);
        counter!("rollcall_commit_bytes_total").increment(bytes as u64);
        let begun = Instant::now();
        let Lease { partition, epoch } = self.lease;
        let commit = Commit { partition, epoch, rows, outbox, published: self.published };
        self.worker.store.commit(commit).await.map_err(Ended::lost)?;
        histogram!("rollcall_commit_seconds").record(begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Messages to machines leave with those of other runs, while the next run is handled. A transaction is waited for: the next
    /// one of its link must not be committed while this one stands in the outbox, from where a later owner would send it again.
    async fn depart(&mut self, leaving: Leaving, tokens: Vec<Token>) -> Result<(), Ended> {
        let Leaving { messages, updates, haste } = leaving;
        let haste = haste.max(self.least_haste(tokens.len()));
        self.publish(&updates, None).await?;
        counter!("rollcall_updates_sent_total").increment(updates.len() as u64);
        if messages.is_empty() {
            return self.acknowledge(tokens).await;
        }
        let confirmed = tokio::select! {
            biased;
            () = self.keeper.lost().cancelled() => return Err(Ended::lost("lease lost")),
            confirmed = self.pool.hand_in(messages, haste) => confirmed,
        };
        self.flights.0.push_back(Flight { number: self.number, tokens, confirmed });
        if haste == Haste::Urgent || self.flights.0.len() >= FLIGHTS {
            self.land_all().await?;
        }
        Ok(())
    }

    /// How soon a run's messages are to leave, whatever they are, with so many inputs: what is in no hurry must not keep others from coming,
    /// because so much is unacknowledged for its sake, or the owner from handling them.
    fn least_haste(&self, inputs: usize) -> Haste {
        let unacknowledged = inputs + self.flights.0.iter().map(|flight| flight.tokens.len()).sum::<usize>();
        match () {
            () if self.flights.0.len() + 1 >= FLIGHTS => Haste::Urgent,
            () if unacknowledged > usize::from(self.worker.signals_prefetch() / PATIENT_PART) => Haste::Soon,
            () => Haste::Patient,
        }
    }

    /// Waits until everything committed is confirmed.
    pub(super) async fn land_all(&mut self) -> Result<(), Ended> {
        while !self.flights.is_empty() {
            let landed = tokio::select! {
                biased;
                () = self.keeper.lost().cancelled() => return Err(Ended::lost("lease lost")),
                landed = self.flights.land() => landed?,
            };
            self.note_landed(landed).await?;
        }
        Ok(())
    }

    /// What caused these messages need not come again; their outbox rows go with the next commit.
    pub(super) async fn note_landed(&mut self, landed: Landed) -> Result<(), Ended> {
        self.published = Some((self.lease.epoch, landed.number));
        self.acknowledge(landed.tokens).await
    }

    /// Publishes until it is confirmed: what is committed must leave. Only a lost lease or a closed bus ends the trying.
    pub(super) async fn publish(
        &mut self,
        messages: &[Outgoing],
        stop: Option<&CancellationToken>,
    ) -> Result<(), Ended> {
        if messages.is_empty() {
            return Ok(());
        }
        let never = CancellationToken::new();
        loop {
            let publishing = self.worker.bus.publish(messages.to_vec());
            let result = tokio::select! {
                biased;
                () = self.keeper.lost().cancelled() => return Err(Ended::lost("lease lost")),
                () = stop.unwrap_or(&never).cancelled() => return Err(Ended::Stopped),
                result = publishing => result,
            };
            match result {
                Ok(()) => return Ok(()),
                Err(PublishError::Closed) => return Err(Ended::lost("the bus is closed")),
                Err(error) => tracing::warn!(partition = %self.lease.partition, %error, "publishing again"),
            }
            tokio::time::sleep(PUBLISH_PAUSE).await;
        }
    }

    async fn acknowledge(&mut self, tokens: Vec<Token>) -> Result<(), Ended> {
        match &mut self.subscription {
            Some(subscription) if !tokens.is_empty() => {
                // Those of all runs that were committed or confirmed together leave together.
                yield_now().await;
                subscription.ack(tokens).await.map_err(|error: SubscriptionError| Ended::lost(error))
            }
            _ => Ok(()),
        }
    }

    fn release(&mut self, id: HoldId) -> Option<Token> {
        let held = self.held.remove(&id)?;
        self.held_bytes -= held.bytes;
        Some(held.token)
    }
}

fn say_lapses(lapses: &[Lapse]) {
    for is_over in [false, true] {
        let peers: Vec<_> =
            lapses.iter().filter(|lapse| lapse.is_over == is_over).map(|lapse| lapse.server.as_str()).collect();
        let (count, peers) = (peers.len(), peers[..peers.len().min(NAMED)].join(", "));
        match is_over {
            _ if count == 0 => {}
            true => tracing::info!(count, peers, "peers that were given up are heard of again"),
            false => tracing::warn!(count, peers, "peers given up: their users are unknown until they are heard of"),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn flight(flights: &mut Flights, number: u64) -> oneshot::Sender<()> {
        let (confirmed, confirmation) = oneshot::channel();
        flights.0.push_back(Flight { number, tokens: vec![Token(number)], confirmed: confirmation });
        confirmed
    }

    #[test]
    fn a_run_counts_as_published_when_all_before_it_do() {
        let mut flights = Flights::default();
        let [first, second, _third] = [1, 2, 3].map(|number| flight(&mut flights, number));
        second.send(()).unwrap();
        assert!(flights.land().now_or_never().is_none());
        first.send(()).unwrap();
        let landed = flights.land().now_or_never().expect("the oldest has landed").unwrap();
        assert_eq!((landed.number, landed.tokens), (2, vec![Token(1), Token(2)]));
        assert!(flights.land().now_or_never().is_none());
    }

    #[test]
    fn what_will_never_be_confirmed_ends_the_ownership() {
        let mut flights = Flights::default();
        drop(flight(&mut flights, 1));
        let ended = flights.land().now_or_never().expect("known at once").err();
        assert_eq!(ended, Some(Ended::lost("the bus is closed")));
        assert!(!flights.is_empty(), "nothing of it is acknowledged");
    }
}
