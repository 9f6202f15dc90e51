//! Records without a key where they are spread over lanes: each lane has order, and nothing else in common.

use std::num::NonZeroU16;
use std::time::Duration;

use bytes::BytesMut;
use pawl_actors::command::{Filter, KeyName, Progress, Replay, What};
use pawl_actors::effects::{Effects, StateChange};
use pawl_actors::ledger::{Head, LaneKey, head_key};
use pawl_actors::outcome::code;
use pawl_actors::policy::{NullKey, Policy, Then};
use pawl_actors::record::{Offset, Record};

use crate::commands::said;
use crate::house::*;

/// Null keys over four lanes, with a quarantine for keys.
fn spreading() -> Policy {
    let null_key = NullKey::Spread(NonZeroU16::new(4).unwrap());
    Policy { null_key, then: Then::Quarantine, ..policy() }
}

/// Records without a key from this offset on.
fn keyless(from: i64, events: &[&str]) -> Vec<Record> {
    (from..).zip(events).map(|(offset, event)| record(offset, None, event)).collect()
}

fn head(rows: &Rows, lane: LaneKey<&[u8]>) -> Option<Head> {
    let row_key = head_key(lane, &mut BytesMut::new());
    rows.0.lock().unwrap().get(&row_key).map(|row| Head::decode(row).unwrap())
}

#[test]
fn one_that_fails_blocks_only_its_lane_and_those_in_it_keep_their_order() {
    scenario(|| async {
        let script = Script::default();
        script.plan("n1", [unavailable()]);
        let house = House::new(script, Rows::default(), spreading()).await;
        house.take(keyless(0, &["n0", "n1", "n2", "n3", "n4", "n5"]));
        house.take([record(6, Some(""), "empty"), record(7, Some("(no key, lane 1)"), "named")]);
        house.pass(SOON).await;
        let mut calls = house.script.calls();
        calls.sort();
        assert_eq!(
            calls,
            ["empty#1", "n0#1", "n1#1", "n2#1", "n3#1", "n4#1", "named#1"],
            "n5 waits behind n1"
        );
        assert_eq!((house.partition_row().watermark, house.partition_row().books.parked), (8, 2));
        let parked = head(&house.rows, LaneKey::NoKey(1)).and_then(|head| head.parking).expect("parked");
        assert_eq!(parked.records(), 2);
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls()[7..], ["n1#2", "n5#1"]);
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.parked), (8, 8, 0));
    });
}

#[test]
fn each_fails_for_itself_whatever_follows_on_a_keys_failure() {
    scenario(|| async {
        let script = Script::default();
        script.plan("n1", [refused()]);
        script.plan("n5", [refused()]);
        let house = House::new(script, Rows::default(), spreading()).await;
        house.take(keyless(0, &["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"]));
        house.pass(SOON).await;
        assert_eq!(house.script.calls().len(), 10, "all were tried");
        assert_eq!(letters(), [Offset(1), Offset(5)]);
        assert_eq!(house.stats.quarantined.get(), 0);
        assert_eq!(head(&house.rows, LaneKey::NoKey(1)).expect("it has ids").quarantine, None);
        for letter in letter_topic() {
            assert_eq!(letter.key, None, "a letter's key is its record's");
        }
    });
}

#[test]
fn a_new_owner_finds_what_waits_and_goes_on_in_order() {
    scenario(|| async {
        let script = Script::default();
        script.plan("n1", [unavailable()]);
        script.plan("n2", [unavailable()]);
        let house = House::new(script, Rows::default(), spreading()).await;
        house.take(keyless(0, &["n0", "n1", "n2", "n3", "n4", "n5"]));
        house.pass(SOON).await;
        assert_eq!(house.rows.parked().len(), 3, "n1 with n5, and n2");
        let house = house.next_owner(Script::default(), spreading()).await;
        house.take(keyless(6, &["n6", "n7", "n8", "n9"]));
        house.pass(SOON).await;
        let mut calls = house.script.calls();
        calls.sort();
        assert_eq!(calls, ["n7#1", "n8#1"], "n6 and n9 wait in their lanes");
        house.pass(Duration::from_secs(1)).await;
        let calls = house.script.calls();
        let lane =
            |of: [&str; 3]| calls.iter().filter(|call| of.contains(&&call[..2])).cloned().collect::<Vec<_>>();
        assert_eq!(lane(["n1", "n5", "n9"]), ["n1#2", "n5#1", "n9#1"]);
        assert_eq!(lane(["n2", "n6", "n6"]), ["n2#2", "n6#1"]);
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.parked), (10, 10, 0));
        assert!(house.rows.parked().is_empty());
    });
}

#[test]
fn what_is_delivered_again_is_recognised_and_a_producers_duplicate_within_its_lane() {
    scenario(|| async {
        let house = House::new(Script::default(), Rows::default(), spreading()).await;
        house.take([record(0, None, "a"), record(1, None, "b"), record(4, None, "a"), record(5, None, "a")]);
        house.pass(SOON).await;
        let mut calls = house.script.calls();
        calls.sort();
        assert_eq!(calls, ["a#1", "a#1", "b#1"], "the one in the lane of offset 5 is not recognised");
        assert_eq!(house.partition_row().books.duplicates, 1);
        // As after a crash before the partition row followed, which only at-least-once can meet.
        house.rows.put(&row(0));
        let house = house.next_owner(Script::default(), spreading()).await;
        house.take([record(4, None, "a"), record(5, None, "a"), record(6, None, "c")]);
        house.pass(SOON).await;
        assert_eq!((house.stats.redelivered.get(), house.script.calls()), (2, vec!["c#1".to_owned()]));
    });
}

#[test]
fn a_state_belongs_to_a_key_and_is_refused_where_there_is_none() {
    scenario(|| async {
        let script = Script::default();
        let with = |state| Act::Effects(Effects { emit: Vec::new(), state });
        script.plan("n0", [with(StateChange::Set("s".into()))]);
        script.plan("n1", [with(StateChange::Clear)]);
        let house = House::new(script, Rows::default(), spreading()).await;
        house.take(keyless(0, &["n0", "n1"]));
        house.pass(SOON).await;
        assert_eq!(letters(), [Offset(0)], "there is nothing that could be cleared");
        let letter = &letter_topic()[0];
        let told = pawl_actors::dead_letter::Told::read(letter);
        assert!(told.codes.contains(&code::NULL_KEY.to_owned()), "{told:?}");
        assert!(told.message.contains("set a state, which belongs to a key"), "{told:?}");
        assert_eq!(head(&house.rows, LaneKey::NoKey(0)).and_then(|head| head.state), None);
    });
}

#[test]
fn letters_are_replayed_in_the_lanes_of_their_originals() {
    scenario(|| async {
        let script = Script::default();
        for event in ["n1", "n2", "n5", "keyed"] {
            script.plan(event, [refused()]);
        }
        let house = House::new(script, Rows::default(), spreading()).await;
        house.take(keyless(0, &["n0", "n1", "n2", "n3", "n4", "n5"]));
        house.take([record(6, Some("K"), "keyed")]);
        house.pass(SOON).await;
        let house = house.next_owner(Script::default(), spreading()).await;
        let filter = Filter { key: Some(KeyName(LaneKey::Unusable)), ..Filter::default() };
        let id = house.ask(What::Replay(Replay { filter, ..Replay::default() }));
        house.pass(Duration::from_secs(1)).await;
        let mut calls = house.script.calls();
        calls.sort();
        assert_eq!(
            calls,
            ["n1#1", "n2#1", "n5#1"],
            "{:?}: those without a key are those of all such lanes",
            said(&id)
        );
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.dead_lettered, books.replayed), (7, 6, 1, 3));
        assert!(head(&house.rows, LaneKey::NoKey(1)).expect("it has ids").ids.len() == 2, "n1 and n5");
        assert_eq!(head(&house.rows, LaneKey::Unusable), None);
    });
}

#[test]
fn a_lane_is_paused_and_resumed_by_its_number() {
    scenario(|| async {
        let house = House::new(Script::default(), Rows::default(), spreading()).await;
        let lane = || KeyName(LaneKey::NoKey(1));
        house.ask(What::Pause { key: lane(), create: true });
        house.pass(SOON).await;
        house.take(keyless(0, &["n0", "n1", "n2"]));
        house.pass(SOON).await;
        let mut calls = house.script.calls();
        calls.sort();
        assert_eq!(calls, ["n0#1", "n2#1"]);
        let id = house.ask(What::Resume { key: lane() });
        house.pass(SOON).await;
        assert_eq!(said(&id), (Progress::Done, "key (no key, lane 1) goes on".to_owned()));
        assert_eq!(house.script.calls().len(), 3);
    });
}
