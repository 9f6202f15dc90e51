//! What a handler waits for: a service that is down, and retries.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByteSize, duration};

/// When what a handler depends on is taken for down. Nothing begins then, no attempt counts and nothing is
/// dead-lettered, until it answers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// Different keys that must have failed transiently in a row, with no success and no refusal between
    /// them, over a second or four times as often; 0 switches the breaker off. Bounds: 0 to 10000. Default: 5.
    pub keys: u32,
    /// How often it is asked whether it is up again: by an attempt at one record, or at http.health_url.
    /// Bounds: 10ms to 10m. Default: 1s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub probe_every: Duration,
}

/// When a part of Pawl that came to a bad end is begun anew, and when no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Supervision {
    /// How often a partition is taken anew after a panic of one of its actors; with one more the handler ends,
    /// and the process with it. Bounds: 0 to 1000. Default: 3.
    pub restarts: u32,
    /// In which time. Bounds: 1s to 1day. Default: 10m.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub within: Duration,
}

/// When one record of a partition runs at a time, because processes end while they hold it: one of its records
/// may be what ends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Careful {
    /// Owners of the partition that ended without giving it up; as many ends over one record, and it becomes
    /// a dead letter. 0 switches careful mode off. Bounds: 0 to 10. Default: 3.
    pub crashes: u32,
    /// In which time the owners were. Bounds: 1s to 1day. Default: 10m.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub within: Duration,
}

impl Default for Supervision {
    fn default() -> Self {
        Supervision { restarts: 3, within: Duration::from_secs(600) }
    }
}

impl Default for Careful {
    fn default() -> Self {
        Careful { crashes: 3, within: Duration::from_secs(600) }
    }
}

/// How much of what waits for a retry is kept in the ledger: the record that failed and those of its key
/// behind it. They survive restarts and takeovers, and the partition's offset goes on behind them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parking {
    /// Parked records of each key. Bounds: 1 to 1000000. Default: 1000.
    pub max_records_per_key: u32,
    /// Bytes of the parked records of each key. Bounds: 1KiB to 1GiB. Default: 4MiB.
    pub max_bytes_per_key: ByteSize,
    /// Parked records of each partition; they are held in memory too. Bounds: 1 to 10000000.
    /// Default: 10000.
    pub max_records: u32,
    /// Bytes of the parked records of each partition. Bounds: 1MiB to 16GiB. Default: 16MiB.
    pub max_bytes: ByteSize,
    /// What becomes of a key that may park no more. Default: pause-intake.
    pub overflow: Overflow,
}

/// How long a number that is missing in a key's sequence is waited for, and what follows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gap {
    /// How long, while records behind it wait. Bounds: 10ms to 30days. Default: 1m.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub timeout: Duration,
    /// Records of a key that wait for one; with more the wait is over. Bounds: 1 to 100000. Default: 1000.
    pub max_waiting: u32,
    /// What follows. Default: dead-letter.
    pub then: GapThen,
}

/// What follows on a number that is missing for too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GapThen {
    /// The record behind the gap becomes a dead letter, and dead_letter.then says what follows on that.
    #[default]
    DeadLetter,
    /// The missing numbers are given up; a record that brings one later becomes a dead letter.
    Skip,
    /// The partition stands still until an operator has decided.
    Halt,
}

impl Default for Gap {
    fn default() -> Self {
        Gap { timeout: Duration::from_secs(60), max_waiting: 1_000, then: GapThen::default() }
    }
}

/// How much of a replay of dead letters is under way at once. Others wait in their topic.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Replay {
    /// Letters of each partition. Bounds: 1 to 1000000. Default: 1000.
    pub max_records: u32,
    /// Their bytes. Bounds: 1KiB to 1GiB. Default: 8MiB.
    pub max_bytes: ByteSize,
}

impl Default for Replay {
    fn default() -> Self {
        Replay { max_records: 1_000, max_bytes: ByteSize::mib(8) }
    }
}

/// What becomes of a key that may park no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// Its later records wait where they were read and hold the partition's offset; other keys go on until
    /// the partition reaches a bound of its intake, and is paused.
    #[default]
    PauseIntake,
    /// The record that waits becomes a dead letter at once, and makes room for those behind it.
    DeadLetter,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker { keys: 5, probe_every: Duration::from_secs(1) }
    }
}

impl Default for Parking {
    fn default() -> Self {
        Parking {
            max_records_per_key: 1_000,
            max_bytes_per_key: ByteSize::mib(4),
            max_records: 10_000,
            max_bytes: ByteSize::mib(16),
            overflow: Overflow::default(),
        }
    }
}
