//! A key's lane: its bounded FIFO, its state and its head. Pure: it decides what is next and is
//! told what came of it.
//!
//! The lane is bounded by the partition's intake and by what may be parked: it can hold no more than
//! what the partition has taken in and not yet made durable, and what lies in its parked rows. Those in
//! rows come first: a record is parked only after all earlier ones of its key.

mod ordered;
mod replaying;
mod sequencing;
mod waiting;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use self::sequencing::Sequencer;
use super::Doing;
use crate::effects::StateChange;
use crate::ledger::{Head, IdMatch, LaneKey, Parking, Quarantine, RecentId, Row};
use crate::outcome::Failure;
use crate::partition::Receipt;
use crate::record::{NextOffset, Offset, Record};

pub use self::ordered::Discarded;
pub use self::waiting::Shelved;

/// What is known of a record beyond this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nothing: it holds the watermark of its partition, and is delivered again after a crash.
    Intake(Receipt),
    /// It lies in a parked row, or will with the open epoch.
    Row {
        /// The row's number.
        number: u64,
        /// Bytes of the row.
        bytes: u32,
    },
    /// It lies in the row of a record that came before those before it in sequence.
    Early {
        /// Bytes of the row.
        bytes: u32,
    },
    /// It is a dead letter that a replay hands in again.
    Letter {
        /// Where the letter lies in the dead-letter topic.
        offset: i64,
        /// Its number in the key's quarantine, if it has one.
        number: Option<u64>,
    },
}

impl Hold {
    fn is_intake(&self) -> bool {
        matches!(self, Hold::Intake(_))
    }

    /// Whether it lies in the row of one that came early.
    pub fn is_early(&self) -> bool {
        matches!(self, Hold::Early { .. })
    }

    fn is_letter(&self) -> bool {
        matches!(self, Hold::Letter { .. })
    }
}

/// A record in a lane.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// The record.
    pub record: Arc<Record>,
    /// What finishes it.
    pub hold: Hold,
    /// Its event id, hashed with its payload.
    pub id: Option<RecentId>,
    /// Its event id as the record carries it.
    pub event_id: Option<Bytes>,
    /// Why it cannot be handed to the handler, if it cannot.
    pub defect: Option<Box<Failure>>,
    /// Its number, where records are ordered by one.
    pub sequence: Option<i64>,
    /// Whether its number was the next one when the lane took it.
    pub in_sequence: bool,
}

impl Taken {
    /// The same in memory of its own, for one that stays: as it was read it shares a piece of memory
    /// with its neighbours, and would keep theirs.
    fn detached(self) -> Taken {
        let event_id = self.event_id.map(|id| Bytes::copy_from_slice(&id));
        Taken { record: Arc::new(self.record.detached()), event_id, ..self }
    }
}

/// What a lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing; the next record may begin.
    Idle,
    /// An attempt runs, or waits for a place in flight.
    InFlight { attempt: u32 },
    /// An attempt failed; the supervisor decides.
    Judged { attempt: u32 },
    /// The supervisor will wake the lane for this attempt.
    Parked { attempt: u32 },
    /// The handler ends because of its record.
    Halted,
}

/// What comes next in a lane.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing: empty, or busy.
    Wait,
    /// The record's result is already durable: finish it, count it nowhere.
    Redelivered(Receipt),
    /// A producer's duplicate: finish it.
    Duplicate {
        /// What finishes it.
        hold: Hold,
        /// Its number, where records are ordered by one.
        number: Option<i64>,
        /// The id came before with another payload: where this one lies, and the id.
        conflict: Option<(Offset, Option<Bytes>)>,
    },
    /// Hand the current record to the handler.
    Attempt(u32),
    /// The current record cannot be handed to the handler.
    Defective,
    /// The key is in quarantine, and the current record follows into the dead-letter topic.
    Follow,
    /// The same for this one, while the lane works on a letter.
    FollowPast(Box<Taken>),
    /// The key is paused, and the current record waits.
    Paused,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Lane {
    /// Which one of its partition it is.
    pub key: LaneKey<Rc<[u8]>>,
    head: Head,
    /// Whether the changelog may hold a row of this key.
    stored: bool,
    queue: VecDeque<Taken>,
    current: Option<Taken>,
    state: State,
    /// Letters of a replay among its records.
    letters: u64,
    /// Orders by the producers' numbers, where that is asked for.
    sequencer: Option<Box<Sequencer>>,
    /// What the head will say of the parked rows once there is one, or what is known of a letter that waits.
    wait: Option<Box<Parking>>,
    /// Number of the next parked row. It grows for as long as the lane lives: an epoch that removes a row
    /// must not hold another one of the same number.
    next_row: u64,
    /// Bytes of the parked rows.
    parked_bytes: u64,
    /// Whether the head changed since the last closed epoch.
    changed: bool,
    /// The last epoch that carries the head.
    carried_by: u64,
}

impl Lane {
    /// A lane with its head as the ledger has it; `stored` says whether it has one.
    pub fn new(key: impl Into<LaneKey<Rc<[u8]>>>, head: Option<Head>) -> Self {
        Lane {
            key: key.into(),
            stored: head.is_some(),
            head: head.unwrap_or_default(),
            queue: VecDeque::new(),
            current: None,
            state: State::Idle,
            letters: 0,
            sequencer: None,
            wait: None,
            next_row: 0,
            parked_bytes: 0,
            changed: false,
            carried_by: 0,
        }
    }

    /// The head is up to date with this rewind of its partition.
    pub fn knows_rewind(&mut self, number: u64) {
        self.head.rewound = number;
    }

    /// How many of its parked rows hold records below an offset.
    pub fn rows_below(&self, offset: i64) -> u64 {
        let all = self.current.iter().chain(&self.queue);
        let is_row = |taken: &&Taken| matches!(taken.hold, Hold::Row { .. });
        all.filter(is_row).filter(|taken| taken.record.offset.0 < offset).count() as u64
    }

    /// Takes a record in: it begins at once if the lane is free and `may_begin`, else it queues.
    pub fn take(&mut self, taken: Taken, may_begin: bool, oldest_ms: i64) -> Turn {
        if let Hold::Intake(receipt) = taken.hold
            && taken.record.offset <= self.head.taken
        {
            return Turn::Redelivered(receipt);
        }
        // Behind letters that are all here it waits for its turn, else it comes behind the last of them.
        // Where numbers order them it has to wait for its turn to follow.
        if self.letters > 0 && !self.is_sequenced() && !self.letters_are_all_here() {
            return Turn::FollowPast(Box::new(taken));
        }
        let Some(taken) = self.sort_in(taken) else { return Turn::Wait };
        let turn = if may_begin && self.state == State::Idle && self.queue.is_empty() {
            self.begin(taken, 1, oldest_ms)
        } else {
            self.queue.push_back(taken.detached());
            Turn::Wait
        };
        self.admit();
        turn
    }

    /// The key's state, for the handler.
    pub fn state(&self) -> Option<&Bytes> {
        self.head.state.as_ref()
    }

    /// The record at the handler, or the one that waits for a verdict or a retry.
    pub fn current(&self) -> Option<&Taken> {
        self.current.as_ref()
    }

    /// Begins the next record if the lane is free. `oldest_ms`: ids older than this are forgotten.
    pub fn turn(&mut self, oldest_ms: i64) -> Turn {
        if self.state != State::Idle {
            return Turn::Wait;
        }
        let Some(next) = self.queue.pop_front() else { return Turn::Wait };
        if self.queue.is_empty() {
            // An idle key keeps no memory for a queue.
            self.queue = VecDeque::new();
        }
        self.begin(next, 1, oldest_ms)
    }

    fn begin(&mut self, mut next: Taken, attempt: u32, oldest_ms: i64) -> Turn {
        let known = next.id.as_ref().map_or(IdMatch::New, |id| self.head.ids.find(id, oldest_ms));
        let conflict =
            |next: &Taken| (known == IdMatch::Conflict).then(|| (next.record.offset, next.event_id.clone()));
        match self.out_of_sequence(&next) {
            None => {}
            Some(None) => {
                let conflict = conflict(&next);
                self.finish(&next);
                return Turn::Duplicate { hold: next.hold, number: None, conflict };
            }
            Some(late) => next.defect = late.map(Box::new),
        }
        if let Some(condemned) = self.condemned(&next) {
            next.defect = Some(Box::new(condemned));
        }
        if next.defect.is_none() && known != IdMatch::New {
            let conflict = conflict(&next);
            self.finish(&next);
            return Turn::Duplicate { hold: next.hold, number: next.sequence, conflict };
        }
        let (defective, letter) = (next.defect.is_some(), next.hold.is_letter());
        self.current = Some(next);
        if self.head.quarantine.is_some() && !letter {
            self.state = State::Judged { attempt: 0 };
            Turn::Follow
        } else if self.head.paused {
            self.current = self.current.take().map(Taken::detached);
            self.state = State::Parked { attempt };
            let parking = self.parking_mut();
            // Its time has come: what it waits for is the end of the pause.
            (parking.attempt, parking.due, parking.delay) = (attempt, 0, 0);
            Turn::Paused
        } else if defective {
            self.state = State::Judged { attempt: 1 };
            Turn::Defective
        } else {
            self.state = State::InFlight { attempt };
            Turn::Attempt(attempt)
        }
    }

    /// An attempt failed; `false` if it is not the one that runs.
    pub fn failed(&mut self, attempt: u32) -> bool {
        let current = self.state == State::InFlight { attempt };
        if current {
            self.state = State::Judged { attempt };
        }
        current
    }

    /// The record stays as it is, and whatever is behind it: nothing wakes the lane any more.
    pub fn halt(&mut self, attempt: u32) {
        if self.state == (State::Judged { attempt }) {
            self.state = State::Halted;
        }
    }

    /// A result of this record is known: its row, if it has one, is of no use any more.
    fn finish(&mut self, done: &Taken) {
        self.wait = None;
        self.number_is_done(done);
        match done.hold {
            Hold::Early { .. } => {}
            Hold::Intake(_) => self.head.taken = self.head.taken.max(done.record.offset),
            Hold::Row { bytes, .. } => {
                self.parked_bytes -= u64::from(bytes);
                if let Some(parking) = &mut self.head.parking {
                    parking.advance();
                    self.head.parking.take_if(|parking| parking.records() == 0);
                }
            }
            // What it says of its original's place may come from another topic.
            Hold::Letter { number, .. } => {
                self.letters -= 1;
                self.letters_are_dealt_with(u64::from(number.is_some()));
            }
        }
    }

    /// An attempt succeeded: marks its id and takes its state over. `None` if it is not the attempt
    /// that runs: a late answer changes nothing.
    pub fn applied(&mut self, attempt: u32, state: StateChange, max_ids: usize) -> Option<Taken> {
        let done = self.end(State::InFlight { attempt })?;
        self.head.change_state(state);
        if let Some(id) = done.id {
            self.head.ids.push(id, max_ids);
        }
        Some(done)
    }

    /// The verdict is a dead letter; `None` if nothing waits for this verdict. With a `cause` the key is in
    /// quarantine from now on, unless it is already.
    pub fn dead_lettered(&mut self, attempt: u32, cause: Option<&str>) -> Option<Taken> {
        let done = self.end(State::Judged { attempt })?;
        if let Some(cause) = cause {
            let begin = || Box::new(Quarantine::begin(done.record.offset, cause));
            self.head.quarantine.get_or_insert_with(begin).next += 1;
        }
        Some(done)
    }

    /// Whether the next record, or `comes` if nothing waits before it, only follows an earlier one into the
    /// dead-letter topic, and may take its time: it has no row, and nothing else of the lane waits for it.
    pub fn is_followed(&self, comes: Option<&Taken>) -> bool {
        let next = self.queue.front().or(comes);
        self.state == State::Idle
            && self.head.quarantine.is_some()
            && self.letters == 0
            && !self.is_sequenced()
            && next.is_some_and(|next| matches!(next.hold, Hold::Intake(_)))
    }

    /// The key's quarantine.
    pub fn quarantine(&self) -> Option<&Quarantine> {
        self.head.quarantine.as_deref()
    }

    fn end(&mut self, expected: State) -> Option<Taken> {
        if self.state != expected {
            return None;
        }
        self.state = State::Idle;
        let done = self.current.take()?;
        self.finish(&done);
        Some(done)
    }

    /// Forgets the records that have not begun: they will be delivered again. Where numbers order them, those below
    /// one that ends yet may need rows, so they stay.
    pub fn let_go(&mut self) {
        if self.is_sequenced() {
            return;
        }
        self.letters = self.current.as_ref().map_or(0, |taken| u64::from(taken.hold.is_letter()));
        self.queue.clear();
    }

    /// The attempt that runs or waits for a place at the handler.
    pub fn running_attempt(&self) -> Option<u32> {
        match self.state {
            State::InFlight { attempt } => Some(attempt),
            _ => None,
        }
    }

    /// What it does now, and at which attempt.
    pub fn doing(&self) -> (Doing, Option<u32>) {
        match self.state {
            State::Idle => (Doing::Idle, None),
            State::Halted => (Doing::Halted, None),
            State::InFlight { attempt } => (Doing::InFlight, Some(attempt)),
            State::Judged { attempt } => (Doing::Judged, Some(attempt)),
            State::Parked { attempt } => (Doing::Parked, Some(attempt)),
        }
    }

    /// How many records wait behind the current one.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether a verdict is due.
    pub fn is_judged(&self) -> bool {
        matches!(self.state, State::Judged { .. })
    }

    /// Whether the lane holds no record at all.
    pub fn is_empty(&self) -> bool {
        self.is_empty_of_records() && self.early() == 0
    }

    /// Whether nothing is to be done but what waits for a missing number.
    fn is_empty_of_records(&self) -> bool {
        self.current.is_none() && self.queue.is_empty()
    }

    /// Whether the key can be let go: it holds nothing, and no epoch after `committed` carries it.
    pub fn may_go(&self, committed: u64) -> bool {
        self.is_empty() && !self.changed && self.carried_by <= committed
    }

    /// Notes that the head changed; `true` if it had not since the last closed epoch.
    pub fn mark_changed(&mut self) -> bool {
        !std::mem::replace(&mut self.changed, true)
    }

    /// Whether the changelog holds a row that no longer says anything.
    pub fn has_dead_row(&mut self, watermark: NextOffset, oldest_ms: i64) -> bool {
        self.head.ids.expire(oldest_ms);
        self.stored && self.head.is_bare() && watermark.covers(self.head.taken)
    }

    /// The row that the closing epoch carries for this key, if it needs one: none for a key that
    /// holds nothing and was never written, a tombstone for one that was.
    pub fn close(
        &mut self,
        epoch: u64,
        watermark: NextOffset,
        oldest_ms: i64,
        out: &mut BytesMut,
    ) -> Option<Row> {
        self.changed = false;
        self.head.ids.expire(oldest_ms);
        let key = self.key.as_deref();
        let row = if !self.head.is_bare() || !watermark.covers(self.head.taken) {
            self.head.row(key, out)
        } else if self.stored {
            Head::tombstone(key, out)
        } else {
            return None;
        };
        self.stored = row.value.is_some();
        self.carried_by = epoch;
        Some(row)
    }

    /// The highest offset whose result the head knows.
    pub fn taken(&self) -> Offset {
        self.head.taken
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
