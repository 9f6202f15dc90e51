//! What a lane shows of itself to people who look.

use serde::{Deserialize, Serialize};

/// What a lane does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doing {
    /// Nothing; the next record begins at once.
    Idle,
    /// Its record waits for a place at the handler: `max_in_flight` others have one.
    WaitsForPlace,
    /// Its record is at the handler.
    InFlight,
    /// An attempt failed, and the verdict is due.
    Judged,
    /// Its record waits for a retry.
    Parked,
    /// Its record ended the handler.
    Halted,
}

/// A lane at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneLook {
    /// What it does.
    pub doing: Doing,
    /// 1-based: the attempt that runs, that failed, or that is to come.
    pub attempt: Option<u32>,
    /// Offset of the record that this is about.
    pub offset: Option<i64>,
    /// Records of the key that wait behind it.
    pub queued: usize,
}
