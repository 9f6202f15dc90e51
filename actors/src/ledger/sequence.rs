//! What a head knows of its key's place in the producers' own numbering.

use serde::{Deserialize, Serialize};

/// Ranges of numbers that were given up, kept to tell what comes late from what comes twice.
const MAX_SKIPPED: usize = 16;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// The number whose result is to become durable next.
    pub next: i64,
    /// Numbers of records that came early and wait in rows, in ascending order.
    pub early: Vec<i64>,
    /// Since when the first of them waits for a number that is missing, in milliseconds since the epoch; 0
    /// while none is missing.
    pub gap_since: i64,
    /// Numbers that were given up: first and last of each range, the latest 16 of them.
    pub skipped: Vec<(i64, i64)>,
    /// The number of the record behind a gap that is to become a dead letter.
    pub condemned: Option<i64>,
}

impl Sequence {
    /// Of a key of which nothing is known.
    pub fn from(first: i64) -> Self {
        Sequence { next: first, ..Sequence::default() }
    }

    /// Bytes of one in which so many wait, at most.
    pub fn max_bytes(waiting: usize) -> usize {
        10 * (waiting + 2 * MAX_SKIPPED + 5)
    }

    /// A record of this number came early and has a row.
    pub fn early_has_row(&mut self, number: i64) {
        if let Err(at) = self.early.binary_search(&number) {
            self.early.insert(at, number);
        }
    }

    /// It has none any more.
    pub fn early_is_gone(&mut self, number: i64) {
        if let Ok(at) = self.early.binary_search(&number) {
            self.early.remove(at);
        }
    }

    /// The numbers up to this one are given up.
    pub fn skip_to(&mut self, number: i64) {
        if self.skipped.len() == MAX_SKIPPED {
            self.skipped.remove(0);
        }
        self.skipped.push((self.next, number - 1));
        self.next = number;
    }

    /// Whether a number was given up.
    pub fn was_skipped(&self, number: i64) -> bool {
        self.skipped.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_is_remembered_up_to_a_bound() {
        let mut sequence = Sequence::from(1);
        for n in 1..=20 {
            sequence.next += 1;
            sequence.skip_to(sequence.next + n);
        }
        assert_eq!(sequence.skipped.len(), MAX_SKIPPED);
        let (first, last) = sequence.skipped[0];
        assert!(
            sequence.was_skipped(first) && sequence.was_skipped(last) && !sequence.was_skipped(first - 1)
        );
    }

    #[test]
    fn early_numbers_are_kept_in_order_and_once() {
        let mut sequence = Sequence::from(1);
        for n in [5, 3, 9, 3] {
            sequence.early_has_row(n);
        }
        sequence.early_is_gone(5);
        sequence.early_is_gone(4);
        assert_eq!(sequence.early, [3, 9]);
    }
}
