//! Records that are ordered by their producers' numbers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pawl_actors::command::{KeyName, What};
use pawl_actors::dead_letter::header;
use pawl_actors::ledger::{Head, LaneKey, head_key};
use pawl_actors::partition::Abandon;
use pawl_actors::policy::{GapThen, Policy, SequencePolicy, Then};
use pawl_actors::record::{Header, Record, last_header};
use pawl_actors::selector::Selector;
use pawl_actors::supervisor::{RetryPolicy, Waits};
use proptest::prelude::*;

use crate::house::*;

fn sequenced(then: GapThen) -> Policy {
    let sequence = SequencePolicy {
        at: Selector::Header("n".into()),
        first: 1,
        timeout: Duration::from_secs(10),
        max_waiting: 5,
        then,
    };
    Policy { sequence: Some(sequence), then: Then::Quarantine, event_id: None, ..policy() }
}

fn numbered(offset: i64, key: &str, number: i64) -> Record {
    let event = format!("{}{number}", key.to_lowercase());
    Record { headers: vec![Header::new("n", number.to_string())], ..record(offset, Some(key), &event) }
}

fn head(house: &House, key: &str) -> Option<Head> {
    let row_key = head_key(Some(key.as_bytes()), &mut BytesMut::new());
    house.rows.0.lock().unwrap().get(&row_key).map(|row| Head::decode(row).unwrap())
}

async fn next_owner(house: House, script: Script, policy: Policy) -> House {
    house.partition.do_send(Abandon);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let rows = house.rows.clone();
    drop(house);
    House::new(script, rows, policy).await
}

fn dispositions() -> Vec<(i64, String)> {
    COMMITTED.with_borrow(|all| {
        let letters = all.iter().flat_map(|epoch| &epoch.partitions).flat_map(|part| &part.letters);
        let told = letters.map(|letter| {
            let of = last_header(&letter.emit.headers, header::DISPOSITION).expect("each has one");
            (letter.offset.0, String::from_utf8_lossy(of).into_owned())
        });
        told.collect()
    })
}

#[test]
fn early_records_wait_for_those_before_them_and_hold_no_offset() {
    scenario(|| async {
        let house = House::new(Script::default(), Rows::default(), sequenced(GapThen::DeadLetter)).await;
        house.take([numbered(0, "A", 3), numbered(1, "A", 2), numbered(2, "B", 1)]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["b1#1"]);
        assert_eq!((house.partition_row().watermark, house.rows.parked().len()), (3, 2));
        house.take([numbered(3, "A", 1), numbered(4, "A", 4)]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["b1#1", "a1#1", "a2#1", "a3#1", "a4#1"]);
        assert!(house.rows.parked().is_empty());
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.parked), (5, 5, 0));
        assert_eq!(head(&house, "A").unwrap().sequence.unwrap().next, 5);
    });
}

#[test]
fn the_next_owner_goes_on_where_the_numbers_were() {
    scenario(|| async {
        let script = Script::default();
        let house = House::new(script.clone(), Rows::default(), sequenced(GapThen::DeadLetter)).await;
        house.take([numbered(0, "A", 1), numbered(1, "A", 4), numbered(2, "A", 3), numbered(3, "A", 1)]);
        house.pass(SOON).await;
        let house = next_owner(house, script.clone(), sequenced(GapThen::DeadLetter)).await;
        house.take([numbered(4, "A", 3), numbered(5, "A", 2), numbered(6, "A", 5)]);
        house.pass(SOON).await;
        assert_eq!(script.calls(), ["a1#1", "a2#1", "a3#1", "a4#1", "a5#1"]);
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.duplicates, books.parked), (7, 5, 2, 0));
    });
}

#[test]
fn a_drain_writes_what_lies_below_the_record_that_ends_in_its_grace() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [Act::After(Duration::from_millis(20))]);
        script.plan("a2", [Act::After(Duration::from_millis(100))]);
        let house = House::new(script.clone(), Rows::default(), sequenced(GapThen::DeadLetter)).await;
        house.take([numbered(0, "A", 1), numbered(1, "A", 3), numbered(2, "A", 2)]);
        house.pass(SOON).await;
        assert_eq!(script.calls(), ["a1#1", "a2#1"], "3 waits behind 2, and lies below it in the input");
        drain(&house, Duration::from_secs(1));
        house.pass(Duration::from_millis(200)).await;
        let house = next_owner(house, script.clone(), sequenced(GapThen::DeadLetter)).await;
        let from = house.partition_row().watermark;
        let all = [numbered(0, "A", 1), numbered(1, "A", 3), numbered(2, "A", 2), numbered(3, "A", 4)];
        house.take(all.into_iter().filter(|record| record.offset.0 >= from));
        house.pass(SOON).await;
        assert_eq!(script.calls(), ["a1#1", "a2#1", "a3#1", "a4#1"]);
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.parked), (4, 4, 0));
    });
}

#[test]
fn a_record_that_is_given_up_leaves_what_lies_below_it_in_rows() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [Act::After(Duration::from_millis(20))]);
        script.plan("a2", [refused()]);
        script.plan("a3", [Act::Wait]);
        let halting = Policy { then: Then::Halt, ..sequenced(GapThen::DeadLetter) };
        let house = House::new(script.clone(), Rows::default(), halting.clone()).await;
        house.take([numbered(0, "A", 1), numbered(1, "A", 3), numbered(2, "A", 2)]);
        house.pass(SOON).await;
        let key = KeyName(LaneKey::Key(Bytes::from_static(b"A")));
        house.ask(What::Skip { key, offset: 2, reason: "r".into() });
        house.pass(SOON).await;
        assert_eq!(script.calls(), ["a1#1", "a2#1", "a3#1"]);
        let house = next_owner(house, script.clone(), halting).await;
        let from = house.partition_row().watermark;
        let all = [numbered(0, "A", 1), numbered(1, "A", 3), numbered(2, "A", 2)];
        house.take(all.into_iter().filter(|record| record.offset.0 >= from));
        house.pass(SOON).await;
        assert_eq!(script.calls()[3..], ["a3#1"], "it is made again, not lost");
    });
}

#[test]
fn what_comes_while_letters_are_replayed_follows_or_waits_in_the_order_of_its_numbers() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [refused(), Act::After(Duration::from_millis(300))]);
        let policy = Policy {
            replay: pawl_actors::policy::ParkingBounds { records: 1, bytes: 100_000 },
            ..sequenced(GapThen::DeadLetter)
        };
        let house = House::new(script.clone(), Rows::default(), policy).await;
        house.take([numbered(0, "A", 1), numbered(1, "A", 2), numbered(2, "A", 3)]);
        house.pass(SOON).await;
        house.ask(What::Replay(Default::default()));
        house.pass(Duration::from_millis(100)).await;
        house.take([numbered(3, "A", 5), numbered(4, "A", 4), numbered(5, "A", 2)]);
        house.pass(Duration::from_secs(2)).await;
        house.take([numbered(6, "A", 6)]);
        house.pass(SOON).await;
        assert_eq!(script.calls(), ["a1#1", "a1#1", "a2#1", "a3#1", "a4#1", "a5#1", "a6#1"]);
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.duplicates, books.dead_lettered), (7, 6, 1, 0));
    });
}

#[test]
fn a_gap_is_not_given_up_while_its_key_is_paused() {
    scenario(|| async {
        let script = Script::default();
        let house = House::new(script.clone(), Rows::default(), sequenced(GapThen::DeadLetter)).await;
        let key = KeyName(LaneKey::Key(Bytes::from_static(b"A")));
        house.take([numbered(0, "A", 3)]);
        house.pass(Duration::from_millis(9_900)).await;
        house.take([numbered(1, "B", 1)]);
        house.pass(Duration::from_millis(95)).await;
        house.ask(What::Pause { key: key.clone(), create: false });
        house.pass(Duration::from_secs(5)).await;
        assert!(dispositions().is_empty(), "nothing is given up while somebody looks after the key");
        house.ask(What::Resume { key });
        house.pass(Duration::from_secs(11)).await;
        assert_eq!(dispositions(), [(0, "sequence-gap".to_owned())]);
        assert_eq!(script.calls(), ["b1#1"]);
    });
}

#[test]
fn a_number_that_is_missing_for_too_long_makes_a_letter_of_the_one_behind_it() {
    scenario(|| async {
        let house = House::new(Script::default(), Rows::default(), sequenced(GapThen::DeadLetter)).await;
        house.take([numbered(0, "A", 1), numbered(1, "A", 4), numbered(2, "A", 3)]);
        house.pass(Duration::from_secs(5)).await;
        assert_eq!(house.script.calls(), ["a1#1"]);
        house.pass(Duration::from_secs(6)).await;
        house.take([numbered(3, "A", 2), numbered(4, "A", 5)]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a1#1"]);
        let of = |offset, name: &str| (offset, name.to_owned());
        assert_eq!(
            dispositions(),
            [of(2, "sequence-gap"), of(1, "follower"), of(3, "follower"), of(4, "follower")],
            "in sequence, and what came late at last"
        );
        assert_eq!(house.stats.gaps.get(), 1);
    });
}

#[test]
fn a_gap_that_is_skipped_lets_the_key_go_on_and_what_comes_late_is_a_letter() {
    scenario(|| async {
        let house = House::new(Script::default(), Rows::default(), sequenced(GapThen::Skip)).await;
        house.take([numbered(0, "A", 3)]);
        house.pass(Duration::from_secs(11)).await;
        house.take([numbered(1, "A", 2), numbered(2, "A", 3), numbered(3, "A", 4)]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a3#1", "a4#1"]);
        assert_eq!(dispositions(), [(1, "sequence-late".to_owned())]);
        assert!(head(&house, "A").unwrap().quarantine.is_none(), "what comes late stops nobody");
        assert_eq!(house.partition_row().books.duplicates, 1);
    });
}

#[test]
fn a_gap_that_halts_keeps_the_partition_still_until_it_is_given_up() {
    scenario(|| async {
        let house = House::new(Script::default(), Rows::default(), sequenced(GapThen::Halt)).await;
        house.take([numbered(0, "A", 3)]);
        house.pass(Duration::from_secs(11)).await;
        house.take([numbered(1, "B", 1)]);
        house.pass(SOON).await;
        assert!(house.script.calls().is_empty());
        let why = house.partition_stats.stopped().expect("it says why");
        assert!(why.contains("numbers 1 to 2") && why.contains("skip-gap A --to 3"), "{why}");
        let what = What::SkipGap {
            key: KeyName(LaneKey::Key(Bytes::from_static(b"A"))),
            to: 3,
            reason: "known".into(),
        };
        house.ask(what);
        house.pass(SOON).await;
        let mut calls = house.script.calls();
        calls.sort();
        assert_eq!(calls, ["a3#1", "b1#1"]);
        assert_eq!(house.partition_stats.stopped(), None);
    });
}

#[test]
fn more_than_may_wait_are_not_waited_for() {
    scenario(|| async {
        let house = House::new(Script::default(), Rows::default(), sequenced(GapThen::Skip)).await;
        house.take((0..6).map(|n| numbered(n, "A", n + 2)));
        house.pass(SOON).await;
        assert_eq!(house.script.calls(), ["a2#1", "a3#1", "a4#1", "a5#1", "a6#1", "a7#1"]);
    });
}

#[test]
fn a_number_that_is_none_makes_a_letter() {
    scenario(|| async {
        let house = House::new(Script::default(), Rows::default(), sequenced(GapThen::Skip)).await;
        let with = |offset, key: &str, number: &str| Record {
            headers: vec![Header::new("n", number.to_owned())],
            ..record(offset, Some(key), "x")
        };
        let none = Record { headers: Vec::new(), ..record(0, Some("A"), "x") };
        let huge = "99999999999999999999";
        house.take([none, with(1, "B", "-1"), with(2, "C", "x"), with(3, "D", huge), with(4, "E", "0")]);
        house.pass(SOON).await;
        assert!(house.script.calls().is_empty());
        assert_eq!(dispositions().len(), 5);
        assert!(dispositions().iter().all(|(_, name)| name == "poison"));
    });
}

#[test]
fn a_retry_keeps_what_waits_in_sequence_also_under_the_next_owner() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a2", vec![unavailable(); 2]);
        let house = House::new(script.clone(), Rows::default(), sequenced(GapThen::Skip)).await;
        house.take([numbered(0, "A", 3), numbered(1, "A", 2), numbered(2, "A", 1), numbered(3, "A", 5)]);
        house.pass(SOON).await;
        assert_eq!(script.calls(), ["a1#1", "a2#1"]);
        assert_eq!(house.partition_row().watermark, 4);
        let house = next_owner(house, script.clone(), sequenced(GapThen::Skip)).await;
        house.take([numbered(4, "A", 4)]);
        house.pass(Duration::from_secs(8)).await;
        assert_eq!(script.calls(), ["a1#1", "a2#1", "a2#2", "a2#3", "a3#1", "a4#1", "a5#1"]);
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.parked), (5, 5, 0));
    });
}

#[test]
fn what_came_early_lies_in_a_row_before_a_repeat_of_it_that_waits_behind_a_retry() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [unavailable()]);
        let house = House::new(script.clone(), Rows::default(), sequenced(GapThen::Halt)).await;
        let all = [numbered(0, "A", 1), numbered(1, "A", 3), numbered(2, "A", 3)];
        house.take(all.clone());
        house.pass(SOON).await;
        let house = next_owner(house, script.clone(), sequenced(GapThen::Halt)).await;
        let from = house.partition_row().watermark;
        house.take(all.into_iter().chain([numbered(3, "A", 2)]).filter(|record| record.offset.0 >= from));
        house.pass(Duration::from_secs(2)).await;
        assert_eq!(script.calls(), ["a1#1", "a1#2", "a2#1", "a3#1"]);
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.duplicates, books.parked), (4, 3, 1, 0));
    });
}

/// What producers send: a key and a number; which of them fail once; where owners end.
type Jumble = (Vec<(bool, i64)>, Vec<(bool, i64)>, Vec<usize>);

/// Numbers 1 to 30 of two keys, shuffled within a window, some twice, some failing at first.
fn shuffled() -> impl Strategy<Value = Jumble> {
    let jumble = proptest::collection::vec((0usize..8, 0u8..6, 0u8..10), 60);
    let owners = proptest::collection::vec(0usize..120, 0..3);
    (jumble, owners).prop_map(|(jumble, owners)| {
        let all = (1..=30).flat_map(|n| [(true, n), (false, n)]);
        let (mut sent, mut failing) = (Vec::new(), Vec::new());
        for (at, ((key, n), (late, fails, again))) in all.zip(jumble).enumerate() {
            sent.push((at + late, key, n));
            if fails == 0 {
                failing.push((key, n));
            }
            if again == 0 {
                sent.push((at + late + 5, key, n));
            }
        }
        sent.sort_by_key(|(at, ..)| *at);
        (sent.into_iter().map(|(_, key, n)| (key, n)).collect(), failing, owners)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Owners end at any time, and what they have not committed is delivered again.
    #[test]
    fn whatever_the_producers_jumble_each_key_is_handled_by_its_numbers_once((sent, failing, owners) in shuffled()) {
        scenario(|| async {
            let sequence = sequenced(GapThen::Halt).sequence.map(|it| SequencePolicy { max_waiting: 100, ..it });
            let waits = Waits::Growing { initial: Duration::from_millis(10), multiplier: 2.0 };
            let policy = Policy { sequence, retry: RetryPolicy { waits, ..retry() }.into(), ..sequenced(GapThen::Halt) };
            let records: Vec<Record> = (0..)
                .zip(&sent)
                .map(|(offset, (key, n))| numbered(offset, if *key { "A" } else { "B" }, *n))
                .collect();
            let script = Script::default();
            for (key, n) in &failing {
                script.plan(&format!("{}{n}", if *key { "a" } else { "b" }), [unavailable()]);
            }
            let mut house = House::new(script.clone(), Rows::default(), policy.clone()).await;
            let mut cuts: Vec<usize> = owners.iter().map(|cut| cut.min(&records.len()).to_owned()).collect();
            cuts.sort_unstable();
            let mut from = 0;
            for cut in cuts.into_iter().chain([records.len()]) {
                for record in &records[from..cut.max(from)] {
                    house.take([record.clone()]);
                    if record.offset.0 % 7 == 0 {
                        house.pass(Duration::from_millis(6)).await;
                    }
                }
                if cut < records.len() {
                    house = next_owner(house, script.clone(), policy.clone()).await;
                    let row = house.rows.0.lock().unwrap().get(pawl_actors::ledger::PARTITION_KEY).cloned();
                    let watermark = row.map_or(0, |row| pawl_actors::ledger::PartitionRow::decode(&row).unwrap().watermark);
                    from = watermark as usize;
                }
            }
            house.pass(Duration::from_secs(1)).await;
            // One that failed is tried again, and so is that of an owner which ended before its epoch was committed.
            let mut seen: Vec<String> = Vec::new();
            for call in script.calls() {
                let (event, _) = call.split_once('#').expect("an attempt");
                if !seen.iter().any(|one| one == event) {
                    seen.push(event.to_owned());
                }
            }
            for key in ["a", "b"] {
                let of: Vec<&String> = seen.iter().filter(|event| event.starts_with(key)).collect();
                let expected: Vec<String> = (1..=30).map(|n| format!("{key}{n}")).collect();
                assert_eq!(of, expected.iter().collect::<Vec<_>>());
            }
            let row = house.partition_row();
            assert_eq!((row.watermark as usize, row.books.applied, row.books.parked), (records.len(), 60, 0));
            assert_eq!(row.books.received as usize, records.len());
        });
    }
}
