//! A lane alone: no actor, no clock.

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
        let taken = Taken {
            record: Arc::new(record),
            hold: Hold::Intake(receipt),
            id,
            event_id: None,
            defect: None,
            sequence: None,
            in_sequence: false,
        };
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
    assert!(bench.lane.dead_lettered(1, None).is_some());
    assert_eq!(bench.lane.turn(0), Turn::Attempt(1), "a dead-lettered id was never applied");
    assert!(bench.lane.applied(1, StateChange::Keep, 64).is_some());
    bench.take(2, "a");
    assert!(matches!(bench.lane.turn(0), Turn::Duplicate { conflict: None, .. }));
    assert_eq!(bench.lane.taken(), Offset(2));
}

#[test]
fn a_taken_offset_is_recognised_when_it_is_delivered_again() {
    let head = Head { taken: Offset(5), ..Head::default() };
    let mut bench = Bench { lane: Lane::new(None, Some(head)), watermark: Watermark::new(NextOffset(0)) };
    assert!(matches!(bench.offer(5, "a", false), Turn::Redelivered(_)));
    bench.take(6, "b");
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
    assert!(bench.lane.park(1, 2, Millis(0), 1_000, "503"));
    assert!(!bench.lane.park(1, 2, Millis(0), 1_000, "503"));
    assert_eq!(bench.lane.doing(), (Doing::Parked, Some(2)), "the attempt that is to come");
    assert_eq!(bench.lane.wake(Offset(0), 1, 0), None);
    assert_eq!(bench.lane.wake(Offset(7), 2, 0), None, "another record waited for that");
    assert_eq!(bench.lane.wake(Offset(0), 2, 0), Some(Turn::Attempt(2)));
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
    assert!(bench.lane.dead_lettered(1, None).is_some());
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
    assert_eq!(bench.lane.close(1, NextOffset(1), 0, &mut out), None, "below the watermark, never stored");

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

#[test]
fn attempts_are_given_back_only_to_the_record_that_waits() {
    let mut bench = Bench::new();
    bench.take(0, "a");
    bench.lane.turn(0);
    assert!(!bench.lane.give_back(Offset(0), 1, false), "it runs");
    assert!(bench.lane.failed(1) && bench.lane.park(1, 2, Millis(0), 1_000, "503"));
    assert!(!bench.lane.give_back(Offset(7), 1, false), "another record");
    assert!(!bench.lane.give_back(Offset(0), 2, false), "it waits for that");
    assert!(bench.lane.give_back(Offset(0), 1, false));
    assert_eq!(bench.lane.doing(), (Doing::Parked, Some(1)));
    assert_eq!(bench.lane.parking().map(|parking| parking.attempt), Some(1), "as the ledger will have it");
    assert_eq!(bench.lane.wake(Offset(0), 2, 0), None, "the timer of the attempt that was given back");
    assert_eq!(bench.lane.wake(Offset(0), 1, 0), Some(Turn::Attempt(1)));
    assert_eq!(bench.lane.running_attempt(), Some(1));
    assert!(bench.lane.failed(1) && bench.lane.park(1, 2, Millis(0), 1_000, "503"));
    assert_eq!(bench.lane.wake(Offset(0), 2, 0), Some(Turn::Attempt(2)));
    assert!(!bench.lane.give_back(Offset(0), 1, false), "a call runs");
    assert!(bench.lane.give_back(Offset(0), 1, true), "it waits for a place");
    assert_eq!(bench.lane.running_attempt(), Some(1));
}
