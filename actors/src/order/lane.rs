//! A key's lane: its bounded FIFO, its state and its head. Pure: it decides what is next and is
//! told what came of it.
//!
//! The lane is bounded by the partition's intake: it can hold no more than what the partition has
//! taken in and not yet made durable.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Doing;
use crate::effects::StateChange;
use crate::ledger::{Head, IdMatch, RecentId, Row};
use crate::outcome::Failure;
use crate::partition::Receipt;
use crate::record::{NextOffset, Offset, Record};

/// A record in a lane.
#[derive(Debug)]
pub struct Taken {
    /// The record.
    pub record: Arc<Record>,
    /// What finishes it.
    pub receipt: Receipt,
    /// Its event id, hashed with its payload.
    pub id: Option<RecentId>,
    /// Its event id as the record carries it.
    pub event_id: Option<Bytes>,
    /// Why it cannot be handed to the handler, if it cannot.
    pub defect: Option<Box<Failure>>,
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
        receipt: Receipt,
        /// The id came before with another payload.
        conflict: bool,
    },
    /// Hand the current record to the handler.
    Attempt(u32),
    /// The current record cannot be handed to the handler.
    Defective,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Lane {
    /// `None`: the lane of records without a usable key.
    pub key: Option<Rc<[u8]>>,
    head: Head,
    /// Whether the changelog may hold a row of this key.
    stored: bool,
    queue: VecDeque<Taken>,
    current: Option<Taken>,
    state: State,
    /// Whether the head changed since the last closed epoch.
    changed: bool,
    /// The last epoch that carries the head.
    carried_by: u64,
}

impl Lane {
    /// A lane with its head as the ledger has it; `stored` says whether it has one.
    pub fn new(key: Option<Rc<[u8]>>, head: Option<Head>) -> Self {
        Lane {
            key,
            stored: head.is_some(),
            head: head.unwrap_or_default(),
            queue: VecDeque::new(),
            current: None,
            state: State::Idle,
            changed: false,
            carried_by: 0,
        }
    }

    /// Takes a record in: it begins at once if the lane is free and `may_begin`, else it queues.
    pub fn take(&mut self, taken: Taken, may_begin: bool, oldest_ms: i64) -> Turn {
        if may_begin && self.state == State::Idle && self.queue.is_empty() {
            return self.begin(taken, oldest_ms);
        }
        self.queue.push_back(taken.detached());
        Turn::Wait
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
        self.begin(next, oldest_ms)
    }

    fn begin(&mut self, next: Taken, oldest_ms: i64) -> Turn {
        if next.record.offset <= self.head.taken {
            return Turn::Redelivered(next.receipt);
        }
        let known = next.id.as_ref().map_or(IdMatch::New, |id| self.head.ids.find(id, oldest_ms));
        if next.defect.is_none() && known != IdMatch::New {
            self.head.taken = next.record.offset;
            return Turn::Duplicate { receipt: next.receipt, conflict: known == IdMatch::Conflict };
        }
        let defective = next.defect.is_some();
        self.current = Some(next);
        if defective {
            self.state = State::Judged { attempt: 1 };
            Turn::Defective
        } else {
            self.state = State::InFlight { attempt: 1 };
            Turn::Attempt(1)
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

    /// The verdict is to try again later; `false` if nothing waits for this verdict.
    pub fn park(&mut self, attempt: u32) -> bool {
        let judged = self.state == State::Judged { attempt };
        if judged {
            self.state = State::Parked { attempt: attempt + 1 };
            self.current = self.current.take().map(Taken::detached);
        }
        judged
    }

    /// The time of a retry has come; `false` if nothing waits for it.
    pub fn wake(&mut self, attempt: u32) -> bool {
        let parked = self.state == State::Parked { attempt };
        if parked {
            self.state = State::InFlight { attempt };
        }
        parked
    }

    /// An attempt succeeded: marks its id and takes its state over. `None` if it is not the attempt
    /// that runs: a late answer changes nothing.
    pub fn applied(&mut self, attempt: u32, state: StateChange, max_ids: usize) -> Option<Taken> {
        let done = self.end(State::InFlight { attempt })?;
        self.head.taken = done.record.offset;
        self.head.change_state(state);
        if let Some(id) = done.id {
            self.head.ids.push(id, max_ids);
        }
        Some(done)
    }

    /// The verdict is a dead letter; `None` if nothing waits for this verdict.
    pub fn dead_lettered(&mut self, attempt: u32) -> Option<Taken> {
        let done = self.end(State::Judged { attempt })?;
        self.head.taken = done.record.offset;
        Some(done)
    }

    fn end(&mut self, expected: State) -> Option<Taken> {
        if self.state != expected {
            return None;
        }
        self.state = State::Idle;
        self.current.take()
    }

    /// Forgets the records that have not begun: they will be delivered again.
    pub fn clear_queue(&mut self) {
        self.queue.clear();
    }

    /// The attempt that runs or waits for a place at the handler.
    pub fn running_attempt(&self) -> Option<u32> {
        match self.state {
            State::InFlight { attempt } => Some(attempt),
            State::Idle | State::Judged { .. } | State::Parked { .. } => None,
        }
    }

    /// What it does now, and at which attempt.
    pub fn doing(&self) -> (Doing, Option<u32>) {
        match self.state {
            State::Idle => (Doing::Idle, None),
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
mod tests {
    use super::*;
    use crate::ledger::IdHasher;
    use crate::outcome::code;
    use crate::record::{Millis, TimestampType};
    use crate::watermark::Watermark;

    struct Bench {
        lane: Lane,
        watermark: Watermark,
    }

    impl Bench {
        fn new() -> Self {
            let lane = Lane::new(Some(Rc::from(&b"ORD-1"[..])), None);
            Bench { lane, watermark: Watermark::new(NextOffset(0)) }
        }

        fn take(&mut self, offset: i64, event_id: &str) {
            assert_eq!(self.offer(offset, event_id, false), Turn::Wait, "it queues");
        }

        fn offer(&mut self, offset: i64, event_id: &str, begin: bool) -> Turn {
            let record = Record {
                offset: Offset(offset),
                timestamp: Millis(0),
                timestamp_type: TimestampType::CreateTime,
                key: Some(Bytes::from_static(b"ORD-1")),
                value: None,
                headers: Vec::new(),
            };
            let ticket = self.watermark.receive(record.offset).expect("offsets grow in these tests");
            let receipt = Receipt { ticket, bytes: 0 };
            let id = Some(IdHasher::new([0; 16]).hash(event_id.as_bytes(), None, 0));
            let taken = Taken { record: Arc::new(record), receipt, id, event_id: None, defect: None };
            self.lane.take(taken, begin, 0)
        }
    }

    #[test]
    fn one_record_of_a_key_is_at_the_handler() {
        let mut bench = Bench::new();
        bench.take(0, "a");
        bench.take(1, "b");
        assert_eq!(bench.lane.turn(0), Turn::Attempt(1));
        assert_eq!(bench.lane.turn(0), Turn::Wait, "the second waits for the first");
        assert!(bench.lane.applied(1, StateChange::Keep, 64).is_some());
        assert_eq!(bench.lane.turn(0), Turn::Attempt(1));
        assert_eq!(bench.lane.current().map(|taken| taken.record.offset), Some(Offset(1)));
    }

    #[test]
    fn a_record_begins_at_once_only_in_a_free_lane() {
        let mut bench = Bench::new();
        assert_eq!(bench.offer(0, "a", true), Turn::Attempt(1));
        assert_eq!(bench.offer(1, "b", true), Turn::Wait, "one is at the handler");
        assert!(bench.lane.applied(1, StateChange::Keep, 64).is_some());
        assert_eq!(bench.offer(2, "c", true), Turn::Wait, "one came before it");
        assert_eq!(bench.lane.turn(0), Turn::Attempt(1));
        assert_eq!(bench.lane.current().map(|taken| taken.record.offset), Some(Offset(1)));
    }

    #[test]
    fn an_id_is_marked_only_by_applying_it() {
        let mut bench = Bench::new();
        bench.take(0, "a");
        bench.take(1, "a");
        assert_eq!(bench.lane.turn(0), Turn::Attempt(1));
        assert!(bench.lane.failed(1));
        assert!(bench.lane.dead_lettered(1).is_some());
        assert_eq!(bench.lane.turn(0), Turn::Attempt(1), "a dead-lettered id was never applied");
        assert!(bench.lane.applied(1, StateChange::Keep, 64).is_some());
        bench.take(2, "a");
        assert!(matches!(bench.lane.turn(0), Turn::Duplicate { conflict: false, .. }));
        assert_eq!(bench.lane.taken(), Offset(2));
    }

    #[test]
    fn a_taken_offset_is_recognised_when_it_is_delivered_again() {
        let head = Head { taken: Offset(5), ..Head::default() };
        let mut bench = Bench { lane: Lane::new(None, Some(head)), watermark: Watermark::new(NextOffset(0)) };
        bench.take(5, "a");
        bench.take(6, "b");
        assert!(matches!(bench.lane.turn(0), Turn::Redelivered(_)));
        assert_eq!(bench.lane.turn(0), Turn::Attempt(1));
    }

    #[test]
    fn a_late_or_repeated_answer_changes_nothing() {
        let mut bench = Bench::new();
        bench.take(0, "a");
        bench.lane.turn(0);
        assert!(!bench.lane.failed(2), "no second attempt runs yet");
        assert!(bench.lane.failed(1));
        assert!(bench.lane.applied(1, StateChange::Keep, 64).is_none(), "it has failed already");
        assert_eq!(bench.lane.doing(), (Doing::Judged, Some(1)));
        assert!(bench.lane.park(1));
        assert!(!bench.lane.park(1));
        assert_eq!(bench.lane.doing(), (Doing::Parked, Some(2)), "the attempt that is to come");
        assert!(!bench.lane.wake(1));
        assert!(bench.lane.wake(2));
        assert!(bench.lane.applied(1, StateChange::Keep, 64).is_none());
        assert!(bench.lane.applied(2, StateChange::Keep, 64).is_some());
        assert!(bench.lane.is_empty());
    }

    #[test]
    fn a_defective_record_waits_for_its_verdict_like_a_failed_one() {
        let mut bench = Bench::new();
        bench.take(0, "a");
        bench.lane.queue[0].defect = Some(Box::new(Failure::permanent(code::UNDECODABLE, "x")));
        assert_eq!(bench.lane.turn(0), Turn::Defective);
        assert!(bench.lane.is_judged());
        assert!(bench.lane.dead_lettered(1).is_some());
    }

    #[test]
    fn a_head_that_holds_nothing_is_never_written_or_is_removed() {
        let mut bench = Bench::new();
        let mut out = BytesMut::new();
        bench.take(0, "a");
        bench.lane.turn(0);
        bench.lane.applied(1, StateChange::Keep, 0);
        assert!(bench.lane.mark_changed());
        assert!(!bench.lane.mark_changed(), "already among the changed");
        assert_eq!(
            bench.lane.close(1, NextOffset(1), 0, &mut out),
            None,
            "below the watermark, never stored"
        );

        bench.take(1, "b");
        bench.lane.turn(0);
        bench.lane.applied(1, StateChange::Keep, 0);
        let row = bench.lane.close(2, NextOffset(1), 0, &mut out).expect("above the watermark");
        assert!(row.value.is_some());
        assert!(!bench.lane.may_go(1), "epoch 2 carries it");
        assert!(bench.lane.may_go(2));
        assert!(bench.lane.has_dead_row(NextOffset(2), 0));
        let row = bench.lane.close(3, NextOffset(2), 0, &mut out).expect("the stored row is removed");
        assert_eq!(row.value, None);
        assert!(!bench.lane.has_dead_row(NextOffset(2), 0));
    }
}
