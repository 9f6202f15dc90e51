//! Every way in which writing can fail, played by a script in Kafka's place: brokers do these things too
//! rarely, and never on request. What is asserted is what the writer asked of the wire, in order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pawl_actors::claims::Claims;
use pawl_actors::effects::Emit;
use pawl_actors::epoch::{AssignmentEpoch, Effect, Epoch, Letter, PartitionEpoch};
use pawl_actors::ledger::Row;
use pawl_actors::record::{Millis, NextOffset, Offset, Partition};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::attempt::{self, AttemptError};
use super::super::claim::{ClaimJob, ClaimRequest, Claimed};
use super::super::commit_metadata::CommitMetadata;
use super::super::consumer::Command;
use super::super::delivery::{Delivered, Refused, Tag};
use super::super::denied::Identity;
use super::super::held::Held;
use super::super::wire::{OpenError, Wire};
use super::recovery::{MAX_REFUSED_PRODUCERS, USURPED};
use super::{Job, Writer, WriterParts};
use crate::observed::EpochCommitTimes;
use crate::store::tests::view_in;

const CLAIM: i64 = 40;

type Committed = Result<Option<CommitMetadata>, KafkaError>;

/// Answers from lists; where one is used up, all is well.
#[derive(Default)]
struct Script {
    writes: VecDeque<AttemptError>,
    opens: VecDeque<OpenError>,
    aborts: VecDeque<bool>,
    committed: RefCell<VecDeque<Committed>>,
    /// What happens before the first answer to a write is heard of.
    meanwhile: Option<Box<dyn FnOnce()>>,
    asked: RefCell<Vec<String>>,
    /// Numbers of the effects that were refused.
    refused_effects: Vec<usize>,
    /// Whether the first record of a step is never acknowledged while more may come.
    takes_more: bool,
    /// When the play began, and how long ago that is.
    clock: Option<(Instant, Duration)>,
}

impl Script {
    fn note(&self, text: String) {
        self.asked.borrow_mut().push(text);
    }

    fn attempt(&mut self, text: String) -> Result<(), AttemptError> {
        self.note(text);
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        self.writes.pop_front().map_or(Ok(()), Err)
    }
}

impl Wire for Script {
    fn open(&mut self) -> Result<(), OpenError> {
        self.note("open".into());
        self.opens.pop_front().map_or(Ok(()), Err)
    }

    fn begin(&mut self) -> Result<(), AttemptError> {
        Ok(())
    }

    fn send(&mut self, _: &[&PartitionEpoch]) -> Result<(), AttemptError> {
        Ok(())
    }

    fn takes_more(&self) -> bool {
        self.takes_more
    }

    fn finish(&mut self, parts: &[&PartitionEpoch]) -> Result<Delivered, AttemptError> {
        let numbers: Vec<String> = parts.iter().map(|part| part.partition.to_string()).collect();
        self.attempt(format!("write {}", numbers.join(" ")))?;
        Ok(Delivered::default())
    }

    fn claim(&mut self, claims: &[&ClaimRequest]) -> Result<Vec<Claimed>, AttemptError> {
        let numbers: Vec<String> = claims.iter().map(|claim| claim.partition.to_string()).collect();
        self.attempt(format!("claim {}", numbers.join(" ")))?;
        Ok(claims.iter().map(|claim| Claimed { partition: claim.partition, claim: CLAIM }).collect())
    }

    fn abort(&mut self) -> bool {
        self.note("abort".into());
        self.aborts.pop_front().unwrap_or(true)
    }

    fn refused_effects(&self) -> Vec<usize> {
        self.refused_effects.clone()
    }

    fn committed(&self, partition: Partition) -> Committed {
        self.note(format!("committed {partition}"));
        self.committed.borrow_mut().pop_front().unwrap_or(Ok(None))
    }

    fn pause(&self, _: Duration) {}

    fn now(&self) -> Instant {
        self.clock.map_or_else(Instant::now, |(began, since)| began + since)
    }
}

/// A writer over a script, holding partitions 0 to 3.
struct Stage {
    writer: Writer<Script>,
    held: Arc<Held>,
    intake: Receiver<Command>,
    _dir: tempfile::TempDir,
}

impl Stage {
    fn new(script: Script) -> Stage {
        let dir = tempfile::tempdir().expect("a directory");
        let view = view_in(dir.path());
        let held = Arc::new(Held::default());
        for partition in 0..4 {
            held.assign(Partition(partition), AssignmentEpoch(1));
        }
        let (tell, intake) = channel();
        let parts = WriterParts {
            handler: "billing".into(),
            topic: "orders".into(),
            instance: "host-1".into(),
            wire: script,
            transaction_timeout: Duration::from_secs(60),
            commit_interval: Duration::ZERO,
            held: held.clone(),
            view,
            intake: tell,
            times: EpochCommitTimes::default(),
            stats: Arc::default(),
            refusals: Arc::default(),
            group: "billing".into(),
            tracing: None,
            on_halt: Arc::new(|_| {}),
        };
        Stage { writer: Writer::new(parts), held, intake, _dir: dir }
    }

    fn failing(errors: impl IntoIterator<Item = AttemptError>) -> Stage {
        Stage::new(Script { writes: errors.into_iter().collect(), ..Script::default() })
    }

    /// Writes epoch 7 of these partitions; what was committed.
    fn write(&mut self, partitions: &[i32]) -> Result<Vec<i32>, String> {
        let committed = self.write_with(epoch(7, partitions), &channel().1)?;
        Ok(committed.into_iter().map(|(_, partition)| partition).collect())
    }

    /// Writes an epoch, and what is waiting if the step takes it in; the shares that were committed.
    fn write_with(&mut self, first: Epoch, jobs: &Receiver<Job>) -> Result<Vec<(u64, i32)>, String> {
        let (mut epochs, mut committed) = (Vec::new(), Vec::new());
        let sent = self.writer.send(first, &mut epochs, jobs);
        self.writer.write(&epochs, sent, &mut committed)?;
        Ok(committed.iter().map(|(number, partition)| (*number, partition.0)).collect())
    }

    fn asked(&self) -> String {
        self.writer.parts.wire.asked.borrow().join(", ")
    }

    fn row(&self, partition: i32) -> Option<Bytes> {
        self.writer.parts.view.row(partition, b"\x01").expect("reads")
    }
}

fn epoch(number: u64, partitions: &[i32]) -> Epoch {
    Epoch { number, partitions: partitions.iter().map(|&partition| share(number, partition)).collect() }
}

fn share(epoch: u64, partition: i32) -> PartitionEpoch {
    PartitionEpoch {
        epoch,
        partition: Partition(partition),
        assignment: AssignmentEpoch(1),
        claim: CLAIM,
        claims: Claims::default(),
        released: false,
        emits: Vec::new(),
        letters: Vec::new(),
        rows: Vec::new(),
        partition_row: Row { key: Bytes::from_static(b"\x01"), value: Some(Bytes::from_static(b"row")) },
        next: NextOffset(1),
        traces: Vec::new(),
    }
}

fn reached(claim: i64, epoch: u64) -> Committed {
    Ok(Some(CommitMetadata::of(claim, epoch)))
}

fn abortable() -> AttemptError {
    AttemptError::Abortable("one of them was refused".into())
}

fn unknown() -> AttemptError {
    AttemptError::Unknown("the commit timed out".into())
}

fn late() -> AttemptError {
    AttemptError::Unacknowledged("7 records were not acknowledged".into())
}

fn usurped() -> AttemptError {
    AttemptError::Usurped("fenced".into())
}

#[test]
fn what_can_be_aborted_is_sent_again_by_the_same_producer() {
    let mut stage = Stage::failing([abortable(), abortable()]);
    assert_eq!(stage.write(&[0, 1]), Ok(vec![0, 1]));
    assert_eq!(stage.asked(), "write 0 1, abort, write 0 1, abort, write 0 1");
    assert_eq!(stage.row(1), Some(Bytes::from_static(b"row")), "rows reach the view once they are committed");
}

#[test]
fn an_abort_that_fails_takes_a_new_producer() {
    let mut stage = Stage::failing([abortable()]);
    stage.writer.parts.wire.aborts = VecDeque::from([false]);
    assert_eq!(stage.write(&[0]), Ok(vec![0]));
    assert_eq!(stage.asked(), "write 0, abort, open, write 0");
}

#[test]
fn after_missing_acknowledgements_the_producer_is_never_used_again() {
    let mut stage = Stage::failing([late()]);
    assert_eq!(stage.write(&[0]), Ok(vec![0]));
    assert_eq!(stage.asked(), "write 0, open, write 0", "not even to abort");
}

#[test]
fn a_producer_that_can_do_no_more_is_replaced() {
    let mut stage = Stage::failing([AttemptError::Producer("fatal".into()), usurped()]);
    assert_eq!(stage.write(&[0]), Ok(vec![0]));
    assert_eq!(stage.asked(), "write 0, open, write 0, open, write 0");
}

#[test]
fn a_commit_that_turns_out_to_have_happened_is_not_sent_again() {
    let mut stage = Stage::failing([unknown()]);
    stage.writer.parts.wire.committed = RefCell::new(VecDeque::from([reached(CLAIM, 7)]));
    assert_eq!(stage.write(&[0, 1]), Ok(vec![0, 1]));
    assert_eq!(stage.asked(), "write 0 1, open, committed 0");
    assert_eq!(stage.row(0), Some(Bytes::from_static(b"row")));
}

#[test]
fn a_commit_that_did_not_happen_is_sent_again() {
    for found in [reached(CLAIM, 6), reached(CLAIM + 1, 7), Ok(None)] {
        let mut stage = Stage::failing([unknown()]);
        stage.writer.parts.wire.committed = RefCell::new(VecDeque::from([found]));
        assert_eq!(stage.write(&[0]), Ok(vec![0]));
        assert_eq!(stage.asked(), "write 0, open, committed 0, write 0");
    }
}

#[test]
fn an_unknown_outcome_is_asked_for_until_the_group_answers() {
    let mut stage = Stage::failing([unknown()]);
    let away = || Err(KafkaError::OffsetFetch(RDKafkaErrorCode::OperationTimedOut));
    stage.writer.parts.wire.committed = RefCell::new(VecDeque::from([away(), away(), reached(CLAIM, 7)]));
    assert_eq!(stage.write(&[0]), Ok(vec![0]));
    assert_eq!(stage.asked(), "write 0, open, committed 0, committed 0, committed 0");
}

#[test]
fn an_unknown_outcome_is_judged_on_a_partition_that_is_still_held() {
    let mut stage = Stage::failing([unknown()]);
    let held = stage.held.clone();
    stage.writer.parts.wire.meanwhile = Some(Box::new(move || held.release(Partition(0))));
    stage.writer.parts.wire.committed = RefCell::new(VecDeque::from([reached(CLAIM, 7)]));
    assert_eq!(stage.write(&[0, 1]), Ok(vec![0, 1]), "one transaction: what holds of one holds of all");
    assert_eq!(stage.asked(), "write 0 1, open, committed 1");
}

#[test]
fn a_partition_lost_meanwhile_is_left_out_and_the_others_are_sent_again() {
    let mut stage = Stage::failing([abortable()]);
    let held = stage.held.clone();
    stage.writer.parts.wire.meanwhile = Some(Box::new(move || held.release(Partition(1))));
    assert_eq!(stage.write(&[0, 1, 2]), Ok(vec![0, 2]));
    assert_eq!(stage.asked(), "write 0 1 2, abort, write 0 2");
    assert_eq!(stage.row(1), None);
}

#[test]
fn a_partition_lost_and_regained_is_left_out_as_well() {
    let mut stage = Stage::failing([abortable()]);
    let held = stage.held.clone();
    stage.writer.parts.wire.meanwhile = Some(Box::new(move || held.assign(Partition(0), AssignmentEpoch(2))));
    assert_eq!(
        stage.write(&[0]),
        Ok(vec![]),
        "what was collected under the old assignment is another's business"
    );
    assert_eq!(stage.asked(), "write 0, abort");
}

#[test]
fn an_expelled_member_tells_the_intake_and_writes_nothing_more_of_what_is_released() {
    let mut stage = Stage::failing([AttemptError::Fenced("unknown member".into())]);
    let held = stage.held.clone();
    stage.writer.parts.wire.meanwhile = Some(Box::new(move || {
        [0, 1].into_iter().for_each(|partition| held.release(Partition(partition)));
    }));
    assert_eq!(stage.write(&[0, 1]), Ok(vec![]));
    assert!(matches!(stage.intake.try_recv(), Ok(Command::Fenced)));
    assert_eq!(stage.asked(), "write 0 1, abort");
}

/// A writer whose steps take in whatever waits, and what waits.
fn joining(errors: impl IntoIterator<Item = AttemptError>, jobs: Vec<Job>) -> (Stage, Receiver<Job>) {
    let mut stage = Stage::failing(errors);
    stage.writer.parts.wire.takes_more = true;
    let (send, waiting) = channel();
    jobs.into_iter().for_each(|job| send.send(job).expect("it is there"));
    (stage, waiting)
}

#[test]
fn what_is_closed_while_the_first_record_is_under_way_is_committed_with_it() {
    let (mut stage, jobs) = joining([], vec![Job::Epoch(epoch(8, &[1])), Job::Epoch(epoch(9, &[0]))]);
    assert_eq!(stage.write_with(epoch(7, &[0]), &jobs), Ok(vec![(7, 0), (8, 1), (9, 0)]));
    assert_eq!(stage.asked(), "write 0 1 0");
}

#[test]
fn epochs_that_failed_together_are_sent_again_together_less_what_was_lost() {
    let (mut stage, jobs) = joining([abortable()], vec![Job::Epoch(epoch(8, &[0, 1]))]);
    let held = stage.held.clone();
    stage.writer.parts.wire.meanwhile = Some(Box::new(move || held.release(Partition(0))));
    assert_eq!(stage.write_with(epoch(7, &[0, 1]), &jobs), Ok(vec![(7, 1), (8, 1)]));
    assert_eq!(stage.asked(), "write 0 1 0 1, abort, write 1 1");
}

#[test]
fn an_unknown_outcome_of_several_epochs_is_asked_for_once() {
    let (mut stage, jobs) = joining([unknown()], vec![Job::Epoch(epoch(8, &[0]))]);
    stage.writer.parts.wire.committed = RefCell::new(VecDeque::from([reached(CLAIM, 8)]));
    assert_eq!(stage.write_with(epoch(7, &[0]), &jobs), Ok(vec![(7, 0), (8, 0)]));
    assert_eq!(stage.asked(), "write 0 0, open, committed 0");
}

#[test]
fn a_share_that_was_lost_before_it_could_join_is_left_out() {
    let (mut stage, jobs) = joining([], vec![Job::Epoch(epoch(8, &[0])), Job::Epoch(epoch(9, &[1]))]);
    stage.held.release(Partition(0));
    assert_eq!(stage.write_with(epoch(6, &[0]), &jobs), Ok(vec![]));
    assert_eq!(stage.asked(), "", "nothing is begun for nothing");
    assert_eq!(stage.write_with(epoch(7, &[1]), &jobs), Ok(vec![(7, 1), (9, 1)]));
}

#[test]
fn a_claim_is_not_kept_waiting_by_epochs_that_could_join() {
    let (reply, _claimed) = channel();
    let claim = Job::Claim(ClaimJob { claims: Vec::new(), reply });
    let (mut stage, jobs) = joining([], vec![claim, Job::Epoch(epoch(8, &[0]))]);
    assert_eq!(stage.write_with(epoch(7, &[0]), &jobs), Ok(vec![(7, 0)]));
    assert!(matches!(stage.writer.waiting, Some(Job::Claim(_))), "it is next");
    assert!(matches!(jobs.try_recv(), Ok(Job::Epoch(_))), "and then what came behind it");
}

#[test]
fn shares_of_one_partition_stay_in_order_when_they_are_written_in_smaller_steps() {
    let (mut stage, jobs) = joining([late(), late(), late(), late()], vec![Job::Epoch(epoch(8, &[0, 1]))]);
    let committed = stage.write_with(epoch(7, &[0, 1]), &jobs).expect("written");
    assert_eq!(committed, [(7, 0), (7, 1), (8, 0), (8, 1)]);
}

#[test]
fn what_no_retry_heals_ends_the_handler_with_the_reason() {
    let mut stage =
        Stage::failing([AttemptError::Hopeless("billed[0] did not take a record: give the right".into())]);
    let reason = stage.write(&[0]).expect_err("it cannot go on");
    assert!(reason.starts_with("billed[0] did not take a record: give the right"), "{reason}");
    assert!(reason.contains("Nothing of the epoch is visible"), "{reason}");
    assert_eq!(stage.asked(), "write 0, abort");
}

/// Partition 1, of whose records two emitted one each, and a third became a dead letter; before them an answer.
fn eventful() -> Epoch {
    let emit = |key: Option<&'static [u8]>, timestamp: Option<i64>| Emit {
        topic: "billed".into(),
        partition: None,
        key: key.map(Bytes::from_static),
        value: None,
        headers: Vec::new(),
        timestamp: timestamp.map(Millis),
    };
    let effect = |of: Option<i64>, key, timestamp| Effect { of: of.map(Offset), emit: emit(key, timestamp) };
    let mut own = share(7, 1);
    own.emits = vec![
        effect(None, None, None),
        effect(Some(4), Some(b"k"), Some(1)),
        effect(Some(5), Some(b"k"), None),
        effect(Some(6), None, None),
    ];
    own.letters = vec![Letter {
        emit: emit(None, None),
        offset: Offset(6),
        key: "ORD-1".into(),
        cause: "422".into(),
        attempt: 1,
        trace: None,
    }];
    Epoch { number: 7, partitions: vec![share(7, 0), own] }
}

/// What the writer says of a refused record, and of which records it remembers that.
fn refused(tag: Tag, code: RDKafkaErrorCode, effects: &[usize]) -> (String, Option<u64>, Vec<i64>) {
    let refused = Refused { topic: "billed".into(), partition: 3, tag, code };
    let writes = VecDeque::from([attempt::refused(&nobody(), &refused, code)]);
    let mut stage = Stage::new(Script { writes, refused_effects: effects.to_vec(), ..Script::default() });
    let reason = stage.write_with(eventful(), &channel().1).expect_err("it cannot go on");
    let refusals = &stage.writer.parts.refusals;
    let noted = |offset: &i64| refusals.effects.why(Partition(1), Offset(*offset)).is_some();
    (reason, refusals.take(), (0..10).filter(noted).collect())
}

#[test]
fn what_a_topic_refuses_is_told_with_the_record_that_it_is_of_and_remembered_if_that_record_is_the_cause() {
    let (reason, told, noted) = refused(Tag::Effect(1), RDKafkaErrorCode::InvalidTimestamp, &[1, 2]);
    assert!(reason.starts_with("billed[3] did not take what orders[1]@4 emitted (1 bytes)"), "{reason}");
    assert!(reason.contains("message.timestamp.before.max.ms"), "{reason}");
    assert_eq!((told, noted), (Some(1), vec![4]), "the other one has the time of this machine's clock");
    let (_, told, noted) = refused(Tag::Effect(1), RDKafkaErrorCode::InvalidRecord, &[0, 1, 2, 3]);
    assert_eq!(
        (told, noted),
        (Some(1), vec![6]),
        "with a key it is not to blame, though its batch is told so"
    );
}

#[test]
fn a_refused_letter_is_told_with_its_original_and_no_record_is_blamed_for_a_size() {
    let (reason, told, noted) = refused(Tag::Numbered(0), RDKafkaErrorCode::MessageSizeTooLarge, &[]);
    let part = "billed[3] did not take the dead letter of orders[1]@6 key \"ORD-1\" (422; 0 bytes)";
    assert!(reason.starts_with(part) && reason.contains("raise max.message.bytes of billed"), "{reason}");
    assert!(reason.contains("Nothing of the epoch is visible"), "{reason}");
    assert_eq!((told, noted), (Some(0), Vec::new()));
    let (_, told, _) = refused(Tag::Row, RDKafkaErrorCode::TopicAuthorizationFailed, &[]);
    assert_eq!(told, None, "a missing right is not the record's");
}

#[test]
fn an_epoch_that_is_too_large_for_the_link_is_written_in_smaller_steps() {
    let mut stage = Stage::failing([late(), late(), late(), late()]);
    assert_eq!(stage.write(&[0, 1, 2, 3]), Ok(vec![0, 1, 2, 3]));
    assert_eq!(
        stage.asked(),
        "write 0 1 2 3, open, write 0 1 2 3, open, write 0 1, open, write 0 1, open, write 0, write 1, write 2 3"
    );
}

#[test]
fn a_single_share_is_sent_again_however_often_it_is_late() {
    let mut stage = Stage::failing((0..10).map(|_| late()));
    assert_eq!(stage.write(&[0]), Ok(vec![0]));
}

#[test]
fn another_process_under_the_same_name_is_named_even_if_this_one_gets_on_at_times() {
    let mut stage = Stage::failing([]);
    for _ in 1..USURPED {
        stage.writer.parts.wire.writes = VecDeque::from([usurped()]);
        assert_eq!(stage.write(&[0]), Ok(vec![0]));
    }
    stage.writer.parts.wire.writes = VecDeque::from([usurped()]);
    let reason = stage.write(&[0]).expect_err("they fight over it");
    assert!(reason.contains("another process uses the instance name \"host-1\""), "{reason}");
}

#[test]
fn transactions_that_the_broker_ended_are_no_other_process() {
    let mut stage = Stage::failing([]);
    let began = Instant::now();
    for n in 1..=3 * USURPED {
        // The broker ends one in each time-out, 60 s here, at most.
        stage.writer.parts.wire.clock = Some((began, n * Duration::from_secs(60)));
        stage.writer.parts.wire.writes = VecDeque::from([usurped()]);
        assert_eq!(stage.write(&[0]), Ok(vec![0]));
    }
}

#[test]
fn a_broker_that_is_away_is_waited_for_without_end() {
    let mut stage = Stage::failing([late()]);
    let away = || OpenError::Unreachable("timed out".into());
    stage.writer.parts.wire.opens = (0..10 * MAX_REFUSED_PRODUCERS).map(|_| away()).collect();
    assert_eq!(stage.write(&[0]), Ok(vec![0]));
}

#[test]
fn a_broker_that_refuses_producers_ends_the_handler_sooner_or_later() {
    let mut stage = Stage::failing([late()]);
    let refused = || OpenError::Refused("transactions are not for you".into());
    stage.writer.parts.wire.opens = (0..MAX_REFUSED_PRODUCERS).map(|_| refused()).collect();
    let reason = stage.write(&[0]).expect_err("enough");
    assert!(reason.contains("transactions are not for you"), "{reason}");

    let mut stage = Stage::failing([late()]);
    stage.writer.parts.wire.opens = VecDeque::from([OpenError::Forbidden("not authorised".into())]);
    let reason = stage.write(&[0]).expect_err("at once");
    assert!(reason.contains("not authorised"), "{reason}");
    assert_eq!(stage.asked(), "write 0, open");
}

#[test]
fn a_claim_is_made_again_until_it_stands_and_without_what_was_lost() {
    let mut stage = Stage::failing([abortable(), unknown()]);
    let held = stage.held.clone();
    stage.writer.parts.wire.meanwhile = Some(Box::new(move || held.release(Partition(1))));
    let claim = |partition| ClaimRequest {
        partition: Partition(partition),
        assignment: AssignmentEpoch(1),
        next: NextOffset(0),
        resolved: true,
        ledger: false,
        claims: Claims::default(),
    };
    let (reply, claimed) = channel();
    stage.writer.claim(&ClaimJob { claims: vec![claim(0), claim(1)], reply }).expect("it stands in the end");
    assert_eq!(stage.asked(), "claim 0 1, abort, claim 0, open, claim 0");
    assert_eq!(claimed.recv().expect("told"), [Claimed { partition: Partition(0), claim: CLAIM }]);
}

fn nobody() -> Identity {
    Identity { principal: String::new(), group: String::new(), transactional_ids: String::new() }
}
