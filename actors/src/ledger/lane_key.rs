//! Which lane a row of the ledger belongs to. No key that a record could have names a lane of records without one:
//! the kinds are told apart by the row key's first byte, and those of one first byte by their length.

use std::fmt;
use std::ops::Deref;

use bytes::BufMut;

use crate::record::hex;

/// What tells the lanes of a partition apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneKey<B> {
    /// The lane of records whose key cannot be used. None of them is handed to the handler.
    Unusable,
    /// One of the lanes that records without a key are spread over.
    NoKey(u16),
    /// The lane of the records with this key.
    Key(B),
}

/// The kinds of lanes, as first bytes of row keys.
pub(super) struct Prefixes {
    /// The record key follows.
    pub keyed: u8,
    /// Nothing follows, or the number of a lane of records without a key.
    pub unkeyed: u8,
}

impl<B> LaneKey<B> {
    /// The key that the lane's records have in common.
    pub fn key(self) -> Option<B> {
        match self {
            LaneKey::Key(key) => Some(key),
            LaneKey::Unusable | LaneKey::NoKey(_) => None,
        }
    }

    /// Whether its records have a key in common: what becomes of one matters to those behind it.
    pub fn is_key(&self) -> bool {
        matches!(self, LaneKey::Key(_))
    }

    /// The same lane, its key held otherwise.
    pub fn map<C>(self, hold: impl FnOnce(B) -> C) -> LaneKey<C> {
        match self {
            LaneKey::Unusable => LaneKey::Unusable,
            LaneKey::NoKey(lane) => LaneKey::NoKey(lane),
            LaneKey::Key(key) => LaneKey::Key(hold(key)),
        }
    }
}

impl<B: Deref<Target = [u8]>> LaneKey<B> {
    /// The same lane, its key borrowed.
    pub fn as_deref(&self) -> LaneKey<&[u8]> {
        match self {
            LaneKey::Unusable => LaneKey::Unusable,
            LaneKey::NoKey(lane) => LaneKey::NoKey(*lane),
            LaneKey::Key(key) => LaneKey::Key(key),
        }
    }

    /// Appends what a row key says of the lane.
    pub(super) fn put(&self, prefixes: &Prefixes, out: &mut impl BufMut) {
        match self {
            LaneKey::Unusable => out.put_u8(prefixes.unkeyed),
            LaneKey::NoKey(lane) => {
                out.put_u8(prefixes.unkeyed);
                out.put_u16(*lane);
            }
            LaneKey::Key(key) => {
                out.put_u8(prefixes.keyed);
                out.put_slice(key);
            }
        }
    }
}

impl<'a> LaneKey<&'a [u8]> {
    /// What [`LaneKey::put`] has written; `None`: something else.
    pub(super) fn get(prefixes: &Prefixes, written: &'a [u8]) -> Option<Self> {
        match written.split_first()? {
            (&first, key) if first == prefixes.keyed => Some(LaneKey::Key(key)),
            (&first, lane) if first == prefixes.unkeyed => match lane {
                [] => Some(LaneKey::Unusable),
                lane => lane.try_into().ok().map(|lane| LaneKey::NoKey(u16::from_be_bytes(lane))),
            },
            _ => None,
        }
    }
}

/// `None` is the lane of records without a usable key.
impl<B> From<Option<B>> for LaneKey<B> {
    fn from(key: Option<B>) -> Self {
        key.map_or(LaneKey::Unusable, LaneKey::Key)
    }
}

/// For people, on one line: a key as text, or else two digits a byte; what is no key in parentheses.
impl fmt::Display for LaneKey<&[u8]> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaneKey::Unusable => f.write_str("(no key)"),
            LaneKey::NoKey(lane) => write!(f, "(no key, lane {lane})"),
            LaneKey::Key(key) => match std::str::from_utf8(key) {
                Ok(text) if !text.contains(char::is_control) => f.write_str(text),
                Ok(text) => write!(f, "{}", text.escape_debug()),
                Err(_) => write!(f, "0x{}", hex(key)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use proptest::prelude::*;

    use super::super::{BEFORE_PARKED, head_key, lane_of, parked_at, parked_key};
    use super::*;

    fn lanes() -> impl Strategy<Value = LaneKey<Bytes>> {
        let key = proptest::collection::vec(any::<u8>(), 0..12);
        prop_oneof![
            Just(LaneKey::Unusable),
            any::<u16>().prop_map(LaneKey::NoKey),
            key.prop_map(|key| LaneKey::Key(Bytes::from(key))),
        ]
    }

    proptest! {
        #[test]
        fn no_row_of_a_lane_can_be_taken_for_one_of_another(
            (a, b) in (lanes(), lanes()),
            (m, n) in (any::<u64>(), any::<u64>()),
        ) {
            let head = |lane: &LaneKey<Bytes>| head_key(lane.as_deref(), &mut BytesMut::new());
            let row = |lane: &LaneKey<Bytes>, number| parked_key(lane.as_deref(), number, &mut BytesMut::new());
            let (head_of_a, row_of_a) = (head(&a), row(&a, m));
            prop_assert_eq!(lane_of(&head_of_a), Some(a.as_deref()));
            prop_assert_eq!(parked_at(&row_of_a), Some((a.as_deref(), m)));
            prop_assert_eq!(head_of_a == head(&b), a == b);
            prop_assert_eq!(row_of_a == row(&b, n), (&a, m) == (&b, n));
            prop_assert_eq!((parked_at(&head_of_a), lane_of(&row_of_a)), (None, None), "a head is no parked row");
            prop_assert!(&head_of_a[..] <= BEFORE_PARKED && &row_of_a[..] > BEFORE_PARKED);
        }
    }

    /// Rows lie in changelogs for years.
    #[test]
    fn the_row_keys_of_lanes_never_change() {
        for (lane, head, parked) in [
            (LaneKey::Unusable, &b"\x03"[..], &b"\x05\0\0\0\0\0\0\0\x07"[..]),
            (LaneKey::NoKey(258), b"\x03\x01\x02", b"\x05\x01\x02\0\0\0\0\0\0\0\x07"),
            (LaneKey::Key(&b"K"[..]), b"\x02K", b"\x04K\0\0\0\0\0\0\0\x07"),
        ] {
            assert_eq!(head_key(lane, &mut BytesMut::new()), head, "{lane:?}");
            assert_eq!(parked_key(lane, 7, &mut BytesMut::new()), parked, "{lane:?}");
        }
        assert_eq!((lane_of(b"\x03\x01"), parked_at(b"\x05\x01\0\0\0\0\0\0\0\x07")), (None, None));
    }

    #[test]
    fn a_lane_is_told_by_its_key_or_its_number() {
        assert_eq!(LaneKey::Key(&b"ORD-1"[..]).to_string(), "ORD-1");
        assert_eq!(LaneKey::NoKey(3).to_string(), "(no key, lane 3)");
        assert_eq!(LaneKey::Unusable.to_string(), "(no key)");
    }
}
