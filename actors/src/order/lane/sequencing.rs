//! How a lane orders its records by the producers' own numbers, where it is told to: what comes early waits
//! until all before it are there. Behind that the lane is like any other: a record whose turn has come may fail,
//! wait, or follow into the dead-letter topic.
//!
//! The taken offset says that everything below it is finished or lies in rows. A record may finish before an
//! earlier one of the input here, so whatever lies below gets a row in the same epoch ([`Lane::uncovered`]).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;

use super::{Hold, Lane, State, Taken};
use crate::ledger::{Row, Sequence, early_number, parked_row};
use crate::outcome::{Failure, code};
use crate::partition::Receipt;
use crate::record::{Millis, Offset};

/// What of a lane's sequence is not durable.
#[derive(Debug, Default)]
pub struct Sequencer {
    /// The next number that the lane may work on.
    admitted: i64,
    early: BTreeMap<i64, Taken>,
    /// The missing number that the head says the time of, if this owner has looked.
    noted: Option<i64>,
    /// Whether the missing number keeps the partition standing still.
    halted: bool,
}

impl Lane {
    /// Orders the lane by numbers that begin at `first` for a key of which nothing is known.
    pub fn sequenced(mut self, first: i64, early: Vec<Taken>) -> Self {
        let next = self.head.sequence.get_or_insert_with(|| Box::new(Sequence::from(first))).next;
        let mut sequencer = Sequencer { admitted: next, ..Sequencer::default() };
        for taken in self.current.iter_mut().chain(&mut self.queue) {
            taken.in_sequence = taken.sequence == Some(sequencer.admitted);
            sequencer.admitted += i64::from(taken.in_sequence);
        }
        sequencer.early = early.into_iter().filter_map(|taken| Some((taken.sequence?, taken))).collect();
        self.sequencer = Some(Box::new(sequencer));
        self.admit();
        self
    }

    /// Whether the lane goes by numbers.
    pub fn is_sequenced(&self) -> bool {
        self.sequencer.is_some()
    }

    /// Takes a numbered record: `None` if it came early and waits, else it goes on to the queue.
    pub(super) fn sort_in(&mut self, mut taken: Taken) -> Option<Taken> {
        let (Some(number), Some(sequencer)) = (taken.sequence, &mut self.sequencer) else {
            return Some(taken);
        };
        if number == sequencer.admitted {
            sequencer.admitted += 1;
            taken.in_sequence = true;
            return Some(taken);
        }
        // One that comes twice is looked at when its turn comes.
        if number < sequencer.admitted || sequencer.early.contains_key(&number) {
            return Some(taken);
        }
        sequencer.early.insert(number, taken.detached());
        None
    }

    /// Moves what has all before it to the queue.
    pub(super) fn admit(&mut self) {
        let Some(sequencer) = &mut self.sequencer else { return };
        while let Some(mut taken) = sequencer.early.remove(&sequencer.admitted) {
            sequencer.admitted += 1;
            taken.in_sequence = true;
            self.queue.push_back(taken);
        }
    }

    /// What a record is that is not in sequence when its turn comes: `None`, it came twice; else why it is a
    /// dead letter.
    pub(super) fn out_of_sequence(&self, taken: &Taken) -> Option<Option<Failure>> {
        let number = taken.sequence.filter(|_| !taken.in_sequence && !taken.hold.is_letter())?;
        let late = self.head.sequence.as_ref().is_some_and(|sequence| sequence.was_skipped(number));
        Some(late.then(|| {
            Failure::permanent(
                code::SEQUENCE_LATE,
                format!("number {number} comes after its gap was given up"),
            )
        }))
    }

    /// Why a record is a dead letter that stands behind a gap.
    pub(super) fn condemned(&self, taken: &Taken) -> Option<Failure> {
        let sequence = self.head.sequence.as_ref().filter(|_| taken.in_sequence)?;
        let (first, last) = sequence.skipped.last().filter(|_| sequence.condemned == taken.sequence)?;
        let numbers =
            if first == last { format!("number {first}") } else { format!("numbers {first} to {last}") };
        let message = format!("{numbers} of its sequence did not come in time");
        taken.sequence.map(|_| Failure::permanent(code::SEQUENCE_GAP, message))
    }

    /// An operator lets the record behind a gap be tried.
    pub(super) fn pardon(&mut self) {
        if let Some(sequence) = &mut self.head.sequence {
            sequence.condemned = None;
        }
    }

    /// A record is finished: its number is done.
    pub(super) fn number_is_done(&mut self, done: &Taken) {
        let Some(sequence) = self.head.sequence.as_mut().filter(|_| self.sequencer.is_some()) else { return };
        let (Some(number), true) = (done.sequence, done.in_sequence) else { return };
        sequence.next = sequence.next.max(number + 1);
        sequence.condemned.take_if(|condemned| *condemned == number);
        if let Hold::Early { .. } = done.hold {
            sequence.early_is_gone(number);
        }
    }

    /// How many records wait for a missing number.
    pub fn early(&self) -> usize {
        self.sequencer.as_ref().map_or(0, |sequencer| sequencer.early.len())
    }

    /// The next early record that may have a row and has none, with the row: everything below it in the input
    /// is finished or has one.
    pub fn early_row(&self, out: &mut BytesMut) -> Option<(i64, Row)> {
        let sequencer = self.sequencer.as_ref()?;
        let unfinished = self.current.iter().chain(&self.queue).filter(|taken| taken.hold.is_intake());
        let below = unfinished.map(|taken| taken.record.offset).min().unwrap_or(Offset(i64::MAX));
        let waiting = sequencer.early.iter().filter(|(_, taken)| taken.hold.is_intake());
        let (number, taken) = waiting.min_by_key(|(_, taken)| taken.record.offset)?;
        let row = || parked_row(self.key.as_deref(), early_number(*number), &taken.record, out);
        (taken.record.offset < below).then(row).map(|row| (*number, row))
    }

    /// The early record of this number lies in its row now: what held the watermark is returned.
    pub fn shelve_early(&mut self, number: i64, row_bytes: u32) -> Option<Receipt> {
        let taken = self.sequencer.as_mut()?.early.get_mut(&number)?;
        let Hold::Intake(receipt) = taken.hold else { return None };
        taken.hold = Hold::Early { bytes: row_bytes };
        self.head.taken = self.head.taken.max(taken.record.offset);
        self.head.sequence.as_mut()?.early_has_row(number);
        Some(receipt)
    }

    /// How many records that came early have rows.
    pub fn early_rows(&self) -> usize {
        self.head.sequence.as_ref().map_or(0, |sequence| sequence.early.len())
    }

    /// Whether an early record lies below the taken offset, so that it needs its row in this epoch.
    pub fn must_shelve_early(&self, number: i64) -> bool {
        let early = self.sequencer.as_ref().and_then(|sequencer| sequencer.early.get(&number));
        early.is_some_and(|taken| taken.record.offset < self.head.taken)
    }

    /// Whether a record that is neither finished nor in a row lies below the taken offset: the lane's rows have to
    /// reach up to it before the epoch closes.
    pub fn uncovered(&self) -> bool {
        let below = |taken: &Taken| taken.hold.is_intake() && taken.record.offset < self.head.taken;
        self.is_sequenced() && self.current.iter().chain(&self.queue).any(below)
    }

    /// The number that is missing, where nothing else is to be done before it, and the lowest that waits.
    pub fn gap(&self) -> Option<(i64, i64)> {
        let sequencer = self.sequencer.as_ref()?;
        let (lowest, _) = sequencer.early.first_key_value()?;
        let free = self.is_empty_of_records() && self.state == State::Idle && !self.head.paused;
        free.then_some((sequencer.admitted, *lowest))
    }

    /// Notes since when a number is missing, or that none is; `true` if that changed. A new owner does not end a
    /// wait that is over before it has read what came meanwhile: it waits once more.
    pub fn note_gap(&mut self, now: Millis, timeout: Duration) -> bool {
        let sequencer = self.sequencer.as_ref();
        let missing = sequencer.filter(|it| !it.early.is_empty()).map(|it| it.admitted);
        let (Some(sequence), Some(sequencer)) = (&mut self.head.sequence, &mut self.sequencer) else {
            return false;
        };
        let noted = std::mem::replace(&mut sequencer.noted, missing);
        let since = match missing {
            None => 0,
            Some(_) if sequence.gap_since == 0 || noted.is_some_and(|noted| Some(noted) != missing) => now.0,
            Some(_) if noted.is_none() && age(now, sequence.gap_since) >= timeout => now.0,
            Some(_) => sequence.gap_since,
        };
        std::mem::replace(&mut sequence.gap_since, since) != since
    }

    /// How long the missing number has been missing.
    pub fn gap_age(&self, now: Millis) -> Option<Duration> {
        let since =
            self.head.sequence.as_ref().map(|sequence| sequence.gap_since).filter(|since| *since != 0)?;
        self.gap().map(|_| age(now, since))
    }

    /// Gives the missing numbers up, up to the lowest that waits; if that one is `condemned`, it becomes a dead
    /// letter, whoever owns the partition then. How many numbers it were.
    pub fn skip_gap(&mut self, condemned: bool) -> Option<i64> {
        let (missing, lowest) = self.gap()?;
        let sequencer = self.sequencer.as_mut()?;
        (sequencer.admitted, sequencer.halted) = (lowest, false);
        if let Some(sequence) = &mut self.head.sequence {
            sequence.skip_to(lowest);
            sequence.gap_since = 0;
            sequence.condemned = condemned.then_some(lowest);
        }
        self.admit();
        Some(lowest - missing)
    }

    /// The missing number keeps the partition standing still.
    pub fn halt_at_gap(&mut self) {
        if let Some(sequencer) = &mut self.sequencer {
            sequencer.halted = true;
        }
    }

    /// A missing number may be waited for anew; `false` if it kept nothing standing still.
    pub fn wait_for_gap_again(&mut self, now: Millis) -> bool {
        let halted = self.sequencer.as_mut().is_some_and(|sequencer| std::mem::take(&mut sequencer.halted));
        if let Some(sequence) = self.head.sequence.as_mut().filter(|_| halted) {
            sequence.gap_since = now.0;
        }
        halted
    }

    /// Whether a missing number keeps the partition standing still.
    pub fn is_halted_at_gap(&self) -> bool {
        self.sequencer.as_ref().is_some_and(|sequencer| sequencer.halted)
    }
}

fn age(now: Millis, since: i64) -> Duration {
    Duration::from_millis(u64::try_from(now.0.saturating_sub(since)).unwrap_or(0))
}
