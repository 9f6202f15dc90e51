//! How a lane that waits for a retry goes into the ledger: its record and those behind it become parked
//! rows, so that the partition's offset can pass them.

use std::cell::RefCell;
use std::time::Duration;

use bytes::BytesMut;

use super::{LaneCell, OrderActor, Shelved};
use crate::clock;
use crate::ledger::{LaneKey, Row};
use crate::outcome::{Failure, code};
use crate::partition::PartitionState;
use crate::policy::{Overflow, ParkingBounds};
use crate::supervisor::Disposition;

impl OrderActor {
    /// The verdict on an attempt is to wait for attempt `next`; `true` if the lane is free for its next record
    /// all the same.
    pub(super) fn park(&mut self, attempt: u32, next: u32, delay: Duration) -> bool {
        if !self.partition.borrow().may_end() {
            return false;
        }
        let cause = self.failure.take().map_or_else(String::new, |failure| failure.message);
        if self.cell.lane.borrow().current_letter().is_some() && self.partition.borrow().is_replay_stopping()
        {
            // It is not waited for any more.
            return self.drop_letters();
        }
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        if !self.cell.lane.borrow_mut().park(attempt, next, clock::now(), delay_ms, &cause) {
            return false;
        }
        self.set_waiting(true);
        if self.cell.lane.borrow().parked_records() > 0 {
            self.head_changed();
        }
        self.shelve()
    }

    /// A replay was stopped while a letter of it was at the handler: what is left of it stays where it lies.
    fn drop_letters(&mut self) -> bool {
        self.cell.lane.borrow_mut().wait_for_drop();
        let letters = self.cell.lane.borrow_mut().stop_replay();
        self.partition.borrow_mut().letters_dropped(&letters);
        self.head_changed();
        true
    }

    /// Writes rows for what the lane holds without one, while it waits for a retry; `true` if there is no
    /// room for one, and the lane is free because of that.
    pub(super) fn shelve(&mut self) -> bool {
        let free = self.shelve_queue();
        // What came early may lie below a record that has a row now: a repeat waits in the queue.
        self.cover();
        free
    }

    fn shelve_queue(&mut self) -> bool {
        let mut out = BytesMut::new();
        loop {
            let Some(row) = self.cell.lane.borrow().parked_row(&mut out) else {
                self.cell.overflows.replace(None);
                return false;
            };
            let bytes = row.value.as_ref().map_or(0, bytes::Bytes::len);
            let row_bytes = row.key.len() + bytes;
            if row_bytes > self.pipeline.policy.max_row_bytes {
                return self.too_large(row_bytes);
            }
            let early = self.cell.lane.borrow().unparked().is_some_and(|taken| taken.hold.is_early());
            if let Some(why) = self.has_no_room(bytes as u64, early) {
                return self.overflow(why);
            }
            self.shelve_next(row, bytes);
        }
    }

    /// The next record that has none gets its row.
    fn shelve_next(&self, row: Row, bytes: usize) {
        shelve_next(&self.cell, &self.partition, row, bytes);
        self.note_change();
    }

    /// See [`cover`]. What came early gets its row as soon as it may, and as there is room.
    pub(super) fn cover(&self) {
        if !self.cell.lane.borrow().is_sequenced() {
            return;
        }
        let mut shelved = cover(&self.cell, &self.partition);
        let mut out = BytesMut::new();
        let most = self.pipeline.policy.sequence.as_ref().map_or(0, |policy| policy.max_waiting);
        // Those that must have a row have one now.
        loop {
            let next = self.cell.lane.borrow().early_row(&mut out);
            let Some((number, row)) = next else { break };
            let bytes = row.value.as_ref().map_or(0, bytes::Bytes::len);
            if let Some(why) = self.has_no_room(bytes as u64, false) {
                self.cell.overflows.replace(Some(why));
                break;
            }
            if self.cell.lane.borrow().early_rows() > most {
                // With so many the wait is over as soon as the lane is free.
                break;
            }
            shelve_early(&self.cell, &self.partition, number, row, bytes);
            shelved = true;
        }
        if shelved {
            self.note_change();
        }
    }

    /// A record that no row can hold. Where others wait before it, giving up the first of them would not help it.
    fn too_large(&mut self, row_bytes: usize) -> bool {
        let takes = self.pipeline.policy.max_row_bytes;
        let why = format!("a record's row has {row_bytes} bytes, the changelog takes {takes}");
        if self.cell.lane.borrow().parked_records() > 0 {
            self.cell.overflows.replace(Some(why));
            return false;
        }
        self.overflow(why)
    }

    /// Why a row of so many bytes finds no room; `early`: it takes the place of another one.
    fn has_no_room(&self, bytes: u64, early: bool) -> Option<String> {
        let policy = &self.pipeline.policy;
        let (lane, bounds) = (self.cell.lane.borrow(), &policy.parking.lane);
        let ParkingBounds { records: most, bytes: most_bytes } = policy.parking.partition;
        if lane.parked_records() >= bounds.records {
            Some(format!("{} records of its key are parked already", bounds.records))
        } else if lane.parked_bytes() + bytes > bounds.bytes {
            Some(format!("records of its key with {} bytes are parked already", lane.parked_bytes()))
        } else if !early && !self.partition.borrow().has_room(bytes, &policy.parking.partition) {
            Some(format!("the partition has parked {most} records or {most_bytes} bytes already"))
        } else {
            None
        }
    }

    fn overflow(&mut self, why: String) -> bool {
        // In an outage nothing is given up, nor while somebody looks after the key.
        let outage = self.pipeline.breaker.borrow().is_open();
        let paused = self.cell.lane.borrow().is_paused();
        if outage || paused || self.pipeline.policy.parking.overflow == Overflow::PauseIntake {
            self.cell.overflows.replace(Some(why));
            return false;
        }
        let cause =
            self.cell.lane.borrow().parking().map_or_else(String::new, |parking| parking.cause.clone());
        let Some(attempt) = self.cell.lane.borrow_mut().give_up_waiting() else { return false };
        self.set_waiting(false);
        let message = format!("{cause}; there is no room to wait for another attempt: {why}");
        self.failure = Some(Box::new(Failure::permanent(code::OVERFLOW, message)));
        self.dead_letter(attempt, Disposition::Exhausted)
    }
}

/// Where numbers order a lane, what finished may lie behind what did not in the input: whatever lies below gets a row in
/// the same epoch, whether there is room or not. Belongs to every turn in which a record was finished or got a row. `true`
/// if there was something to do.
pub fn cover(cell: &LaneCell, partition: &RefCell<PartitionState>) -> bool {
    let (mut out, mut covered) = (BytesMut::new(), false);
    loop {
        let row = Some(()).filter(|()| cell.lane.borrow().uncovered());
        let row = row.and_then(|()| cell.lane.borrow().parked_row(&mut out));
        if let Some(row) = row {
            let bytes = row.value.as_ref().map_or(0, bytes::Bytes::len);
            shelve_next(cell, partition, row, bytes);
        } else {
            let next = cell.lane.borrow().early_row(&mut out);
            let must = |number: &i64| cell.lane.borrow().must_shelve_early(*number);
            let Some((number, row)) = next.filter(|(number, _)| must(number)) else { return covered };
            let bytes = row.value.as_ref().map_or(0, bytes::Bytes::len);
            shelve_early(cell, partition, number, row, bytes);
        }
        covered = true;
    }
}

fn shelve_next(cell: &LaneCell, partition: &RefCell<PartitionState>, row: Row, bytes: usize) {
    let shelved = cell.lane.borrow_mut().shelve(u32::try_from(bytes).unwrap_or(u32::MAX));
    let Some(shelved) = shelved else { return };
    partition.borrow_mut().parked(cell.lane.borrow().key.as_deref(), shelved, row);
}

fn shelve_early(cell: &LaneCell, partition: &RefCell<PartitionState>, number: i64, row: Row, bytes: usize) {
    let row_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let receipt = cell.lane.borrow_mut().shelve_early(number, row_bytes);
    let Some(receipt) = receipt else { return };
    partition.borrow_mut().parked(LaneKey::Unusable, Shelved::Taken(receipt), row);
}
