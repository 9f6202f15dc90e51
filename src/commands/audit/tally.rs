//! Counting what lies in the topics, record by record. Pure.
//!
//! A record is in the books of a partition row exactly if it lies below the row's watermark, or if
//! the row of its key has taken its offset: a key's records are worked in the order of their offsets,
//! so the highest taken one stands for all before it. Held in memory: the keys that have taken
//! something at or above the watermark (at most `intake.max_finished_ahead` and what is in work), and
//! 8 bytes for each dead letter, and the keys of parked rows.

use std::collections::HashMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use pawl_actors::ledger::{
    Head, LaneKey, PartitionRow, Rewinds, RowError, decode_parked, early_number, lane_of, parked_at,
    parked_key,
};
use pawl_actors::partition::{KeyBounds, lane_key};
use pawl_actors::policy::NullKey;
use pawl_actors::record::Record;
use pawl_actors::selector::{Reader, Selector};

use super::facts::{Heads, Letters};
use crate::kafka::partitioner::java_partition;
use crate::shown::Raw;

/// How records are sorted into lanes.
#[derive(Clone, Debug)]
pub struct Sorting {
    /// The setting `key`.
    pub key: Selector,
    /// The setting `null_key`.
    pub null_key: NullKey,
    /// What bounds a key.
    pub bounds: KeyBounds,
    /// Partitions of the input.
    pub partitions: i32,
}

/// What the ledger of a partition has taken at the moment of its last row.
#[derive(Debug)]
pub struct Taken {
    partition: i32,
    began: i64,
    watermark: i64,
    /// Taken offsets at or above the watermark, by lane.
    ahead: HashMap<LaneKey<Bytes>, i64>,
    /// How the partition was rewound.
    rewinds: Rewinds,
    /// Id of the dead-letter topic.
    letters_id: String,
    /// The parked rows that heads name, and the offset from which on their records do not count.
    named: HashMap<LaneKey<Bytes>, (Range<u64>, Option<i64>)>,
    /// Numbers of records that wait in rows for those before them in sequence, likewise.
    early: HashMap<LaneKey<Bytes>, Vec<i64>>,
    /// The parked rows that are there, and the offsets of their records.
    rows: HashMap<Bytes, i64>,
    heads: Heads,
}

impl Taken {
    /// Before the keys' rows are read.
    pub fn new(partition: i32, row: &PartitionRow, letters_id: &str) -> Taken {
        let PartitionRow { began, watermark, .. } = *row;
        Taken {
            partition,
            began,
            watermark,
            ahead: HashMap::new(),
            rewinds: row.rewinds.clone(),
            letters_id: letters_id.to_owned(),
            named: HashMap::new(),
            early: HashMap::new(),
            rows: HashMap::new(),
            heads: Heads::default(),
        }
    }

    /// Takes the next row of the changelog, in the order of their writing.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn row(&mut self, key: &[u8], value: Option<&[u8]>, sorting: &Sorting) -> Result<(), RowError> {
        if parked_at(key).is_some() {
            let key = Bytes::copy_from_slice(key);
            match value.map(decode_parked).transpose()? {
                Some(record) => drop(self.rows.insert(key, record.offset.0)),
                None => drop(self.rows.remove(&key)),
            }
        }
        let Some(lane) = lane_of(key) else { return Ok(()) };
        let mut head = value.map(Head::decode).transpose()?;
        let rows_below = head.as_mut().and_then(|head| head.rewind(&self.rewinds));
        let taken = head.as_ref().map(|head| head.taken.0);
        if let (Some(taken), LaneKey::Key(key)) = (taken, lane) {
            let shown = || Raw(Bytes::copy_from_slice(key)).shown();
            if self.heads.highest.as_ref().is_none_or(|(highest, _)| taken > *highest) {
                self.heads.highest = Some((taken, shown()));
            }
            let placed =
                sorting.key != Selector::Record || java_partition(key, sorting.partitions) == self.partition;
            if !placed && self.heads.misplaced.is_none() {
                self.heads.misplaced = Some(shown());
            }
        }
        let lane = lane.map(Bytes::copy_from_slice);
        let early =
            head.as_ref().and_then(|head| head.sequence.as_ref()).map(|sequence| sequence.early.clone());
        match early.filter(|early| !early.is_empty()) {
            Some(early) => drop(self.early.insert(lane.clone(), early)),
            None => drop(self.early.remove(&lane)),
        }
        match head.and_then(|head| head.parking) {
            Some(parking) => {
                self.named.insert(lane.clone(), (parking.first..parking.next, rows_below));
            }
            None => {
                self.named.remove(&lane);
            }
        }
        match taken.filter(|taken| *taken >= self.watermark) {
            Some(taken) => drop(self.ahead.insert(lane, taken)),
            None => drop(self.ahead.remove(&lane)),
        }
        Ok(())
    }

    /// What the keys' rows said.
    pub fn heads(&self) -> Heads {
        let mut heads = self.heads.clone();
        let mut out = BytesMut::new();
        for (lane, (range, rows_below)) in &self.named {
            let rows = range.clone().map(|number| parked_key(lane.as_deref(), number, &mut out));
            let (mut named, mut there) = (0, 0);
            for row in rows.map(|key| self.rows.get(&key)) {
                let counts = row.is_none_or(|offset| rows_below.is_none_or(|below| *offset < below));
                // Of a row that is gone it is not known whether it would count.
                named += u64::from(counts && (row.is_some() || rows_below.is_none()));
                there += u64::from(counts && row.is_some());
            }
            heads.parked += named;
            heads.unparked += named - there;
        }
        for (lane, early) in &self.early {
            let row =
                |number: &i64, out: &mut BytesMut| parked_key(lane.as_deref(), early_number(*number), out);
            let there = early.iter().filter(|number| self.rows.contains_key(&row(number, &mut out))).count();
            heads.parked += early.len() as u64;
            heads.unparked += (early.len() - there) as u64;
        }
        heads
    }

    /// The first offset that the books count.
    pub fn began(&self) -> i64 {
        self.began
    }

    /// The offset behind the last record that may be in the books.
    pub fn end(&self) -> i64 {
        self.ahead.values().map(|taken| taken + 1).max().unwrap_or(0).max(self.watermark)
    }

    /// Whether the result of this record is in the ledger.
    fn has(&self, offset: i64, record: impl FnOnce() -> Record, sorting: &Sorting) -> bool {
        if offset < self.watermark {
            return true;
        }
        let record = record();
        let lane = lane_key(&mut Reader::new(&record), &sorting.key, sorting.null_key, sorting.bounds);
        let lane = lane.unwrap_or(LaneKey::Unusable);
        self.ahead.get(&lane).is_some_and(|taken| offset <= *taken)
    }
}

/// Where a letter of the group says that its original lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where the letter lies.
    pub letter: i64,
    /// Whether it is this partition of the input topic.
    pub here: bool,
    /// The offset.
    pub offset: i64,
}

/// Dead letters of the group in one partition.
#[derive(Debug, Default)]
pub struct LetterTally {
    counts: Letters,
    /// Originals of the tied ones; sorted and each once after [`LetterTally::close`].
    originals: Vec<i64>,
    found: Vec<bool>,
}

impl LetterTally {
    /// Takes a letter of the group; `record` is the original as the letter has it.
    pub fn letter(
        &mut self,
        origin: Origin,
        record: impl FnOnce() -> Record,
        taken: &Taken,
        sorting: &Sorting,
    ) {
        let counts = &mut self.counts;
        let Taken { rewinds, began, letters_id, .. } = taken;
        if !origin.here {
            counts.elsewhere += 1;
        } else if rewinds.letter_is_older(origin.letter, origin.offset, *began, letters_id) {
            counts.before += 1;
        } else if taken.has(origin.offset, record, sorting) {
            counts.tied += 1;
            self.originals.push(origin.offset);
        } else {
            counts.beyond += 1;
            counts.first_beyond =
                Some(counts.first_beyond.map_or(origin.offset, |first| first.min(origin.offset)));
        }
    }

    /// All letters are read; the input comes next.
    pub fn close(&mut self) {
        self.originals.sort_unstable();
        self.originals.dedup();
        self.counts.distinct = self.originals.len() as u64;
        self.found = vec![false; self.originals.len()];
    }

    /// A record lies in the input.
    fn seen(&mut self, offset: i64) {
        if let Ok(place) = self.originals.binary_search(&offset) {
            self.found[place] = true;
        }
    }

    /// The counts, once the input was read from `from` on; `low` is the first letter that is left.
    pub fn finish(self, from: i64, low: i64) -> Letters {
        let missing = || {
            let originals = self.originals.iter().zip(&self.found);
            originals
                .filter(|(original, found)| **original >= from && !**found)
                .map(|(original, _)| *original)
        };
        Letters { low, missing: missing().count() as u64, first_missing: missing().next(), ..self.counts }
    }
}

/// Records of an input partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputTally {
    /// See [`Input`](super::facts::Input).
    pub below: u64,
    /// Likewise.
    pub ahead: u64,
    /// Likewise.
    pub second_pass: u64,
}

impl InputTally {
    /// Takes the next record; `returned` says whether it has a dead letter's headers.
    pub fn record(
        &mut self,
        offset: i64,
        record: impl FnOnce() -> Record,
        returned: impl FnOnce() -> bool,
        (taken, letters): (&Taken, &mut LetterTally),
        sorting: &Sorting,
    ) {
        letters.seen(offset);
        if !taken.has(offset, record, sorting) {
            return;
        }
        if offset < taken.watermark {
            self.below += 1;
        } else {
            self.ahead += 1;
        }
        self.second_pass += u64::from(returned());
    }
}

#[cfg(test)]
mod tests {
    use pawl_actors::ledger::{Parking, Rewind, parked_row, parked_tombstone};
    use pawl_actors::record::{Millis, Offset, TimestampType};

    use super::*;

    fn sorting(key: &str) -> Sorting {
        let key = key.parse().expect("a selector");
        let bounds = KeyBounds { recent_ids: 0, max_row_bytes: 1_000 };
        Sorting { key, null_key: NullKey::Reject, bounds, partitions: 1 }
    }

    fn record(key: Option<&str>, value: &str) -> Record {
        Record {
            offset: Offset(0),
            timestamp: Millis(0),
            timestamp_type: TimestampType::NotAvailable,
            key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: Vec::new(),
        }
    }

    /// Books from 10 on, a watermark of 20, keys that have taken these offsets.
    fn taken(heads: &[(Option<&str>, Option<i64>)], sorting: &Sorting) -> Taken {
        let mut row = PartitionRow::new("id".into(), 10, 1, 0, [0; 16]);
        row.watermark = 20;
        let (mut taken, mut out) = (Taken::new(0, &row, "dlt"), BytesMut::new());
        for (key, offset) in heads {
            let key = LaneKey::from(key.map(str::as_bytes));
            let row = match offset {
                Some(offset) => Head { taken: Offset(*offset), ..Head::default() }.row(key, &mut out),
                None => Head::tombstone(key, &mut out),
            };
            taken.row(&row.key, row.value.as_deref(), sorting).expect("readable");
        }
        taken
    }

    #[test]
    fn a_record_is_in_the_books_below_the_watermark_or_where_its_key_has_taken_it() {
        let sorting = sorting("record");
        let heads = [
            (Some("a"), Some(25)),
            (Some("b"), Some(19)),
            (None, Some(22)),
            (Some("c"), Some(30)),
            (Some("c"), None),
        ];
        let taken = taken(&heads, &sorting);
        let (mut tally, mut letters) = (InputTally::default(), LetterTally::default());
        letters.close();
        let keys =
            [(10, Some("a")), (19, Some("z")), (20, Some("a")), (21, Some("b")), (22, None), (23, None)];
        for (offset, key) in keys.into_iter().chain([(24, Some("c")), (25, Some("a")), (26, Some("a"))]) {
            tally.record(offset, || record(key, ""), || key.is_none(), (&taken, &mut letters), &sorting);
        }
        assert_eq!(tally, InputTally { below: 2, ahead: 3, second_pass: 1 }, "ahead: 20, 22 and 25");
        assert_eq!((taken.began(), taken.end()), (10, 26));
        assert_eq!(taken.heads().highest, Some((30, "c".into())));
    }

    #[test]
    fn records_without_a_key_are_in_the_books_where_their_lane_has_taken_them() {
        let lanes = std::num::NonZeroU16::new(4).expect("not 0");
        let sorting = Sorting { null_key: NullKey::Spread(lanes), ..sorting("record") };
        let mut taken = taken(&[(None, Some(40))], &sorting);
        let parking = Parking { first: 0, next: 1, ..Parking::default() };
        let head = Head { taken: Offset(26), parking: Some(Box::new(parking)), ..Head::default() };
        let mut out = BytesMut::new();
        let keyless = |offset| Record { offset: Offset(offset), ..record(None, "") };
        for row in
            [head.row(LaneKey::NoKey(2), &mut out), parked_row(LaneKey::NoKey(2), 0, &keyless(26), &mut out)]
        {
            taken.row(&row.key, row.value.as_deref(), &sorting).expect("readable");
        }
        let has = |offset| taken.has(offset, || keyless(offset), &sorting);
        assert_eq!((has(22), has(26), has(30)), (true, true, false), "the lane has taken 26");
        assert_eq!((has(23), has(24), has(25)), (false, false, false), "other lanes have taken nothing");
        let heads = taken.heads();
        assert_eq!((heads.parked, heads.unparked, heads.misplaced), (1, 0, None), "no partitioner placed it");
    }

    #[test]
    fn parked_rows_are_counted_by_the_heads_that_name_them() {
        let sorting = sorting("record");
        let mut taken = taken(&[(Some("b"), Some(25))], &sorting);
        let mut out = BytesMut::new();
        let record = record(Some("a"), "1");
        for number in [0, 1, 4] {
            let row = parked_row(LaneKey::Key(b"a"), number, &record, &mut out);
            taken.row(&row.key, row.value.as_deref(), &sorting).expect("readable");
        }
        let row = parked_tombstone(LaneKey::Key(b"a"), 0, &mut out);
        taken.row(&row.key, row.value.as_deref(), &sorting).expect("readable");
        let parking = Parking { first: 1, next: 4, ..Parking::default() };
        let head = Head { taken: Offset(30), parking: Some(Box::new(parking)), ..Head::default() };
        let row = head.row(LaneKey::Key(&b"a"[..]), &mut out);
        taken.row(&row.key, row.value.as_deref(), &sorting).expect("readable");
        let heads = taken.heads();
        assert_eq!((heads.parked, heads.unparked), (3, 2), "row 1 is there, 2 and 3 are not, 4 is not named");
    }

    #[test]
    fn keys_are_read_where_the_settings_say() {
        let sorting = sorting("json:/id");
        let taken = taken(&[(Some("7"), Some(21)), (None, Some(22))], &sorting);
        let has = |offset, value: &str| taken.has(offset, || record(Some("other"), value), &sorting);
        assert!(has(20, r#"{"id":7}"#) && has(21, r#"{"id":"7"}"#) && !has(22, r#"{"id":7}"#));
        assert!(has(22, "not json") && !has(23, "{}"), "the lane of records without a usable key");
    }

    #[test]
    fn a_key_in_a_foreign_partition_is_noticed_where_the_records_key_decides() {
        let three = |key: &str| Sorting { partitions: 3, ..sorting(key) };
        let other = (0..).map(|n| n.to_string()).find(|key| java_partition(key.as_bytes(), 3) != 0);
        let other = other.expect("some key");
        let heads = [(Some(other.as_str()), Some(3))];
        assert_eq!(taken(&heads, &three("record")).heads().misplaced, Some(other.clone()));
        assert_eq!(taken(&heads, &three("json:/id")).heads().misplaced, None);
    }

    #[test]
    fn letters_are_counted_by_their_originals() {
        let sorting = sorting("record");
        let taken = taken(&[(Some("a"), Some(25))], &sorting);
        let mut letters = LetterTally::default();
        let mut take = |here, offset| {
            letters.letter(Origin { letter: 0, here, offset }, || record(Some("a"), ""), &taken, &sorting);
        };
        for offset in [9, 12, 15, 15, 25, 26, 40] {
            take(true, offset);
        }
        take(false, 12);
        letters.close();
        let mut tally = InputTally::default();
        for offset in [15, 25] {
            tally.record(offset, || record(Some("a"), ""), || false, (&taken, &mut letters), &sorting);
        }
        let expected = Letters {
            low: 3,
            tied: 4,
            distinct: 3,
            missing: 1,
            first_missing: Some(12),
            beyond: 2,
            first_beyond: Some(26),
            before: 1,
            elsewhere: 1,
        };
        assert_eq!(letters.finish(10, 3), expected);
    }

    #[test]
    fn originals_that_retention_removed_are_not_missed() {
        let sorting = sorting("record");
        let taken = taken(&[], &sorting);
        let mut letters = LetterTally::default();
        letters.letter(Origin { letter: 0, here: true, offset: 12 }, || record(None, ""), &taken, &sorting);
        letters.close();
        assert_eq!(letters.finish(13, 0).missing, 0);
    }

    #[test]
    fn what_is_older_than_a_rewind_counts_only_as_far_as_it_still_does() {
        let sorting = sorting("record");
        let mut row = PartitionRow::new("id".into(), 20, 1, 0, [0; 16]);
        row.watermark = 20;
        let letters_id = String::from("dlt");
        row.rewinds.push(Rewind { number: 1, to: 20, reset: true, letters: 5, letters_id, parked: 1 });
        let (mut taken, mut out) = (Taken::new(0, &row, "dlt"), BytesMut::new());
        let parking = Parking { next: 2, ..Parking::default() };
        let older = Head { taken: Offset(30), parking: Some(Box::new(parking)), ..Head::default() };
        let newer = Head { taken: Offset(25), rewound: 1, ..Head::default() };
        let parked = |number, offset| {
            let record = Record { offset: Offset(offset), ..record(Some("a"), "1") };
            parked_row(LaneKey::Key(&b"a"[..]), number, &record, &mut BytesMut::new())
        };
        let heads =
            [older.row(LaneKey::Key(&b"a"[..]), &mut out), newer.row(LaneKey::Key(&b"b"[..]), &mut out)];
        for row in heads.into_iter().chain([parked(0, 19), parked(1, 21)]) {
            taken.row(&row.key, row.value.as_deref(), &sorting).expect("readable");
        }
        let has = |offset, key| taken.has(offset, || record(Some(key), ""), &sorting);
        assert!(!has(21, "a") && has(25, "b") && !has(26, "b"));
        let heads = taken.heads();
        assert_eq!((heads.parked, heads.unparked), (1, 0), "the second row is no matter any more");
        assert_eq!(heads.highest, Some((25, "b".into())));
        let mut letters = LetterTally::default();
        for (letter, offset) in [(4, 25), (5, 25), (6, 12)] {
            let origin = Origin { letter, here: true, offset };
            letters.letter(origin, || record(Some("b"), ""), &taken, &sorting);
        }
        letters.close();
        let letters = letters.finish(20, 0);
        assert_eq!((letters.before, letters.tied), (1, 2), "that of a record that was parked is among them");
    }
}
