//! A partition that is rewound: what is handled again, what is forgotten, and what stays.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use pawl_actors::command::{Progress, Replay, Reply, What};
use pawl_actors::effects::{Effects, StateChange};
use pawl_actors::ledger::Books;
use pawl_actors::partition::Abandon;
use pawl_actors::policy::{Policy, SequencePolicy};
use pawl_actors::record::Record;

use crate::commands::{answer, key, quarantining, said};
use crate::house::*;

fn to(offset: i64) -> What {
    What::Rewind { to: offset, reset: false, reason: "a wrong price".into() }
}

fn resetting(offset: i64) -> What {
    What::Rewind { to: offset, reset: true, reason: "a wrong price".into() }
}

fn state(text: &'static str) -> Act {
    let state = StateChange::Set(Bytes::from_static(text.as_bytes()));
    Act::Effects(Effects { emit: Vec::new(), state })
}

/// Keys have no order among each other.
fn sorted(mut calls: Vec<String>) -> Vec<String> {
    calls.sort_unstable();
    calls
}

impl House {
    /// Asks for a rewind, has the partition taken anew, and delivers what the topic holds from its watermark on.
    async fn rewound(&mut self, what: What, topic: &[Record]) -> String {
        let id = self.ask(what);
        self.pass(SOON).await;
        self.take_anew().await;
        self.script.calls.lock().unwrap().clear();
        self.deliver(topic);
        self.pass(SOON).await;
        id
    }

    fn deliver(&self, topic: &[Record]) {
        let from = self.partition_row().watermark;
        self.take(topic.iter().filter(|record| record.offset.0 >= from).cloned());
    }

    fn books(&self) -> Books {
        let books = self.partition_row().books;
        assert!(books.balance(), "{books:?}");
        books
    }
}

#[test]
fn records_from_an_offset_on_are_handled_again_and_states_are_kept_or_reset() {
    scenario(|| async {
        for (what, left) in [(to(2), Some("b-later")), (resetting(2), None)] {
            let script = Script::default();
            script.plan("b2", [state("b-later")]);
            let mut house = House::new(script, Rows::default(), policy()).await;
            let topic = [
                record(0, Some("A"), "a1"),
                record(1, Some("B"), "b1"),
                record(2, Some("A"), "a2"),
                record(3, Some("B"), "b2"),
                record(4, Some("B"), "b2"),
            ];
            house.take(topic.clone());
            house.pass(SOON).await;
            assert_eq!((house.books().applied, house.books().duplicates), (4, 1));
            let id = house.rewound(what, &topic).await;
            let (progress, message) = said(&id);
            assert_eq!(progress, Progress::Done, "{message}");
            assert!(
                message.contains("from offset 5 to 2") && message.contains("up to 3 records"),
                "{message}"
            );
            assert_eq!(sorted(house.script.calls()), ["a2#1", "b2#1"]);
            let row = house.partition_row();
            assert_eq!((row.watermark, row.began, row.commands), (5, 2, 1));
            let books = house.books();
            assert_eq!((books.received, books.applied, books.duplicates), (3, 2, 1), "new books");
            let head = house.head("B").expect("it has an id");
            assert_eq!((head.state.as_deref(), head.rewound), (left.map(str::as_bytes), 1));
        }
    });
}

#[test]
fn a_key_that_is_new_after_a_rewind_loses_nothing_by_it() {
    scenario(|| async {
        let script = Script::default();
        let mut house = House::new(script.clone(), Rows::default(), policy()).await;
        let topic = [record(0, Some("A"), "a1")];
        house.take(topic.clone());
        house.pass(SOON).await;
        house.rewound(to(0), &topic).await;
        house.take([record(1, Some("B"), "b1")]);
        house.pass(SOON).await;
        assert_eq!(house.head("B").expect("it has an id").rewound, 1);
        let house = house.next_owner(script, policy()).await;
        house.take([record(2, Some("B"), "b1")]);
        house.pass(SOON).await;
        assert_eq!((house.books().received, house.books().duplicates), (3, 1));
    });
}

#[test]
fn what_is_parked_from_before_waits_on_and_what_lies_behind_comes_again() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [unavailable(), unavailable()]);
        script.plan("b1", [unavailable()]);
        let mut house = House::new(script, Rows::default(), policy()).await;
        let topic = [
            record(0, Some("A"), "a1"),
            record(1, Some("C"), "c1"),
            record(2, Some("A"), "a2"),
            record(3, Some("B"), "b1"),
        ];
        house.take(topic.clone());
        house.pass(SOON).await;
        assert_eq!((house.books().parked, house.partition_row().watermark), (3, 4));
        house.rewound(to(2), &topic).await;
        assert_eq!(house.script.calls(), ["b1#1"], "its retry is no matter any more, and a2 waits behind a1");
        let books = house.books();
        assert_eq!((books.received, books.applied, books.parked), (3, 1, 2));
        assert_eq!(house.partition_row().rewinds.last().map(|last| last.parked), Some(1));
        house.pass(Duration::from_secs(5)).await;
        assert_eq!(house.script.calls(), ["b1#1", "a1#2", "a1#3", "a2#1"], "with the attempts that it had");
        assert_eq!((house.books().received, house.books().applied), (3, 3));
        assert_eq!(house.rows.parked(), []);
    });
}

#[test]
fn a_row_that_takes_the_place_of_one_that_was_taken_away_stays() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [unavailable(), unavailable()]);
        let mut house = House::new(script, Rows::default(), policy()).await;
        let topic = [record(0, Some("A"), "a1"), record(1, Some("A"), "a2"), record(2, Some("A"), "a3")];
        house.take(topic.clone());
        house.pass(SOON).await;
        house.ask(to(1));
        house.pass(SOON).await;
        // Its rows and those that come for the same records are written by one epoch.
        house.take_anew().await;
        house.deliver(&topic);
        house.pass(SOON).await;
        assert_eq!(house.rows.parked().len(), 3);
        house.pass(Duration::from_secs(5)).await;
        assert_eq!((house.books().received, house.books().applied, house.rows.parked().len()), (3, 3, 0));
    });
}

/// Key A fails at offset 1 and is followed by 3, B fails at 2 and is followed by 4.
async fn with_letters() -> (House, Vec<Record>) {
    let script = Script::default();
    script.plan("a2", [refused()]);
    script.plan("b1", [refused()]);
    let house = House::new(script, Rows::default(), quarantining()).await;
    let topic = vec![
        record(0, Some("A"), "a1"),
        record(1, Some("A"), "a2"),
        record(2, Some("B"), "b1"),
        record(3, Some("A"), "a3"),
        record(4, Some("B"), "b2"),
    ];
    house.take(topic.clone());
    house.pass(SOON).await;
    assert_eq!(letters().len(), 4);
    (house, topic)
}

#[test]
fn a_key_in_quarantine_from_before_keeps_its_order_and_another_leaves_it() {
    scenario(|| async {
        let (mut house, topic) = with_letters().await;
        house.rewound(to(2), &topic).await;
        assert_eq!(house.script.calls(), ["b1#1", "b2#1"], "a3 follows a2 once more");
        let all: Vec<_> = letters().iter().map(|offset| offset.0).collect();
        assert!(all[..4].contains(&3) && all[4..] == [3], "one more: {all:?}");
        let books = house.books();
        assert_eq!((books.received, books.applied, books.dead_lettered), (3, 2, 1));
        house.script.calls.lock().unwrap().clear();
        let id = house.ask(What::Replay(Replay::default()));
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls(), ["a2#1", "a3#1"], "each once, in order");
        let Reply { progress, replay, message, .. } = answer(&id);
        let replay = replay.expect("it was a replay");
        assert_eq!((progress, replay.applied, replay.gaps), (Progress::Done, 2, 0), "{message} {replay:?}");
        let books = house.books();
        assert_eq!((books.received, books.applied, books.dead_lettered), (3, 3, 0));
        assert_eq!((books.replayed, books.foreign), (1, 1), "a2 is in older books");
        assert!(house.head("A").is_none_or(|head| head.quarantine.is_none()));
    });
}

#[test]
fn letters_from_before_are_given_up_without_a_place_in_the_new_books() {
    scenario(|| async {
        let (mut house, topic) = with_letters().await;
        house.rewound(to(2), &topic).await;
        let id = house.ask(What::Release { key: key("A"), reason: "junk".into() });
        house.pass(SOON).await;
        assert_eq!(said(&id).0, Progress::Done);
        let books = house.books();
        assert_eq!((books.received, books.discarded, books.dead_lettered), (3, 1, 0));
    });
}

#[test]
fn a_key_whose_letters_are_all_superseded_is_free_after_a_replay() {
    scenario(|| async {
        let (mut house, topic) = with_letters().await;
        house.ask(What::Discard { key: key("A"), through: Some((1, 0)), reason: "junk".into() });
        house.pass(SOON).await;
        house.rewound(to(2), &topic[..3]).await;
        assert_eq!(house.head("A").expect("known").quarantine.map(|it| it.letters()), Some(1), "that of a3");
        house.script.calls.lock().unwrap().clear();
        house.ask(What::Replay(Replay::default()));
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls(), [""; 0], "a3 comes by itself");
        house.take(topic[3..].iter().cloned());
        house.pass(SOON).await;
        assert_eq!(sorted(house.script.calls()), ["a3#1", "b2#1"]);
        assert_eq!((house.books().received, house.books().applied), (3, 3));
    });
}

#[test]
fn letters_without_a_quarantine_are_not_replayed_after_their_records_came_again() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [refused()]);
        script.plan("a2", [refused()]);
        let mut house = House::new(script, Rows::default(), policy()).await;
        let topic = [record(0, Some("A"), "a1"), record(1, Some("A"), "a2")];
        house.take(topic.clone());
        house.pass(SOON).await;
        house.rewound(to(1), &topic).await;
        assert_eq!((house.script.calls(), letters().len()), (vec!["a2#1".into()], 2));
        house.script.calls.lock().unwrap().clear();
        house.ask(What::Replay(Replay::default()));
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls(), ["a1#1"]);
        assert_eq!((house.books().received, house.books().foreign), (1, 1));
    });
}

#[test]
fn a_record_that_was_parked_before_and_fails_for_good_now_is_in_the_new_books() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [unavailable(), refused()]);
        let mut house = House::new(script, Rows::default(), policy()).await;
        let topic = [record(0, Some("A"), "a1"), record(1, Some("B"), "b1")];
        house.take(topic.clone());
        house.pass(SOON).await;
        house.rewound(to(1), &topic).await;
        house.pass(Duration::from_secs(2)).await;
        let books = house.books();
        assert_eq!((books.received, books.applied, books.dead_lettered), (2, 1, 1));
        house.ask(What::Replay(Replay::default()));
        house.pass(Duration::from_secs(1)).await;
        let books = house.books();
        assert_eq!((books.applied, books.dead_lettered, books.replayed, books.foreign), (2, 0, 1, 0));
    });
}

#[test]
fn a_call_that_runs_is_given_its_time_and_then_cancelled() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [Act::After(Duration::from_secs(2))]);
        script.plan("b1", [Act::Wait, Act::Effects(Effects::default())]);
        let mut house = House::new(
            script,
            Rows::default(),
            Policy { attempt_timeout: Duration::from_secs(60), ..policy() },
        )
        .await;
        let topic = [record(0, Some("C"), "c1"), record(1, Some("A"), "a1"), record(2, Some("B"), "b1")];
        house.take(topic.clone());
        house.pass(SOON).await;
        let id = house.ask(to(0));
        house.pass(Duration::from_secs(4)).await;
        assert!(house.rebuilds.lock().unwrap().is_empty(), "b1 has a second left");
        house.pass(Duration::from_secs(2)).await;
        assert!(said(&id).1.contains("from offset 2 to 0"), "a1 has ended: {}", said(&id).1);
        house.script.open_gates.store(true, Ordering::Relaxed);
        house.take_anew().await;
        house.script.calls.lock().unwrap().clear();
        house.deliver(&topic);
        house.pass(SOON).await;
        assert_eq!(sorted(house.script.calls()), ["a1#1", "b1#1", "c1#1"]);
        assert_eq!(house.books().received, 3);
    });
}

#[test]
fn a_rewind_is_carried_out_once_wherever_its_owner_ends() {
    scenario(|| async {
        let topic = [record(0, Some("A"), "a1"), record(1, Some("A"), "a2")];
        for committed in [false, true] {
            COMMITTED.with_borrow_mut(Vec::clear);
            let script = Script::default();
            let house = House::new(script.clone(), Rows::default(), policy()).await;
            house.take(topic.clone());
            house.pass(SOON).await;
            house.ask(to(1));
            // Until its epoch lies with the writer.
            while house.epochs.lock().unwrap().is_empty() {
                house.pass(Duration::from_millis(1)).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                let rewound = |epoch: &pawl_actors::epoch::Epoch| epoch.partitions[0].next.0 == 1;
                if !house.epochs.lock().unwrap().iter().any(rewound) {
                    house.commit();
                }
            }
            if committed {
                house.commit();
            }
            house.epochs.lock().unwrap().clear();
            house.script.calls.lock().unwrap().clear();
            let mut house = house.next_owner(script, policy()).await;
            house.pass(SOON).await;
            if !committed {
                house.take_anew().await;
            }
            house.deliver(&topic);
            house.pass(Duration::from_secs(1)).await;
            assert_eq!(house.script.calls(), ["a2#1"], "committed: {committed}");
            assert_eq!((house.partition_row().rewinds.number(), house.books().received), (1, 1));
            assert!(house.rebuilds.lock().unwrap().is_empty());
            assert_eq!(said("0").0, Progress::Done);
        }
    });
}

#[test]
fn a_partition_that_is_revoked_meanwhile_is_rewound_by_its_next_owner() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a2", [Act::After(Duration::from_secs(1))]);
        let house = House::new(script.clone(), Rows::default(), policy()).await;
        let topic = [record(0, Some("A"), "a1"), record(1, Some("A"), "a2")];
        house.take(topic.clone());
        house.pass(SOON).await;
        house.ask(to(0));
        house.pass(SOON).await;
        let drained = drain(&house, Duration::from_secs(5));
        house.pass(Duration::from_secs(2)).await;
        assert!(drained.load(Ordering::Relaxed));
        assert!(house.rebuilds.lock().unwrap().is_empty());
        assert_eq!((house.partition_row().watermark, house.partition_row().rewinds.number()), (2, 0));
        let mut house = house.next_owner(script, policy()).await;
        house.rewound_by_now(&topic).await;
        assert_eq!((house.script.calls(), house.books().received), (vec!["a1#1".into(), "a2#1".into()], 2));
    });
}

impl House {
    async fn rewound_by_now(&mut self, topic: &[Record]) {
        self.pass(SOON).await;
        self.take_anew().await;
        self.script.calls.lock().unwrap().clear();
        self.deliver(topic);
        self.pass(SOON).await;
    }
}

#[test]
fn a_rewind_that_would_not_be_sound_is_refused_and_says_why() {
    scenario(|| async {
        let (house, _) = with_letters().await;
        house.script.plan("a2", [Act::After(Duration::from_secs(2))]);
        let ahead = house.ask(to(6));
        let gone = house.ask(to(-1));
        house.pass(SOON).await;
        house.ask(What::Replay(Replay::default()));
        house.pass(SOON).await;
        let replayed = house.ask(to(0));
        house.pass(SOON).await;
        for (id, part) in [(ahead, "up to 5"), (gone, "begins at 0"), (replayed, "replay is under way")] {
            let (progress, message) = said(&id);
            assert!(progress == Progress::Refused && message.contains(part), "{part}: {message}");
        }
        assert!(house.rebuilds.lock().unwrap().is_empty());
        assert_eq!(house.partition_row().rewinds.number(), 0);
    });
}

#[test]
fn where_superseded_letters_cannot_be_told_the_partition_goes_on_where_it_was() {
    scenario(|| async {
        let mut house = House::new(Script::default(), Rows::default(), policy()).await;
        let topic = [record(0, Some("A"), "a1"), record(1, Some("A"), "a2")];
        house.take(topic[..1].iter().cloned());
        house.pass(SOON).await;
        house.asides.unreadable.store(true, Ordering::Relaxed);
        let id = house.rewound(to(0), &topic).await;
        let (progress, message) = said(&id);
        assert!(progress == Progress::Refused && message.contains("no right"), "{message}");
        assert_eq!(house.script.calls(), ["a2#1"]);
        assert_eq!((house.partition_row().rewinds.number(), house.books().received), (0, 2));
        assert!(house.rebuilds.lock().unwrap().is_empty(), "nobody asks again");
    });
}

/// A call that fails while the partition drains has its lane parked, with what is behind it.
#[test]
fn a_lane_that_is_parked_by_a_failure_in_the_last_moment_loses_nothing() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [Act::WaitAndFail]);
        let mut house = House::new(script, Rows::default(), policy()).await;
        let topic = [
            record(0, Some("A"), "a1"),
            record(1, Some("B"), "b1"),
            record(2, Some("A"), "a2"),
            record(3, Some("A"), "a3"),
        ];
        house.take(topic.clone());
        house.pass(SOON).await;
        house.ask(to(0));
        house.pass(SOON).await;
        house.script.open_gates.store(true, Ordering::Relaxed);
        house.rewound_by_now(&topic).await;
        assert_eq!(sorted(house.script.calls()), ["a1#1", "a2#1", "a3#1", "b1#1"]);
        assert_eq!((house.books().received, house.books().applied, house.rows.parked().len()), (4, 4, 0));
    });
}

#[test]
fn where_numbers_order_records_only_the_beginning_is_known() {
    scenario(|| async {
        let sequence = SequencePolicy {
            at: "header:seq".parse().expect("a selector"),
            first: 1,
            timeout: Duration::from_secs(60),
            max_waiting: 10,
            then: pawl_actors::policy::GapThen::DeadLetter,
        };
        let policy = Policy { sequence: Some(sequence), ..policy() };
        let mut house = House::new(Script::default(), Rows::default(), policy).await;
        let numbered = |offset, number: &str, event| {
            let mut record = record(offset, Some("A"), event);
            record.headers.push(pawl_actors::record::Header::new("seq", number.as_bytes().to_vec()));
            record
        };
        let topic = [numbered(0, "2", "a2"), numbered(1, "1", "a1"), numbered(2, "4", "a4")];
        house.take(topic.clone());
        house.pass(SOON).await;
        assert_eq!(house.books().parked, 1, "a4 waits for number 3");
        let middle = house.ask(to(1));
        house.pass(SOON).await;
        let (progress, message) = said(&middle);
        assert!(progress == Progress::Refused && message.contains("offset 0"), "{message}");
        house.rewound(to(0), &topic).await;
        assert_eq!(house.script.calls(), ["a1#1", "a2#1"]);
        assert_eq!((house.books().received, house.books().parked), (3, 1));
        house.take([numbered(3, "3", "a3")]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls()[2..], ["a3#1", "a4#1"]);
        assert_eq!((house.books().received, house.books().applied), (4, 4));
    });
}

#[test]
fn a_partition_may_be_rewound_again_and_keys_that_slept_through_all_of_it_are_up_to_date() {
    scenario(|| async {
        let mut house = House::new(Script::default(), Rows::default(), policy()).await;
        let topic: Vec<Record> =
            (0..6).map(|n| record(n, Some(["A", "B"][n as usize % 2]), &format!("e{n}"))).collect();
        house.take(topic.clone());
        house.pass(SOON).await;
        house.rewound(to(4), &topic[..5]).await;
        assert_eq!(house.script.calls(), ["e4#1"]);
        house.rewound(to(3), &topic).await;
        assert_eq!(sorted(house.script.calls()), ["e3#1", "e4#1", "e5#1"]);
        let row = house.partition_row();
        assert_eq!((row.rewinds.number(), row.began, house.books().received), (2, 3, 3));
        house.partition.do_send(Abandon);
    });
}
