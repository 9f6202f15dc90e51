//! How a partition was rewound: what a head that is older than a rewind loses by it, and which dead letters
//! are of no use any more. Pure.
//!
//! A rewind writes the partition row alone, however many keys there are. A head says which rewind it knows,
//! and whoever reads one brings it up to date first; it is written like that when it changes for another
//! reason.

use serde::{Deserialize, Serialize};

use super::{Head, Parking, RecentIds};
use crate::record::Offset;

/// Rewinds that a partition row holds, at most.
const MAX: usize = 64;

/// The partition was rewound: what an older head knows of the records from there on does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewind {
    /// The first is 1, and each has the next one.
    pub number: u64,
    /// To where.
    pub to: i64,
    /// Whether the keys' states were reset.
    pub reset: bool,
    /// The end of the dead-letter partition at that time.
    pub letters: i64,
    /// Id of the dead-letter topic at that time.
    pub letters_id: String,
    /// Records that lay in parked rows and were kept: the new books received them as such.
    pub parked: u64,
}

/// The rewinds of a partition that still say something, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewinds(Vec<Rewind>);

impl Rewinds {
    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of the last one; 0 where there was none.
    pub fn number(&self) -> u64 {
        self.last().map_or(0, |last| last.number)
    }

    /// The last one.
    pub fn last(&self) -> Option<&Rewind> {
        self.0.last()
    }

    /// Whether there is room for one more.
    pub fn has_room(&self, to: i64, reset: bool) -> bool {
        self.0.iter().filter(|old| !is_redundant(old, to, reset)).count() < MAX
    }

    /// Adds one. Those that say nothing beside it are left out, so that who rewinds again and again to the same
    /// place does not fill the row.
    pub fn push(&mut self, rewind: Rewind) {
        self.0.retain(|old| !is_redundant(old, rewind.to, rewind.reset));
        self.0.push(rewind);
    }

    /// Whether a dead letter was written before its record was read once more, so that it must not be replayed.
    /// `original`: where its record lies.
    pub fn supersede(&self, letter: i64, original: i64, letters_id: &str) -> bool {
        self.0.iter().any(|one| letter < one.letters && original >= one.to && one.letters_id == letters_id)
    }

    /// Whether a dead letter belongs to older books than those that began at `began`.
    pub fn letter_is_older(&self, letter: i64, original: i64, began: i64, letters_id: &str) -> bool {
        match self.last() {
            // Also a record from before may have become a letter since: one that was parked.
            Some(last) if last.letters_id == letters_id => letter < last.letters,
            _ => original < began,
        }
    }
}

/// Whether a rewind says nothing beside a later one.
fn is_redundant(old: &Rewind, to: i64, reset: bool) -> bool {
    to <= old.to && (reset || !old.reset)
}

impl Head {
    /// Brings a stored head up to date. `Some`: the parked rows of records from this offset on do not count, see
    /// [`Head::keep_parked`].
    pub fn rewind(&mut self, rewinds: &Rewinds) -> Option<i64> {
        let known = self.rewound;
        let mut rows_below = None;
        for Rewind { number, to, reset, .. } in rewinds.0.iter().filter(|one| one.number > known) {
            self.taken = self.taken.min(Offset(to - 1));
            self.ids = RecentIds::default();
            self.state.take_if(|_| *reset);
            // Such a partition is rewound to where all numbers begin.
            self.sequence = None;
            self.quarantine.take_if(|quarantine| quarantine.offset >= *to);
            if let Some(quarantine) = &mut self.quarantine {
                (quarantine.before, quarantine.replay) = (quarantine.next, None);
            }
            self.rewound = *number;
            rows_below = Some(rows_below.map_or(*to, |below: i64| below.min(*to)));
        }
        rows_below
    }

    /// Of its parked rows only so many, the first ones, count.
    pub fn keep_parked(&mut self, records: u64) {
        self.parking.take_if(|_| records == 0);
        if let Some(Parking { first, next, .. }) = self.parking.as_deref_mut() {
            *next = (*first + records).min(*next);
        }
    }
}

#[cfg(test)]
#[path = "rewind_tests.rs"]
mod tests;
