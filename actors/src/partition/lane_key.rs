//! Which lane a record belongs to.

use std::num::NonZeroU16;

use bytes::Bytes;

use crate::ledger::{LaneKey, RecentIds};
use crate::outcome::{Failure, code};
use crate::policy::NullKey;
use crate::record::Offset;
use crate::selector::{Reader, Selector};

/// What bounds a key, beside what Kafka does: its row must fit into the changelog.
#[derive(Clone, Copy, Debug)]
pub struct KeyBounds {
    /// Event ids that a row may hold.
    pub recent_ids: usize,
    /// Bytes that a row may have.
    pub max_row_bytes: usize,
}

/// The lane of its partition that a record belongs to. Where null keys are spread it follows from the record's offset
/// alone: the same after a restart, under another owner, and in a replay of its dead letter.
///
/// # Errors
/// Why the record cannot be handed to the handler: it belongs to the lane of records without a usable key.
pub fn lane_key(
    reader: &mut Reader<'_>,
    selector: &Selector,
    null_key: NullKey,
    bounds: KeyBounds,
) -> Result<LaneKey<Bytes>, Failure> {
    match reader.read(selector) {
        Ok(Some(key)) if key.len() + bounds.recent_ids * RecentIds::WIDTH > bounds.max_row_bytes => {
            Err(key_too_large(key.len(), bounds.max_row_bytes))
        }
        Ok(Some(key)) => Ok(LaneKey::Key(key)),
        Ok(None) => match null_key {
            NullKey::Reject => Err(no_key(selector)),
            NullKey::Spread(lanes) => Ok(LaneKey::NoKey(lane_at(reader.offset(), lanes))),
        },
        Err(why) => Err(undecodable("key", &why)),
    }
}

fn lane_at(Offset(offset): Offset, lanes: NonZeroU16) -> u16 {
    let lane = offset.rem_euclid(i64::from(lanes.get()));
    u16::try_from(lane).expect("a remainder is less than what it was divided by")
}

fn no_key(selector: &Selector) -> Failure {
    match selector {
        Selector::Record => {
            Failure::permanent(code::NULL_KEY, "the record has no key, and order is kept by key")
        }
        other => Failure::permanent(code::NULL_KEY, format!("the record has nothing at {other}, its key")),
    }
}

fn key_too_large(bytes: usize, takes: usize) -> Failure {
    let message = format!(
        "the key has {bytes} bytes; with its ids its row exceeds the {takes} that the changelog takes"
    );
    Failure::permanent(code::TOO_LARGE, message)
}

pub(super) fn undecodable(what: &str, why: &str) -> Failure {
    Failure::permanent(code::UNDECODABLE, format!("the {what} cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Header, Millis, Record, TimestampType};

    const BOUNDS: KeyBounds = KeyBounds { recent_ids: 64, max_row_bytes: 10_000 };
    const HEADER: &str = "header:k";

    fn record(offset: i64, key: Option<&'static [u8]>, headers: Vec<Header>) -> Record {
        Record {
            offset: Offset(offset),
            timestamp: Millis(1),
            timestamp_type: TimestampType::CreateTime,
            key: key.map(Bytes::from_static),
            value: Some(Bytes::from_static(b"{\"a\":null,")),
            headers,
        }
    }

    fn lane(record: &Record, selector: &str, null_key: NullKey) -> Result<LaneKey<Bytes>, &'static str> {
        let selector = selector.parse().expect("a selector");
        lane_key(&mut Reader::new(record), &selector, null_key, BOUNDS).map_err(|failure| {
            match failure.code {
                code if code == code::NULL_KEY => "null",
                code if code == code::UNDECODABLE => "undecodable",
                other => panic!("{other}"),
            }
        })
    }

    fn spread(lanes: u16) -> NullKey {
        NullKey::Spread(NonZeroU16::new(lanes).expect("not 0"))
    }

    #[test]
    fn records_without_a_key_go_to_lanes_by_their_offset_where_that_is_asked_for() {
        for (offset, at) in [(0, 0), (5, 5), (15, 15), (16, 0), (i64::MAX, 15)] {
            let record = record(offset, None, Vec::new());
            assert_eq!(lane(&record, "record", spread(16)), Ok(LaneKey::NoKey(at)), "{offset}");
            assert_eq!(lane(&record, "record", spread(1)), Ok(LaneKey::NoKey(0)), "{offset}");
            assert_eq!(lane(&record, "record", NullKey::Reject), Err("null"), "{offset}");
        }
    }

    #[test]
    fn what_lacks_the_place_of_its_key_has_a_null_key_whatever_its_own_key_is() {
        let there = Header { name: Bytes::from_static(b"k"), value: Some(Bytes::from_static(b"K")) };
        let null = Header { name: Bytes::from_static(b"k"), value: None };
        assert_eq!(
            lane(&record(3, Some(b"R"), vec![there]), HEADER, spread(2)),
            Ok(LaneKey::Key("K".into()))
        );
        assert_eq!(lane(&record(3, Some(b"R"), vec![null]), HEADER, spread(2)), Ok(LaneKey::NoKey(1)));
        assert_eq!(lane(&record(3, Some(b"R"), Vec::new()), HEADER, spread(2)), Ok(LaneKey::NoKey(1)));
    }

    #[test]
    fn keys_are_keys_and_what_cannot_be_read_is_no_null_key() {
        assert_eq!(lane(&record(3, Some(b""), Vec::new()), "record", spread(2)), Ok(LaneKey::Key("".into())));
        assert_eq!(lane(&record(3, None, Vec::new()), "json:/a", spread(2)), Err("undecodable"));
    }
}
