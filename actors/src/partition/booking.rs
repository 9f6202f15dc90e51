//! What became of a partition's records, as its share of the open epoch and its books have it.

use bytes::{Bytes, BytesMut};

use super::replay::{Fate, Replay};
use super::state::{PartitionState, Receipt, Shelf, Tally};
use crate::effects::Emit;
use crate::epoch::{Effect, Letter};
use crate::ledger::{Books, LaneKey, ReplayRow, Row, early_number, parked_tombstone};
use crate::order::{Discarded, Hold, Shelved, Taken};
use crate::policy::ParkingBounds;
use crate::record::Offset;

impl PartitionState {
    /// A record whose result was durable already: counted nowhere.
    pub fn redelivered(&mut self, receipt: Receipt) {
        self.share.tally.redelivered += 1;
        self.finish(receipt);
    }

    /// A record of a lane took effect.
    pub fn applied(&mut self, lane: LaneKey<&[u8]>, done: &Taken, emits: Vec<Emit>) {
        let hold = done.hold;
        let foreign = self.is_foreign(hold);
        if foreign {
            self.share.tally.books.foreign += 1;
        } else {
            self.share.tally.books.applied += 1;
        }
        self.share.written_bytes += emits.iter().map(|emit| emit.size() as u64).sum::<u64>();
        // Another group's letter has an offset of another topic, perhaps.
        let of = (!foreign).then_some(done.record.offset);
        self.share.emits.extend(emits.into_iter().map(|emit| Effect { of, emit }));
        self.book(lane, hold, done.sequence, Fate::Applied);
    }

    /// A record of a lane was a producer's duplicate.
    pub fn duplicate(&mut self, lane: LaneKey<&[u8]>, hold: Hold, number: Option<i64>) {
        if !self.is_foreign(hold) {
            self.share.tally.books.duplicates += 1;
        }
        self.book(lane, hold, number, Fate::Duplicate);
    }

    /// A record of a lane was given up by an operator.
    pub fn skipped(&mut self, lane: LaneKey<&[u8]>, done: &Taken) {
        self.share.tally.books.skipped += 1;
        self.book(lane, done.hold, done.sequence, Fate::Dropped);
    }

    /// Dead letters were given up by an operator.
    pub fn discarded(&mut self, letters: Discarded) {
        self.share.tally.books.discarded += letters.booked;
        self.share.tally.redeemed += letters.booked;
    }

    /// Dead letters are gone from their topic.
    pub fn lost_letters(&mut self, letters: Discarded) {
        self.share.tally.books.lost_letters += letters.booked;
        self.share.tally.redeemed += letters.booked;
    }

    /// A command was carried out, or refused: commands are read from `next` on, and this is the answer.
    pub fn commanded(&mut self, next: i64, answer: Option<Emit>) {
        self.row.commands = self.row.commands.max(next);
        self.share.emits.extend(answer.map(|emit| Effect { of: None, emit }));
    }

    /// An answer to a command that is under way.
    pub fn answer(&mut self, answer: Emit) {
        self.share.emits.push(Effect { of: None, emit: answer });
    }

    /// Commands are read from here on.
    pub fn commands(&self) -> i64 {
        self.row.commands
    }

    /// The replay that the last owner left unfinished.
    pub fn unfinished_replay(&self) -> Option<&ReplayRow> {
        self.row.replay.as_ref()
    }

    /// A letter failed again, and those of its key that were in the lane behind it are left where they lie.
    pub fn letter_failed(&mut self, lane: LaneKey<&[u8]>, letters: &[i64], why: String) {
        let Some(replay) = &mut self.replay else { return };
        for (n, letter) in letters.iter().enumerate() {
            replay.finish(*letter, if n == 0 { Fate::Failed } else { Fate::Dropped });
        }
        replay.trouble(why);
        replay.leave(&lane.map(Bytes::copy_from_slice));
    }

    /// Letters are left where they lie: their replay was stopped.
    pub fn letters_dropped(&mut self, letters: &[i64]) {
        if let Some(replay) = &mut self.replay {
            for letter in letters {
                replay.finish(*letter, Fate::Dropped);
            }
        }
    }

    /// Whether a replay is under way, and no further letter of it begins.
    pub fn is_replay_stopping(&self) -> bool {
        self.replay.as_ref().is_some_and(Replay::is_stopping)
    }

    /// The replay is over, and need not be gone on with.
    pub fn end_replay(&mut self) -> Option<Replay> {
        self.row.replay = None;
        self.replay.take()
    }

    /// Offset of the first record that the books know.
    pub fn began(&self) -> i64 {
        self.row.began
    }

    /// Whether a dead letter of the own group belongs to older books.
    pub fn letter_is_older(&self, letter: i64, original: Offset, letters_id: &str) -> bool {
        self.row.rewinds.letter_is_older(letter, original.0, self.row.began, letters_id)
    }

    /// All letters of a key are dealt with.
    pub fn key_is_live(&mut self, lane: LaneKey<&[u8]>) {
        if let Some(replay) = &mut self.replay {
            replay.leave(&lane.map(Bytes::copy_from_slice));
        }
    }

    fn is_foreign(&self, hold: Hold) -> bool {
        match (hold, &self.replay) {
            (Hold::Letter { offset, .. }, Some(replay)) => replay.was_foreign(offset),
            _ => false,
        }
    }

    /// A record of a lane goes to the dead-letter topic.
    pub fn dead_lettered(&mut self, lane: LaneKey<&[u8]>, done: &Taken, letter: Letter) {
        self.share.tally.books.dead_lettered += 1;
        self.share.written_bytes += letter.emit.size() as u64;
        self.share.letters.push(letter);
        self.book(lane, done.hold, done.sequence, Fate::Failed);
    }

    /// Whether `bounds` leave room for one more parked row of so many bytes.
    pub fn has_room(&self, bytes: u64, bounds: &ParkingBounds) -> bool {
        self.parked.records < bounds.records && self.parked.bytes + bytes <= bounds.bytes
    }

    /// A record goes into a parked row: the partition's offset may pass it.
    pub fn parked(&mut self, lane: LaneKey<&[u8]>, from: Shelved, row: Row) {
        let bytes = row.value.as_ref().map_or(0, |value| value.len() as u64);
        self.share.written_bytes += bytes;
        self.share.rows.push(row);
        match from {
            Shelved::Taken(receipt) => {
                self.share.tally.books.received += 1;
                self.share.tally.books.parked += 1;
                self.shelf_grows(bytes);
                self.finish(receipt);
            }
            Shelved::Early { number, bytes: early } => {
                let number = early_number(number);
                self.share.unparked.push(parked_tombstone(lane, number, &mut BytesMut::new()));
                self.parked.bytes = self.parked.bytes + bytes - u64::from(early);
                self.show_shelf();
            }
        }
    }

    /// A parked row is there.
    pub fn shelf_grows(&mut self, bytes: u64) {
        self.parked.records += 1;
        self.parked.bytes += bytes;
        self.show_shelf();
    }

    /// All parked rows are there: the books follow them, should they say something else. They may after a
    /// crash with `at-least-once`, which writes rows before it counts them.
    pub fn recount_parked(&mut self) {
        let (partition, books, found) = (self.partition().0, &mut self.row.books, self.parked.records);
        if books.parked != found {
            tracing::warn!(partition, booked = books.parked, found, "the books follow the parked rows");
            books.received = (books.received + found).saturating_sub(books.parked);
            books.parked = found;
        }
    }

    /// What lies in parked rows.
    pub fn shelf(&self) -> Shelf {
        self.parked
    }

    fn show_shelf(&self) {
        self.stats.parked_records.set(self.parked.records as i64);
        self.stats.parked_bytes.set(self.parked.bytes as i64);
    }

    fn book(&mut self, lane: LaneKey<&[u8]>, hold: Hold, sequence: Option<i64>, fate: Fate) {
        match hold {
            Hold::Early { bytes } => {
                let number = early_number(sequence.unwrap_or_default());
                self.unpark(lane, number, bytes);
            }
            Hold::Intake(receipt) => {
                self.share.tally.books.received += 1;
                self.finish(receipt);
            }
            Hold::Row { number, bytes } => {
                self.unpark(lane, number, bytes);
            }
            Hold::Letter { offset, .. } => {
                if !self.is_foreign(hold) {
                    self.share.tally.books.replayed += 1;
                    self.share.tally.redeemed += 1;
                }
                if let Some(replay) = &mut self.replay {
                    replay.finish(offset, fate);
                }
            }
        }
    }

    fn unpark(&mut self, lane: LaneKey<&[u8]>, number: u64, bytes: u32) {
        self.share.tally.unparked += 1;
        self.share.unparked.push(parked_tombstone(lane, number, &mut BytesMut::new()));
        self.parked.records -= 1;
        self.parked.bytes -= u64::from(bytes);
        self.show_shelf();
    }

    fn finish(&mut self, receipt: Receipt) {
        self.share.tally.records += 1;
        self.share.tally.bytes += u64::from(receipt.bytes);
        self.watermark.finish(receipt.ticket);
    }
}

pub(super) fn add(books: &mut Books, tally: &Tally) {
    let more = &tally.books;
    books.received += more.received;
    books.applied += more.applied;
    books.duplicates += more.duplicates;
    books.parked = books.parked + more.parked - tally.unparked;
    books.discarded += more.discarded;
    books.lost_letters += more.lost_letters;
    books.skipped += more.skipped;
    books.replayed += more.replayed;
    books.foreign += more.foreign;
    // Without transactions a crash may leave letters in the topic that no books know, and letters may be
    // older than the ledger: they are received now.
    books.dead_lettered += more.dead_lettered;
    books.received += tally.redeemed.saturating_sub(books.dead_lettered);
    books.dead_lettered = books.dead_lettered.saturating_sub(tally.redeemed);
}
