//! What becomes of a partition whose actors panic, and of one whose owners end while they hold it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pawl_actors::claims::Claims;
use pawl_actors::command::{KeyName, What};
use pawl_actors::epoch::Epoch;
use pawl_actors::ledger::LaneKey;
use pawl_actors::ledger::{Named, Place};
use pawl_actors::partition::Abandon;
use pawl_actors::policy::{CarefulPolicy, Policy, Then};
use pawl_actors::record::{Offset, Record};
use pawl_actors::stats::PartitionPhase;

use crate::house::*;

/// Longer than an attempt may take.
const TIMED_OUT: Duration = Duration::from_secs(6);

fn careful() -> Policy {
    let careful = CarefulPolicy { crashes: 3, within: Duration::from_secs(600), suspects: 100 };
    Policy { careful: Some(careful), ..policy() }
}

/// Those of a partition whose last owners ended while they held it.
fn ended(owners: i64) -> Claims {
    let now = 1_000_000;
    Claims::new(now, (1..=owners).map(|n| now - n * 1_000))
}

fn input(offset: i64) -> Place {
    Place { letter: false, offset }
}

fn records() -> [Record; 3] {
    [record(0, Some("A"), "a1"), record(1, Some("B"), "b1"), record(2, Some("C"), "c1")]
}

/// Keeps the first call of each event from ending.
fn hold(script: &Script, events: &[&str]) {
    events.iter().for_each(|event| script.plan(event, [Act::Wait]));
}

/// In no order: lanes that wait for their partition to begin do so in none.
fn sorted(mut calls: Vec<String>) -> Vec<String> {
    calls.sort();
    calls
}

/// The first record, and the others once it has begun or waits to.
async fn take_one_after_the_other(house: &House) {
    for record in records() {
        house.take([record]);
        house.pass(SOON).await;
    }
}

#[test]
fn a_panic_of_an_order_actor_costs_its_record_and_no_other() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [Act::PanicWhenDropped]);
        let mut house =
            House::new(script, Rows::default(), Policy { then: Then::Quarantine, ..policy() }).await;
        house.take(records());
        house.pass(SOON).await;
        assert_eq!(house.partition_row().watermark, 0, "the others are finished ahead");
        house.pass(TIMED_OUT).await;
        assert!(house.halts.lock().unwrap().is_empty());
        house.take_anew().await;
        house.take(records().into_iter().chain([record(3, Some("A"), "a2")]));
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#1", "b1#1", "c1#1"], "what took effect does so once");
        assert_eq!(letters(), [Offset(0), Offset(3)], "the key is in quarantine");
        let books = house.partition_row().books;
        assert_eq!((house.partition_row().watermark, books.applied, books.dead_lettered), (4, 2, 2));
        let last = house.stats.restarts.last();
        assert_eq!((house.stats.restarts.count.get(), last.len()), (1, 1));
        assert_eq!((last[0].actor, last[0].key.as_deref()), ("the order actor", Some("A")));
    });
}

#[test]
fn nothing_of_a_partition_is_written_after_one_of_its_actors_panicked() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [Act::PanicWhenDropped]);
        script.plan("b1", [Act::After(TIMED_OUT)]);
        let house = House::new(script, Rows::default(), policy()).await;
        house.take(records());
        house.pass(SOON).await;
        let before = house.partition_row();
        house.pass(2 * TIMED_OUT).await;
        assert_eq!(house.partition_row(), before);
        assert_eq!(house.rebuilds.lock().unwrap().len(), 1, "one of them tells");
    });
}

#[test]
fn a_partition_is_taken_anew_so_often_and_then_the_handler_ends() {
    scenario(|| async {
        let script = Script::default();
        let mut house = House::new(script, Rows::default(), policy()).await;
        for offset in 0..3 {
            house.script.plan("a1", [Act::PanicWhenDropped]);
            house.take([record(offset, Some("A"), "a1")]);
            house.pass(TIMED_OUT).await;
            if offset < 2 {
                assert!(house.halts.lock().unwrap().is_empty());
                house.take_anew().await;
                // The one that it was about is a dead letter now.
                house.take([record(offset, Some("A"), "a1")]);
                house.pass(SOON).await;
            }
        }
        let halts = house.halts.lock().unwrap().clone();
        assert!(halts[0].contains("orders[3]: the order actor of key \"A\" panicked"), "{halts:?}");
        assert!(halts[0].contains("taken anew 2 times in 600s already"), "{halts:?}");
    });
}

#[test]
fn records_begin_when_it_is_committed_that_somebody_is_there() {
    scenario(|| async {
        let house = House::new(Script::default(), Rows::default(), careful()).await;
        house.take(records());
        tokio::time::sleep(SOON).await;
        assert!(house.script.calls().is_empty());
        house.pass(SOON).await;
        assert_eq!(sorted(house.script.calls()), ["a1#1", "b1#1", "c1#1"]);
        assert_eq!(house.partition_stats.careful(), None);
    });
}

#[test]
fn who_gives_a_partition_up_says_so_in_its_last_epoch() {
    scenario(|| async {
        let house = House::new(Script::default(), Rows::default(), careful()).await;
        house.take(records());
        house.pass(SOON).await;
        let drained = drain(&house, SOON);
        house.pass(SOON).await;
        assert!(drained.load(Ordering::Relaxed));
        let released: Vec<bool> = COMMITTED.with_borrow(|all| {
            let parts = all.iter().flat_map(|epoch: &Epoch| &epoch.partitions);
            parts.map(|part| part.released).collect()
        });
        assert!(released.len() > 1 && released.iter().rev().skip(1).all(|released| !released));
        assert_eq!(released.last(), Some(&true));
    });
}

#[test]
fn after_owners_that_ended_one_record_runs_at_a_time_and_its_begin_is_committed_first() {
    scenario(|| async {
        let script = Script::default();
        hold(&script, &["a1", "b1", "c1"]);
        let house = House::after(ended(3), script, Rows::default(), careful()).await;
        take_one_after_the_other(&house).await;
        let why = house.partition_stats.careful().expect("three owners ended");
        assert!(why.starts_with("3 owners ended within 600s"), "{why}");
        assert_eq!(house.script.calls(), ["a1#1"]);
        assert_eq!(house.partition_row().starting, Some(input(0)));
        house.script.open_gates.store(true, Ordering::Relaxed);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#1", "b1#1", "c1#1"]);
        assert_eq!((house.partition_row().starting, house.partition_row().watermark), (None, 3));
    });
}

#[test]
fn nothing_is_careful_after_fewer_or_older_ends() {
    for claims in [ended(2), Claims::new(1_000_000, [999_000, 998_000, 300_000])] {
        scenario(|| async {
            let script = Script::default();
            hold(&script, &["a1", "b1", "c1"]);
            let house = House::after(claims, script, Rows::default(), careful()).await;
            house.take(records());
            house.pass(SOON).await;
            assert_eq!((house.script.calls().len(), house.partition_row().starting), (3, None));
        });
    }
}

#[test]
fn careful_mode_ends_behind_what_lay_there_when_it_began() {
    scenario(|| async {
        let house = House::after(ended(3), Script::default(), Rows::default(), careful()).await;
        house.take(records());
        house.pass(Duration::from_secs(3)).await;
        assert_eq!(house.partition_stats.careful(), None);
        hold(&house.script, &["a2", "b2"]);
        house.take([record(3, Some("A"), "a2"), record(4, Some("B"), "b2")]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls()[3..], ["a2#1", "b2#1"], "at once");
    });
}

#[test]
fn careful_mode_ends_after_so_many_attempts_although_more_records_wait() {
    scenario(|| async {
        let careful_policy = CarefulPolicy { suspects: 2, ..careful().careful.expect("set") };
        let policy = Policy { careful: Some(careful_policy), ..careful() };
        let script = Script::default();
        for n in 0..200 {
            script.plan(&format!("e{n}"), [Act::After(Duration::from_millis(50))]);
        }
        let house = House::after(ended(3), script, Rows::default(), policy).await;
        let key = |n: i64| format!("K{n}");
        house.take((0..200).map(|n| record(n, Some(&key(n)), &format!("e{n}"))));
        house.pass(Duration::from_secs(1)).await;
        assert!(house.partition_row().watermark < 30);
        // What waited when it was enough runs alone once more, and no more than that.
        house.pass(Duration::from_secs(19)).await;
        assert_eq!((house.partition_stats.careful(), house.partition_row().watermark), (None, 200));
    });
}

#[test]
fn a_record_during_which_owners_ended_is_a_dead_letter_and_the_others_take_effect_once() {
    scenario(|| async {
        let rows = Rows::default();
        let owner = async |owners| {
            let script = Script::default();
            hold(&script, &["a1", "b1", "c1"]);
            let house = House::after(ended(owners), script, rows.clone(), careful()).await;
            take_one_after_the_other(&house).await;
            house
        };
        for (nth, calls) in [3, 0, 0].into_iter().zip(1..) {
            // Also one that follows alone: who came before it ended over a record with a name.
            let house = owner(nth).await;
            assert_eq!(house.script.calls(), ["a1#1"], "owner {calls}");
            assert_eq!(house.partition_row().starting, Some(input(0)));
            let named = (calls > 1).then_some(Named { place: input(0), crashes: calls - 1 });
            assert_eq!(house.partition_row().named, named.into_iter().collect::<Vec<_>>());
            house.partition.do_send(Abandon);
            tokio::time::sleep(SOON).await;
        }
        let house = owner(3).await;
        house.script.open_gates.store(true, Ordering::Relaxed);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["b1#1", "c1#1"]);
        assert_eq!((letters(), house.partition_row().watermark), (vec![Offset(0)], 3));
        house.pass(Duration::from_secs(3)).await;
        assert_eq!((house.partition_row().named, house.partition_row().starting), (vec![], None));
    });
}

#[test]
fn a_record_that_waits_for_a_retry_runs_alone_too() {
    scenario(|| async {
        let rows = Rows::default();
        let script = Script::default();
        script.plan("a1", [unavailable()]);
        let house = House::new(script, rows.clone(), careful()).await;
        house.take([record(0, Some("A"), "a1")]);
        house.pass(SOON).await;
        house.partition.do_send(Abandon);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let script = Script::default();
        hold(&script, &["a1", "b1"]);
        let house = House::after(ended(3), script, rows, careful()).await;
        house.pass(Duration::from_secs(2)).await;
        house.take([record(1, Some("B"), "b1")]);
        house.pass(Duration::from_secs(3)).await;
        assert_eq!(house.script.calls(), ["a1#2"]);
        assert_eq!(house.partition_row().starting, Some(input(0)));
        house.script.open_gates.store(true, Ordering::Relaxed);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#2", "b1#1"]);
    });
}

#[test]
fn a_partition_that_stood_still_goes_on_carefully() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [refused()]);
        let policy = Policy { then: Then::Halt, ..careful() };
        let house = House::after(ended(3), script, Rows::default(), policy).await;
        take_one_after_the_other(&house).await;
        assert_eq!(house.script.calls(), ["a1#1"]);
        assert_eq!(house.partition_stats.phase(), PartitionPhase::Stopped);
        house.ask(What::Resume { key: KeyName(LaneKey::Key("A".into())) });
        house.pass(SOON).await;
        assert_eq!(sorted(house.script.calls()), ["a1#1", "a1#1", "b1#1", "c1#1"]);
        assert_eq!(house.partition_row().watermark, 3);
    });
}

#[test]
fn in_one_process_a_record_that_is_suspect_runs_beside_no_other() {
    scenario(|| async {
        let rows = Rows::default();
        let named = Named { place: input(0), crashes: 1 };
        let script = Script::default();
        hold(&script, &["a1", "b1", "c1"]);
        let mut stored = row(0);
        stored.named = vec![named];
        stored.starting = Some(input(0));
        rows.put(&stored);
        let house = House::after(ended(3), script, rows, careful()).await;
        let other = house.gate.clone().read_owned().await;
        take_one_after_the_other(&house).await;
        assert!(house.script.calls().is_empty(), "another partition's record is at the handler");
        drop(other);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#1"]);
        assert!(house.gate.try_read().is_err(), "nobody else begins");
        house.script.open_gates.store(true, Ordering::Relaxed);
        house.pass(Duration::from_secs(3)).await;
        assert!(house.gate.try_write().is_ok());
    });
}
