//! The settings of a handler as far as actors need them: plain values, already validated.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crate::selector::Selector;
use crate::supervisor::{BreakerPolicy, RetryPolicies};

/// How a handler's records are told apart, retried, bounded and committed.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Where a record's lane key lies.
    pub key: Selector,
    /// What becomes of a record that has none.
    pub null_key: NullKey,
    /// Where its event id lies, if producers' duplicates are to be recognised.
    pub event_id: Option<Selector>,
    /// Event ids remembered for each key; 0 remembers none.
    pub recent_ids: usize,
    /// How long an id is remembered, in partition time.
    pub recent_ids_age: Duration,
    /// What orders the records of a key beside their offsets.
    pub sequence: Option<SequencePolicy>,
    /// How failed attempts are repeated.
    pub retry: RetryPolicies,
    /// When the breaker opens.
    pub breaker: BreakerPolicy,
    /// How often a part that came to a bad end is begun anew.
    pub restarts: RestartPolicy,
    /// When one record of a partition runs at a time, because its owners come to a bad end.
    pub careful: Option<CarefulPolicy>,
    /// How long records gather that follow an earlier one into the dead-letter topic; zero: each goes at once.
    pub followers_gather: Duration,
    /// How much may be parked.
    pub parking: ParkingPolicy,
    /// Topic of dead letters.
    pub dead_letter_topic: Arc<str>,
    /// Its id: offsets of letters belong to it.
    pub dead_letter_topic_id: Arc<str>,
    /// Topic of commands and of what is answered to them.
    pub command_topic: Arc<str>,
    /// How much of a replay is under way in a partition at once.
    pub replay: ParkingBounds,
    /// What follows on a record that failed for good.
    pub then: Then,
    /// Largest record that a handler may emit, in bytes of key, value and headers.
    pub max_emit_bytes: usize,
    /// Largest record that the dead-letter topic takes, counted the same way.
    pub max_letter_bytes: usize,
    /// Largest ledger row that the changelog takes, counted the same way.
    pub max_row_bytes: usize,
    /// An epoch takes partitions in until all that are not yet decided hold so many bytes.
    pub max_epoch_bytes: u64,
    /// Calls at the handler at once.
    pub max_in_flight: usize,
    /// One attempt may take this long.
    pub attempt_timeout: Duration,
    /// Running calls get this long before a partition is rewound.
    pub rewind_grace: Duration,
    /// Least time between two epochs.
    pub epoch_interval: Duration,
    /// Epochs that may be closed and not yet decided: more than one where a step that is under way takes
    /// in the next.
    pub max_undecided: usize,
    /// A key without work is let go after this time.
    pub idle_key_after: Duration,
    /// Live keys of a partition above which idle keys are let go at once.
    pub max_live_keys: usize,
    /// Messages that may wait for one actor: twice the records of a partition's intake, so that it
    /// is met only if the intake bound is broken.
    pub mailbox_capacity: usize,
    /// Heads that the sweep for dead rows looks at in a second, for each partition.
    pub sweep_rows_per_second: usize,
}

/// What becomes of a record without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NullKey {
    /// It becomes a dead letter.
    Reject,
    /// It goes to one of so many lanes, by its offset.
    Spread(NonZeroU16),
}

/// How often a part that came to a bad end is begun anew, before its handler is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// So many times for each partition...
    pub restarts: u32,
    /// ...in this time.
    pub within: Duration,
}

/// When careful mode begins, and when a record is what ends processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarefulPolicy {
    /// So many owners in a row that did not release the partition; the same of crashes over one record.
    pub crashes: u32,
    /// Claims made longer ago do not count.
    pub within: Duration,
    /// Attempts after which nothing is suspect any more: as many records as one owner may have had in hand.
    pub suspects: u64,
}

/// How the records of a key are ordered by a number that their producers gave them.
#[derive(Clone, Debug)]
pub struct SequencePolicy {
    /// Where the number lies.
    pub at: Selector,
    /// The first number of a key.
    pub first: i64,
    /// How long a missing number is waited for.
    pub timeout: Duration,
    /// Records of a key that wait for one; more are not waited for.
    pub max_waiting: usize,
    /// What follows then.
    pub then: GapThen,
}

/// What follows on a number that is missing for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapThen {
    /// The record behind it becomes a dead letter.
    DeadLetter,
    /// It is given up.
    Skip,
    /// The partition stands still.
    Halt,
}

/// What follows on a record that failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It becomes a dead letter, and later records of its key are handled as if nothing had happened.
    Continue,
    /// It becomes a dead letter, and later records of its key follow it.
    Quarantine,
    /// It stays where it is, and its partition stands still.
    Halt,
}

/// How much of what waits for a retry goes into the ledger, and what becomes of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkingPolicy {
    /// For each lane.
    pub lane: ParkingBounds,
    /// For each partition.
    pub partition: ParkingBounds,
    /// What becomes of a lane that may not park any more.
    pub overflow: Overflow,
}

/// A bound on records that are put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkingBounds {
    /// How many.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What becomes of a lane that may not park any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Its later records stay where they were read, and hold the partition's offset, until the intake's
    /// own bounds pause the partition.
    PauseIntake,
    /// The record that it waits for becomes a dead letter at once.
    DeadLetter,
}
