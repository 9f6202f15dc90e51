//! What an audit goes by: plain numbers of one handler, gathered elsewhere, judged elsewhere.

use std::time::Duration;

use pawl_actors::ledger::PartitionRow;

use crate::kafka::commit_metadata::CommitMetadata;

/// All that was found of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its name in the settings.
    pub handler: String,
    /// Its input topic.
    pub topic: String,
    /// The id that the input topic has now; its name where the broker knows no ids.
    pub topic_id: String,
    /// Its dead-letter topic.
    pub letters_topic: String,
    /// Fingerprint of `key` and `event_id` as the settings are now.
    pub fingerprint: u64,
    /// Whether ledger, letters and offsets were written in transactions.
    pub transactional: bool,
    /// Partitions of the input topic.
    pub input_partitions: i32,
    /// One for each partition that has one in the changelog, in order.
    pub partitions: Vec<PartitionFacts>,
    /// The output, for a handler that writes one record for each applied one.
    pub output: Option<Output>,
    /// Transactions that stayed open while they were waited for.
    pub open: Vec<OpenTransaction>,
}

/// All that was found of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionFacts {
    /// Its number.
    pub partition: i32,
    /// The last claim; `None`: nobody ever owned it.
    pub claim: Option<Claim>,
    /// The last partition row; `None`: nothing was ever finished. Everything else is measured at it.
    pub row: Option<PartitionRow>,
    /// What the keys' rows say.
    pub heads: Heads,
    /// The group's position, asked for last of all; `None`: there is none.
    pub group: Option<Position>,
    /// The input partition.
    pub input: Input,
    /// The dead letters; `None`: there is no such topic.
    pub letters: Option<Letters>,
}

/// A claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its number: the offset of its row.
    pub number: i64,
    /// Who claimed.
    pub instance: String,
}

/// What the keys' rows say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// The highest taken offset and its key, for people.
    pub highest: Option<(i64, String)>,
    /// A key that Java's partitioner would not have put here; looked for only where `key` is `record`.
    pub misplaced: Option<String>,
    /// Parked records that the keys' rows name.
    pub parked: u64,
    /// How many of these have no row.
    pub unparked: u64,
}

/// A group's committed position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The next offset.
    pub next: i64,
    /// What Pawl wrote beside it; `None`: it was not Pawl who committed it.
    pub metadata: Option<CommitMetadata>,
}

/// What lies in an input partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// The first offset that is left.
    pub low: i64,
    /// The offset after the last record.
    pub high: i64,
    /// Whether compaction removes records.
    pub compacted: bool,
    /// Records from where the books begin (or from `low`) up to the watermark.
    pub below: u64,
    /// Records from the watermark on that their keys' rows have taken.
    pub ahead: u64,
    /// Of all these, those that came with a dead letter's headers: what became of them a second time
    /// cannot be told from the first.
    pub second_pass: u64,
}

/// What lies in a dead-letter partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Letters {
    /// The first offset that is left.
    pub low: i64,
    /// Letters of this group and partition whose original the ledger has taken since its books began.
    pub tied: u64,
    /// Different originals among them.
    pub distinct: u64,
    /// How many of these originals should lie in the input and do not.
    pub missing: u64,
    /// The first of them.
    pub first_missing: Option<i64>,
    /// Letters of originals that the ledger has not taken.
    pub beyond: u64,
    /// The first of their originals.
    pub first_beyond: Option<i64>,
    /// Letters of originals from before the books began.
    pub before: u64,
    /// Letters of this group whose original lies in another topic or partition.
    pub elsewhere: u64,
}

/// What lies in an output topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The topic.
    pub topic: String,
    /// Committed records in all its partitions.
    pub records: u64,
    /// Whether retention or compaction may have removed some.
    pub removed: bool,
}

/// A transaction that was not decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The last stable offset: readers of committed records wait here.
    pub from: i64,
    /// The end.
    pub to: i64,
    /// How long was waited.
    pub waited: Duration,
    /// Whether only this handler writes there.
    pub own: bool,
}

impl PartitionFacts {
    /// Whether the group's position was committed together with the row that is judged: then nothing
    /// was committed since.
    pub fn is_settled(&self) -> bool {
        let row = self.row.as_ref().map(|row| (row.claim, row.epoch));
        row.is_some() && row == self.committed_by()
    }

    /// Claim and epoch that committed the group's position.
    pub fn committed_by(&self) -> Option<(i64, u64)> {
        let metadata = self.group?.metadata?;
        Some((metadata.claim, metadata.epoch))
    }

    /// Whether something was committed after the row that is judged.
    pub fn has_moved(&self) -> bool {
        let row = self.row.as_ref().map(|row| (row.claim, row.epoch));
        self.committed_by().is_some_and(|by| row.is_none_or(|row| by > row))
    }
}
