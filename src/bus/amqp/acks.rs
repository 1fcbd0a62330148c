//! Which acknowledgement frames to send: delivery tags count up over a whole channel, and one `multiple` frame covers a prefix.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Token;

/// The deliveries of one channel that were handed out and not acknowledged. Bounded by the channel's prefetch.
///
/// Deliveries that were received and not handed out have higher tags than all of these *of their queue*, but not of other queues:
/// whoever hands deliveries out has to [`receive`](Self::receive) all that the channel holds, in whatever order.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    /// With the number of the consumer that each came from.
    tags: BTreeMap<u64, usize>,
    /// The highest tag below which nothing is unknown.
    known_to: u64,
    /// Received above `known_to`, in disorder.
    ahead: BTreeSet<u64>,
}

/// An acknowledgement: of one delivery, or of all up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) tag: u64,
    pub(super) multiple: bool,
}

impl Outstanding {
    /// Notes a delivery of the consumer `source` that is handed out.
    pub(super) fn receive(&mut self, tag: u64, source: usize) {
        self.tags.insert(tag, source);
        self.ahead.insert(tag);
        while self.ahead.remove(&(self.known_to + 1)) {
            self.known_to += 1;
        }
    }

    /// The consumers of all that is outstanding, one item a delivery.
    pub(super) fn sources(&self) -> impl Iterator<Item = usize> {
        self.tags.values().copied()
    }

    /// The consumer that a delivery came from, while it is outstanding.
    pub(super) fn source(&self, Token(tag): &Token) -> Option<usize> {
        self.tags.get(tag).copied()
    }

    /// The frames that acknowledge exactly `tokens`: one for the longest prefix that holds nothing else, one for each of the rest.
    pub(super) fn acknowledge(&mut self, tokens: Vec<Token>) -> Vec<Ack> {
        let mut acked: BTreeSet<u64> = tokens.into_iter().map(|Token(tag)| tag).collect();
        acked.retain(|tag| self.tags.contains_key(tag));
        let prefix: Vec<u64> =
            self.tags.keys().copied().take_while(|tag| *tag <= self.known_to && acked.contains(tag)).collect();
        let mut frames = Vec::new();
        if let Some(last) = prefix.last() {
            frames.push(Ack { tag: *last, multiple: prefix.len() > 1 });
        }
        let rest = acked.range(prefix.last().map_or(0, |last| last + 1)..);
        frames.extend(rest.map(|tag| Ack { tag: *tag, multiple: false }));
        for tag in &acked {
            self.tags.remove(tag);
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn tokens(tags: &[u64]) -> Vec<Token> {
        tags.iter().map(|tag| Token(*tag)).collect()
    }

    fn received(tags: &[u64]) -> Outstanding {
        let mut outstanding = Outstanding::default();
        tags.iter().for_each(|tag| outstanding.receive(*tag, 0));
        outstanding
    }

    #[test]
    fn a_whole_run_takes_one_frame() {
        let mut outstanding = received(&[1, 2, 3]);
        assert_eq!(outstanding.acknowledge(tokens(&[3, 1, 2])), [Ack { tag: 3, multiple: true }]);
    }

    #[test]
    fn what_is_held_stays_held() {
        let mut outstanding = received(&[1, 2, 3, 4]);
        let singles = [Ack { tag: 2, multiple: false }, Ack { tag: 4, multiple: false }];
        assert_eq!(outstanding.acknowledge(tokens(&[2, 4])), singles);
        assert_eq!(outstanding.acknowledge(tokens(&[1, 3])), [Ack { tag: 3, multiple: true }]);
    }

    #[test]
    fn a_delivery_that_nobody_was_handed_yet_is_not_covered() {
        let mut outstanding = received(&[1, 3]);
        let frames = outstanding.acknowledge(tokens(&[1, 3]));
        assert_eq!(frames, [Ack { tag: 1, multiple: false }, Ack { tag: 3, multiple: false }]);
    }

    #[test]
    fn foreign_and_doubled_tokens_make_no_frame() {
        let mut outstanding = received(&[1]);
        assert_eq!(outstanding.acknowledge(tokens(&[1, 1, 9])), [Ack { tag: 1, multiple: false }]);
        assert_eq!(outstanding.acknowledge(tokens(&[1])), []);
    }

    proptest! {
        /// Against a model of the broker: whatever the order of hand-outs and acknowledgements, exactly what was meant is acked.
        #[test]
        fn exactly_the_acked_are_acked(order in Just((1..=24u64).collect::<Vec<_>>()).prop_shuffle(), picks in vec(any::<bool>(), 24)) {
            let mut outstanding = Outstanding::default();
            let mut broker: BTreeSet<u64> = (1..=24).collect();
            let mut expected = broker.clone();
            for run in order.chunks(6) {
                run.iter().for_each(|tag| outstanding.receive(*tag, 0));
                let chosen: Vec<u64> = run.iter().copied().filter(|tag| picks[usize::try_from(*tag - 1).unwrap()]).collect();
                expected.retain(|tag| !chosen.contains(tag));
                for ack in outstanding.acknowledge(tokens(&chosen)) {
                    broker.retain(|tag| if ack.multiple { *tag > ack.tag } else { *tag != ack.tag });
                }
                prop_assert_eq!(&broker, &expected);
            }
        }
    }
}
