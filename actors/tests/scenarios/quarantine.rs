//! Keys whose record became a dead letter, where their later records are to follow.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pawl_actors::command::{KeyName, Replay, What};
use pawl_actors::dead_letter::header;
use pawl_actors::ledger::{Head, LaneKey, head_key};
use pawl_actors::outcome::{Failure, code};
use pawl_actors::policy::{Policy, Then};
use pawl_actors::record::{Offset, last_header};

use crate::house::*;

fn quarantining() -> Policy {
    Policy { then: Then::Quarantine, ..policy() }
}

/// Offset, disposition and number of each letter, in the order of the topic.
fn told() -> Vec<(i64, String, Option<i64>)> {
    COMMITTED.with_borrow(|all| {
        let letters = all.iter().flat_map(|epoch| &epoch.partitions).flat_map(|part| &part.letters);
        let told = letters.map(|letter| {
            let header = |name: &str| last_header(&letter.emit.headers, name);
            let disposition = header(header::DISPOSITION).expect("each has one");
            let number = header(header::NUMBER);
            (
                letter.offset.0,
                String::from_utf8_lossy(disposition).into_owned(),
                number.map(|number: &Bytes| i64::from_be_bytes(number[..].try_into().expect("eight bytes"))),
            )
        });
        told.collect()
    })
}

fn letter(offset: i64, disposition: &str, number: i64) -> (i64, String, Option<i64>) {
    (offset, disposition.into(), Some(number))
}

#[test]
fn later_records_of_the_key_follow_in_order_and_others_go_on() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a2", vec![unavailable(); 3]);
        let house = House::new(script, Rows::default(), quarantining()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("A"), "a2"), record(2, Some("A"), "a3")]);
        house.take([record(3, Some("B"), "b1"), record(4, Some("A"), "a4")]);
        house.pass(Duration::from_secs(4)).await;
        house.take([record(5, Some("A"), "a5"), record(6, Some("B"), "b2")]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#1", "a2#1", "b1#1", "a2#2", "a2#3", "b2#1"]);
        let followers = [letter(2, "follower", 1), letter(4, "follower", 2), letter(5, "follower", 3)];
        assert_eq!(told()[0], letter(1, "exhausted", 0));
        assert_eq!(told()[1..], followers);
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.dead_lettered, books.parked), (7, 3, 4, 0));
        assert_eq!(house.stats.quarantined.get(), 1, "one key");
        let cause = COMMITTED.with_borrow(|all| all.last().unwrap().partitions[0].letters[0].cause.clone());
        assert_eq!(cause, "its key is in quarantine since offset 1: service answered 503");
    });
}

#[test]
fn a_quarantine_outlives_its_owner_and_a_change_of_the_settings() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [refused()]);
        let house = House::new(script, Rows::default(), quarantining()).await;
        house.take([record(0, Some("A"), "a1")]);
        house.pass(SOON).await;
        let rows = house.rows.clone();
        drop(house);
        let house = House::new(Script::default(), rows.clone(), policy()).await;
        house.take([record(1, Some("A"), "a2"), record(2, Some("B"), "b1")]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["b1#1"]);
        assert_eq!(told(), [letter(0, "poison", 0), letter(1, "follower", 1)]);
        let row_key = head_key(LaneKey::Key(&b"A"[..]), &mut BytesMut::new());
        let head = Head::decode(&rows.0.lock().unwrap()[&row_key]).unwrap();
        let quarantine = head.quarantine.expect("it lasts");
        assert_eq!((quarantine.letters(), quarantine.offset), (2, 0));
        assert_eq!(quarantine.cause, "service answered 422");
    });
}

#[test]
fn what_was_applied_before_is_no_letter_when_it_comes_again() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a2", [refused()]);
        let house = House::new(script, Rows::default(), quarantining()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("A"), "a2"), record(2, Some("A"), "a1")]);
        house.pass(SOON).await;
        assert_eq!(told(), [letter(1, "poison", 0)]);
        assert_eq!(house.partition_row().books.duplicates, 1);
    });
}

#[test]
fn records_without_a_key_fail_each_for_itself() {
    scenario(|| async {
        let house = House::new(Script::default(), Rows::default(), quarantining()).await;
        house.take([record(0, None, "x"), record(1, None, "y")]);
        house.pass(SOON).await;
        let poison = |offset| (offset, "poison".to_owned(), None);
        assert_eq!(told(), [poison(0), poison(1)]);
    });
}

#[test]
fn without_quarantine_the_key_goes_on_and_its_letters_have_no_number() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [Act::Fail(Failure::permanent(code::REJECTED, "no"))]);
        let house = House::new(script, Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("A"), "a2")]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#1", "a2#1"]);
        assert_eq!(told(), [(0, "poison".to_owned(), None)]);
    });
}

/// A key in quarantine, whose later records gather for so long.
async fn gathering(gather: Duration) -> House {
    let script = Script::default();
    script.plan("a1", [refused()]);
    let policy = Policy { followers_gather: gather, ..quarantining() };
    let house = House::new(script, Rows::default(), policy).await;
    house.take([record(0, Some("A"), "a1")]);
    house.pass(SOON).await;
    house
}

#[test]
fn records_that_follow_gather_for_a_moment_and_go_together_in_their_order() {
    scenario(|| async {
        let gather = Duration::from_millis(100);
        let house = gathering(gather).await;
        assert_eq!(letters(), [Offset(0)], "the first does not wait");
        for offset in 1..5 {
            house.take([record(offset, Some("A"), &format!("a{offset}x"))]);
            house.pass(Duration::from_millis(10)).await;
        }
        house.take([record(5, Some("B"), "b1")]);
        house.pass(Duration::from_millis(10)).await;
        assert_eq!(
            (letters(), house.partition_row().watermark),
            (vec![Offset(0)], 1),
            "others do not wait either"
        );
        assert_eq!(house.script.calls(), ["a1#1", "b1#1"]);
        house.pass(gather).await;
        assert_eq!(letters(), (0..5).map(Offset).collect::<Vec<_>>());
        assert_eq!(house.partition_row().watermark, 6);
        let with_letters = COMMITTED.with_borrow(|all| {
            let parts = all.iter().flat_map(|epoch| &epoch.partitions);
            parts.filter(|part| !part.letters.is_empty()).count()
        });
        assert_eq!(with_letters, 2);
        house.take([record(6, Some("A"), "a6")]);
        house.pass(2 * gather).await;
        assert_eq!(letters().len(), 6, "each time anew");
    });
}

#[test]
fn a_key_that_is_released_goes_on_with_what_has_gathered() {
    scenario(|| async {
        let gather = Duration::from_millis(100);
        let house = gathering(gather).await;
        house.take([record(1, Some("A"), "a2"), record(2, Some("A"), "a3")]);
        house.ask(What::Release { key: KeyName(LaneKey::Key("A".into())), reason: "known".into() });
        house.pass(4 * gather).await;
        assert_eq!(house.script.calls(), ["a1#1", "a2#1", "a3#1"]);
        assert_eq!((letters(), house.partition_row().watermark), (vec![Offset(0)], 3));
    });
}

#[test]
fn what_gathers_when_a_partition_is_given_up_is_left_to_the_next_owner() {
    scenario(|| async {
        let house = gathering(Duration::from_secs(10)).await;
        house.take([record(1, Some("A"), "a2"), record(2, Some("B"), "b1")]);
        house.pass(SOON).await;
        let drained = drain(&house, Duration::from_secs(60));
        house.pass(SOON).await;
        assert!(drained.load(Ordering::Relaxed), "nobody waits for it");
        assert_eq!((letters(), house.partition_row().watermark), (vec![Offset(0)], 1));
    });
}

#[test]
fn a_replay_does_not_wait_for_what_gathers_and_brings_it_back_too() {
    scenario(|| async {
        let house = gathering(Duration::from_secs(10)).await;
        house.take([record(1, Some("A"), "a2"), record(2, Some("A"), "a3")]);
        house.pass(SOON).await;
        assert_eq!(letters(), [Offset(0)]);
        house.ask(What::Replay(Replay::default()));
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls(), ["a1#1", "a1#1", "a2#1", "a3#1"]);
        house.take([record(3, Some("A"), "a4")]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls().last().map(String::as_str), Some("a4#1"), "the key is live");
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.dead_lettered, books.replayed), (4, 4, 0, 3));
    });
}
