//! Looking at keys: what is told of one, whoever asks and wherever it is read. A running instance
//! tells it from its local view ([`window`]), a stopped one's ledger is read from the changelog
//! (`commands::keys`); both come to the same words.

pub mod cursor;
pub mod window;

use bytes::Bytes;
use pawl_actors::ledger::{Head, LaneKey, PartitionRow, Rewinds, RowError, lane_of};
use pawl_actors::order::LaneLook;
use serde::{Deserialize, Serialize};

use crate::shown::Raw;

/// A key in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLine {
    /// The input partition.
    pub partition: i32,
    /// `None`: a lane of records without a key, or without a usable one.
    pub key: Option<Raw>,
    /// Which of those that null keys are spread over; `None`: none of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null_key_lane: Option<u16>,
    /// The highest offset whose result is durable.
    pub taken: i64,
    /// How many event ids are remembered.
    pub recent_ids: usize,
    /// When the oldest of them was seen, milliseconds of partition time.
    pub oldest_id: Option<i64>,
    /// When the newest was.
    pub newest_id: Option<i64>,
    /// Bytes of the key's state; `None`: it has none.
    pub state_bytes: Option<usize>,
    /// What waits for a retry in the ledger; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Parked>,
    /// Its quarantine; `None`: it is in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantined>,
    /// Whether an operator has paused it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Its place in the producers' numbering; `None` where records are not ordered by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Numbered>,
    /// Offset of the row in the changelog; `None` where only the instance's own view was asked.
    pub row: Option<i64>,
}

/// Records of a key that wait for a retry, or behind one that does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// How many.
    pub records: u64,
    /// 1-based: the attempt that is to come, or that runs.
    pub attempt: u32,
    /// When it is due, milliseconds since the epoch; 0: at once.
    pub due: i64,
    /// What the last attempt said.
    pub cause: String,
}

/// A key's quarantine: its later records follow one that became a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Dead letters that nobody has dealt with.
    pub letters: u64,
    /// Offset of the record whose failure began it.
    pub offset: i64,
    /// What its last attempt said.
    pub cause: String,
    /// Whether a replay is under way for it.
    #[serde(default)]
    pub replaying: bool,
}

/// A key's place in the producers' numbering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// The number that comes next.
    pub next: i64,
    /// Records that came early, and wait in the ledger.
    pub waiting: usize,
    /// The lowest number of them.
    pub lowest: Option<i64>,
    /// Since when the next number is missing, milliseconds since the epoch.
    pub missing_since: Option<i64>,
}

/// A key, looked at closely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPage {
    /// The input partition.
    pub partition: i32,
    /// `None`: a lane of records without a key, or without a usable one.
    pub key: Option<Raw>,
    /// Which of those that null keys are spread over; `None`: none of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null_key_lane: Option<u16>,
    /// What its row says; `None`: there is no row.
    pub head: Option<KeyLine>,
    /// Its state.
    pub state: Option<Raw>,
    /// What the partition's row says.
    pub within: Option<Within>,
    /// What goes on in its lane; `None`: it has no lane now, or nobody runs that could tell.
    pub lane: Option<LaneLook>,
    /// Why the lane is not known, where one could be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane_unknown: Option<String>,
}

fn null_key_lane<B>(key: &LaneKey<B>) -> Option<u16> {
    match key {
        LaneKey::NoKey(lane) => Some(*lane),
        LaneKey::Unusable | LaneKey::Key(_) => None,
    }
}

/// What a key is measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Within {
    /// Every record of the partition below is finished.
    pub watermark: i64,
    /// Highest time stamp of a record taken, milliseconds.
    pub partition_time: i64,
}

impl From<&PartitionRow> for Within {
    fn from(row: &PartitionRow) -> Within {
        Within { watermark: row.watermark, partition_time: row.partition_time }
    }
}

impl KeyLine {
    /// A line from a stored row; `None` for a row that is not a key's.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn read(
        partition: i32,
        row_key: &[u8],
        value: &[u8],
        row: Option<i64>,
        rewinds: &Rewinds,
    ) -> Result<Option<KeyLine>, RowError> {
        let Some(key) = lane_of(row_key) else { return Ok(None) };
        let mut head = Head::decode(value)?;
        head.rewind(rewinds);
        Ok(Some(KeyLine::of(partition, key.map(Bytes::copy_from_slice), &head, row)))
    }

    /// A line from a head.
    pub fn of(partition: i32, key: LaneKey<Bytes>, head: &Head, row: Option<i64>) -> KeyLine {
        let seen = head.ids.seen_ms();
        KeyLine {
            partition,
            null_key_lane: null_key_lane(&key),
            key: key.key().map(Raw),
            taken: head.taken.0,
            recent_ids: head.ids.len(),
            oldest_id: seen.map(|(oldest, _)| oldest),
            newest_id: seen.map(|(_, newest)| newest),
            state_bytes: head.state.as_ref().map(Bytes::len),
            parked: head.parking.as_ref().map(|parking| Parked {
                records: parking.records(),
                attempt: parking.attempt,
                due: parking.due,
                cause: parking.cause.clone(),
            }),
            quarantine: head.quarantine.as_ref().map(|quarantine| Quarantined {
                letters: quarantine.letters(),
                offset: quarantine.offset,
                cause: quarantine.cause.clone(),
                replaying: quarantine.replay.is_some(),
            }),
            paused: head.paused,
            sequence: head.sequence.as_ref().map(|sequence| Numbered {
                next: sequence.next,
                waiting: sequence.early.len(),
                lowest: sequence.early.first().copied(),
                missing_since: (sequence.gap_since != 0).then_some(sequence.gap_since),
            }),
            row,
        }
    }
}

impl KeyPage {
    /// A page from stored rows, before any lane is asked. `row` is where the head lies in the changelog. A head
    /// that is older than a rewind is brought up to date first.
    pub fn of(
        partition: i32,
        key: LaneKey<Bytes>,
        mut head: Option<Head>,
        row: Option<i64>,
        within: Option<&PartitionRow>,
    ) -> KeyPage {
        if let (Some(head), Some(within)) = (&mut head, within) {
            head.rewind(&within.rewinds);
        }
        KeyPage {
            partition,
            head: head.as_ref().map(|head| KeyLine::of(partition, key.clone(), head, row)),
            null_key_lane: null_key_lane(&key),
            key: key.key().map(Raw),
            state: head.and_then(|head| head.state).map(Raw),
            within: within.map(Within::from),
            lane: None,
            lane_unknown: None,
        }
    }
}
