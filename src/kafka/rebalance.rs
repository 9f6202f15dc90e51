//! What the group decides, as the consumer's callbacks hear of it: they note what happened and
//! return at once, on the thread that polls.
//!
//! With an eager strategy (`range`) a callback is about all partitions, with a cooperative one about
//! those alone that come or go. Either way librdkafka waits for one answer to it, which covers its
//! whole list: answering in parts would let this member into the next generation too early.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pawl_actors::record::Partition;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::client::LogContext;
use super::held::Held;

/// What the group coordinator decided.
#[derive(Debug)]
pub enum Rebalance {
    /// These are this member's from now on.
    Assigned(Vec<Partition>),
    /// These are to be given up, in good order; [`IntakeContext::unassign`] answers it.
    Revoked(Vec<Partition>),
    /// These are others' already.
    Lost(Vec<Partition>),
}

/// The consumer's context: notes rebalances.
pub struct IntakeContext {
    log: LogContext,
    topic: String,
    held: Arc<Held>,
    rebalances: Mutex<VecDeque<Rebalance>>,
    /// Set when the consumer leaves its group for good: then nothing waits for a drain any more.
    closing: AtomicBool,
}

impl IntakeContext {
    /// For the consumer of a topic.
    pub fn new(topic: &str, held: Arc<Held>) -> Self {
        IntakeContext {
            log: LogContext::new("consumer"),
            topic: topic.to_owned(),
            held,
            rebalances: Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }

    /// From here on nothing waits for a drain: the consumer leaves its group for good.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    fn note(&self, rebalance: Rebalance) {
        self.rebalances.lock().expect("no holder panics").push_back(rebalance);
    }

    /// The next thing that happened.
    pub fn take_noted(&self) -> Option<Rebalance> {
        self.rebalances.lock().expect("no holder panics").pop_front()
    }

    /// Takes the partitions, paused: the position is a placeholder that the restored watermark replaces. It is a
    /// number and not the end, for which librdkafka would have to ask: a question that is overtaken by the next
    /// assignment is asked again half a second later, and its answer undoes a seek that came in between, so
    /// that records would be skipped. Should anything be fetched all the same, it lies below the watermark.
    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &[Partition]) {
        let mut placed = TopicPartitionList::new();
        for partition in partitions {
            let added = placed.add_partition_offset(&self.topic, partition.0, KafkaOffset::Offset(0));
            added.expect("a number is a valid position");
        }
        let taken = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&placed),
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(&placed),
        };
        if let Err(error) = taken {
            tracing::error!(%error, "the assigned partitions could not be taken");
        }
        if let Err(error) = consumer.pause(&self.list(partitions)) {
            tracing::warn!(%error, "the assigned partitions are fetched before they are owned");
        }
    }

    /// These partitions as librdkafka takes them.
    pub fn list(&self, partitions: &[Partition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topic, partition.0);
        }
        list
    }

    /// Answers a revocation: these, which are all of it, are given up.
    pub fn unassign(&self, consumer: &BaseConsumer<Self>, partitions: &[Partition]) {
        let list = self.list(partitions);
        let given_up = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(&list),
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
        };
        if let Err(error) = given_up {
            tracing::error!(%error, "the partitions could not be given up");
        }
    }
}

impl ClientContext for IntakeContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.log.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
    }
}

impl ConsumerContext for IntakeContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let elements = list.elements_for_topic(&self.topic);
        let partitions: Vec<Partition> = elements.iter().map(|one| Partition(one.partition())).collect();
        let closing = self.closing.load(Ordering::Acquire);
        match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.assign(consumer, &partitions);
                // What is assigned to one who leaves is revoked next.
                if !closing {
                    self.note(Rebalance::Assigned(partitions));
                }
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS
                if !closing && !consumer.assignment_lost() =>
            {
                // Given up only after the last epoch that carries them.
                self.note(Rebalance::Revoked(partitions));
            }
            _ => {
                // First, so that nothing is written for them from here on.
                for partition in &partitions {
                    self.held.release(*partition);
                }
                self.unassign(consumer, &partitions);
                self.note(Rebalance::Lost(partitions));
            }
        }
    }
}
