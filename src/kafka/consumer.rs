//! The consumer thread: owns the polling of the handler's one consumer and never stops it. It
//! groups what it reads by partition, hands each partition actor whole batches, and pauses a
//! partition whose intake is full; it never drops and never waits long.
//!
//! Rebalance callbacks run on this thread inside `poll`: they note what happened and return at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use actix::Addr;
use pawl_actors::epoch::AssignmentEpoch;
use pawl_actors::partition::{Abandon, Drain, PartitionActor, Records};
use pawl_actors::record::{NextOffset, Partition, Record};
use pawl_actors::stats::{HandlerStats, PartitionPhase, PartitionStats};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use super::chunk::Chunk;
use super::held::Held;
use super::intake_bounds::IntakeBounds;
use super::rebalance::{IntakeContext, Rebalance};

/// What the consumer thread is told.
pub enum Command {
    /// A partition is owned and restored: take records in from here.
    TakeIn {
        /// Which partition.
        partition: Partition,
        /// Under which assignment.
        assignment: AssignmentEpoch,
        /// From where.
        next: NextOffset,
        /// Who takes them.
        actor: Addr<PartitionActor>,
    },
    /// A partition actor has drained: no epoch holds anything of it.
    Drained {
        /// Which partition.
        partition: Partition,
        /// Under which assignment.
        assignment: AssignmentEpoch,
    },
    /// The group does not know this member any more.
    Fenced,
    /// Drain everything, then leave the group and end.
    Shutdown,
}

/// A partition to make one's own: claim, restore, start.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// Which partition.
    pub partition: Partition,
    /// Under which assignment.
    pub assignment: AssignmentEpoch,
    /// What others observe.
    pub stats: Arc<PartitionStats>,
}

/// What a consumer thread needs.
pub struct IntakeParts {
    /// Name of the handler, for the log.
    pub handler: Arc<str>,
    /// Input topic.
    pub topic: String,
    /// The consumer; polled by nobody else.
    pub consumer: Arc<BaseConsumer<IntakeContext>>,
    /// Kept here, read by writer and owner.
    pub held: Arc<Held>,
    /// What others observe.
    pub stats: Arc<HandlerStats>,
    /// Bounds of each partition.
    pub bounds: IntakeBounds,
    /// Running handlers get this long when a partition is taken away.
    pub grace: Duration,
    /// Gets newly assigned partitions.
    pub owner: Sender<Vec<Assigned>>,
    /// Where partition actors report to.
    pub commands: Sender<Command>,
    /// Is told why the handler cannot go on.
    pub on_halt: Arc<dyn Fn(String) + Send + Sync>,
}

/// One assigned partition.
struct Taking {
    assignment: AssignmentEpoch,
    stats: Arc<PartitionStats>,
    actor: Option<Addr<PartitionActor>>,
    /// Where intake begins; `None` once it has begun.
    begin_at: Option<NextOffset>,
    refused_seeks: u32,
    paused: bool,
    /// Whether the end was reached and nothing came since.
    at_end: bool,
    batch: Vec<Record>,
}

impl Taking {
    /// Whether records are taken in, or would be if there were room.
    fn is_open(&self) -> bool {
        self.actor.is_some() && self.begin_at.is_none()
    }

    /// Whether records come in.
    fn is_reading(&self) -> bool {
        self.is_open() && !self.paused
    }
}

/// See the module's documentation.
pub struct Intake {
    parts: IntakeParts,
    partitions: BTreeMap<Partition, Taking>,
    next_assignment: u64,
    /// Partitions are being given up; `unassign` follows when none is left.
    giving_up: bool,
    /// What is to be taken again once it is given up: its position was out of range.
    take_again: Vec<Partition>,
    leaving: bool,
    chunk: Chunk,
    polled_bytes: usize,
}

/// Records read before the actors get them, never more than a partition's intake holds.
const BATCH: usize = 1_000;
/// Bytes read before the actors get them: a batch of large records is a small one.
const BATCH_BYTES: usize = 4 << 20;
/// Longest wait for a record; commands wait as long.
const POLL: Duration = Duration::from_millis(20);
/// Longest wait for room before a full partition is paused, so that the others can be read.
const PATIENCE: Duration = Duration::from_millis(25);
/// The same when all partitions are full. Nothing is polled meanwhile, so this is also how much
/// later a rebalance may be noticed; small against any session time-out.
const PATIENCE_OF_ALL: Duration = Duration::from_secs(1);

impl Intake {
    /// Before the first poll.
    pub fn new(parts: IntakeParts) -> Self {
        Intake {
            parts,
            partitions: BTreeMap::new(),
            next_assignment: 0,
            giving_up: false,
            take_again: Vec::new(),
            leaving: false,
            chunk: Chunk::default(),
            polled_bytes: 0,
        }
    }

    /// Polls until told to leave and everything is drained.
    pub fn run(mut self, commands: &Receiver<Command>) {
        if let Err(error) = self.parts.consumer.subscribe(&[&self.parts.topic]) {
            return self.halt(format!("subscribing failed: {error}"));
        }
        loop {
            while let Ok(command) = commands.try_recv() {
                self.command(command);
            }
            while let Some(rebalance) = self.parts.consumer.context().take_noted() {
                self.rebalance(rebalance);
            }
            if self.giving_up && self.partitions.is_empty() {
                self.given_up();
            }
            if self.leaving && self.partitions.is_empty() {
                return self.leave();
            }
            self.begin_intake();
            self.poll();
            self.bound_intake(commands);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::TakeIn { partition, assignment, next, actor } => {
                self.take_in(partition, assignment, next, actor);
            }
            Command::Drained { partition, assignment } => {
                if self.partitions.get(&partition).is_some_and(|held| held.assignment == assignment) {
                    self.release(partition);
                }
            }
            Command::Fenced if self.giving_up => {
                // librdkafka tells of a loss only while it is in no rebalance; this one waits for a
                // commit that can never succeed.
                self.parts.held.release_all();
                self.lost();
                self.given_up();
            }
            Command::Fenced => {}
            Command::Shutdown => {
                self.leaving = true;
                self.give_up();
            }
        }
    }

    fn rebalance(&mut self, rebalance: Rebalance) {
        self.parts.stats.rebalances.add(1);
        match rebalance {
            Rebalance::Assigned(partitions) => {
                tracing::info!(handler = %self.parts.handler, topic = %self.parts.topic, partitions = ?partitions.iter().map(|p| p.0).collect::<Vec<_>>(), "assigned");
                self.assigned(partitions);
            }
            Rebalance::Revoked => {
                tracing::info!(handler = %self.parts.handler, topic = %self.parts.topic, "revoked; draining");
                self.take_again.clear();
                self.give_up();
            }
            Rebalance::Lost => self.lost(),
        }
    }

    fn assigned(&mut self, partitions: Vec<Partition>) {
        let mut assigned = Vec::new();
        for partition in partitions {
            self.next_assignment += 1;
            let assignment = AssignmentEpoch(self.next_assignment);
            let stats = self.parts.stats.assigned(partition);
            stats.set_phase(PartitionPhase::Claiming);
            self.parts.held.assign(partition, assignment);
            assigned.push(Assigned { partition, assignment, stats: stats.clone() });
            let held = Taking {
                assignment,
                stats,
                actor: None,
                begin_at: None,
                refused_seeks: 0,
                paused: true,
                at_end: false,
                batch: Vec::new(),
            };
            self.partitions.insert(partition, held);
        }
        if self.leaving {
            self.give_up();
        } else if self.parts.owner.send(assigned).is_err() {
            self.halt("the thread that restores ledgers has ended".into());
        }
    }

    /// Drains every partition; those that were not yet taken in are released at once.
    fn give_up(&mut self) {
        self.giving_up = true;
        let deadline = Instant::now() + self.parts.grace;
        let mut idle = Vec::new();
        for (&partition, held) in &mut self.partitions {
            // Its actor may end before it could take these; nothing of them is below a commit.
            held.batch.clear();
            let Some(actor) = &held.actor else {
                idle.push(partition);
                continue;
            };
            let (commands, assignment) = (self.parts.commands.clone(), held.assignment);
            let drained = Box::new(move || {
                // Gone when the thread has ended already, and then nobody waits.
                let _ = commands.send(Command::Drained { partition, assignment });
            });
            actor.do_send(Drain { deadline: deadline.into(), drained });
        }
        for partition in idle {
            self.release(partition);
        }
    }

    /// Nothing is taken in and no epoch carries anything any more.
    fn given_up(&mut self) {
        self.giving_up = false;
        if let Err(error) = self.parts.consumer.unassign() {
            tracing::error!(handler = %self.parts.handler, %error, "the partitions could not be given up");
        }
        let again = std::mem::take(&mut self.take_again);
        if !again.is_empty() && !self.leaving {
            self.parts.consumer.context().assign(&self.parts.consumer, again);
        }
    }

    fn lost(&mut self) {
        self.take_again.clear();
        for (partition, held) in std::mem::take(&mut self.partitions) {
            if let Some(actor) = held.actor {
                actor.do_send(Abandon);
            }
            self.parts.held.release(partition);
            self.parts.stats.released(partition);
            tracing::warn!(handler = %self.parts.handler, topic = %self.parts.topic, partition = partition.0, "lost: another member may own it already");
        }
        self.giving_up = false;
    }

    fn release(&mut self, partition: Partition) {
        self.partitions.remove(&partition);
        self.parts.held.release(partition);
        self.parts.stats.released(partition);
    }

    fn take_in(
        &mut self,
        partition: Partition,
        assignment: AssignmentEpoch,
        next: NextOffset,
        actor: Addr<PartitionActor>,
    ) {
        let current = self.partitions.get_mut(&partition).filter(|held| held.assignment == assignment);
        let Some(held) = current.filter(|_| !self.giving_up) else {
            actor.do_send(Abandon);
            return;
        };
        held.actor = Some(actor);
        held.begin_at = Some(next);
    }

    /// Begins to read partitions whose ledger is restored. librdkafka refuses a seek while it does
    /// not know the partition's leader; then it is tried again.
    fn begin_intake(&mut self) {
        let to_begin: Vec<(Partition, NextOffset)> = self
            .partitions
            .iter()
            .filter_map(|(&partition, held)| Some((partition, held.begin_at?)))
            .collect();
        for (partition, next) in to_begin {
            if let Err(error) = self.resume_at(partition, next) {
                self.tell_refused_seek(partition, next, &error);
            } else if let Some(held) = self.partitions.get_mut(&partition) {
                held.begin_at = None;
                held.paused = false;
            }
        }
    }

    fn tell_refused_seek(&mut self, partition: Partition, next: NextOffset, error: &KafkaError) {
        let Some(held) = self.partitions.get_mut(&partition) else { return };
        held.refused_seeks += 1;
        // A refusal or two are normal while a leader is elected; a hundred are some seconds.
        if held.refused_seeks.is_multiple_of(100) {
            tracing::warn!(handler = %self.parts.handler, topic = %self.parts.topic, partition = partition.0, %error, "cannot be read from {next} yet");
        }
    }

    fn resume_at(&self, partition: Partition, next: NextOffset) -> Result<(), KafkaError> {
        let consumer = &self.parts.consumer;
        consumer.seek(
            &self.parts.topic,
            partition.0,
            KafkaOffset::Offset(next.0),
            Duration::from_secs(10),
        )?;
        consumer.resume(&self.list(&[partition]))
    }

    fn list(&self, partitions: &[Partition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.parts.topic, partition.0);
        }
        list
    }

    /// Reads what is there, at most a batch, and hands it over.
    fn poll(&mut self) {
        let consumer = self.parts.consumer.clone();
        let mut wait = POLL;
        self.polled_bytes = 0;
        for _ in 0..BATCH.min(self.parts.bounds.records.unsigned_abs() as usize) {
            if self.polled_bytes >= BATCH_BYTES {
                break;
            }
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => self.read(&message),
                Some(Err(error)) => self.poll_error(&error),
            }
            wait = Duration::ZERO;
        }
        for (partition, held) in &mut self.partitions {
            held.stats.at_end.set(i64::from(held.at_end));
            if held.batch.is_empty() {
                continue;
            }
            let records = std::mem::take(&mut held.batch);
            let Some(actor) = &held.actor else { continue };
            held.stats.outstanding_records.add(records.len() as i64);
            held.stats.outstanding_bytes.add(records.iter().map(|record| record.size() as i64).sum());
            if actor.try_send(Records { assignment: held.assignment, records }).is_err() {
                let (handler, topic) = (&self.parts.handler, &self.parts.topic);
                (self.parts.on_halt)(format!("{handler}: the actor of {topic}[{partition}] is gone"));
                return;
            }
        }
    }

    fn read(&mut self, message: &BorrowedMessage<'_>) {
        let Some(held) = self.partitions.get_mut(&Partition(message.partition())) else { return };
        // Before the ledger is restored nothing counts: the intake begins with a seek. Afterwards
        // nothing may be dropped, not even from a partition that was just paused. What comes while it
        // is given up is read again by whoever takes it next.
        if !held.is_open() || self.giving_up {
            return;
        }
        held.at_end = false;
        self.polled_bytes += message.key_len() + message.payload_len();
        held.batch.push(self.chunk.record(message));
    }

    fn poll_error(&mut self, error: &KafkaError) {
        match error {
            KafkaError::PartitionEOF(partition) => {
                if let Some(held) = self.partitions.get_mut(&Partition(*partition)) {
                    held.at_end = true;
                }
            }
            KafkaError::MessageConsumptionFatal(code) => {
                self.halt(format!("the consumer can do no more: {code}"));
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => self.out_of_range(),
            // librdkafka goes on by itself; its context has logged the cause with a limit.
            other => tracing::debug!(handler = %self.parts.handler, "consumer: {other}"),
        }
    }

    /// A position lies outside of what the topic holds: retention was faster, or the log was cut.
    /// librdkafka reads nothing more of that partition and does not say which one it is, so all are
    /// given up in good order and taken anew; what is missing is booked then.
    fn out_of_range(&mut self) {
        let began: Vec<Partition> = self
            .partitions
            .iter()
            .filter(|(_, held)| held.is_open())
            .map(|(&partition, _)| partition)
            .collect();
        if self.giving_up || self.leaving || began.is_empty() {
            return;
        }
        tracing::error!(
            handler = %self.parts.handler, topic = %self.parts.topic,
            "a position lies outside of what the topic holds; the partitions are taken anew"
        );
        self.take_again = self.partitions.keys().copied().collect();
        self.give_up();
    }

    /// Waits for room, then pauses partitions without any and lets those with room go on.
    fn bound_intake(&mut self, commands: &Receiver<Command>) {
        let bounds = self.parts.bounds;
        self.wait_for_room(commands);
        let full = |held: &Taking| held.is_reading() && bounds.full(&held.stats);
        let to_pause: Vec<Partition> =
            self.partitions.iter().filter(|(_, held)| full(held)).map(|(&partition, _)| partition).collect();
        let to_resume: Vec<Partition> = self
            .partitions
            .iter()
            .filter(|(_, held)| held.is_open() && held.paused && bounds.roomy(&held.stats))
            .map(|(&partition, _)| partition)
            .collect();
        self.set_paused(&to_pause, true);
        if !self.giving_up {
            self.set_paused(&to_resume, false);
        }
    }

    /// Most often there is room again before long, and waiting is cheaper than a pause, which throws
    /// away what was fetched ahead. Where every partition is full nobody is kept waiting by that.
    fn wait_for_room(&mut self, commands: &Receiver<Command>) {
        let began = Instant::now();
        loop {
            let reading = || self.partitions.values().filter(|held| held.is_reading());
            let full = reading().filter(|held| self.parts.bounds.full(&held.stats)).count();
            let patience = if full == reading().count() { PATIENCE_OF_ALL } else { PATIENCE };
            if full == 0 || began.elapsed() >= patience {
                return;
            }
            if let Ok(command) = commands.recv_timeout(Duration::from_millis(1)) {
                self.command(command);
            }
        }
    }

    fn set_paused(&mut self, partitions: &[Partition], paused: bool) {
        if partitions.is_empty() {
            return;
        }
        let list = self.list(partitions);
        let done = if paused { self.parts.consumer.pause(&list) } else { self.parts.consumer.resume(&list) };
        if let Err(error) = done {
            tracing::warn!(handler = %self.parts.handler, %error, paused, "the intake could not be changed");
            return;
        }
        for partition in partitions {
            if let Some(held) = self.partitions.get_mut(partition) {
                held.paused = paused;
            }
        }
    }

    /// Leaves the group.
    fn leave(&self) {
        self.parts.consumer.context().close();
        self.parts.consumer.unsubscribe();
        // The revocation that follows is served by polling.
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.parts.consumer.assignment().is_ok_and(|list| list.count() > 0) && Instant::now() < deadline
        {
            let _ = self.parts.consumer.poll(Duration::from_millis(5));
        }
    }

    fn halt(&self, reason: String) {
        (self.parts.on_halt)(format!("{}: {}: {reason}", self.parts.handler, self.parts.topic));
    }
}
