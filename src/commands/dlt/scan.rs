//! Reading a topic from a place to its end, committed records only, without a group.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::letter::Letter;
use crate::commands::Failure;
use crate::exit::Exit;
use crate::kafka::admin::{self, Admin};
use crate::kafka::client::{self, LogContext};
use crate::settings::Kafka;

/// Where to start.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// The beginning of one partition, or of all.
    Beginning(Option<i32>),
    /// A partition and an offset.
    At(i32, i64),
}

/// A topic to read.
pub struct Scan {
    kafka: Kafka,
    topic: String,
    partitions: i32,
}

impl Scan {
    /// # Errors
    /// No broker, or no such topic.
    pub fn open(kafka: Kafka, topic: &str) -> Result<Scan, Failure> {
        let Some(found) = Admin::new(&kafka)?.describe(topic)? else {
            let servers = kafka.bootstrap_servers.join(",");
            let message = format!("there is no topic \"{topic}\" at {servers}; correct its name");
            return Err(Failure::new(Exit::Stopped, message));
        };
        Ok(Scan { kafka, topic: topic.to_owned(), partitions: found.partitions })
    }

    /// Hands over record after record, partition by partition in no fixed order among partitions,
    /// up to the end as it is now or until `each` breaks.
    ///
    /// # Errors
    /// No such partition, no answer within the request time-out, or what `each` says.
    pub fn read(
        &self,
        start: Start,
        mut each: impl FnMut(Letter) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        let consumer: BaseConsumer<LogContext> = client::reader(&self.kafka)
            // An offset that retention removed: go on with the first record there is.
            .set("auto.offset.reset", "earliest")
            .create_with_context(LogContext::new("dlt"))
            .map_err(|error| self.failed(&error))?;
        let mut open = self.assign(&consumer, start)?;
        let mut progress = Instant::now();
        while !open.is_empty() {
            match consumer.poll(Duration::from_millis(100)) {
                None if progress.elapsed() > self.kafka.request_timeout => return Err(self.timed_out()),
                None => continue,
                Some(Ok(message)) => {
                    if each(Letter::read(&message))?.is_break() {
                        return Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                // librdkafka goes on by itself; the time-out decides.
                Some(Err(error)) if is_connection(&error) => continue,
                Some(Err(error)) => return Err(self.failed(&error)),
            }
            progress = Instant::now();
        }
        Ok(())
    }

    fn assign(&self, consumer: &BaseConsumer<LogContext>, start: Start) -> Result<BTreeSet<i32>, Failure> {
        let (partitions, offset): (BTreeSet<i32>, Offset) = match start {
            Start::Beginning(None) => ((0..self.partitions).collect(), Offset::Beginning),
            Start::Beginning(Some(partition)) => ([partition].into(), Offset::Beginning),
            Start::At(partition, offset) => ([partition].into(), Offset::Offset(offset)),
        };
        if let Some(beyond) = partitions.iter().find(|partition| **partition >= self.partitions) {
            let message = format!(
                "{} has no partition {beyond}; its partitions are 0 to {}",
                self.topic,
                self.partitions - 1
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            let added = list.add_partition_offset(&self.topic, *partition, offset);
            added.map_err(|error| self.failed(&error))?;
        }
        consumer.assign(&list).map_err(|error| self.failed(&error))?;
        Ok(partitions)
    }

    fn timed_out(&self) -> Failure {
        let attempts = admin::attempts(&self.kafka.bootstrap_servers);
        let timeout = self.kafka.request_timeout;
        let message = format!(
            "no answer within {timeout:?} while reading {} ({attempts}); try again when the brokers are well",
            self.topic
        );
        Failure::new(Exit::Unreachable, message)
    }

    fn failed(&self, error: &KafkaError) -> Failure {
        let message = format!(
            "cannot read {}: {error}; if it is a right, allow this client Read by an ACL",
            self.topic
        );
        Failure::new(Exit::Stopped, message)
    }
}

fn is_connection(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve,
    };
    let code = error.rdkafka_error_code();
    code.is_some_and(|code| {
        matches!(code, AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve)
    })
}
