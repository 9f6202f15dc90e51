//! Reads ranges of a topic's partitions without a group, committed records only, for the commands
//! that look.
//!
//! How much of a partition is decided is told by two questions: what a `read_uncommitted` client is
//! told is the end is the high watermark, what a `read_committed` one is told is the last stable
//! offset. Between the two lies a transaction that is open, or was just committed and whose marker is
//! still on its way.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::access::{Access, Live};
use super::client::{self, LogContext};
use super::denied::denied;
use super::{admin, group};
use crate::rights::{Resource, Right};
use crate::settings::Kafka;

/// Between two questions for the end of a transaction.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// librdkafka's defaults hold 64 MiB, and let a fast reader wait for up to a second.
const TUNING: [(&str, &str); 2] = [("queued.max.messages.kbytes", "16384"), ("fetch.queue.backoff.ms", "5")];

/// Why a topic cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No broker answered in time.
    #[error(
        "no answer within {timeout:?} while reading {topic} ({attempts}); try again when the brokers are well"
    )]
    TimedOut {
        /// The topic.
        topic: String,
        /// How long was waited.
        timeout: Duration,
        /// What a plain connection to each broker gave.
        attempts: String,
    },
    /// A broker refused.
    #[error("cannot read {topic}: {reason}")]
    Failed {
        /// The topic.
        topic: String,
        /// The broker's answer.
        reason: String,
    },
}

/// A part of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The partition.
    pub partition: i32,
    /// The first offset; `None`: the first there is.
    pub from: Option<i64>,
    /// The offset before which reading ends; `None`: the end of what is committed, as it is then.
    pub to: Option<i64>,
}

/// What a partition holds at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is left.
    pub low: i64,
    /// The offset after the last record, committed or not.
    pub high: i64,
    /// Up to here everything is decided: `high`, unless a transaction stayed open.
    pub stable: i64,
}

/// See the module's documentation. Each question has a consumer of its own: librdkafka remembers that
/// a partition was paused beyond the assignment that it was paused in.
pub struct TopicReader {
    client: &'static str,
    topic: String,
    kafka: Kafka,
}

impl TopicReader {
    /// A reader of `topic`; nothing is asked yet. `client` names it in the log.
    pub fn new(kafka: &Kafka, topic: &str, client: &'static str) -> TopicReader {
        TopicReader { client, topic: topic.to_owned(), kafka: kafka.clone() }
    }

    /// What the partitions hold now. Waits for at most `patience` until all that lies in them now is
    /// decided; calls `waiting` each time it has to wait.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn bounds(
        &self,
        partitions: &[i32],
        patience: Duration,
        mut waiting: impl FnMut(),
    ) -> Result<BTreeMap<i32, Bounds>, ReadError> {
        let (uncommitted, committed) = (self.consumer("read_uncommitted")?, self.consumer("read_committed")?);
        let mut bounds = BTreeMap::new();
        for &partition in partitions {
            let (low, high) = self.ask(&uncommitted, partition)?;
            bounds.insert(partition, Bounds { low, high, stable: low });
        }
        let began = Instant::now();
        loop {
            let mut open = false;
            for (&partition, one) in bounds.iter_mut().filter(|(_, one)| one.stable < one.high) {
                let (_, stable) = self.ask(&committed, partition)?;
                one.stable = stable.min(one.high);
                open |= one.stable < one.high;
            }
            if !open || began.elapsed() >= patience {
                return Ok(bounds);
            }
            waiting();
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// Hands over record after record of the ranges, in order within each partition, until all are
    /// read or `each` breaks. Where a range ends behind what is committed, reading ends there.
    ///
    /// # Errors
    /// No answer within the request time-out, or what `each` says.
    pub fn read<E: From<ReadError>>(
        &self,
        ranges: &[Range],
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let consumer = self.consumer("read_committed")?;
        let mut open = self.assign(&consumer, ranges)?;
        let mut progress = Instant::now();
        while !open.is_empty() {
            match consumer.poll(Duration::from_millis(100)) {
                None if progress.elapsed() > self.kafka.request_timeout => {
                    return Err(self.timed_out().into());
                }
                None => continue,
                Some(Ok(message)) => {
                    let partition = message.partition();
                    let Some(end) = open.get(&partition).copied() else { continue };
                    if end.is_none_or(|end| message.offset() < end) && each(&message)?.is_break() {
                        return Ok(());
                    }
                    if end.is_some_and(|end| message.offset() + 1 >= end) {
                        open.remove(&partition);
                        self.pause(&consumer, partition)?;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                // librdkafka goes on by itself; the time-out decides.
                Some(Err(error)) if is_passing(&error) => continue,
                Some(Err(error)) => return Err(self.failed(&error).into()),
            }
            progress = Instant::now();
        }
        Ok(())
    }

    /// The first offset and the end of a partition, as a client is told.
    fn ask(&self, client: &BaseConsumer<LogContext>, partition: i32) -> Result<(i64, i64), ReadError> {
        let answer = client.fetch_watermarks(&self.topic, partition, self.kafka.request_timeout);
        answer.map_err(|error| if is_passing(&error) { self.timed_out() } else { self.failed(&error) })
    }

    fn assign(
        &self,
        consumer: &BaseConsumer<LogContext>,
        ranges: &[Range],
    ) -> Result<BTreeMap<i32, Option<i64>>, ReadError> {
        let mut list = TopicPartitionList::new();
        let mut open = BTreeMap::new();
        for range in ranges {
            if range.from.zip(range.to).is_some_and(|(from, to)| from >= to) {
                continue;
            }
            let from = range.from.map_or(Offset::Beginning, Offset::Offset);
            let added = list.add_partition_offset(&self.topic, range.partition, from);
            added.map_err(|error| self.failed(&error))?;
            open.insert(range.partition, range.to);
        }
        consumer.assign(&list).map_err(|error| self.failed(&error))?;
        Ok(open)
    }

    /// What comes behind the end of a range is not fetched for nothing.
    fn pause(&self, consumer: &BaseConsumer<LogContext>, partition: i32) -> Result<(), ReadError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        consumer.pause(&list).map_err(|error| self.failed(&error))
    }

    fn consumer(&self, isolation: &str) -> Result<Live<BaseConsumer<LogContext>>, ReadError> {
        let mut config = client::reader(&self.kafka);
        client::tune(&mut config, &self.kafka, &TUNING);
        config
            // An offset that retention removed: go on with the first record there is.
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", isolation)
            .open(LogContext::new(self.client))
            .map_err(|error| self.failed(&error.into()))
    }

    fn timed_out(&self) -> ReadError {
        let access = Access::of(&self.kafka);
        // Else what is asked for below says that a broker which refuses this client does not answer it.
        if let Ok(Some(why)) = access.refusal() {
            let reason = format!("{} is refused: {why}", access.principal());
            return ReadError::Failed { topic: self.topic.clone(), reason };
        }
        let attempts = admin::attempts(&self.kafka);
        ReadError::TimedOut { topic: self.topic.clone(), timeout: self.kafka.request_timeout, attempts }
    }

    fn failed(&self, error: &KafkaError) -> ReadError {
        let mut reason = error.to_string();
        if error.rdkafka_error_code().is_some_and(group::is_forbidden) {
            let principal = Access::of(&self.kafka).principal();
            reason = denied(&principal, &reason, Right::Read, (Resource::Topic, &self.topic));
        }
        ReadError::Failed { topic: self.topic.clone(), reason }
    }
}

/// Whether a reader goes on by itself after this error: of a connection, or of the group that librdkafka asks
/// about although it is never joined, which a principal may have no right to.
pub fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, GroupAuthorizationFailed, OperationTimedOut, Resolve,
    };
    let code = error.rdkafka_error_code();
    code.is_some_and(|code| {
        matches!(
            code,
            AllBrokersDown | BrokerTransportFailure | GroupAuthorizationFailed | OperationTimedOut | Resolve
        )
    })
}
