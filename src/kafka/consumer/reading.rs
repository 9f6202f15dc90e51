//! How the intake reads: from where the ledger says, in batches, and no more than there is room for.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use pawl_actors::partition::Records;
use pawl_actors::record::{NextOffset, Partition};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset as KafkaOffset;
use rdkafka::types::RDKafkaErrorCode;

use super::super::denied;
use super::super::group::{self, Membership};
use super::{Command, Intake};
use crate::rights::Right;

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
    /// Begins to read partitions whose ledger is restored. librdkafka refuses a seek while it does
    /// not know the partition's leader; then it is tried again.
    pub(super) fn begin_intake(&mut self) {
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
    }

    fn seek(&mut self, partition: Partition, next: NextOffset) -> Result<(), KafkaError> {
        let (topic, offset) = (&self.parts.topic, KafkaOffset::Offset(next.0));
        self.parts.consumer.seek(topic, partition.0, offset, Duration::from_secs(10))?;
        if self.takings.0.get(&partition).is_some_and(|taking| taking.paused) {
            self.set_paused(&[partition], false);
        }
        Ok(())
    }

    /// Reads what is there, at most a batch, and hands it over.
    pub(super) fn poll(&mut self) {
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
                    taking.at_end = taking.is_open();
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
            // librdkafka asks on without end, and does not tell it again.
            KafkaError::MessageConsumption(code) if group::is_forbidden(*code) => {
                let needed = (&*self.parts.topic, Right::Read);
                let told = self.parts.identity.denied(*code, &error.to_string(), needed);
                tracing::error!(handler = %self.parts.handler, "{told}");
                if *code == RDKafkaErrorCode::GroupAuthorizationFailed {
                    self.denied.get_or_insert((Instant::now(), told));
                }
            }
            // librdkafka goes on by itself; its context has logged the cause with a limit.
            other => tracing::debug!(handler = %self.parts.handler, "consumer: {other}"),
        }
    }

    /// Nothing is read by who may not join the group, and nobody would be told again.
    pub(super) fn heed_denial(&mut self) {
        let is_due = |(since, _): &(Instant, String)| since.elapsed() >= denied::PATIENCE;
        if !self.denied.as_ref().is_some_and(is_due) {
            return;
        }
        let denied = self.denied.take();
        let is_member = Membership::of(&self.parts.consumer).is_some();
        if let Some((_, told)) = denied.filter(|_| !is_member && !self.leaving) {
            self.halt(told);
        }
    }

    /// Waits for room, then pauses partitions without any and lets those with room go on.
    pub(super) fn bound_intake(&mut self, commands: &Receiver<Command>) {
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

    pub(super) fn set_paused(&mut self, partitions: &[Partition], paused: bool) {
        if partitions.is_empty() {
            return;
        }
        let list = self.parts.consumer.context().list(partitions);
        let done = if paused { self.parts.consumer.pause(&list) } else { self.parts.consumer.resume(&list) };
        if let Err(error) = done {
            tracing::warn!(handler = %self.parts.handler, %error, paused, "the intake could not be changed");
            return;
        }
        for partition in partitions {
            if let Some(taking) = self.takings.0.get_mut(partition) {
                taking.paused = paused;
                taking.stats.paused.set(i64::from(paused));
            }
        }
    }
}
