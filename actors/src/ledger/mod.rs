//! The ledger: the durable rows of a key and of a partition, as they lie in the changelog.
//!
//! | row | key | how many | what it is |
//! |---|---|---|---|
//! | claim | `00` | one a partition | who owns the partition; its offset is the claim's number |
//! | partition | `01` | one a partition | the one truth about the partition: watermark, books, identity |
//! | head | `02` + record key | one a key | taken offset, recent event ids, state, parked rows, quarantine |
//! | head without key | `03` | at most one a partition | the lane of records whose key is null or unreadable |
//! | head of a lane without key | `03` + lane | as many as null keys are spread over | taken offset, recent event ids, parked rows |
//! | parked | `04` + record key + number | one a parked record | a record that waits for a retry, or, with the highest bit of the number set, for those before it in sequence |
//! | parked without key | `05` + number | one a parked record | the same in the lane without key |
//! | parked in a lane without key | `05` + lane + number | one a parked record | the same in one of these lanes |
//! | mark | `06` + letter's offset | one a replayed letter without a number | it was dealt with |
//!
//! Every value begins with its row version. A version that this build does not know stops the
//! partition: guessing at a ledger would break the promises made with it. A row is written with the
//! lowest version that can say what it says, so that an older build can go on where nothing is new.

mod head;
mod ids;
mod lane_key;
mod parked;
mod partition;
mod quarantine;
mod rewind;
mod sequence;

use bytes::{BufMut, Bytes, BytesMut};

use lane_key::Prefixes;

pub use head::Head;
pub use ids::{IdHasher, IdMatch, RecentId, RecentIds};
pub use lane_key::LaneKey;
pub use parked::{
    BEFORE_PARKED, Parking, decode_parked, early_number, is_early, parked_at, parked_key, parked_row,
    parked_tombstone,
};
pub use partition::{Books, ClaimRow, Named, PartitionRow, Place, ReplayCounts, ReplayRow};
pub use quarantine::Quarantine;
pub use rewind::{Rewind, Rewinds};
pub use sequence::Sequence;

/// Key of the claim row.
pub const CLAIM_KEY: &[u8] = &[0];
/// Key of the partition row.
pub const PARTITION_KEY: &[u8] = &[1];
/// First byte of a head's key; the record key follows.
pub const HEAD_PREFIX: u8 = 2;
/// First bytes of heads' keys.
const HEADS: Prefixes = Prefixes { keyed: HEAD_PREFIX, unkeyed: 3 };

/// First byte of a mark's key; the offset of the letter follows, 8 bytes, big-endian.
const MARK_PREFIX: u8 = 6;

/// A changed row: what the changelog gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// See the table in the module's documentation.
    pub key: Bytes,
    /// `None` removes the row.
    pub value: Option<Bytes>,
}

/// Why a stored row cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Written by a newer Pawl.
    #[error(
        "a {row} row has version {found}, this Pawl knows up to {known}: run the newer version again, \
         or begin with a new group"
    )]
    UnknownVersion {
        /// Which kind of row.
        row: &'static str,
        /// The version it carries.
        found: u8,
        /// The highest version this build reads.
        known: u8,
    },
    /// Not what any Pawl writes.
    #[error("a {row} row of {bytes} bytes cannot be decoded: {reason}")]
    Damaged {
        /// Which kind of row.
        row: &'static str,
        /// Its length.
        bytes: usize,
        /// What the decoder said.
        reason: String,
    },
}

/// The first version of every kind of row.
const VERSION: u8 = 1;
/// The version of heads that know of parked records, of a quarantine, of a pause or of a sequence, and of partition rows that
/// know of parked records, dead letters that were dealt with, commands, or a replay.
const SECOND: u8 = 2;
/// The version of partition rows that know of a record that was begun alone, or of a rewind, and of heads that were
/// written after a rewind.
const THIRD: u8 = 3;

/// Appends version and body to `out` and cuts the result off as one buffer.
fn encode<T: serde::Serialize>(version: u8, body: &T, out: &mut BytesMut) -> Bytes {
    out.put_u8(version);
    postcard::serialize_with_flavor(body, Appending(out)).expect("writing to memory cannot fail");
    out.split().freeze()
}

/// Lets postcard write to the end of a buffer that grows.
struct Appending<'a>(&'a mut BytesMut);

impl postcard::ser_flavors::Flavor for Appending<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.put_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Cuts the version off a row of which this build knows versions up to `known`.
fn version<'a>(row: &'static str, known: u8, value: &'a [u8]) -> Result<(u8, &'a [u8]), RowError> {
    match value.split_first() {
        Some((&found, body)) if (VERSION..=known).contains(&found) => Ok((found, body)),
        Some((&found, _)) => Err(RowError::UnknownVersion { row, found, known }),
        None => Err(RowError::Damaged { row, bytes: 0, reason: "it is empty".into() }),
    }
}

/// Decodes what follows the version.
fn body<'a, T: serde::Deserialize<'a>>(row: &'static str, body: &'a [u8]) -> Result<T, RowError> {
    postcard::from_bytes(body).map_err(|error| RowError::Damaged {
        row,
        bytes: body.len() + 1,
        reason: error.to_string(),
    })
}

/// Decodes a row of which there is only the first version.
fn decode<'a, T: serde::Deserialize<'a>>(row: &'static str, value: &'a [u8]) -> Result<T, RowError> {
    body(row, version(row, VERSION, value)?.1)
}

/// The changelog key of a lane's head.
pub fn head_key<'a>(lane: impl Into<LaneKey<&'a [u8]>>, out: &mut BytesMut) -> Bytes {
    lane.into().put(&HEADS, out);
    out.split().freeze()
}

/// The lane whose head lies under a row key: `None` for a row that is no head.
pub fn lane_of(row_key: &[u8]) -> Option<LaneKey<&[u8]>> {
    LaneKey::get(&HEADS, row_key)
}

/// The changelog key of a letter's mark.
pub fn mark_key(letter: i64, out: &mut BytesMut) -> Bytes {
    out.put_u8(MARK_PREFIX);
    out.put_i64(letter);
    out.split().freeze()
}

/// The row that says that a letter of this topic was dealt with.
pub fn mark_row(letter: i64, topic_id: &str, out: &mut BytesMut) -> Row {
    let key = mark_key(letter, out);
    Row { key, value: Some(encode(VERSION, &topic_id, out)) }
}

/// Whether a mark's row is about a letter of this topic, and not of one that had the name before.
///
/// # Errors
/// When the version is unknown or the bytes are not a mark.
pub fn marks(value: &[u8], topic_id: &str) -> Result<bool, RowError> {
    decode::<&str>("mark", value).map(|of| of == topic_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_holds_for_its_letter_in_its_topic_only() {
        let row = mark_row(258, "id", &mut BytesMut::new());
        assert_eq!(&row.key[..], b"\x06\0\0\0\0\0\0\x01\x02");
        let value = row.value.expect("a value");
        assert_eq!(&value[..], b"\x01\x02id");
        assert_eq!((marks(&value, "id"), marks(&value, "other")), (Ok(true), Ok(false)));
        assert!(marks(b"", "id").is_err());
        assert_eq!((lane_of(&row.key), parked_at(&row.key)), (None, None), "it is no other row");
    }
}
