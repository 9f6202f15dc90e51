//! The consumer thread: owns the polling of the handler's one consumer and never stops it. It
//! groups what it reads by partition, hands each partition actor whole batches, and pauses a
//! partition whose intake is full; it never drops and never waits long.
//!
//! Rebalance callbacks run on this thread inside `poll`: they note what happened and return at once.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use actix::Addr;
use pawl_actors::epoch::AssignmentEpoch;
use pawl_actors::partition::{Abandon, Drain, PartitionActor, Records};
use pawl_actors::record::{NextOffset, Partition};
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
use super::taking::{Taking, Takings};

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
    /// Running handlers get this long when a partition is revoked.
    pub revoke_grace: Duration,
    /// The same when the process ends.
    pub shutdown_grace: Duration,
    /// Whether the group keeps this instance's partitions for it while it is away for less than its
    /// session: then it does not leave.
    pub is_static: bool,
    /// Gets newly assigned partitions.
    pub owner: Sender<Vec<Assigned>>,
    /// Where partition actors report to.
    pub commands: Sender<Command>,
    /// Is told why the handler cannot go on.
    pub on_halt: Arc<dyn Fn(String) + Send + Sync>,
}

/// See the module's documentation.
pub struct Intake {
    parts: IntakeParts,
    takings: Takings,
    next_assignment: u64,
    /// The revocation that is being answered: it is, when none of these is left.
    revoking: Option<Vec<Partition>>,
    /// The group was left in order to be joined anew: a partition cannot be read from where it must.
    rejoining: bool,
    leaving: bool,
    chunk: Chunk,
    polled_bytes: usize,
}

/// Records read before the actors get them, never more than a partition's intake holds.
const BATCH: usize = 1_000;
/// Bytes read before the actors get them: a batch of large records is a small one.
const BATCH_BYTES: usize = 4 << 20;
/// Seeks refused in a row, one each 20 ms or so, before the group is joined anew.
const MAX_REFUSED_SEEKS: u32 = 3_000;
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
            takings: Takings::default(),
            next_assignment: 0,
            revoking: None,
            rejoining: false,
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
            self.answer_revocation();
            if self.takings.0.is_empty() {
                if self.leaving {
                    return self.leave();
                }
                self.rejoin();
            }
            self.begin_intake();
            self.poll();
            self.bound_intake(commands);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::TakeIn { partition, assignment, next, actor } => {
                match self.takings.current(partition, assignment) {
                    Some(taking) if !taking.leaving => {
                        taking.actor = Some(actor);
                        taking.begin_at = Some(next);
                    }
                    _ => actor.do_send(Abandon),
                }
            }
            Command::Drained { partition, assignment } => {
                if self.takings.current(partition, assignment).is_some() {
                    self.release(partition);
                }
            }
            // librdkafka tells of a loss only while it is in no rebalance; this one waits for a commit
            // that can never succeed. Of a loss at another time it tells.
            Command::Fenced => match self.revoking.clone() {
                Some(revoking) => self.lose(&revoking),
                None if self.leaving => self.lose(&self.takings.all()),
                None => {}
            },
            Command::Shutdown => {
                self.leaving = true;
                self.give_up(&self.takings.all(), self.parts.shutdown_grace);
            }
        }
    }

    fn rebalance(&mut self, rebalance: Rebalance) {
        self.parts.stats.rebalances.add(1);
        let IntakeParts { handler, topic, .. } = &self.parts;
        let numbers = |partitions: &[Partition]| partitions.iter().map(|p| p.0).collect::<Vec<_>>();
        match rebalance {
            Rebalance::Assigned(partitions) => {
                tracing::info!(%handler, topic, partitions = ?numbers(&partitions), "assigned");
                self.assigned(partitions);
            }
            Rebalance::Revoked(partitions) => {
                tracing::info!(%handler, topic, partitions = ?numbers(&partitions), "revoked; draining");
                self.give_up(&partitions, self.parts.revoke_grace);
                self.revoking = Some(partitions);
            }
            Rebalance::Lost(partitions) => self.lose(&partitions),
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
            self.takings.0.insert(partition, Taking::new(assignment, stats));
        }
        if self.leaving {
            self.give_up(&self.takings.all(), self.parts.shutdown_grace);
        } else if self.parts.owner.send(assigned).is_err() {
            self.halt("the thread that restores ledgers has ended".into());
        }
    }

    /// Drains partitions; those that were not yet taken in are released at once.
    fn give_up(&mut self, partitions: &[Partition], grace: Duration) {
        let deadline = Instant::now() + grace;
        for &partition in partitions {
            let Some(taking) = self.takings.0.get_mut(&partition) else { continue };
            taking.leaving = true;
            // Its actor may end before it could take these; nothing of them is below a commit.
            taking.batch.clear();
            let Some(actor) = &taking.actor else {
                self.release(partition);
                continue;
            };
            let (commands, assignment) = (self.parts.commands.clone(), taking.assignment);
            let drained = Box::new(move || {
                // Gone when the thread has ended already, and then nobody waits.
                let _ = commands.send(Command::Drained { partition, assignment });
            });
            actor.do_send(Drain { deadline: deadline.into(), drained });
        }
    }

    /// Once no epoch carries any of them: unassigns what was revoked.
    fn answer_revocation(&mut self) {
        let is_held = |partition: &Partition| self.takings.0.contains_key(partition);
        if self.revoking.as_ref().is_none_or(|revoking| revoking.iter().any(is_held)) {
            return;
        }
        let revoked = self.revoking.take().unwrap_or_default();
        self.parts.consumer.context().unassign(&self.parts.consumer, &revoked);
    }

    fn lose(&mut self, partitions: &[Partition]) {
        for &partition in partitions {
            let Some(taking) = self.takings.0.get(&partition) else { continue };
            if let Some(actor) = &taking.actor {
                actor.do_send(Abandon);
            }
            self.release(partition);
            tracing::warn!(handler = %self.parts.handler, topic = %self.parts.topic, partition = partition.0, "lost: another member may own it already");
        }
    }

    fn release(&mut self, partition: Partition) {
        // A pause outlives its assignment, and nobody would end it in the next.
        if self.takings.0.get(&partition).is_some_and(|taking| taking.paused) {
            self.set_paused(&[partition], false);
        }
        self.takings.0.remove(&partition);
        self.parts.held.release(partition);
        self.parts.stats.released(partition);
    }

    /// Begins to read partitions whose ledger is restored. librdkafka refuses a seek while it does
    /// not know the partition's leader; then it is tried again.
    fn begin_intake(&mut self) {
        for (partition, next) in self.takings.to_begin() {
            let sought = self.seek(partition, next);
            let Some(taking) = self.takings.0.get_mut(&partition) else { continue };
            let Err(error) = sought else {
                taking.begin_at = None;
                continue;
            };
            taking.refused_seeks += 1;
            if taking.refused_seeks.is_multiple_of(MAX_REFUSED_SEEKS) {
                tracing::warn!(handler = %self.parts.handler, topic = %self.parts.topic, partition = partition.0, %error, "cannot be read from {next}");
                self.leave_to_rejoin("a partition cannot be read from where it must for a minute");
            }
        }
        // What is not yet restored need not be fetched meanwhile.
        let early =
            self.takings.which(|one| one.located && !one.paused && !one.leaving && one.actor.is_none());
        self.set_paused(&early, true);
    }

    fn seek(&mut self, partition: Partition, next: NextOffset) -> Result<(), KafkaError> {
        let (topic, offset) = (&self.parts.topic, KafkaOffset::Offset(next.0));
        self.parts.consumer.seek(topic, partition.0, offset, Duration::from_secs(10))?;
        if self.takings.0.get(&partition).is_some_and(|taking| taking.paused) {
            self.set_paused(&[partition], false);
        }
        Ok(())
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
        for (partition, taking) in &mut self.takings.0 {
            taking.stats.at_end.set(i64::from(taking.at_end));
            if taking.batch.is_empty() {
                continue;
            }
            let records = std::mem::take(&mut taking.batch);
            let Some(actor) = &taking.actor else { continue };
            taking.stats.outstanding_records.add(records.len() as i64);
            taking.stats.outstanding_bytes.add(records.iter().map(|record| record.size() as i64).sum());
            if actor.try_send(Records { assignment: taking.assignment, records }).is_err() {
                let (handler, topic) = (&self.parts.handler, &self.parts.topic);
                (self.parts.on_halt)(format!("{handler}: the actor of {topic}[{partition}] is gone"));
                return;
            }
        }
    }

    fn read(&mut self, message: &BorrowedMessage<'_>) {
        let Some(taking) = self.takings.0.get_mut(&Partition(message.partition())) else { return };
        taking.located = true;
        // Before the ledger is restored nothing counts: the intake begins with a seek. Afterwards
        // nothing may be dropped, not even from a partition that was just paused. What comes while it
        // is given up is read again by whoever takes it next.
        if !taking.is_open() {
            return;
        }
        taking.at_end = false;
        self.polled_bytes += message.key_len() + message.payload_len();
        taking.batch.push(self.chunk.record(message));
    }

    fn poll_error(&mut self, error: &KafkaError) {
        match error {
            KafkaError::PartitionEOF(partition) => {
                if let Some(taking) = self.takings.0.get_mut(&Partition(*partition)) {
                    taking.located = true;
                    taking.at_end = true;
                }
            }
            KafkaError::MessageConsumptionFatal(code) => {
                self.halt(format!("the consumer can do no more: {code}"));
            }
            // Retention was faster, or the log was cut. librdkafka reads nothing more of that partition
            // and does not say which one it is, so all are taken anew; what is missing is booked then.
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => {
                self.leave_to_rejoin("a position lies outside of what the topic holds");
            }
            // librdkafka goes on by itself; its context has logged the cause with a limit.
            other => tracing::debug!(handler = %self.parts.handler, "consumer: {other}"),
        }
    }

    /// A partition cannot be read from where it must: all are given up in good order, by the ordinary
    /// way of a revocation, and the group is joined anew.
    fn leave_to_rejoin(&mut self, why: &str) {
        if self.rejoining || self.leaving || self.takings.0.is_empty() {
            return;
        }
        tracing::error!(
            handler = %self.parts.handler, topic = %self.parts.topic,
            "{why}; the partitions are taken anew"
        );
        self.rejoining = true;
        self.parts.consumer.unsubscribe();
    }

    fn rejoin(&mut self) {
        if !std::mem::take(&mut self.rejoining) {
            return;
        }
        if let Err(error) = self.parts.consumer.subscribe(&[&self.parts.topic]) {
            self.halt(format!("subscribing failed: {error}"));
        }
    }

    /// Waits for room, then pauses partitions without any and lets those with room go on.
    fn bound_intake(&mut self, commands: &Receiver<Command>) {
        let bounds = self.parts.bounds;
        self.wait_for_room(commands);
        let to_pause = self.takings.which(|one| one.is_reading() && bounds.full(&one.stats));
        let to_resume = self.takings.which(|one| one.is_open() && one.paused && bounds.roomy(&one.stats));
        self.set_paused(&to_pause, true);
        self.set_paused(&to_resume, false);
    }

    /// Most often there is room again before long, and waiting is cheaper than a pause, which throws
    /// away what was fetched ahead. Where every partition is full nobody is kept waiting by that.
    fn wait_for_room(&mut self, commands: &Receiver<Command>) {
        let began = Instant::now();
        loop {
            let (full, all) = self.takings.fullness(self.parts.bounds);
            let patience = if all { PATIENCE_OF_ALL } else { PATIENCE };
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
            if let Some(taking) = self.takings.0.get_mut(partition) {
                taking.paused = paused;
            }
        }
    }

    /// Leaves the group. What is still assigned is given up by the callback, since nothing of it is in
    /// any epoch.
    fn leave(&self) {
        let consumer = &self.parts.consumer;
        consumer.context().close();
        if self.parts.is_static {
            return;
        }
        consumer.unsubscribe();
        // The revocation that follows is served by polling.
        let deadline = Instant::now() + Duration::from_secs(2);
        while consumer.assignment().is_ok_and(|list| list.count() > 0) && Instant::now() < deadline {
            let _ = consumer.poll(Duration::from_millis(5));
        }
    }

    fn halt(&self, reason: String) {
        (self.parts.on_halt)(format!("{}: {}: {reason}", self.parts.handler, self.parts.topic));
    }
}
