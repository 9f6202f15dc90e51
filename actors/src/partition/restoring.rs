//! How the lanes that waited for a retry under the last owner wait on under this one: the same attempt,
//! due at the same time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::PartitionActor;
use crate::clock;
use crate::ledger::{
    Head, LaneKey, Parking, decode_parked, early_number, is_early, parked_at, parked_tombstone,
};
use crate::order::{Drive, Hold, Lane, Taken};
use crate::record::key_text;
use crate::supervisor::Resume;

/// A lane as the ledger has it.
struct StoredLane {
    head: Head,
    /// Those of the parked rows.
    records: VecDeque<Taken>,
    /// Those that came before the ones before them in sequence.
    early: Vec<Taken>,
    /// Whether the head names rows that a rewind took away.
    changed: bool,
}

/// The rows of a lane, by number.
type Rows = BTreeMap<u64, Bytes>;

impl PartitionActor {
    /// Starts an order actor for each lane that has parked rows. Rows that no head names are removed.
    ///
    /// # Errors
    /// When the view or a row cannot be read, or a head names a row that is not there.
    pub(super) fn restore(&mut self, parked: Vec<(Bytes, Bytes)>) -> Result<(), String> {
        let mut lanes: BTreeMap<LaneKey<Bytes>, Rows> = BTreeMap::new();
        for (row_key, value) in parked {
            let Some((lane, number)) = parked_at(&row_key) else { continue };
            lanes.entry(lane.map(|key| row_key.slice_ref(key))).or_default().insert(number, value);
        }
        let mut read = Vec::new();
        for (key, rows) in lanes {
            let key: LaneKey<Rc<[u8]>> = key.as_deref().map(Rc::from);
            if let Some(stored) = self.read_lane(key.as_deref(), rows)? {
                read.push((key, stored));
            }
        }
        // All are known to be whole before the first one begins.
        self.state.borrow_mut().recount_parked();
        for (key, stored) in read {
            self.resume(key, stored);
        }
        Ok(())
    }

    /// What the head of a lane says, and the records of all the rows that it names; `None`: it names none.
    fn read_lane(&self, key: LaneKey<&[u8]>, mut rows: Rows) -> Result<Option<StoredLane>, String> {
        let stored = self.stored_head(key)?;
        let rows_below = stored.as_ref().and_then(|(_, rows_below)| *rows_below);
        let mut head = stored.map(|(head, _)| head);
        if let (Some(head), Some(offset)) = (&mut head, rows_below) {
            Self::rewind_rows(head, &rows, offset)?;
        }
        let range = head.as_ref().and_then(|head| head.parking.as_ref());
        let range = range.map_or(0..0, |parking| parking.first..parking.next);
        let sequence = head.as_ref().and_then(|head| head.sequence.as_ref());
        let early: BTreeSet<u64> = sequence
            .iter()
            .flat_map(|sequence| &sequence.early)
            .map(|number| early_number(*number))
            .collect();
        let named = |number: &u64| range.contains(number) || early.contains(number);
        for number in rows.keys().filter(|number| !named(number)) {
            self.remove_row(key, *number);
        }
        rows.retain(|number, _| named(number));
        let there = rows.keys().filter(|number| is_early(**number)).count();
        if there != early.len() {
            return Err(early_rows_are_missing(key, early.len(), there));
        }
        let changed = rows_below.is_some();
        let waits = |head: &mut Head| changed || head.parking.is_some() || !early.is_empty();
        let Some(head) = head.take_if(waits) else { return Ok(None) };
        let parking = head.parking.clone().unwrap_or_default();
        if (rows.len() - there) as u64 != parking.records() {
            return Err(rows_are_missing(key, &parking, rows.len() - there));
        }
        let mut stored = StoredLane { head, records: VecDeque::new(), early: Vec::new(), changed };
        for (number, value) in rows {
            let taken = self.read(number, &value)?;
            if is_early(number) { stored.early.push(taken) } else { stored.records.push_back(taken) }
        }
        Ok(Some(stored))
    }

    /// Of the rows that a head names those of records below an offset count. They are its first ones: a record is
    /// parked only after all earlier ones of its key.
    fn rewind_rows(head: &mut Head, rows: &Rows, offset: i64) -> Result<(), String> {
        let Some(parking) = &head.parking else { return Ok(()) };
        let mut kept = 0;
        for value in rows.range(parking.first..parking.next).map(|(_, value)| value) {
            let record = decode_parked(value).map_err(|error| error.to_string())?;
            kept += u64::from(record.offset.0 < offset);
        }
        head.keep_parked(kept);
        Ok(())
    }

    /// Starts the order actor of a lane, and has it woken when its attempt is due.
    fn resume(&mut self, key: LaneKey<Rc<[u8]>>, stored: StoredLane) {
        let StoredLane { head, records, early, changed } = stored;
        let due = head.parking.as_ref().map(|parking| (parking.attempt, parking.left(clock::now())));
        let offset = records.front().map(|taken| taken.record.offset);
        let lane = if records.is_empty() {
            Lane::new(key.clone(), Some(head))
        } else {
            Lane::parked(key.clone(), head, records)
        };
        let live = self.enliven(self.sequenced(lane, early));
        if changed && live.cell.lane.borrow_mut().mark_changed() {
            self.state.borrow_mut().changed(live.cell.clone());
            self.pipeline.open.borrow_mut().touch(&self.state);
        }
        // What came early may have its turn now, or waits for a number whose time is running.
        live.actor.do_send(Drive);
        if let (Some(offset), Some((attempt, left))) = (offset, due) {
            let wait = Duration::from_millis(left);
            // At most one for each lane, as with failures.
            self.pipeline.supervisor.do_send(Resume { actor: live.actor.clone(), offset, attempt, wait });
        }
        self.live.insert(key, live);
    }

    fn read(&self, number: u64, value: &[u8]) -> Result<Taken, String> {
        let record = decode_parked(value).map_err(|error| error.to_string())?;
        let bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.state.borrow_mut().shelf_grows(u64::from(bytes));
        let hold = if is_early(number) { Hold::Early { bytes } } else { Hold::Row { number, bytes } };
        Ok(self.sort(record, hold).1)
    }

    fn remove_row(&self, key: LaneKey<&[u8]>, number: u64) {
        self.state.borrow_mut().write_row(parked_tombstone(key, number, &mut BytesMut::new()));
        self.pipeline.open.borrow_mut().touch(&self.state);
    }
}

/// The same of rows of records that came early.
pub(super) fn early_rows_are_missing(key: LaneKey<&[u8]>, named: usize, found: usize) -> String {
    let key = key_text(key);
    format!(
        "the ledger says that {named} records of key \"{key}\" wait for a number that is missing, but {found} of them are \
         there: something else than Pawl has deleted records of the changelog. Restore the changelog, or begin with a \
         new group"
    )
}

/// For the person who reads it: a head names rows that the changelog does not hold.
pub(super) fn rows_are_missing(key: LaneKey<&[u8]>, parking: &Parking, found: usize) -> String {
    let key = key_text(key);
    format!(
        "the ledger says that {} records of key \"{key}\" wait for a retry (rows {} to {}), but {found} of them are \
         there: something else than Pawl has deleted records of the changelog. Restore the changelog, or begin with \
         a new group",
        parking.records(),
        parking.first,
        parking.next.saturating_sub(1),
    )
}
