//! What operators ask for: replays of dead letters, and what becomes of a key.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pawl_actors::command::{ANSWER, Command, Filter, KeyName, Progress, Replay, Reply, VERSION, What};
use pawl_actors::ledger::{Head, LaneKey, head_key};
use pawl_actors::partition::Abandon;
use pawl_actors::policy::{Policy, Then};
use pawl_actors::record::{Record, last_header};

use crate::house::*;

pub fn quarantining() -> Policy {
    Policy { then: Then::Quarantine, ..policy() }
}

pub fn key(text: &str) -> KeyName {
    KeyName(LaneKey::Key(Bytes::copy_from_slice(text.as_bytes())))
}

fn all() -> What {
    What::Replay(Replay::default())
}

fn only(text: &str) -> Filter {
    Filter { key: Some(key(text)), ..Filter::default() }
}

impl House {
    /// Writes a command; its id is its offset.
    pub fn ask(&self, what: What) -> String {
        let id = self.asides.commands.lock().unwrap().len().to_string();
        let command = Command { version: VERSION, id: id.clone(), by: "ops".into(), what };
        self.write_command(&command.written());
        id
    }

    fn write_command(&self, value: &[u8]) {
        let mut commands = self.asides.commands.lock().unwrap();
        let offset = commands.len() as i64;
        let value = Some(Bytes::copy_from_slice(value));
        commands.push(Record { value, headers: Vec::new(), ..record(offset, None, "") });
    }

    pub fn head(&self, key: &str) -> Option<Head> {
        let row_key = head_key(Some(key.as_bytes()), &mut BytesMut::new());
        self.rows.0.lock().unwrap().get(&row_key).map(|row| Head::decode(row).unwrap())
    }

    /// The next owner, on what this one has committed.
    pub async fn next_owner(self, script: Script, policy: Policy) -> House {
        let (rows, commands) = (self.rows.clone(), self.asides.commands.lock().unwrap().clone());
        self.partition.do_send(Abandon);
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(self);
        let house = House::new(script, rows, policy).await;
        *house.asides.commands.lock().unwrap() = commands;
        house
    }
}

/// The last answer to a command.
pub fn answer(id: &str) -> Reply {
    let answers = emitted()
        .into_iter()
        .filter(|emit| last_header(&emit.headers, ANSWER).is_some_and(|of| of == id.as_bytes()));
    let last = answers.last().unwrap_or_else(|| panic!("no answer to {id}"));
    assert_eq!((&*last.topic, last.partition), ("billing-commands", Some(3)));
    serde_json::from_slice(&last.value.expect("a value")).expect("an answer")
}

pub fn said(id: &str) -> (Progress, String) {
    let answer = answer(id);
    (answer.progress, answer.message)
}

/// Key A has three letters: its second record failed, two followed. B has one, C none.
async fn with_letters(script: &Script) -> House {
    script.plan("a2", [refused()]);
    script.plan("b1", [refused()]);
    let house = House::new(script.clone(), Rows::default(), quarantining()).await;
    house.take([record(0, Some("A"), "a1"), record(1, Some("A"), "a2"), record(2, Some("A"), "a3")]);
    house.take([record(3, Some("B"), "b1"), record(4, Some("A"), "a4"), record(5, Some("C"), "c1")]);
    house.pass(SOON).await;
    assert_eq!(letters().len(), 4);
    house.script.calls.lock().unwrap().clear();
    house
}

#[test]
fn a_replay_brings_keys_back_in_order_and_what_came_meanwhile_behind_them() {
    scenario(|| async {
        let house = with_letters(&Script::default()).await;
        let id = house.ask(all());
        house.take([record(6, Some("A"), "a5")]);
        house.pass(Duration::from_secs(1)).await;
        house.take([record(7, Some("A"), "a6"), record(8, Some("B"), "b2")]);
        house.pass(SOON).await;
        let calls = house.script.calls();
        let of = |key: char| calls.iter().filter(|call| call.starts_with(key)).cloned().collect::<Vec<_>>();
        assert_eq!(of('a'), ["a2#1", "a3#1", "a4#1", "a5#1", "a6#1"]);
        assert_eq!(of('b'), ["b1#1", "b2#1"]);
        let Reply { progress, replay, message, .. } = answer(&id);
        let replay = replay.expect("it was a replay");
        assert_eq!((progress, replay.failed, replay.gaps), (Progress::Done, 0, 0), "{message}");
        assert_eq!(replay.applied as usize, letters().len(), "also those that came meanwhile");
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.dead_lettered), (9, 9, 0));
        assert_eq!(books.replayed as usize, letters().len());
        assert!(house.head("A").is_none_or(|head| head.quarantine.is_none()));
        assert_eq!(house.partition_row().replay, None);
    });
}

#[test]
fn a_second_replay_finds_nothing_to_do() {
    scenario(|| async {
        let house = with_letters(&Script::default()).await;
        house.ask(all());
        house.pass(Duration::from_secs(1)).await;
        let calls = house.script.calls().len();
        let id = house.ask(all());
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls().len(), calls);
        let replay = answer(&id).replay.expect("it was a replay");
        assert_eq!((replay.applied, replay.passed_over), (0, 4));
    });
}

#[test]
fn a_letter_that_fails_again_stays_the_first_and_holds_only_its_key() {
    scenario(|| async {
        let house = with_letters(&Script::default()).await;
        house.script.plan("a2", [refused()]);
        let id = house.ask(all());
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls(), ["a2#1", "b1#1"]);
        assert_eq!(letters().len(), 4, "no new letter");
        let replay = answer(&id).replay.expect("it was a replay");
        assert_eq!((replay.applied, replay.failed), (1, 1));
        assert_eq!(replay.troubles, ["key \"A\": service answered 422 (attempt 1)"]);
        let quarantine = house.head("A").unwrap().quarantine.expect("it lasts");
        assert_eq!((quarantine.first, quarantine.next, quarantine.replay), (0, 3, None));
        house.ask(all());
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls()[2..], ["a2#1", "a3#1", "a4#1"]);
        assert_eq!(house.partition_row().books.dead_lettered, 0);
    });
}

#[test]
fn the_next_owner_goes_on_with_a_replay_and_applies_nothing_twice() {
    scenario(|| async {
        let script = Script::default();
        let house = with_letters(&script).await;
        script.plan("a3", [Act::Wait]);
        let id = house.ask(Replay { rate: Some(50.0), ..Replay::default() }.into_what());
        house.pass(Duration::from_millis(300)).await;
        assert_eq!(script.calls().iter().filter(|call| call.starts_with('a')).count(), 2, "a3 is under way");
        let row = house.partition_row().replay.expect("it is durable");
        assert_eq!((row.to, row.from), (4, 1), "a2 is done, a3 is not");
        script.plan("a3", []);
        let house = house.next_owner(script.clone(), quarantining()).await;
        house.take([record(6, Some("A"), "a5")]);
        house.pass(Duration::from_secs(1)).await;
        let calls: Vec<_> = script.calls().into_iter().filter(|call| call.starts_with('a')).collect();
        assert_eq!(
            calls,
            ["a2#1", "a3#1", "a3#1", "a4#1", "a5#1"],
            "only what was under way is called again"
        );
        assert_eq!(script.calls().iter().filter(|call| *call == "b1#1").count(), 1);
        assert_eq!(answer(&id).progress, Progress::Done);
        assert_eq!(house.partition_row().books.dead_lettered, 0);
    });
}

trait IntoWhat {
    fn into_what(self) -> What;
}

impl IntoWhat for Replay {
    fn into_what(self) -> What {
        What::Replay(self)
    }
}

#[test]
fn a_filter_chooses_keys_by_their_first_letter_and_a_dry_run_only_counts() {
    scenario(|| async {
        let house = with_letters(&Script::default()).await;
        let dry = house.ask(Replay { filter: only("A"), dry_run: true, ..Replay::default() }.into_what());
        house.pass(Duration::from_secs(1)).await;
        let replay = answer(&dry).replay.expect("it was a replay");
        assert_eq!((replay.applied, house.script.calls().len()), (3, 0));
        let disposition = |name: &str| Filter { disposition: Some(name.into()), ..Filter::default() };
        for filter in [
            disposition("exhausted"),
            Filter { cause: Some("pawl.Exhausted".into()), ..Filter::default() },
            Filter { since: Some(6_000), ..Filter::default() },
            Filter { until: Some(5_000), ..Filter::default() },
            Filter { group: Some("other".into()), ..Filter::default() },
            disposition("follower"),
        ] {
            house.ask(Replay { filter: filter.clone(), ..Replay::default() }.into_what());
            house.pass(Duration::from_secs(1)).await;
            assert!(house.script.calls().is_empty(), "{filter:?}");
        }
        let filter = Filter { cause: Some("answered 422".into()), ..only("A") };
        house.ask(Replay { filter, ..Replay::default() }.into_what());
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls(), ["a2#1", "a3#1", "a4#1"]);
    });
}

#[test]
fn a_retry_within_a_replay_holds_only_its_key_and_its_arrivals_are_parked() {
    scenario(|| async {
        let house = with_letters(&Script::default()).await;
        house.script.plan("a4", [unavailable()]);
        house.ask(all());
        house.pass(Duration::from_millis(300)).await;
        house.take([record(6, Some("A"), "a5"), record(7, Some("A"), "a6"), record(8, Some("B"), "b2")]);
        house.pass(Duration::from_millis(100)).await;
        assert_eq!(house.partition_row().watermark, 9, "what waits behind the letter lies in rows");
        assert_eq!(house.rows.parked().len(), 2);
        house.pass(Duration::from_secs(2)).await;
        let calls: Vec<_> = house.script.calls().into_iter().filter(|call| call.starts_with('a')).collect();
        assert_eq!(calls, ["a2#1", "a3#1", "a4#1", "a4#2", "a5#1", "a6#1"]);
        assert!(house.rows.parked().is_empty());
        assert_eq!(letters().len(), 4, "nothing followed");
    });
}

#[test]
fn arrivals_parked_behind_a_letter_follow_it_under_the_next_owner() {
    scenario(|| async {
        let script = Script::default();
        let house = with_letters(&script).await;
        script.plan("a4", vec![unavailable(); 2]);
        house.ask(all());
        house.pass(Duration::from_millis(300)).await;
        house.take([record(6, Some("A"), "a5"), record(7, Some("A"), "a6")]);
        house.pass(Duration::from_millis(100)).await;
        let house = house.next_owner(script.clone(), quarantining()).await;
        house.pass(Duration::from_secs(5)).await;
        let calls: Vec<_> = script.calls().into_iter().filter(|call| call.starts_with('a')).collect();
        let applied: Vec<_> = calls.iter().filter(|call| !call.starts_with("a4")).collect();
        assert_eq!(applied, ["a2#1", "a3#1", "a5#1", "a6#1"]);
        let books = house.partition_row().books;
        assert_eq!((books.parked, books.dead_lettered, books.applied), (0, 0, 8));
    });
}

#[test]
fn letters_without_a_number_are_replayed_each_for_itself_and_once() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [refused()]);
        script.plan("b1", [refused()]);
        let house = House::new(script.clone(), Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("A"), "a2"), record(2, Some("B"), "b1")]);
        house.take([record(3, None, "x")]);
        house.pass(SOON).await;
        let id = house.ask(all());
        house.pass(Duration::from_secs(1)).await;
        let replay = answer(&id).replay.expect("it was a replay");
        assert_eq!((replay.applied, replay.failed), (2, 1), "{:?}", replay.troubles);
        let house = house.next_owner(script.clone(), policy()).await;
        let id = house.ask(all());
        house.pass(Duration::from_secs(1)).await;
        let replay = answer(&id).replay.expect("it was a replay");
        assert_eq!((replay.applied, replay.failed, replay.passed_over), (0, 1, 2));
        assert_eq!(
            script.calls().iter().filter(|call| *call == "a1#1").count(),
            2,
            "it failed, then it was applied"
        );
        let books = house.partition_row().books;
        assert_eq!((books.applied, books.dead_lettered), (3, 1));
    });
}

#[test]
fn letters_that_are_gone_are_told_and_booked_as_lost_only_when_that_is_accepted() {
    scenario(|| async {
        let house = with_letters(&Script::default()).await;
        house.asides.gone.lock().unwrap().push(0);
        let id = house.ask(all());
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls(), ["b1#1"]);
        let replay = answer(&id).replay.expect("it was a replay");
        assert_eq!(replay.gaps, 1);
        assert!(replay.troubles[0].contains("1 letter of its key before it gone"), "{:?}", replay.troubles);
        house.ask(Replay { accept_lost: true, ..Replay::default() }.into_what());
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls()[1..], ["a3#1", "a4#1"]);
        let books = house.partition_row().books;
        assert_eq!((books.lost_letters, books.dead_lettered), (1, 0));
    });
}

#[test]
fn a_gap_behind_other_letters_is_accepted_when_those_are_done() {
    scenario(|| async {
        let house = with_letters(&Script::default()).await;
        // Letters of A lie at 0, 1 and 3; that of B at 2.
        house.asides.gone.lock().unwrap().push(1);
        let id = house.ask(Replay { accept_lost: true, filter: only("A"), ..Replay::default() }.into_what());
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls(), ["a2#1", "a4#1"], "{:?}", answer(&id));
        let books = house.partition_row().books;
        assert_eq!((books.lost_letters, books.dead_lettered, books.applied), (1, 1, 4));
        assert!(house.head("A").is_none_or(|head| head.quarantine.is_none()));
    });
}

#[test]
fn a_discard_in_the_middle_of_a_replay_of_the_key_is_refused() {
    scenario(|| async {
        let house = with_letters(&Script::default()).await;
        house.ask(Replay { rate: Some(1.0), filter: only("A"), ..Replay::default() }.into_what());
        house.pass(Duration::from_millis(1_500)).await;
        assert_eq!(house.script.calls(), ["a2#1"]);
        let discard = house.ask(What::Discard { key: key("A"), through: None, reason: "r".into() });
        house.pass(SOON).await;
        assert_eq!(answer(&discard).progress, Progress::Refused);
        house.pass(Duration::from_secs(3)).await;
        assert_eq!(house.script.calls(), ["a2#1", "a3#1", "a4#1"]);
    });
}

#[test]
fn a_stopped_replay_leaves_what_it_has_not_done() {
    scenario(|| async {
        let house = with_letters(&Script::default()).await;
        house.script.plan("a2", [Act::Wait]);
        let id = house.ask(all());
        house.pass(Duration::from_millis(300)).await;
        let refused = house.ask(all());
        house.pass(SOON).await;
        assert_eq!(answer(&refused).progress, Progress::Refused);
        let discard = house.ask(What::Discard { key: key("A"), through: None, reason: "r".into() });
        house.ask(What::StopReplay {});
        house.pass(SOON).await;
        assert_eq!(answer(&discard).progress, Progress::Refused);
        house.script.open_gates.store(true, std::sync::atomic::Ordering::Relaxed);
        house.pass(Duration::from_millis(300)).await;
        assert_eq!(answer(&id).progress, Progress::Done);
        let quarantine = house.head("A").unwrap().quarantine.expect("it lasts");
        assert_eq!((quarantine.first, quarantine.next, quarantine.replay), (1, 3, None));
        house.ask(all());
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.partition_row().books.dead_lettered, 0);
    });
}

#[test]
fn discarded_and_released_letters_are_booked_and_the_key_goes_on() {
    scenario(|| async {
        let house = with_letters(&Script::default()).await;
        let discard = |through| What::Discard { key: key("A"), through, reason: "junk".into() };
        let other = house.ask(discard(Some((99, 0))));
        let first = house.ask(discard(Some((1, 0))));
        let again = house.ask(discard(Some((1, 0))));
        house.pass(SOON).await;
        assert_eq!(answer(&other).progress, Progress::Refused);
        assert_eq!(said(&first), (Progress::Done, "1 letters of key \"A\" are given up; 2 are left".into()));
        assert_eq!(answer(&again).progress, Progress::Nothing);
        house.ask(What::Release { key: key("B"), reason: "r".into() });
        house.ask(all());
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(house.script.calls(), ["a3#1", "a4#1"]);
        house.take([record(6, Some("B"), "b2")]);
        house.pass(SOON).await;
        assert_eq!(house.script.calls().last().map(String::as_str), Some("b2#1"));
        let books = house.partition_row().books;
        assert_eq!((books.discarded, books.dead_lettered, books.applied), (2, 0, 5));
    });
}

#[test]
fn a_paused_key_waits_in_the_ledger_under_every_owner_until_it_is_resumed() {
    scenario(|| async {
        let script = Script::default();
        let house = House::new(script.clone(), Rows::default(), policy()).await;
        let unknown = house.ask(What::Pause { key: key("A"), create: false });
        let paused = house.ask(What::Pause { key: key("A"), create: true });
        house.pass(SOON).await;
        assert_eq!(
            (answer(&unknown).progress, answer(&paused).progress),
            (Progress::Nothing, Progress::Done)
        );
        house.take([record(0, Some("A"), "a1"), record(1, Some("A"), "a2"), record(2, Some("B"), "b1")]);
        house.pass(SOON).await;
        assert_eq!(script.calls(), ["b1#1"]);
        assert_eq!(house.partition_row().watermark, 3, "it holds no offset");
        let house = house.next_owner(script.clone(), policy()).await;
        house.take([record(3, Some("A"), "a3")]);
        house.pass(Duration::from_secs(1)).await;
        assert_eq!(script.calls(), ["b1#1"]);
        let skip = |offset| What::Skip { key: key("A"), offset, reason: "r".into() };
        let (wrong, right) = (house.ask(skip(1)), house.ask(skip(0)));
        house.pass(SOON).await;
        assert_eq!(
            said(&wrong),
            (Progress::Refused, "key \"A\" does not wait with offset 1, but with offset 0".into())
        );
        assert_eq!(answer(&right).progress, Progress::Done);
        house.ask(What::Resume { key: key("A") });
        house.pass(SOON).await;
        assert_eq!(script.calls(), ["b1#1", "a2#1", "a3#1"]);
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.skipped, books.parked), (4, 3, 1, 0));
    });
}

#[test]
fn an_erased_key_is_a_new_one() {
    scenario(|| async {
        let house = House::new(Script::default(), Rows::default(), policy()).await;
        house.take([record(0, Some("A"), "a1")]);
        house.pass(SOON).await;
        assert!(house.head("A").is_some());
        let id = house.ask(What::Erase { key: key("A") });
        house.pass(SOON).await;
        assert_eq!(answer(&id).progress, Progress::Done);
        assert!(!answer(&id).message.contains("\"A\""), "the record of it does not name the key");
        assert!(house.head("A").is_none());
        let unknown = house.ask(What::Erase { key: key("Z") });
        house.script.plan("q", [unavailable()]);
        house.take([record(1, Some("Q"), "q")]);
        house.pass(SOON).await;
        let waits = house.ask(What::Erase { key: key("Q") });
        house.pass(SOON).await;
        assert_eq!(answer(&unknown).progress, Progress::Nothing);
        assert_eq!(answer(&waits).progress, Progress::Refused);
    });
}

#[test]
fn what_is_no_command_is_passed_by_and_refused_by_its_id() {
    scenario(|| async {
        let house = House::new(Script::default(), Rows::default(), policy()).await;
        house.write_command(b"garbage");
        house.write_command(br#"{"id":"x","version":9}"#);
        house.write_command(&vec![b' '; 20_000]);
        let id = house.ask(What::Resume { key: key("A") });
        house.pass(SOON).await;
        assert_eq!(answer("x").progress, Progress::Refused);
        assert_eq!(answer(&id).progress, Progress::Nothing);
        assert_eq!(house.partition_row().commands, 4);
        let house = house.next_owner(Script::default(), policy()).await;
        let answers = emitted().len();
        house.take([record(0, Some("A"), "a1")]);
        house.pass(SOON).await;
        assert_eq!(emitted().len(), answers, "no command is carried out twice");
    });
}

#[test]
fn a_partition_that_is_to_halt_stands_still_until_the_record_is_decided_on() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", vec![refused(); 2]);
        script.plan("c1", [unavailable()]);
        script.plan("d1", [Act::Wait]);
        let halting = Policy { then: Then::Halt, max_in_flight: 2, ..policy() };
        let house = House::new(script.clone(), Rows::default(), halting).await;
        house.take([record(0, Some("C"), "c1"), record(1, Some("D"), "d1"), record(2, Some("A"), "a1")]);
        house.take([record(3, Some("A"), "a2"), record(4, Some("B"), "b1")]);
        house.pass(SOON).await;
        house.take([record(5, Some("B"), "b2"), record(6, Some("E"), "e1")]);
        house.pass(Duration::from_secs(3)).await;
        script.open_gates.store(true, std::sync::atomic::Ordering::Relaxed);
        house.pass(SOON).await;
        let calls = script.calls();
        assert!(
            !calls.contains(&"c1#2".into()) && !calls.contains(&"e1#1".into()),
            "it stands still: {calls:?}"
        );
        assert!(letters().is_empty());
        let why = house.partition_stats.stopped().expect("it says why");
        assert!(why.contains("pawl keys skip A --offset 2"), "{why}");
        assert!(house.halts.lock().unwrap().is_empty(), "the handler goes on");
        let again = house.ask(What::Resume { key: key("A") });
        house.pass(SOON).await;
        assert_eq!(answer(&again).progress, Progress::Done);
        assert!(house.partition_stats.stopped().is_some(), "it failed again");
        let skip = house.ask(What::Skip { key: key("A"), offset: 2, reason: "r".into() });
        house.pass(Duration::from_secs(3)).await;
        assert_eq!(answer(&skip).progress, Progress::Done);
        let calls = script.calls();
        for call in ["a1#1", "a2#1", "b1#1", "b2#1", "c1#2", "d1#1", "e1#1"] {
            assert!(calls.contains(&call.into()), "{call} in {calls:?}");
        }
        assert_eq!(house.partition_stats.stopped(), None);
        let books = house.partition_row().books;
        assert_eq!(
            (books.received, books.applied, books.skipped, house.partition_row().watermark),
            (7, 6, 1, 7)
        );
    });
}
