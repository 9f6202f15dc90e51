//! Epochs as data: what one atomic step writes, partition by partition, so that a partition that
//! was lost can be left out when the same epoch is sent again.

mod committer;
mod open;

use crate::claims::Claims;
use crate::effects::Emit;
use crate::ledger::Row;
use crate::record::{NextOffset, Offset, Partition};
use crate::trace::Trace;

pub use committer::{Committer, EpochDecided};
pub use open::OpenEpoch;

/// Number that tells one assignment of a partition to this instance from the next, so that nothing
/// from before a rebalance is taken for something from after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignmentEpoch(pub u64);

/// A closed epoch on its way to the writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Grows by one with every closed epoch of the handler.
    pub number: u64,
    /// Everything it writes.
    pub partitions: Vec<PartitionEpoch>,
}

/// The share of one partition in an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionEpoch {
    /// Number of the epoch.
    pub epoch: u64,
    /// Which partition.
    pub partition: Partition,
    /// Under which assignment it was collected.
    pub assignment: AssignmentEpoch,
    /// Number of the claim under which it was collected.
    pub claim: i64,
    /// How the claims before that one ended.
    pub claims: Claims,
    /// The owner releases the partition: nothing of it comes after this.
    pub released: bool,
    /// Records to write for handlers, and answers to commands.
    pub emits: Vec<Effect>,
    /// Dead letters to write.
    pub letters: Vec<Letter>,
    /// Changed heads; written before the partition row.
    pub rows: Vec<Row>,
    /// The partition row.
    pub partition_row: Row,
    /// What the group commits. Present even where it did not move: the broker checks the group's
    /// generation only for partitions that carry an offset.
    pub next: NextOffset,
    /// Spans of the attempts whose results these are; a bounded number, and none where handlers are not traced.
    pub traces: Vec<Trace>,
}

/// A record to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Offset of the record that it was emitted for; `None`: it answers a command.
    pub of: Option<Offset>,
    /// The record.
    pub emit: Emit,
}

/// A dead letter and what to tell about it once its place is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The record to write.
    pub emit: Emit,
    /// Where the original lies.
    pub offset: Offset,
    /// The key, for people.
    pub key: String,
    /// What happened, for people.
    pub cause: String,
    /// The last attempt; 0: none was made.
    pub attempt: u32,
    /// Its span.
    pub trace: Option<Trace>,
}

impl Epoch {
    /// Records that the epoch writes, all kinds together.
    pub fn writes(&self) -> usize {
        self.partitions.iter().map(|part| part.emits.len() + part.letters.len() + part.rows.len() + 1).sum()
    }
}
