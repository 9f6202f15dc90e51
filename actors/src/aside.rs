//! What the owner of a partition reads beside its input: commands, and its own dead letters. It asks for one
//! piece after the other, so nothing comes that there is no room for.

use crate::epoch::AssignmentEpoch;
use crate::record::{Partition, Record};

/// Which topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aside {
    /// The command topic.
    Commands,
    /// The dead-letter topic.
    Letters,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The next committed records from this offset on. Of commands the answer waits until there is one; of
    /// letters it may also be that there is none yet.
    Records(i64),
    /// The position after the last committed record.
    End,
    /// The position after the last record, whether or not its transaction is decided.
    High,
}

/// A question about a partition that is held.
pub struct Want {
    /// Which topic.
    pub topic: Aside,
    /// Which partition of it; that of the input has the same number.
    pub partition: Partition,
    /// Under which assignment: the answer is of no use after it.
    pub assignment: AssignmentEpoch,
    /// What is asked for.
    pub ask: Ask,
    /// Takes the answer.
    pub reply: Box<dyn FnOnce(Found) + Send>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Records, some hundred at most.
    Records {
        /// In the order of their offsets.
        records: Vec<Record>,
        /// Where the next question goes on.
        next: i64,
        /// Whether there was nothing more at that time.
        at_end: bool,
    },
    /// The position that was asked for.
    End(i64),
    /// The topic cannot be read.
    Failed(String),
}
