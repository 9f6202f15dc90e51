//! The partition row, the one truth about a partition, and the claim that changes its owner.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::{CLAIM_KEY, PARTITION_KEY, Rewinds, Row, RowError, SECOND, THIRD, VERSION};

/// Running totals of a partition. They balance at every epoch commit: each received record is
/// accounted for exactly once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    /// Records whose first result is durable.
    pub received: u64,
    /// Records that took effect.
    pub applied: u64,
    /// Records recognised as a producer's duplicate.
    pub duplicates: u64,
    /// Records that lie in the dead-letter topic, and nobody has dealt with.
    pub dead_lettered: u64,
    /// Dead letters that an operator discarded.
    pub discarded: u64,
    /// Dead letters that were gone from their topic when somebody looked.
    pub lost_letters: u64,
    /// Records that an operator skipped while they waited.
    pub skipped: u64,
    /// Records that lie in parked rows: they wait for a retry, or for one that does.
    pub parked: u64,
    /// Offsets that an operator skipped by moving the group's committed offset forward; beside the
    /// books, because nobody knows how many records they were.
    pub skipped_offsets: u64,
    /// Offsets that retention removed before they were read; beside the books as well.
    pub removed_offsets: u64,
    /// Dead letters that a replay made applied or duplicates; beside the books, because they are among
    /// those.
    pub replayed: u64,
    /// Letters of other groups that a replay applied; beside the books, because they were never received.
    pub foreign: u64,
}

impl Books {
    /// Whether every received record is accounted for.
    pub fn balance(&self) -> bool {
        let letters = self.dead_lettered + self.discarded + self.lost_letters;
        self.received == self.applied + self.duplicates + letters + self.skipped + self.parked
    }
}

impl std::fmt::Display for Books {
    /// What became of the received records; what is rare is left out where there is none.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Books { applied, duplicates, dead_lettered, parked, .. } = self;
        write!(
            f,
            "{applied} applied + {duplicates} duplicates + {dead_lettered} dead-lettered + {parked} parked"
        )?;
        let rare =
            [(self.discarded, "discarded"), (self.lost_letters, "lost letters"), (self.skipped, "skipped")];
        rare.iter()
            .filter(|(count, _)| *count > 0)
            .try_for_each(|(count, what)| write!(f, " + {count} {what}"))
    }
}

/// What is durable about a partition as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRow {
    /// Id of the input topic: offsets of a topic that was deleted and made anew mean nothing.
    pub topic_id: String,
    /// Every record below this position is accounted for. Never falls.
    pub watermark: i64,
    /// Where the books begin: they account for no record below. What lies between here and the
    /// watermark can be counted again from the input.
    pub began: i64,
    /// Number of the claim under which the row was written.
    pub claim: i64,
    /// Number of the epoch under that claim.
    pub epoch: u64,
    /// Highest record timestamp taken, never beyond the clock of its time; milliseconds.
    pub partition_time: i64,
    /// Running totals.
    pub books: Books,
    /// Fingerprint of the settings that decide which lane a record belongs to and what repeats it.
    pub fingerprint: u64,
    /// Secret with which event ids are hashed.
    pub id_key: [u8; 16],
    /// Position in the command topic: commands below have been carried out, or refused.
    pub commands: i64,
    /// Id of the command topic: the position belongs to it.
    pub commands_id: String,
    /// The replay that is under way, if one is.
    pub replay: Option<ReplayRow>,
    /// In careful mode: the record that was handed to the handler, or is going to be.
    pub starting: Option<Place>,
    /// In careful mode: records during which a process ended.
    pub named: Vec<Named>,
    /// How the partition was rewound.
    pub rewinds: Rewinds,
}

/// A record that is at the handler, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Whether a replay handed it in: the offset is that of its dead letter.
    pub letter: bool,
    /// Where it lies.
    pub offset: i64,
}

/// A record during which processes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Which one.
    pub place: Place,
    /// How many.
    pub crashes: u32,
}

/// A replay that is under way, so that the next owner goes on with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRow {
    /// Offset of its command in the command topic.
    pub command: i64,
    /// The command, as it lies there.
    pub request: String,
    /// Position in the dead-letter topic: what it was to do below is done.
    pub from: i64,
    /// The end of the dead-letter topic when it began: keys whose first letter lies behind do not join.
    pub to: i64,
    /// What it did.
    pub counts: ReplayCounts,
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayCounts {
    /// Letters that took effect.
    pub applied: u64,
    /// Letters that were recognised as duplicates.
    pub duplicates: u64,
    /// Letters that failed again, and stay.
    pub failed: u64,
    /// Letters that it was not about: of other keys, or dealt with already.
    pub passed_over: u64,
    /// Keys whose next letter is gone from the topic.
    pub gaps: u64,
}

/// As version 1 has it; in version 2 [`Later`] follows.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    topic_id: Cow<'a, str>,
    watermark: i64,
    began: i64,
    claim: i64,
    epoch: u64,
    partition_time: i64,
    /// Received, applied, duplicates, dead-lettered, skipped offsets, removed offsets.
    books: [u64; 6],
    fingerprint: u64,
    id_key: [u8; 16],
}

/// What version 2 knows beside.
#[derive(Default, PartialEq, Serialize, Deserialize)]
struct Later {
    parked: u64,
    discarded: u64,
    lost_letters: u64,
    skipped: u64,
    replayed: u64,
    foreign: u64,
    commands: i64,
    commands_id: String,
    replay: Option<ReplayRow>,
}

/// What version 3 knows beside.
#[derive(Default, PartialEq, Serialize, Deserialize)]
struct Last {
    starting: Option<Place>,
    named: Vec<Named>,
    rewinds: Rewinds,
}

impl PartitionRow {
    /// Of a partition of which nothing is durable yet but where it begins.
    pub fn new(topic_id: String, watermark: i64, claim: i64, fingerprint: u64, id_key: [u8; 16]) -> Self {
        let books = Books::default();
        PartitionRow {
            topic_id,
            watermark,
            began: watermark,
            claim,
            epoch: 0,
            partition_time: 0,
            books,
            fingerprint,
            id_key,
            commands: 0,
            commands_id: String::new(),
            replay: None,
            starting: None,
            named: Vec::new(),
            rewinds: Rewinds::default(),
        }
    }

    /// Reads a stored row.
    ///
    /// # Errors
    /// When the version is unknown or the bytes are not a partition row.
    pub fn decode(value: &[u8]) -> Result<Self, RowError> {
        let (version, body) = super::version("partition", THIRD, value)?;
        let (stored, later, last): (Stored<'_>, Later, Last) = match version {
            VERSION => (super::body("partition", body)?, Later::default(), Last::default()),
            SECOND => {
                let (stored, later) = super::body("partition", body)?;
                (stored, later, Last::default())
            }
            _ => super::body("partition", body)?,
        };
        let [received, applied, duplicates, dead_lettered, skipped_offsets, removed_offsets] = stored.books;
        Ok(PartitionRow {
            topic_id: stored.topic_id.into_owned(),
            watermark: stored.watermark,
            began: stored.began,
            claim: stored.claim,
            epoch: stored.epoch,
            partition_time: stored.partition_time,
            books: Books {
                received,
                applied,
                duplicates,
                dead_lettered,
                discarded: later.discarded,
                lost_letters: later.lost_letters,
                skipped: later.skipped,
                parked: later.parked,
                skipped_offsets,
                removed_offsets,
                replayed: later.replayed,
                foreign: later.foreign,
            },
            fingerprint: stored.fingerprint,
            id_key: stored.id_key,
            commands: later.commands,
            commands_id: later.commands_id,
            replay: later.replay,
            starting: last.starting,
            named: last.named,
            rewinds: last.rewinds,
        })
    }

    /// The row as it is stored.
    pub fn row(&self, out: &mut BytesMut) -> Row {
        let Books { received, applied, duplicates, dead_lettered, skipped_offsets, removed_offsets, .. } =
            self.books;
        let stored = Stored {
            topic_id: Cow::Borrowed(&self.topic_id),
            watermark: self.watermark,
            began: self.began,
            claim: self.claim,
            epoch: self.epoch,
            partition_time: self.partition_time,
            books: [received, applied, duplicates, dead_lettered, skipped_offsets, removed_offsets],
            fingerprint: self.fingerprint,
            id_key: self.id_key,
        };
        let Books { parked, discarded, lost_letters, skipped, replayed, foreign, .. } = self.books;
        let later = Later {
            parked,
            discarded,
            lost_letters,
            skipped,
            replayed,
            foreign,
            commands: self.commands,
            commands_id: self.commands_id.clone(),
            replay: self.replay.clone(),
        };
        let (named, rewinds) = (self.named.clone(), self.rewinds.clone());
        let last = Last { starting: self.starting, named, rewinds };
        let value = if last != Last::default() {
            super::encode(THIRD, &(stored, later, last), out)
        } else if later != Later::default() {
            super::encode(SECOND, &(stored, later), out)
        } else {
            super::encode(VERSION, &stored, out)
        };
        Row { key: Bytes::from_static(PARTITION_KEY), value: Some(value) }
    }
}

/// What a new owner writes before it trusts anything that it reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRow {
    /// The instance that claims.
    pub instance: String,
    /// When, in milliseconds since the epoch, by the instance's clock; for people only.
    pub at: i64,
}

impl ClaimRow {
    /// Reads a stored claim.
    ///
    /// # Errors
    /// When the version is unknown or the bytes are not a claim.
    pub fn decode(value: &[u8]) -> Result<Self, RowError> {
        super::decode("claim", value)
    }

    /// The row as it is stored.
    pub fn row(&self, out: &mut BytesMut) -> Row {
        Row { key: Bytes::from_static(CLAIM_KEY), value: Some(super::encode(VERSION, self, out)) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rewind;
    use super::*;

    fn rewound() -> Rewinds {
        let mut rewinds = Rewinds::default();
        rewinds.push(Rewind { number: 1, to: 5, reset: true, letters: 7, letters_id: "d".into(), parked: 2 });
        rewinds
    }

    #[test]
    fn a_partition_row_is_read_back_as_written() {
        let row = PartitionRow {
            topic_id: "AAAAAAAAAAAAAAAAAAAAAQ".into(),
            watermark: 8812,
            began: 8800,
            claim: 3,
            epoch: 77,
            partition_time: 1_700_000_000_000,
            books: Books { received: 5, applied: 3, duplicates: 1, dead_lettered: 1, ..Books::default() },
            fingerprint: u64::MAX,
            id_key: [9; 16],
            commands: 0,
            commands_id: String::new(),
            replay: None,
            starting: None,
            named: Vec::new(),
            rewinds: Rewinds::default(),
        };
        let stored = row.row(&mut BytesMut::new());
        assert_eq!(PartitionRow::decode(&stored.value.expect("a value")), Ok(row.clone()));
        assert!(row.books.balance());
        let parked = Books { received: 7, parked: 2, ..row.books };
        let counts = ReplayCounts { applied: 3, ..ReplayCounts::default() };
        let replay = ReplayRow { command: 4, request: "{}".into(), from: 5, to: 6, counts };
        let row = PartitionRow { books: parked, commands: 5, replay: Some(replay), ..row };
        let stored = row.row(&mut BytesMut::new());
        assert_eq!(PartitionRow::decode(&stored.value.expect("a value")), Ok(row.clone()));
        assert!(row.books.balance());
        let place = Place { letter: true, offset: 9 };
        let row = PartitionRow {
            starting: Some(place),
            named: vec![Named { place, crashes: 2 }],
            rewinds: rewound(),
            ..row
        };
        let stored = row.row(&mut BytesMut::new());
        assert_eq!(PartitionRow::decode(&stored.value.expect("a value")), Ok(row.clone()));
        assert!(!Books { received: 1, ..Books::default() }.balance());
    }

    /// Rows lie in changelogs for years: these bytes change only together with the version.
    #[test]
    fn the_stored_bytes_of_a_partition_row_never_change() {
        let mut row = PartitionRow::new("id".into(), 5, 3, 1, [9; 16]);
        row.watermark = 300;
        row.epoch = 2;
        row.partition_time = 64;
        row.books = Books { received: 6, applied: 3, duplicates: 2, dead_lettered: 1, ..Books::default() };
        (row.books.skipped_offsets, row.books.removed_offsets) = (7, 8);
        let stored = row.row(&mut BytesMut::new());
        assert_eq!(&stored.key[..], b"\x01");
        let begin = [1, 2, b'i', b'd', 0xd8, 4, 10, 6, 2, 0x80, 1];
        let books = [6, 3, 2, 1, 7, 8];
        let expected = [&begin[..], &books, &[1], &[9; 16]].concat();
        assert_eq!(stored.value.as_deref(), Some(&expected[..]));

        (row.books.received, row.books.parked) = (306, 300);
        let stored = row.row(&mut BytesMut::new());
        let books = [0xb2, 2, 3, 2, 1, 7, 8];
        let expected =
            [&[2], &begin[1..], &books, &[1], &[9; 16], &[0xac, 2, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(stored.value.as_deref(), Some(&expected[..]), "version 2");

        row.starting = Some(Place { letter: false, offset: 300 });
        row.rewinds = rewound();
        let stored = row.row(&mut BytesMut::new());
        let last = [1, 0, 0xd8, 4, 0, 1, 1, 10, 1, 14, 1, b'd', 2];
        let expected = [&[3], &expected[1..], &last].concat();
        assert_eq!(stored.value.as_deref(), Some(&expected[..]), "version 3");
    }

    #[test]
    fn a_claim_is_read_back_as_written_and_garbage_is_refused() {
        let claim = ClaimRow { instance: "host-1".into(), at: 5 };
        let stored = claim.row(&mut BytesMut::new()).value.expect("a value");
        assert_eq!(ClaimRow::decode(&stored), Ok(claim));
        assert!(matches!(ClaimRow::decode(&stored[..4]), Err(RowError::Damaged { .. })));
        assert!(matches!(PartitionRow::decode(&[]), Err(RowError::Damaged { .. })));
    }
}
