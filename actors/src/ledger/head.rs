//! The head: the durable row of one key.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::{
    LaneKey, Parking, Quarantine, RecentIds, Row, RowError, SECOND, Sequence, THIRD, VERSION, head_key,
};
use crate::effects::StateChange;
use crate::record::Offset;

/// What is known of a key. An empty head and no row mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The highest offset whose result is durable, or will be with the open epoch.
    pub taken: Offset,
    /// Event ids applied last.
    pub ids: RecentIds,
    /// The key's state, as its handler last set it.
    pub state: Option<Bytes>,
    /// Its parked records, if it has any.
    pub parking: Option<Box<Parking>>,
    /// Its quarantine, if it is in one.
    pub quarantine: Option<Box<Quarantine>>,
    /// Whether an operator has paused it.
    pub paused: bool,
    /// Its place in the producers' numbering, where records are ordered by that.
    pub sequence: Option<Box<Sequence>>,
    /// Number of the last rewind of its partition that it knows.
    pub rewound: u64,
}

/// What version 2 knows beside.
type Later = (Option<Parking>, Option<Quarantine>, bool, Option<Sequence>);

/// Version 2 has [`Later`] behind it, version 3 also the number of the last rewind, and that of the first letter
/// which the books know.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    taken: i64,
    // Without `serde_bytes` each byte is written by a call of its own.
    #[serde(borrow, with = "serde_bytes")]
    ids: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    state: Option<&'a [u8]>,
}

impl Default for Head {
    fn default() -> Self {
        Head {
            taken: Offset(-1),
            ids: RecentIds::default(),
            state: None,
            parking: None,
            quarantine: None,
            paused: false,
            sequence: None,
            rewound: 0,
        }
    }
}

impl Head {
    /// Reads a stored head.
    ///
    /// # Errors
    /// When the version is unknown or the bytes are not a head.
    pub fn decode(value: &[u8]) -> Result<Self, RowError> {
        let (version, body) = super::version("head", THIRD, value)?;
        let (stored, later, (rewound, before)): (Stored<'_>, Later, (u64, u64)) = match version {
            VERSION => (super::body("head", body)?, (None, None, false, None), (0, 0)),
            SECOND => {
                let (stored, later) = super::body("head", body)?;
                (stored, later, (0, 0))
            }
            _ => super::body("head", body)?,
        };
        let (parking, quarantine, paused, sequence) = later;
        let ids = RecentIds::from_stored(stored.ids.to_vec()).map_err(|reason| RowError::Damaged {
            row: "head",
            bytes: value.len(),
            reason,
        })?;
        Ok(Head {
            taken: Offset(stored.taken),
            ids,
            state: stored.state.map(Bytes::copy_from_slice),
            parking: parking.map(Box::new),
            quarantine: quarantine.map(|quarantine| Box::new(Quarantine { before, ..quarantine })),
            paused,
            sequence: sequence.map(Box::new),
            rewound,
        })
    }

    /// The row that holds this head.
    pub fn row<'a>(&self, lane: impl Into<LaneKey<&'a [u8]>>, out: &mut BytesMut) -> Row {
        let stored = Stored { taken: self.taken.0, ids: self.ids.stored(), state: self.state.as_deref() };
        let key = head_key(lane, out);
        let later = (&self.parking, &self.quarantine, self.paused, &self.sequence);
        let value = match later {
            _ if self.rewound > 0 => {
                let before = self.quarantine.as_ref().map_or(0, |quarantine| quarantine.before);
                super::encode(THIRD, &(stored, later, (self.rewound, before)), out)
            }
            (None, None, false, None) => super::encode(VERSION, &stored, out),
            later => super::encode(SECOND, &(stored, later), out),
        };
        Row { key, value: Some(value) }
    }

    /// The row that removes this head.
    pub fn tombstone(lane: LaneKey<&[u8]>, out: &mut BytesMut) -> Row {
        Row { key: head_key(lane, out), value: None }
    }

    /// Whether only the taken offset is left: such a head says nothing that the partition's
    /// watermark does not say as well, once that has passed the taken offset.
    pub fn is_bare(&self) -> bool {
        self.ids.is_empty() && self.state.is_none() && self.sequence.is_none() && !self.is_special()
    }

    /// Whether something keeps the key from going on like any other.
    pub fn is_special(&self) -> bool {
        self.parking.is_some() || self.quarantine.is_some() || self.paused
    }

    /// Takes over what a handler did to the state.
    pub fn change_state(&mut self, change: StateChange) {
        match change {
            StateChange::Keep => {}
            // Copied, lest a few bytes of state keep a whole fetched batch in memory.
            StateChange::Set(state) => self.state = Some(Bytes::copy_from_slice(&state)),
            StateChange::Clear => self.state = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::IdHasher;
    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            taken in -1i64..i64::MAX,
            ids in proptest::collection::vec(any::<[u8; 4]>(), 0..70),
            state in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            parked in proptest::option::of((any::<u64>(), 1u32..99, any::<i64>(), ".{0,90}")),
            cause in proptest::option::of(".{0,90}"),
            paused in any::<bool>(),
            rewound in prop_oneof![Just(0u64), any::<u64>()],
        ) {
            let parking = parked.map(|(first, attempt, due, cause)| {
                let (next, since) = (first.saturating_add(7), due / 2);
                Box::new(Parking { first, next, attempt, due, delay: 1_000, since, cause })
            });
            let mut head = Head {
                taken: Offset(taken),
                ids: RecentIds::default(),
                state: state.map(Bytes::from),
                parking,
                quarantine: cause.map(|cause| Box::new(Quarantine::begin(Offset(taken), &cause))),
                paused,
                sequence: paused.then(|| Box::new(Sequence { next: taken, early: vec![7], gap_since: 1, skipped: vec![(1, 2)], condemned: Some(3) })),
                rewound,
            };
            if let Some(quarantine) = head.quarantine.as_mut().filter(|_| rewound > 0) {
                quarantine.before = 3;
            }
            for id in &ids {
                head.ids.push(IdHasher::new([1; 16]).hash(id, None, 1_000), 64);
            }
            let row = head.row(key.as_deref(), &mut BytesMut::new());
            prop_assert_eq!(Head::decode(&row.value.expect("a value")).expect("decodes"), head);
            prop_assert_eq!(super::super::lane_of(&row.key), Some(LaneKey::from(key.as_deref())));
        }

        #[test]
        fn any_bytes_decode_or_are_refused_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Head::decode(&bytes);
        }
    }

    /// Rows lie in changelogs for years: these bytes change only together with the version.
    #[test]
    fn the_stored_bytes_of_a_head_never_change() {
        let mut head = Head { taken: Offset(300), state: Some(Bytes::from_static(b"ab")), ..Head::default() };
        head.ids.push(IdHasher::new([1; 16]).hash(b"e1", Some(b"v"), 7_000), 64);
        let row = head.row(LaneKey::Key(&b"K"[..]), &mut BytesMut::new());
        let id = head.ids.stored();
        assert_eq!(&row.key[..], b"\x02K");
        assert_eq!(
            row.value.as_deref(),
            Some(&[&[1, 0xd8, 4, 24][..], id, &[1, 2, b'a', b'b']].concat()[..])
        );
        assert_eq!(id[20..], [7, 0, 0, 0], "seconds, the lowest byte first");

        let parking =
            Parking { first: 5, next: 7, attempt: 3, due: 1, delay: 300, since: 2, cause: "503".into() };
        let head = Head { taken: Offset(300), parking: Some(Box::new(parking)), ..Head::default() };
        let row = head.row(LaneKey::Key(&b"K"[..]), &mut BytesMut::new());
        let value = [&[2, 0xd8, 4, 0, 0, 1, 5, 7, 3, 2, 0xac, 2, 4, 3][..], b"503\0\0\0"].concat();
        assert_eq!(row.value.as_deref(), Some(&value[..]), "version 2");

        let quarantine =
            Quarantine { first: 5, next: 7, offset: 300, replay: Some(1), cause: "422".into(), before: 0 };
        let head = Head { taken: Offset(301), quarantine: Some(Box::new(quarantine)), ..Head::default() };
        let row = head.row(LaneKey::Key(&b"K"[..]), &mut BytesMut::new());
        let value = [&[2, 0xda, 4, 0, 0, 0, 1, 5, 7, 0xd8, 4, 1, 2, 3][..], b"422\0\0"].concat();
        assert_eq!(row.value.as_deref(), Some(&value[..]));

        let mut head = Head { rewound: 300, ..head };
        head.quarantine.as_mut().expect("it is in one").before = 7;
        let row = head.row(LaneKey::Key(&b"K"[..]), &mut BytesMut::new());
        let value = [&[3], &value[1..], &[0xac, 2, 7]].concat();
        assert_eq!(row.value.as_deref(), Some(&value[..]), "version 3");
    }

    #[test]
    fn a_newer_version_is_named_and_refused() {
        let error = Head::decode(&[9, 0, 0]).expect_err("version 9");
        assert_eq!(error, RowError::UnknownVersion { row: "head", found: 9, known: 3 });
        assert!(error.to_string().contains("version 9"), "{error}");
    }

    #[test]
    fn only_the_taken_offset_is_bare() {
        let mut head = Head { taken: Offset(9), ..Head::default() };
        assert!(head.is_bare());
        head.change_state(StateChange::Set(Bytes::from_static(b"s")));
        assert!(!head.is_bare());
        head.change_state(StateChange::Clear);
        assert!(head.is_bare());
        head.parking = Some(Box::default());
        assert!(!head.is_bare());
        (head.parking, head.quarantine) = (None, Some(Box::default()));
        assert!(!head.is_bare());
        (head.quarantine, head.paused) = (None, true);
        assert!(!head.is_bare());
    }
}
