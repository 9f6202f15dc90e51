//! Lanes that wait for a retry, and what is durable of them meanwhile.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pawl_actors::epoch::Epoch;
use pawl_actors::ledger::{Head, head_key, parked_at};
use pawl_actors::outcome::{Failure, code};
use pawl_actors::policy::{Overflow, ParkingBounds, ParkingPolicy, Policy};
use pawl_actors::record::Offset;
use pawl_actors::stats::PartitionPhase;

use crate::house::*;

fn head(rows: &Rows, key: &str) -> Option<Head> {
    let row_key = head_key(Some(key.as_bytes()), &mut BytesMut::new());
    rows.0.lock().unwrap().get(&row_key).map(|row| Head::decode(row).unwrap())
}

/// A house whose key A failed once with two records behind it, committed; and then it is gone.
async fn rows_of_a_parked_lane() -> Rows {
    let script = Script::default();
    script.plan("a1", [unavailable()]);
    let house = House::new(script, Rows::default(), policy()).await;
    house.take([record(0, Some("A"), "a1"), record(1, Some("A"), "a2"), record(2, Some("B"), "b1")]);
    house.pass(SOON).await;
    house.take([record(3, Some("A"), "a3")]);
    house.pass(SOON).await;
    house.rows.clone()
}

#[test]
fn a_lane_that_waits_goes_into_the_ledger_and_the_offset_goes_on_behind_it() {
    scenario(|| async {
        let rows = rows_of_a_parked_lane().await;
        let head = head(&rows, "A").expect("a row");
        let parking = head.parking.expect("parked");
        assert_eq!((parking.records(), parking.attempt, parking.delay), (3, 2, 1_000));
        assert_eq!(parking.cause, "service answered 503");
        assert_eq!(head.taken, Offset(3), "what is parked is taken");
        assert_eq!(rows.parked().len(), 3);
    });
}

#[test]
fn a_new_owner_goes_on_with_the_same_attempt_and_in_order() {
    scenario(|| async {
        let rows = rows_of_a_parked_lane().await;
        let house = House::new(Script::default(), rows, policy()).await;
        assert_eq!(house.partition_row().watermark, 4);
        house.take([record(4, Some("A"), "a4")]);
        house.pass(SOON).await;
        assert_eq!(house.stats.parked.get(), 1);
        assert_eq!(house.partition_stats.parked_records.get(), 4);
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls(), ["a1#2", "a2#1", "a3#1", "a4#1"]);
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.parked), (5, 5, 0));
        assert!(house.rows.parked().is_empty(), "the rows are removed");
        assert_eq!(head(&house.rows, "A").expect("it has ids").parking, None);
        assert_eq!((house.stats.parked.get(), house.partition_stats.parked_bytes.get()), (0, 0));
    });
}

#[test]
fn records_that_are_delivered_again_are_not_parked_again() {
    scenario(|| async {
        let rows = rows_of_a_parked_lane().await;
        let house = House::new(Script::default(), rows.clone(), policy()).await;
        // As after a crash before the partition row followed, which only at-least-once can meet.
        rows.0
            .lock()
            .unwrap()
            .insert(Bytes::from_static(&[1]), row(0).row(&mut BytesMut::new()).value.unwrap());
        drop(house);
        let house = House::new(Script::default(), rows, policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("A"), "a2"), record(3, Some("A"), "a3")]);
        house.pass(SOON).await;
        assert_eq!((house.stats.redelivered.get(), house.rows.parked().len()), (3, 3));
        let books = house.partition_row().books;
        assert_eq!((books.received, books.parked), (3, 3), "the books follow the rows");
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls(), ["a1#2", "a2#1", "a3#1"]);
    });
}

#[test]
fn the_last_attempt_of_a_parked_record_is_a_dead_letter_and_the_next_record_begins_with_the_first() {
    scenario(|| async {
        let rows = rows_of_a_parked_lane().await;
        let script = Script::default();
        script.plan("a1", [unavailable(), unavailable()]);
        script.plan("a2", [unavailable()]);
        let house = House::new(script, rows, policy()).await;
        house.pass(Duration::from_secs(3) + SOON).await;
        assert_eq!(house.script.calls(), ["a1#2", "a1#3", "a2#1"]);
        let parking = head(&house.rows, "A").and_then(|head| head.parking).expect("a2 and a3 are parked");
        assert_eq!((parking.records(), parking.attempt), (2, 2));
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls(), ["a1#2", "a1#3", "a2#1", "a2#2", "a3#1"]);
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.dead_lettered, books.parked), (4, 3, 1, 0));
        assert_eq!(letters(), [Offset(0)]);
    });
}

#[test]
fn an_attempt_that_runs_at_the_end_is_made_again_under_the_same_number() {
    scenario(|| async {
        let rows = rows_of_a_parked_lane().await;
        let script = Script::default();
        script.plan("a1", [Act::Wait]);
        let house = House::new(script, rows.clone(), policy()).await;
        house.pass(Duration::from_secs(1) + SOON).await;
        assert_eq!(house.script.calls(), ["a1#2"], "it runs");
        drop(house);
        let house = House::new(Script::default(), rows, policy()).await;
        house.pass(Duration::from_secs(1) + SOON).await;
        assert_eq!(house.script.calls(), ["a1#2", "a2#1", "a3#1"]);
    });
}

#[test]
fn a_record_that_is_parked_in_the_epoch_of_the_one_before_it_keeps_its_row() {
    scenario(|| async {
        let slow = || Policy { epoch_interval: Duration::from_secs(1), ..policy() };
        let script = Script::default();
        script.plan("a1", [unavailable(), Act::Wait]);
        script.plan("a2", [unavailable()]);
        let house = House::new(script.clone(), Rows::default(), slow()).await;
        house.take([record(0, Some("A"), "a1")]);
        house.pass(Duration::from_secs(3)).await;
        house.take([record(1, Some("A"), "a2"), record(2, Some("B"), "b1")]);
        house.pass(SOON).await;
        // B's epoch has just been closed; the end of a1 and the failure of a2 share the next one.
        script.open_gates.store(true, Ordering::Relaxed);
        house.pass(Duration::from_millis(900)).await;
        assert_eq!(house.script.calls(), ["a1#1", "a1#2", "b1#1", "a2#1"]);
        house.take([record(3, Some("B"), "b2")]);
        house.pass(Duration::from_millis(80)).await;
        assert_eq!(house.partition_row().watermark, 4);
        let rows = house.rows.clone();
        assert_eq!(rows.parked().len(), 1, "a2 waits");
        drop(house);
        let house = House::new(Script::default(), rows, policy()).await;
        house.pass(Duration::from_secs(2)).await;
        assert_eq!(house.script.calls(), ["a2#2"]);
        assert_eq!(house.partition_row().books.applied, 4);
    });
}

#[test]
fn what_found_no_room_is_parked_as_soon_as_there_is_some() {
    scenario(|| async {
        let script = Script::default();
        script.plan("b1", [unavailable()]);
        script.plan("c1", [unavailable()]);
        let long =
            Failure::transient(code::UNAVAILABLE, "429").with_retry_after(Some(Duration::from_secs(60)));
        script.plan("a1", [Act::Fail(long)]);
        let mut policy = bounded(Overflow::PauseIntake);
        policy.parking.partition.records = 2;
        let house = House::new(script, Rows::default(), policy).await;
        house.take([record(0, Some("B"), "b1"), record(1, Some("C"), "c1"), record(2, Some("A"), "a1")]);
        house.pass(SOON).await;
        assert_eq!(house.partition_row().watermark, 2, "no room for a1");
        house.pass(Duration::from_secs(4)).await;
        assert_eq!(house.partition_row().watermark, 3, "b1 and c1 have gone");
        assert_eq!((house.partition_row().books.parked, house.partition_stats.parking_full()), (1, None));
    });
}

#[test]
fn a_record_that_is_under_way_to_its_lane_when_a_drain_begins_overtakes_none_that_was_let_go() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [unavailable(), Act::WaitAndFail]);
        let house = House::new(script.clone(), Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1")]);
        house.pass(Duration::from_secs(1) + SOON).await;
        house.take([record(1, Some("A"), "a2")]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#1", "a1#2"], "it runs, and a2 waits behind it");
        // The partition actor takes both before the order actor has a3.
        house.take([record(2, Some("A"), "a3")]);
        let drained = drain(&house, Duration::from_secs(2));
        house.pass(SOON).await;
        script.open_gates.store(true, Ordering::Relaxed);
        house.pass(Duration::from_secs(1)).await;
        assert!(drained.load(Ordering::Relaxed));

        let house = House::new(Script::default(), house.rows.clone(), policy()).await;
        let left = [record(1, Some("A"), "a2"), record(2, Some("A"), "a3")];
        house.take(left.into_iter().filter(|record| record.offset.0 >= house.partition_row().watermark));
        house.pass(Duration::from_secs(60)).await;
        assert_eq!(house.script.calls(), ["a1#3", "a2#1", "a3#1"]);
        assert_eq!(house.partition_row().books.applied, 3);
    });
}

#[test]
fn a_parked_duplicate_whose_turn_comes_under_a_new_owner_is_recognised() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [unavailable(), Act::Wait]);
        let house = House::new(script.clone(), Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("A"), "a1"), record(2, Some("A"), "a2")]);
        house.pass(Duration::from_secs(1) + SOON).await;
        assert_eq!(house.script.calls(), ["a1#1", "a1#2"], "it runs");
        let drained = drain(&house, Duration::from_secs(2));
        house.pass(SOON).await;
        assert!(!drained.load(Ordering::Relaxed));
        script.open_gates.store(true, Ordering::Relaxed);
        house.pass(Duration::from_secs(1)).await;
        assert!(drained.load(Ordering::Relaxed));
        assert_eq!(
            house.rows.parked().len(),
            2,
            "a1 is done, its duplicate is first: {:?}",
            house.script.calls()
        );

        let house = House::new(Script::default(), house.rows.clone(), policy()).await;
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a2#1"]);
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.duplicates, books.parked), (3, 2, 1, 0));
    });
}

#[test]
fn rows_that_no_head_names_are_removed_and_count_for_nothing() {
    scenario(|| async {
        let rows = rows_of_a_parked_lane().await;
        let orphan = |key: &str, number: u8| {
            let row_key = [&[4], key.as_bytes(), &[0, 0, 0, 0, 0, 0, 0, number]].concat();
            let value = rows.parked()[0].1.clone();
            rows.0.lock().unwrap().insert(row_key.into(), value);
        };
        orphan("A", 9);
        orphan("Z", 0);
        let house = House::new(Script::default(), rows.clone(), policy()).await;
        house.pass(SOON).await;
        let left: Vec<u64> = house.rows.parked().iter().map(|(key, _)| parked_at(key).unwrap().1).collect();
        assert_eq!(left, [0, 1, 2]);
        assert!(house.halts.lock().unwrap().is_empty());
    });
}

#[test]
fn a_head_whose_rows_are_gone_stops_the_partition_and_says_why() {
    scenario(|| async {
        let rows = rows_of_a_parked_lane().await;
        let second = rows.parked()[1].0.clone();
        rows.0.lock().unwrap().remove(&second);
        let house = House::new(Script::default(), rows.clone(), policy()).await;
        house.pass(SOON).await;
        let halts = house.halts.lock().unwrap().join("\n");
        assert!(halts.contains("billing: orders[3]") && halts.contains("3 records of key \"A\""), "{halts}");
        assert!(halts.contains("2 of them are there"), "{halts}");
        assert_eq!(house.partition_stats.phase(), PartitionPhase::Stopped);

        rows.0.lock().unwrap().retain(|key, _| parked_at(key).is_none());
        let house = House::new(Script::default(), rows, policy()).await;
        house.take([record(4, Some("A"), "a4")]);
        house.pass(SOON).await;
        assert!(house.script.calls().is_empty(), "a4 must not overtake what is lost");
        assert!(house.halts.lock().unwrap()[0].contains("0 of them are there"));
    });
}

fn bounded(overflow: Overflow) -> Policy {
    let lane = ParkingBounds { records: 2, bytes: 100_000 };
    let partition = ParkingBounds { records: 3, bytes: 100_000 };
    Policy { parking: ParkingPolicy { lane, partition, overflow }, ..policy() }
}

#[test]
fn what_finds_no_room_stays_in_the_input_and_holds_the_offset() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [unavailable()]);
        script.plan("b1", [unavailable()]);
        let house = House::new(script, Rows::default(), bounded(Overflow::PauseIntake)).await;
        house.take((0..4).map(|n| record(n, Some("A"), &format!("a{}", n + 1))));
        house.take([record(4, Some("B"), "b1"), record(5, Some("B"), "b2"), record(6, Some("C"), "c1")]);
        house.pass(SOON).await;
        assert_eq!(house.partition_row().watermark, 2, "a3 found no room: its lane has parked two");
        assert_eq!(house.partition_stats.parked_records.get(), 3, "b1 filled the partition");
        assert_eq!(house.partition_row().books.applied, 1, "C is not held back");
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls().len(), 9, "{:?}", house.script.calls());
        assert_eq!(house.partition_row().watermark, 7);
        assert_eq!(house.partition_row().books.parked, 0);
    });
}

#[test]
fn full_parking_is_told_with_the_keys_that_fill_it_as_long_as_it_is_full() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [unavailable(), unavailable()]);
        let house = House::new(script, Rows::default(), bounded(Overflow::PauseIntake)).await;
        house.take((0..4).map(|n| record(n, Some("A"), &format!("a{}", n + 1))));
        house.pass(Duration::from_secs(2)).await;
        let full = house.partition_stats.parking_full().expect("it is full");
        assert!(full.contains("2 records") && full.contains("key \"A\" (2)"), "{full}");
        assert!(full.contains("2 records of its key are parked already"), "{full}");
        house.pass(Duration::from_secs(3)).await;
        assert_eq!(house.partition_stats.parking_full(), None);
        assert_eq!(house.partition_row().watermark, 4);
    });
}

#[test]
fn where_overflow_ends_in_a_dead_letter_the_others_go_on_and_no_retry_comes_early() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [unavailable()]);
        script.plan("a2", [unavailable()]);
        let house = House::new(script, Rows::default(), bounded(Overflow::DeadLetter)).await;
        house.take((0..2).map(|n| record(n, Some("A"), &format!("a{}", n + 1))));
        house.pass(Duration::from_millis(600)).await;
        assert_eq!(house.script.calls(), ["a1#1"]);
        house.take([record(2, Some("A"), "a3")]);
        house.pass(Duration::from_millis(600)).await;
        assert_eq!(letters(), [Offset(0)], "a1 gave up for a3's sake");
        assert_eq!(house.script.calls(), ["a1#1", "a2#1"], "a1's timer is over, a2's is not");
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls(), ["a1#1", "a2#1", "a2#2", "a3#1"]);
        let cause = last_cause();
        assert!(cause.contains("service answered 503; there is no room"), "{cause}");
        assert!(cause.contains("2 records of its key"), "{cause}");
    });
}

fn last_cause() -> String {
    let cause = |epoch: &Epoch| Some(epoch.partitions[0].letters.last()?.cause.clone());
    COMMITTED.with_borrow(|all| all.iter().rev().find_map(cause)).expect("a letter")
}
