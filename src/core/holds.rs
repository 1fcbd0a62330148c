//! Which deliveries of the batching exchange must stay unacknowledged, because an entry of theirs still waits in a window.

use std::collections::BTreeMap;

/// Names a delivery that the shell holds. Unique within one ownership.
pub type HoldId = u64;

/// For each held delivery, how many of its entries still wait. Bounded by the shell's limits on what it takes.
#[derive(Debug, Default)]
pub(super) struct Holds {
    waiting: BTreeMap<HoldId, usize>,
    released: Vec<HoldId>,
}

impl Holds {
    /// A delivery's signals are about to be handled.
    pub(super) fn open(&mut self, id: HoldId) {
        self.waiting.insert(id, 1);
    }

    /// All of a delivery's signals were handled.
    pub(super) fn close(&mut self, id: HoldId) {
        self.release(id);
    }

    /// One more entry of this delivery waits.
    pub(super) fn retain(&mut self, id: HoldId) {
        if let Some(count) = self.waiting.get_mut(&id) {
            *count += 1;
        }
    }

    /// One entry of this delivery waits no more.
    pub(super) fn release(&mut self, id: HoldId) {
        let Some(count) = self.waiting.get_mut(&id) else { return };
        *count -= 1;
        if *count == 0 {
            self.waiting.remove(&id);
            self.released.push(id);
        }
    }

    /// The deliveries that may be acknowledged once what was done so far is committed.
    pub(super) fn take_released(&mut self) -> Vec<HoldId> {
        std::mem::take(&mut self.released)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_released_with_its_last_entry() {
        let mut holds = Holds::default();
        holds.open(1);
        holds.retain(1);
        holds.retain(1);
        holds.close(1);
        holds.release(1);
        assert!(holds.take_released().is_empty());
        holds.release(1);
        assert_eq!(holds.take_released(), [1]);
    }

    #[test]
    fn a_delivery_without_waiting_entries_is_released_at_once() {
        let mut holds = Holds::default();
        holds.open(7);
        holds.close(7);
        assert_eq!(holds.take_released(), [7]);
    }
}
