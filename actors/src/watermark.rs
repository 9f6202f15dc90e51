//! The commit watermark of a partition: the lowest unfinished record, else the highest finished
//! plus one, over the offsets that were received. Never over a range made up from two offsets:
//! compaction and transaction markers leave gaps that nobody will ever fill.

use std::collections::VecDeque;

use crate::record::{NextOffset, Offset};

/// Names a received record until it is finished. Cheaper to look up than its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// Follows received records from the first unfinished one on.
#[derive(Debug)]
pub struct Watermark {
    /// Ticket number of the front of `received`.
    front: u64,
    /// Offsets in the order of arrival; finished ones are stored as their bitwise complement,
    /// which is negative, so that a million records ahead of a slow one cost 8 MB and not 16.
    received: VecDeque<i64>,
    /// What the watermark is when nothing is unfinished.
    caught_up: NextOffset,
    /// The highest offset received so far.
    highest: Offset,
}

impl Watermark {
    /// Starts at a committed position: everything below it is finished.
    pub fn new(start: NextOffset) -> Self {
        Watermark { front: 0, received: VecDeque::new(), caught_up: start, highest: Offset(start.0 - 1) }
    }

    /// Notes a received record; `None` for one that was received before or lies below the start.
    pub fn receive(&mut self, offset: Offset) -> Option<Ticket> {
        if offset <= self.highest {
            return None;
        }
        self.highest = offset;
        self.received.push_back(offset.0);
        Some(Ticket(self.front + self.received.len() as u64 - 1))
    }

    /// Marks a record as finished. Marking it twice changes nothing.
    pub fn finish(&mut self, ticket: Ticket) {
        let Some(slot) = ticket.0.checked_sub(self.front).and_then(|n| self.received.get_mut(n as usize))
        else {
            return;
        };
        if *slot >= 0 {
            *slot = !*slot;
        }
        while let Some(&finished) = self.received.front().filter(|&&slot| slot < 0) {
            self.caught_up = Offset(!finished).next();
            self.received.pop_front();
            self.front += 1;
        }
    }

    /// The position that may be committed.
    pub fn position(&self) -> NextOffset {
        match self.received.front() {
            Some(&unfinished) => NextOffset(unfinished),
            None => self.caught_up,
        }
    }

    /// Records received from the first unfinished one on: what a bound on running ahead counts.
    pub fn span(&self) -> usize {
        self.received.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_watermark_waits_for_the_lowest_unfinished_record() {
        let mut watermark = Watermark::new(NextOffset(10));
        let first = watermark.receive(Offset(12)).expect("new");
        let second = watermark.receive(Offset(15)).expect("new");
        assert_eq!(watermark.position(), NextOffset(12), "a received record is unfinished");
        watermark.finish(second);
        assert_eq!(watermark.position(), NextOffset(12));
        watermark.finish(first);
        assert_eq!(watermark.position(), NextOffset(16), "the highest finished plus one");
        assert_eq!(watermark.span(), 0);
    }

    #[test]
    fn a_redelivered_offset_is_not_received_again() {
        let mut watermark = Watermark::new(NextOffset(10));
        assert_eq!(watermark.receive(Offset(9)), None);
        assert!(watermark.receive(Offset(10)).is_some());
        assert_eq!(watermark.receive(Offset(10)), None);
        assert_eq!(watermark.position(), NextOffset(10));
    }

    proptest! {
        /// Against the definition, for any gaps and any order of finishing.
        #[test]
        fn the_watermark_equals_its_definition(
            gaps in proptest::collection::vec(1i64..5, 1..60),
            order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..120),
        ) {
            let mut watermark = Watermark::new(NextOffset(0));
            let mut offset = -1;
            let mut records = Vec::new();
            for gap in gaps {
                offset += gap;
                records.push((offset, watermark.receive(Offset(offset)).expect("new"), false));
            }
            for index in order {
                let n = index.index(records.len());
                records[n].2 = true;
                watermark.finish(records[n].1);
                let expected = records.iter().find(|record| !record.2).map_or(offset + 1, |record| record.0);
                prop_assert_eq!(watermark.position(), NextOffset(expected));
            }
        }
    }
}
