//! The actors of a handler together, without a broker and without waiting: time is tokio's paused
//! clock, the writer and the view are memory.

mod bad_ends;
mod breaker;
mod commands;
mod house;
mod null_keys;
mod parking;
mod quarantine;
mod retries;
mod rewind;
mod sequence;
mod traces;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use house::*;
use pawl_actors::effects::{Effects, Emit, StateChange};
use pawl_actors::epoch::Epoch;
use pawl_actors::outcome::{Failure, code};
use pawl_actors::partition::Abandon;
use pawl_actors::policy::Policy;
use pawl_actors::record::{Millis, Offset, Record};

#[test]
fn failed_record_blocks_only_its_key() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [unavailable()]);
        let house = House::new(script, Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("A"), "a2"), record(2, Some("B"), "b1")]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#1", "b1#1"], "a2 waits behind a1, B does not");
        assert_eq!(house.partition_row().watermark, 3, "the offset goes on behind what is parked");
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.parked), (3, 1, 2));
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls(), ["a1#1", "b1#1", "a1#2", "a2#1"], "not before its second is over");
        assert_eq!(house.partition_row().watermark, 3);
        assert_eq!(
            (house.stats.retries.get(), house.stats.parked.get(), house.stats.in_flight.get()),
            (1, 0, 0)
        );
        assert_eq!(house.partition_stats.outstanding_records.get(), 0, "the intake has its room back");
    });
}

#[test]
fn epochs_are_closed_while_others_are_written_but_no_more_than_allowed() {
    scenario(|| async {
        let policy = Policy { max_undecided: 2, ..policy() };
        let house = House::new(Script::default(), Rows::default(), policy).await;
        for (offset, event) in ["a1", "a2", "a3"].into_iter().enumerate() {
            house.take([record(offset as i64, Some("A"), event)]);
            tokio::time::sleep(SOON).await;
        }
        assert_eq!(house.script.calls(), ["a1#1", "a2#1", "a3#1"], "no key waits for a commit");
        let next = |epoch: &Epoch| epoch.partitions[0].next.0;
        let under_way: Vec<i64> = house.epochs.lock().unwrap().iter().map(next).collect();
        assert_eq!(under_way, [1, 2], "the third waits until the first is decided");
        assert_eq!(house.partition_stats.outstanding_records.get(), 3, "nothing is durable yet");
        house.pass(SOON).await;
        assert_eq!(house.partition_row().watermark, 3);
        assert_eq!(house.partition_row().books.applied, 3);
        assert_eq!(house.partition_stats.outstanding_records.get(), 0);
    });
}

#[test]
fn used_up_attempts_end_in_a_dead_letter_and_the_key_goes_on() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [unavailable(), Act::Panic, unavailable()]);
        script.plan("b1", [Act::Fail(Failure::permanent(code::REJECTED, "422"))]);
        let house = House::new(script, Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("A"), "a2"), record(2, Some("B"), "b1")]);
        house.pass(Duration::from_secs(4)).await;
        assert_eq!(house.script.calls(), ["a1#1", "b1#1", "a1#2", "a1#3", "a2#1"]);
        assert_eq!(letters(), [Offset(2), Offset(0)]);
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.dead_lettered), (3, 1, 2));
        assert_eq!(house.partition_row().watermark, 3);
    });
}

#[test]
fn a_handler_that_does_not_answer_is_given_up_and_tried_again() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [Act::Wait]);
        let house = House::new(script, Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1")]);
        house.pass(Duration::from_secs(4)).await;
        assert_eq!(house.script.calls(), ["a1#1"]);
        house.pass(Duration::from_secs(3)).await;
        assert_eq!(house.script.calls(), ["a1#1", "a1#2"]);
        assert_eq!(house.partition_row().books.applied, 1);
    });
}

#[test]
fn a_producers_duplicate_is_dropped_and_a_redelivered_offset_is_not_even_counted() {
    scenario(|| async {
        let rows = Rows::default();
        let house = House::new(Script::default(), rows.clone(), policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("A"), "a1"), record(5, Some("B"), "b1")]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#1", "b1#1"]);
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.duplicates), (3, 2, 1));

        // The next owner is given what the watermark says and one record below it.
        let house = House::new(Script::default(), rows, policy()).await;
        house.take([record(5, Some("B"), "b1"), record(6, Some("A"), "a1"), record(7, Some("A"), "a2")]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a2#1"], "the ids went with the ledger");
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.duplicates), (5, 3, 2));
    });
}

#[test]
fn what_was_finished_ahead_of_the_watermark_is_recognised_after_a_restart() {
    scenario(|| async {
        let (script, rows) = (Script::default(), Rows::default());
        script.plan("a1", [Act::Wait]);
        let house = House::new(script, rows.clone(), policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("B"), "b1"), record(2, None, "n1")]);
        house.pass(SOON).await;
        assert_eq!(house.partition_row().watermark, 0);
        assert_eq!(letters(), [Offset(2)], "a record without key is a dead letter");

        let house = House::new(Script::default(), rows, policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("B"), "b1"), record(2, None, "n1")]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#1"]);
        assert_eq!(letters(), [Offset(2)], "and not a second time");
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.dead_lettered), (3, 2, 1));
        assert_eq!(house.stats.redelivered.get(), 2);
        assert_eq!(house.partition_row().watermark, 3);
    });
}

#[test]
fn no_more_calls_run_at_once_than_the_limit_allows() {
    scenario(|| async {
        let script = Script::default();
        for event in ["a1", "b1", "c1"] {
            script.plan(event, [Act::Wait]);
        }
        let policy = Policy { max_in_flight: 2, ..policy() };
        let house = House::new(script, Rows::default(), policy).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("B"), "b1"), record(2, Some("C"), "c1")]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#1", "b1#1"]);
        assert_eq!(house.stats.in_flight.get(), 2);
        house.script.open_gates.store(true, Ordering::Relaxed);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#1", "b1#1", "c1#1"]);
        assert_eq!((house.stats.in_flight.get(), house.partition_row().watermark), (0, 3));
    });
}

#[test]
fn a_drain_lets_running_calls_end_and_begins_nothing() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [Act::Wait]);
        script.plan("c1", [unavailable()]);
        let house = House::new(script, Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("A"), "a2"), record(2, Some("C"), "c1")]);
        house.pass(SOON).await;
        let drained = drain(&house, Duration::from_secs(10));
        house.pass(SOON).await;
        assert!(!drained.load(Ordering::Relaxed), "a call runs");
        house.script.open_gates.store(true, Ordering::Relaxed);
        house.pass(SOON).await;
        assert!(drained.load(Ordering::Relaxed));
        assert_eq!(house.script.calls(), ["a1#1", "c1#1"], "a2 is left to the next owner");
        assert_eq!(house.partition_row().watermark, 1);
        house.pass(Duration::from_secs(20)).await;
        assert_eq!(house.script.calls().len(), 2, "nor does a retry fire afterwards");
        assert_eq!((house.stats.in_flight.get(), house.stats.parked.get()), (0, 0));
    });
}

#[test]
fn a_drain_cancels_what_does_not_end_in_time_and_its_late_answer_changes_nothing() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [Act::Wait]);
        let house = House::new(script, Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("B"), "b1")]);
        house.pass(SOON).await;
        let drained = drain(&house, Duration::from_secs(1));
        house.pass(Duration::from_secs(2)).await;
        assert!(drained.load(Ordering::Relaxed));
        house.script.open_gates.store(true, Ordering::Relaxed);
        house.pass(SOON).await;
        assert_eq!(house.partition_row().watermark, 0);
        assert_eq!(house.partition_row().books.applied, 1);
        assert_eq!(house.stats.in_flight.get(), 0);
    });
}

#[test]
fn a_lost_partition_writes_nothing_more() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [Act::Wait]);
        let house = House::new(script, Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("B"), "b1")]);
        house.partition.do_send(Abandon);
        house.script.open_gates.store(true, Ordering::Relaxed);
        house.pass(SOON).await;
        assert!(COMMITTED.with_borrow(Vec::is_empty));
        assert_eq!(house.stats.in_flight.get(), 0);
    });
}

#[test]
fn an_idle_key_is_let_go_and_comes_back_with_its_state() {
    scenario(|| async {
        let script = Script::default();
        let set = Effects { emit: Vec::new(), state: StateChange::Set(Bytes::from_static(b"s1")) };
        script.plan("a1", [Act::Effects(set)]);
        let house = House::new(script, Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1")]);
        house.pass(Duration::from_secs(2)).await;
        assert_eq!(house.partition_stats.live_keys.get(), 1);
        house.pass(Duration::from_secs(62)).await;
        assert_eq!(house.partition_stats.live_keys.get(), 0);
        assert_eq!(house.heads(), 1, "its head stays in the ledger");
        house.take([record(1, Some("A"), "a1"), record(2, Some("A"), "a2")]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#1", "a2#1"], "its ids came back with it");
    });
}

#[test]
fn of_too_many_keys_the_longest_idle_are_let_go() {
    scenario(|| async {
        let (script, rows) = (Script::default(), Rows::default());
        let policy = Policy { max_live_keys: 10, ..policy() };
        let house = House::new(script, rows.clone(), policy).await;
        let event = |n: i64, offset| record(offset, Some(&format!("K{n}")), &format!("e{n}"));
        house.take((0..10).map(|n| event(n, n)));
        house.pass(Duration::from_secs(3)).await;
        assert_eq!(house.partition_stats.live_keys.get(), 10, "as many as may live");
        house.take((10..15).map(|n| event(n, n)));
        house.pass(Duration::from_secs(3)).await;
        assert_eq!(house.partition_stats.live_keys.get(), 5, "those of the same second go together");
        // Only keys that live know their ids from here on.
        rows.0.lock().unwrap().retain(|key, _| key[0] < 2);
        house.take([event(0, 15), event(12, 16)]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls()[15..], ["e0#1"], "K0 was let go, K12 was not");
    });
}

#[test]
fn heads_that_hold_nothing_leave_the_ledger() {
    scenario(|| async {
        let (script, rows) = (Script::default(), Rows::default());
        script.plan("a1", [Act::Wait]);
        let policy = Policy { event_id: None, ..policy() };
        let house = House::new(script, rows.clone(), policy).await;
        house.take((0..20).map(|n| record(n, Some(&format!("K{n}")), if n == 0 { "a1" } else { "x" })));
        house.pass(SOON).await;
        assert_eq!(house.heads(), 19, "finished above the watermark: the heads say so");
        house.script.open_gates.store(true, Ordering::Relaxed);
        house.pass(SOON).await;
        assert_eq!(house.partition_row().watermark, 20);
        house.pass(Duration::from_secs(70)).await;
        assert_eq!(house.heads(), 0, "the watermark says it for them");
        house.take((20..40).map(|n| record(n, Some(&format!("K{n}")), "x")));
        house.pass(SOON).await;
        assert_eq!(house.heads(), 0, "in order of offsets no head is written at all");
    });
}

#[test]
fn ids_that_are_too_old_leave_the_ledger_even_if_nobody_comes_back_for_the_key() {
    scenario(|| async {
        let policy = Policy { recent_ids_age: Duration::from_secs(60), ..policy() };
        let house = House::new(Script::default(), Rows::default(), policy).await;
        house.take([record(0, Some("A"), "a1")]);
        house.pass(Duration::from_secs(65)).await;
        assert_eq!(house.heads(), 1);
        let later = Record { timestamp: Millis(100_000), ..record(1, Some("B"), "b1") };
        house.take([later]);
        house.pass(Duration::from_secs(3)).await;
        assert_eq!(house.heads(), 1, "partition time has passed A's ids by; B's are young");
    });
}

#[test]
fn an_effect_that_the_topic_would_refuse_becomes_a_dead_letter_and_takes_nothing_down() {
    scenario(|| async {
        let script = Script::default();
        let emit = |bytes: usize| Emit {
            topic: "billed".into(),
            partition: None,
            key: None,
            value: Some(Bytes::from(vec![0; bytes])),
            headers: Vec::new(),
            timestamp: None,
        };
        let effects = |bytes| Act::Effects(Effects { emit: vec![emit(bytes)], state: StateChange::Keep });
        script.plan("a1", [effects(1_000_001)]);
        script.plan("b1", [effects(1_000_000)]);
        let house = House::new(script, Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("B"), "b1")]);
        house.pass(SOON).await;
        assert_eq!((letters(), emitted().len()), (vec![Offset(0)], 1));
        assert_eq!(house.partition_row().watermark, 2);
    });
}

#[test]
fn what_a_topic_refused_of_a_record_ends_it_as_a_dead_letter_when_it_is_handled_again() {
    scenario(|| async {
        let script = Script::default();
        let emit = Emit {
            topic: "billed".into(),
            partition: None,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
        };
        let effects = || Act::Effects(Effects { emit: vec![emit.clone()], state: StateChange::Keep });
        script.plan("a1", [effects()]);
        script.plan("b1", [effects()]);
        script.refused.note(P, Offset(0), "billed[0] did not take it: InvalidTimestamp".into());
        let house = House::new(script, Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("B"), "b1")]);
        house.pass(SOON).await;
        assert_eq!((letters(), emitted().len()), (vec![Offset(0)], 1));
        let told = COMMITTED.with_borrow(|all| {
            let letters = all.iter().flat_map(|epoch| &epoch.partitions).flat_map(|part| &part.letters);
            letters.map(|letter| letter.cause.clone()).collect::<Vec<_>>()
        });
        assert_eq!(told, ["billed[0] did not take it: InvalidTimestamp, permanent"]);
        assert_eq!(house.partition_row().watermark, 2);
    });
}

#[test]
fn a_fatal_failure_stops_the_handler_and_leaves_its_record_unfinished() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [Act::Fail(Failure::fatal(code::REJECTED, "no right to bill"))]);
        let house = House::new(script, Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("B"), "b1")]);
        house.pass(SOON).await;
        let halts = house.halts.lock().unwrap().clone();
        assert_eq!(halts.len(), 1);
        assert!(halts[0].contains("billing: orders[3]@0 key \"A\": no right to bill"), "{}", halts[0]);
        assert_eq!(house.partition_row().watermark, 0);
    });
}

#[test]
fn a_state_or_a_key_that_the_changelog_would_refuse_is_a_dead_letter() {
    scenario(|| async {
        let script = Script::default();
        let state = |bytes: usize| {
            Act::Effects(Effects { emit: Vec::new(), state: StateChange::Set(Bytes::from(vec![0; bytes])) })
        };
        script.plan("a1", [state(10_000)]);
        script.plan("b1", [state(5_000)]);
        let house = House::new(script, Rows::default(), policy()).await;
        let long_key = "K".repeat(9_000);
        house.take([
            record(0, Some("A"), "a1"),
            record(1, Some("B"), "b1"),
            record(2, Some(&long_key), "c1"),
        ]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#1", "b1#1"]);
        let mut dead = letters();
        dead.sort();
        assert_eq!(dead, [Offset(0), Offset(2)]);
        assert_eq!(house.partition_row().watermark, 3);
    });
}

#[test]
fn a_dead_letter_that_does_not_fit_stops_the_handler_before_it_takes_an_epoch_down() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [Act::Fail(Failure::permanent(code::REJECTED, "422"))]);
        let house = House::new(script, Rows::default(), Policy { max_letter_bytes: 100, ..policy() }).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("B"), "b1")]);
        house.pass(SOON).await;
        let halts = house.halts.lock().unwrap().clone();
        assert!(
            halts[0].contains("orders[3]@0 key \"A\": 422") && halts[0].contains("orders-dlt takes 100"),
            "{halts:?}"
        );
        assert_eq!((letters().len(), house.partition_row().watermark), (0, 0));
    });
}
