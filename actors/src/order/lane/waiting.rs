//! A lane that waits for a retry, and what of it lies in parked rows.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::BytesMut;

use super::{Hold, Lane, State, Taken, Turn};
use crate::ledger::{Head, LaneKey, Parking, Row, parked_row};
use crate::partition::Receipt;
use crate::record::{Millis, Offset};

/// Where a record was before it got its place among the parked rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelved {
    /// It held the watermark.
    Taken(Receipt),
    /// It lay in the row of one that came early.
    Early {
        /// Its number.
        number: i64,
        /// Bytes of that row.
        bytes: u32,
    },
}

impl Lane {
    /// A lane that waits for a retry, with the records of all the rows that its head names.
    pub fn parked(key: impl Into<LaneKey<Rc<[u8]>>>, head: Head, mut records: VecDeque<Taken>) -> Self {
        let attempt = head.parking.as_ref().map_or(1, |parking| parking.attempt);
        let current = records.pop_front();
        let bytes = |taken: &Taken| match taken.hold {
            Hold::Row { bytes, .. } => u64::from(bytes),
            Hold::Intake(_) | Hold::Early { .. } | Hold::Letter { .. } => 0,
        };
        Lane {
            state: State::Parked { attempt },
            next_row: head.parking.as_ref().map_or(0, |parking| parking.next),
            parked_bytes: current.iter().chain(&records).map(bytes).sum(),
            current,
            queue: records,
            ..Lane::new(key, Some(head))
        }
    }

    /// The verdict on an attempt is to make attempt `next` after `delay_ms`; `false` if nothing waits for
    /// this verdict. What is to be durable of it is for [`Lane::shelve`].
    pub fn park(&mut self, attempt: u32, next: u32, now: Millis, delay_ms: u64, cause: &str) -> bool {
        if self.state != (State::Judged { attempt }) {
            return false;
        }
        self.state = State::Parked { attempt: next };
        self.current = self.current.take().map(Taken::detached);
        self.parking_mut().wait(next, now, delay_ms, cause);
        true
    }

    /// Attempts of a record do not count after all: it waits for this one instead, or for a place to make it
    /// in. `false` if it waits for neither, or for none that is later.
    pub fn give_back(&mut self, offset: Offset, attempt: u32, waits_for_place: bool) -> bool {
        let current = self.current.as_ref().is_some_and(|taken| taken.record.offset == offset);
        let given = match self.state {
            State::Parked { attempt: later } if later > attempt => State::Parked { attempt },
            State::InFlight { attempt: later } if later > attempt && waits_for_place => {
                State::InFlight { attempt }
            }
            _ => return false,
        };
        if current {
            self.state = given;
            self.parking_mut().give_back(attempt);
        }
        current
    }

    /// The lane waits no longer: a verdict on the attempt that failed last is due again. Which one that
    /// was, 1 if it was given back; `None` if it does not wait.
    pub fn give_up_waiting(&mut self) -> Option<u32> {
        let failed = self.waits_for()?.saturating_sub(1).max(1);
        self.state = State::Judged { attempt: failed };
        Some(failed)
    }

    /// What is known of the wait of the current record. A letter has no row, so it says nothing of the rows
    /// behind it.
    pub(super) fn parking_mut(&mut self) -> &mut Parking {
        let letter = self.current.as_ref().is_some_and(|taken| taken.hold.is_letter());
        match &mut self.head.parking {
            Some(parking) if !letter => parking,
            _ => self.wait.get_or_insert_default(),
        }
    }

    /// The first record without a row, while the lane waits for a retry: its place in the queue, and before
    /// the queue the current one.
    fn unparked_at(&self) -> Option<Option<usize>> {
        let waits = matches!(self.state, State::Parked { .. });
        if !waits && !self.uncovered() {
            return None;
        }
        let rows = usize::try_from(self.parked_records()).ok()?;
        if self.letters == 0 {
            let at = match &self.current {
                Some(_) => rows.checked_sub(1),
                None => Some(rows),
            };
            return at.is_none_or(|at| at < self.queue.len()).then_some(at);
        }
        // A letter needs no row: it lies in its topic.
        let all = self.current.iter().chain(&self.queue).enumerate();
        let (at, _) = all.filter(|(_, taken)| !taken.hold.is_letter()).nth(rows)?;
        Some(if self.current.is_some() { at.checked_sub(1) } else { Some(at) })
    }

    /// The record that [`Lane::parked_row`] gives a row.
    pub fn unparked(&self) -> Option<&Taken> {
        match self.unparked_at()? {
            None => self.current.as_ref(),
            Some(at) => self.queue.get(at),
        }
    }

    /// The row for the record that [`Lane::unparked`] tells, and its bytes.
    pub fn parked_row(&self, out: &mut BytesMut) -> Option<Row> {
        Some(parked_row(self.key.as_deref(), self.next_row, &self.unparked()?.record, out))
    }

    /// The record that [`Lane::unparked`] tells lies in the row that [`Lane::parked_row`] gave: it holds
    /// the watermark no more. Where it was is returned.
    pub fn shelve(&mut self, row_bytes: u32) -> Option<Shelved> {
        let at = self.unparked_at()?;
        let current_is_parked = self.current.as_ref().is_some_and(|taken| !taken.hold.is_letter());
        let running = match self.state {
            State::InFlight { attempt } | State::Judged { attempt } if current_is_parked => attempt,
            _ => 1,
        };
        let parking = match &mut self.head.parking {
            Some(parking) => parking,
            none => {
                let wait = if current_is_parked { self.wait.take() } else { None };
                let wait = none.insert(wait.unwrap_or_default());
                wait.attempt = wait.attempt.max(running);
                (wait.first, wait.next) = (self.next_row, self.next_row);
                wait
            }
        };
        let number = parking.next;
        parking.next += 1;
        self.next_row = parking.next;
        let taken = match at {
            None => self.current.as_mut()?,
            Some(at) => self.queue.get_mut(at)?,
        };
        self.head.taken = self.head.taken.max(taken.record.offset);
        self.parked_bytes += u64::from(row_bytes);
        match std::mem::replace(&mut taken.hold, Hold::Row { number, bytes: row_bytes }) {
            Hold::Intake(receipt) => Some(Shelved::Taken(receipt)),
            Hold::Early { bytes } => {
                let number = taken.sequence?;
                self.head.sequence.as_mut()?.early_is_gone(number);
                Some(Shelved::Early { number, bytes })
            }
            Hold::Row { .. } | Hold::Letter { .. } => unreachable!("those with rows come first"),
        }
    }

    /// How many records lie in parked rows.
    pub fn parked_records(&self) -> u64 {
        self.head.parking.as_ref().map_or(0, |parking| parking.records())
    }

    /// Bytes of the parked rows.
    pub fn parked_bytes(&self) -> u64 {
        self.parked_bytes
    }

    /// What is known of the wait for a retry.
    pub fn parking(&self) -> Option<&Parking> {
        let letter = self.current.as_ref().is_some_and(|taken| taken.hold.is_letter());
        self.head.parking.as_deref().filter(|_| !letter).or(self.wait.as_deref())
    }

    /// The time of an attempt came when it could not begin: it is due at once.
    pub fn time_has_come(&mut self, offset: Offset, attempt: u32) {
        if self.waits_for() == Some(attempt) && self.waits_with() == Some(offset) {
            let parking = self.parking_mut();
            (parking.due, parking.delay) = (0, 0);
        }
    }

    /// The attempt that a waiting lane is to be woken for.
    pub fn waits_for(&self) -> Option<u32> {
        match self.state {
            State::Parked { attempt } => Some(attempt),
            _ => None,
        }
    }

    /// The time of an attempt has come; `None` if that record does not wait for it. A parked record whose turn
    /// had not come before is looked at like any other: it may be a duplicate of the one before it.
    pub fn wake(&mut self, offset: Offset, attempt: u32, oldest_ms: i64) -> Option<Turn> {
        if self.state != (State::Parked { attempt }) {
            return None;
        }
        let current = self.current.take_if(|taken| taken.record.offset == offset)?;
        self.state = State::Idle;
        Some(self.begin(current, attempt, oldest_ms))
    }
}
