//! Parked rows: records of a key that wait for a retry, as they lie in the changelog, and the range of
//! them that the key's head names. A row that no head names does not count: its tombstone may have been
//! compacted away, or an instance may have ended before it wrote the head.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::lane_key::Prefixes;
use super::{LaneKey, Row, RowError};
use crate::record::{Header, Millis, Offset, Record, TimestampType};

/// First byte of a parked row's key; the record key and the row's number follow.
const KEYED_PREFIX: u8 = 4;
/// First bytes of parked rows' keys.
const PREFIXES: Prefixes = Prefixes { keyed: KEYED_PREFIX, unkeyed: 5 };
/// Row keys of parked rows are greater than this one, all others are not.
pub const BEFORE_PARKED: &[u8] = &[KEYED_PREFIX];
/// Bytes of a row's number, at the end of its key.
const NUMBER: usize = 8;
/// Longest cause that a head keeps, in bytes.
const MAX_CAUSE: usize = 256;

/// What a head knows of its parked records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parking {
    /// Number of the row whose turn it is.
    pub first: u64,
    /// Number that the next row will have.
    pub next: u64,
    /// 1-based number of the attempt that is to come, or that was running when the head was written.
    pub attempt: u32,
    /// When it is due, in milliseconds since the epoch; 0: at once.
    pub due: i64,
    /// The wait that led to it, in milliseconds. Whoever waits for it waits no longer than that, so that
    /// clocks which differ between machines cannot stretch the wait.
    pub delay: u64,
    /// When the first attempt failed, in milliseconds since the epoch; 0: none has.
    pub since: i64,
    /// What the last attempt said, for people; at most 256 bytes.
    pub cause: String,
}

/// A cause up to its bound.
pub(super) fn bounded(cause: &str) -> &str {
    &cause[..cause.floor_char_boundary(MAX_CAUSE)]
}

impl Parking {
    /// How many records are parked.
    pub fn records(&self) -> u64 {
        self.next - self.first
    }

    /// Notes the attempt that is to come, and why.
    pub fn wait(&mut self, attempt: u32, now: Millis, delay_ms: u64, cause: &str) {
        (self.attempt, self.due, self.delay) = (attempt, now.0.saturating_add_unsigned(delay_ms), delay_ms);
        if attempt <= 1 {
            // No attempt counts yet: an outage takes nothing of the time that a record has.
            self.since = 0;
        } else if self.since == 0 {
            self.since = now.0;
        }
        self.cause = bounded(cause).to_owned();
    }

    /// Attempts do not count after all: this one is to come.
    pub fn give_back(&mut self, attempt: u32) {
        self.attempt = attempt;
        if attempt <= 1 {
            self.since = 0;
        }
    }

    /// The record of the first row is finished: the next one's turn is now.
    pub fn advance(&mut self) {
        self.first += 1;
        (self.attempt, self.due, self.delay, self.since) = (1, 0, 0, 0);
        self.cause.clear();
    }

    /// How long ago the first attempt failed; nothing where none has, or where the clock was set back.
    pub fn elapsed(&self, now: Millis) -> Duration {
        let since = if self.since == 0 { now.0 } else { self.since };
        Duration::from_millis(u64::try_from(now.0.saturating_sub(since)).unwrap_or(0))
    }

    /// How long to wait for the attempt, in milliseconds.
    pub fn left(&self, now: Millis) -> u64 {
        u64::try_from(self.due.saturating_sub(now.0)).unwrap_or(0).min(self.delay)
    }
}

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    offset: i64,
    timestamp: i64,
    timestamp_type: u8,
    #[serde(borrow, with = "serde_bytes")]
    key: Option<&'a [u8]>,
    #[serde(borrow, with = "serde_bytes")]
    value: Option<&'a [u8]>,
    #[serde(borrow)]
    headers: Vec<StoredHeader<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredHeader<'a> {
    #[serde(borrow, with = "serde_bytes")]
    name: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    value: Option<&'a [u8]>,
}

/// Marks the numbers of rows whose record waits for those before it in sequence: the rest is its number there.
const EARLY: u64 = 1 << 63;

/// The row number of a record that came early.
pub fn early_number(sequence: i64) -> u64 {
    EARLY | sequence.unsigned_abs()
}

/// Whether a row of this number holds a record that came early.
pub fn is_early(number: u64) -> bool {
    number & EARLY != 0
}

/// The changelog key of a parked row.
pub fn parked_key<'a>(lane: impl Into<LaneKey<&'a [u8]>>, number: u64, out: &mut BytesMut) -> Bytes {
    lane.into().put(&PREFIXES, out);
    out.put_u64(number);
    out.split().freeze()
}

/// The lane and the number that a row key stands for; `None` for a row that is not a parked one.
pub fn parked_at(row_key: &[u8]) -> Option<(LaneKey<&[u8]>, u64)> {
    let (lane, number) = row_key.split_last_chunk::<NUMBER>()?;
    Some((LaneKey::get(&PREFIXES, lane)?, u64::from_be_bytes(*number)))
}

/// The row that holds a record.
pub fn parked_row(lane: LaneKey<&[u8]>, number: u64, record: &Record, out: &mut BytesMut) -> Row {
    let stored = Stored {
        offset: record.offset.0,
        timestamp: record.timestamp.0,
        timestamp_type: match record.timestamp_type {
            TimestampType::NotAvailable => 0,
            TimestampType::CreateTime => 1,
            TimestampType::LogAppendTime => 2,
        },
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: record
            .headers
            .iter()
            .map(|header| StoredHeader { name: &header.name, value: header.value.as_deref() })
            .collect(),
    };
    Row { key: parked_key(lane, number, out), value: Some(super::encode(super::VERSION, &stored, out)) }
}

/// The row that removes a parked record.
pub fn parked_tombstone(lane: LaneKey<&[u8]>, number: u64, out: &mut BytesMut) -> Row {
    Row { key: parked_key(lane, number, out), value: None }
}

/// Reads a parked record.
///
/// # Errors
/// When the version is unknown or the bytes are not a parked row.
pub fn decode_parked(value: &[u8]) -> Result<Record, RowError> {
    let stored: Stored<'_> = super::decode("parked", value)?;
    let copy = Bytes::copy_from_slice;
    Ok(Record {
        offset: Offset(stored.offset),
        timestamp: Millis(stored.timestamp),
        timestamp_type: match stored.timestamp_type {
            0 => TimestampType::NotAvailable,
            1 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        },
        key: stored.key.map(copy),
        value: stored.value.map(copy),
        headers: stored
            .headers
            .iter()
            .map(|header| Header { name: copy(header.name), value: header.value.map(copy) })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    proptest! {
        #[test]
        fn what_is_parked_is_read_back(
            offset in 0i64..i64::MAX,
            key in proptest::option::of(bytes()),
            value in proptest::option::of(bytes()),
            headers in proptest::collection::vec((bytes(), proptest::option::of(bytes())), 0..4),
            lane in proptest::option::of(bytes()),
            number in any::<u64>(),
        ) {
            let record = Record {
                offset: Offset(offset),
                timestamp: Millis(-1),
                timestamp_type: TimestampType::LogAppendTime,
                key,
                value,
                headers: headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
            };
            let lane = LaneKey::from(lane);
            let row = parked_row(lane.as_deref(), number, &record, &mut BytesMut::new());
            prop_assert_eq!(decode_parked(&row.value.expect("a value")).expect("decodes"), record);
            prop_assert_eq!(parked_at(&row.key), Some((lane.as_deref(), number)));
            prop_assert!(&row.key[..] > BEFORE_PARKED);
            prop_assert_eq!(super::super::lane_of(&row.key), None, "it is no head");
        }

        #[test]
        fn any_bytes_are_a_parked_record_or_refused_but_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = (decode_parked(&bytes), parked_at(&bytes));
        }
    }

    #[test]
    fn other_rows_are_not_parked_ones() {
        for row_key in
            [&b""[..], super::super::CLAIM_KEY, super::super::PARTITION_KEY, b"\x02ORD-12345678", b"\x03"]
        {
            assert_eq!(parked_at(row_key), None, "{row_key:?}");
            assert!(row_key <= BEFORE_PARKED, "{row_key:?}");
        }
    }

    /// Rows lie in changelogs for years: these bytes change only together with the version.
    #[test]
    fn the_stored_bytes_of_a_parked_record_never_change() {
        let record = Record {
            offset: Offset(300),
            timestamp: Millis(1),
            timestamp_type: TimestampType::CreateTime,
            key: Some(Bytes::from_static(b"K")),
            value: None,
            headers: vec![Header { name: Bytes::from_static(b"h"), value: Some(Bytes::from_static(b"v")) }],
        };
        let row = parked_row(LaneKey::Key(b"K"), 258, &record, &mut BytesMut::new());
        assert_eq!(&row.key[..], b"\x04K\0\0\0\0\0\0\x01\x02");
        let value = [&[1, 0xd8, 4, 2, 1, 1, 1, b'K', 0, 1][..], &[1, b'h', 1, 1, b'v']].concat();
        assert_eq!(row.value.as_deref(), Some(&value[..]));
    }

    #[test]
    fn a_wait_ends_when_it_is_due_whatever_other_clocks_say() {
        let mut parking = Parking::default();
        parking.wait(3, Millis(60_000), 10_000, "service answered 503");
        assert_eq!(parking.left(Millis(62_000)), 8_000);
        assert_eq!(parking.left(Millis(99_000)), 0);
        assert_eq!(parking.left(Millis(0)), 10_000, "a clock that is behind waits no longer than the delay");
        parking.advance();
        assert_eq!((parking.attempt, parking.left(Millis(0))), (1, 0));
    }

    #[test]
    fn time_counts_from_the_first_failure_and_anew_for_the_next_record() {
        let seconds = Duration::from_secs;
        let mut parking = Parking::default();
        assert_eq!(parking.elapsed(Millis(50_000)), seconds(0), "nothing has failed");
        parking.wait(2, Millis(60_000), 10_000, "service answered 503");
        parking.wait(3, Millis(70_000), 10_000, "service answered 503");
        assert_eq!(parking.elapsed(Millis(75_000)), seconds(15));
        assert_eq!(parking.elapsed(Millis(1)), seconds(0), "a clock that is behind costs no attempt");
        parking.advance();
        assert_eq!(parking.elapsed(Millis(99_000)), seconds(0));
    }

    #[test]
    fn a_cause_is_kept_up_to_its_bound() {
        let mut parking = Parking::default();
        parking.wait(2, Millis(0), 0, &format!("a{}", "ä".repeat(300)));
        assert_eq!(parking.cause.len(), 255, "no character is cut in two");
    }
}
