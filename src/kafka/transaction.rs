//! One attempt to write a batch of records and offsets: as a Kafka transaction (`exactly-once`), or
//! acknowledged step by step (`at-least-once`). What to do about a failed attempt is the writer's
//! business.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pawl_actors::effects::Emit;
use pawl_actors::epoch::PartitionEpoch;
use pawl_actors::ledger::Row;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::access::{Live, Plan};
use super::attempt::{self, AttemptError, refused_offsets, refused_record};
use super::commit_metadata::CommitMetadata;
use super::delivery::{Acks, Delivered, DeliveryContext, Refused, Tag, Undelivered, is_purged};
use super::denied::Identity;
use super::group::{self, Membership};
use super::headers;
use super::rebalance::IntakeContext;

/// Longest wait for one call of the transaction API.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest wait, before an abort, for the reports of what was purged or is on its way.
const PURGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two attempts to commit offsets plainly.
const COMMIT_AGAIN: Duration = Duration::from_millis(500);

/// Offsets to commit with a batch.
pub struct Commit<'a> {
    /// Input topic.
    pub topic: &'a str,
    /// Partition, next offset, metadata.
    pub offsets: Vec<(i32, i64, CommitMetadata)>,
    /// Whether every one of these partitions is still held, without a break since it was collected.
    pub held: &'a dyn Fn() -> bool,
}

impl Commit<'_> {
    fn list(&self) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(self.offsets.len());
        for (partition, next, metadata) in &self.offsets {
            let mut element = list.add_partition(self.topic, *partition);
            element.set_offset(Offset::Offset(*next))?;
            element.set_metadata(metadata.to_string());
        }
        Ok(list)
    }
}

/// A producer, transactional or not, and the count of its acknowledgements.
pub struct Session {
    producer: Live<ThreadedProducer<DeliveryContext>>,
    acks: Arc<Acks>,
    identity: Arc<Identity>,
    transactional: bool,
    ack_timeout: Duration,
    sent: usize,
    /// Topics of the batch: a few.
    topics: Vec<String>,
}

impl Session {
    /// Opens a producer; a transactional one ends its predecessor's open transaction.
    ///
    /// # Errors
    /// When the settings are refused or the coordinator does not answer in time.
    pub fn open(
        config: &Plan,
        identity: Arc<Identity>,
        transactional: bool,
        ack_timeout: Duration,
    ) -> Result<Self, KafkaError> {
        let acks = Arc::new(Acks::default());
        let producer: Live<ThreadedProducer<DeliveryContext>> =
            config.open(DeliveryContext::new(acks.clone()))?;
        if transactional {
            producer.init_transactions(CALL_TIMEOUT)?;
        }
        Ok(Session { producer, acks, identity, transactional, ack_timeout, sent: 0, topics: Vec::new() })
    }

    /// Begins a batch.
    ///
    /// # Errors
    /// When the producer can do no more.
    pub fn begin(&mut self) -> Result<(), AttemptError> {
        self.sent = 0;
        self.topics.clear();
        self.acks.begin();
        if self.transactional {
            self.producer.begin_transaction().map_err(|error| self.gone(error.to_string()))?;
        }
        Ok(())
    }

    /// Hands a record to the producer; waits while its queue is full.
    fn send(
        &mut self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&Bytes>,
        value: Option<&Bytes>,
        rest: (Option<&Emit>, Tag),
    ) -> Result<(), AttemptError> {
        let (emit, tag) = rest;
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, tag.opaque());
        record.partition = partition;
        record.key = key.map(|key| &key[..]);
        record.payload = value.map(|value| &value[..]);
        if let Some(emit) = emit {
            record.timestamp = emit.timestamp.map(|at| at.0);
            record.headers = (!emit.headers.is_empty()).then(|| headers::write(&emit.headers));
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    self.sent += 1;
                    if !self.topics.iter().any(|known| known == topic) {
                        self.topics.push(topic.to_owned());
                    }
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(self.not_taken(&error, format!("sending to {topic}: {error}"))),
            }
        }
    }

    /// Sends a record of a handler or a dead letter.
    ///
    /// # Errors
    /// See [`AttemptError`].
    pub fn emit(&mut self, emit: &Emit, tag: Tag) -> Result<(), AttemptError> {
        self.send(&emit.topic, emit.partition, emit.key.as_ref(), emit.value.as_ref(), (Some(emit), tag))
    }

    /// Sends a ledger row.
    ///
    /// # Errors
    /// See [`AttemptError`].
    pub fn row(&mut self, changelog: &str, partition: i32, row: &Row, tag: Tag) -> Result<(), AttemptError> {
        self.send(changelog, Some(partition), Some(&row.key), row.value.as_ref(), (None, tag))
    }

    /// Records sent since [`Session::begin`] or [`Session::acked`].
    pub fn count_sent(&self) -> usize {
        self.sent
    }

    /// How many of these were acknowledged or refused.
    pub fn count_acked(&self) -> usize {
        self.acks.count()
    }

    /// Waits until all that was sent is acknowledged.
    ///
    /// # Errors
    /// When a record is refused or the acknowledgements do not come in time.
    pub fn acked(&mut self) -> Result<Delivered, AttemptError> {
        let delivered = self.reported(self.ack_timeout).map_err(|error| match &error {
            Undelivered::Refused(refused) => self.refused(refused),
            Undelivered::TimedOut { .. } => AttemptError::Unacknowledged(match self.gone_topic() {
                Some(topic) => format!("{error}. {}", attempt::make_topic(topic)),
                None => {
                    format!(
                        "{error}; where the link is too slow for so many, raise kafka.transaction_timeout"
                    )
                }
            }),
        })?;
        self.sent = 0;
        self.acks.begin();
        Ok(delivered)
    }

    /// The topics of this batch: of a transaction that failed nobody says because of which.
    fn destinations(&self) -> String {
        match &self.topics[..] {
            [] => "(one of the handler's)".to_owned(),
            topics => topics.join(" or "),
        }
    }

    /// A topic of this batch that is not there any more: librdkafka waits for it to come back.
    fn gone_topic(&self) -> Option<&str> {
        let is_gone = |topic: &&String| {
            let found = self.producer.client().fetch_metadata(Some(topic), PURGE_TIMEOUT);
            found.is_ok_and(|found| {
                let error = found.topics().iter().find_map(|one| one.error());
                error.map(RDKafkaErrorCode::from) == Some(RDKafkaErrorCode::UnknownTopicOrPartition)
            })
        };
        self.topics.iter().find(is_gone).map(String::as_str)
    }

    /// Adds offsets to the transaction, while what was sent may still be under way: the coordinator is
    /// asked meanwhile.
    ///
    /// # Errors
    /// See [`AttemptError`].
    pub fn add_offsets(
        &self,
        consumer: &BaseConsumer<IntakeContext>,
        commit: &Commit<'_>,
    ) -> Result<(), AttemptError> {
        let list = commit.list().map_err(|error| AttemptError::Hopeless(error.to_string()))?;
        let membership = Membership::of(consumer);
        // In this order: whoever froze between the two for longer than its session, and rejoined,
        // would else commit under its new generation what it had collected under the old one.
        if !(commit.held)() {
            return Err(AttemptError::Abortable("a partition was lost meanwhile".into()));
        }
        // Whoever holds a partition is a member of a generation, so this one was expelled; librdkafka
        // knows it from a heartbeat, and tells it by a callback only while it is in no rebalance.
        let membership = membership
            .ok_or_else(|| AttemptError::Fenced("this instance is no member of its group any more".into()))?;
        let Err(refusal) = membership.add_offsets(&*self.producer, &list, CALL_TIMEOUT) else {
            return Ok(());
        };
        let text = format!("adding offsets to the transaction: {refusal}");
        Err(match refusal.code {
            _ if refusal.fatal => self.gone(text),
            code => match refused_offsets(&self.identity, code, text, commit.topic) {
                // A record that was refused meanwhile spoils the transaction, and then it is the cause.
                AttemptError::Abortable(text) => self.spoiled(text),
                other => other,
            },
        })
    }

    /// Commits the transaction, of which everything is acknowledged.
    ///
    /// # Errors
    /// See [`AttemptError`].
    pub fn commit(&self) -> Result<(), AttemptError> {
        // Without this the commit may wait 100 ms for librdkafka's own bookkeeping of the last ack.
        while self.producer.in_flight_count() > 0 {
            std::thread::yield_now();
        }
        self.producer
            .commit_transaction(CALL_TIMEOUT)
            .map_err(|error| AttemptError::Unknown(format!("committing the transaction: {error}")))
    }

    /// Takes back what was sent since `begin`; `false` if this producer can do no more. What is on its
    /// way is waited for, because it could else arrive within the next transaction.
    pub fn abort(&mut self) -> bool {
        // What is queued the abort purges itself, and counts it as never numbered; purged by hand it would
        // leave a gap in the sequence of the next transaction's records.
        if !self.transactional {
            self.producer.purge(PurgeConfig::default().queue());
        } else if self.producer.abort_transaction(CALL_TIMEOUT).is_err() {
            return false;
        }
        !matches!(self.reported(PURGE_TIMEOUT), Err(Undelivered::TimedOut { .. }))
    }

    /// Waits until everything that was sent is reported.
    fn reported(&self, limit: Duration) -> Result<Delivered, Undelivered> {
        flush(&self.producer, limit);
        self.acks.of(self.sent, limit)
    }

    /// What a record that was not taken means for the attempt.
    fn refused(&self, refused: &Refused) -> AttemptError {
        if self.transactional && is_purged(refused.code) && self.producer.client().fatal_error().is_none() {
            return self.spoiled(refused.to_string());
        }
        let mut code = refused.code;
        // A record that is told to be invalid may be so for its time stamp: only the transaction knows.
        if self.transactional && code == RDKafkaErrorCode::InvalidRecord {
            let cause = group::transaction_error(&*self.producer, PURGE_TIMEOUT).map(|cause| cause.code);
            code = cause.filter(|cause| *cause == RDKafkaErrorCode::InvalidTimestamp).unwrap_or(code);
        }
        self.or_gone(attempt::refused(&self.identity, refused, code))
    }

    /// The transaction failed as a whole, and what was asked of it for that reason.
    fn spoiled(&self, text: String) -> AttemptError {
        if let Some(refused) = self.acks.refused_for_itself() {
            return self.refused(&refused);
        }
        match group::transaction_error(&*self.producer, PURGE_TIMEOUT) {
            Some(cause) if attempt::is_of_a_record(cause.code) => match self.reported_refusal() {
                Some(refused) => self.or_gone(attempt::refused(&self.identity, &refused, cause.code)),
                None => self.judged(cause.code, cause.to_string(), &self.destinations()),
            },
            Some(cause) => self.judged(cause.code, cause.to_string(), &self.destinations()),
            None => AttemptError::Abortable(text),
        }
    }

    /// The record that the transaction failed of, once it is reported: the transaction may know it before.
    fn reported_refusal(&self) -> Option<Refused> {
        let deadline = Instant::now() + PURGE_TIMEOUT;
        loop {
            let refused = self.acks.refused_for_itself();
            let follows = |refused: &Refused| refused.code == RDKafkaErrorCode::InvalidDifferentRecord;
            if refused.as_ref().is_some_and(|refused| !follows(refused)) || Instant::now() >= deadline {
                return refused;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Numbers of the effects of the last batch that were refused for their key or their time stamp; all of them
    /// are known once it is aborted.
    pub fn refused_effects(&self) -> Vec<usize> {
        self.acks.refused_effects()
    }

    /// What the broker's refusal of a record or of a partition means for the attempt.
    fn judged(&self, code: RDKafkaErrorCode, text: String, topic: &str) -> AttemptError {
        self.or_gone(refused_record(&self.identity, code, text, topic))
    }

    /// A failure that the producer does not survive is one of the producer.
    fn or_gone(&self, error: AttemptError) -> AttemptError {
        match error {
            AttemptError::Abortable(text) if self.producer.client().fatal_error().is_some() => {
                self.gone(text)
            }
            other => other,
        }
    }

    /// A record that the producer itself did not take.
    fn not_taken(&self, error: &KafkaError, text: String) -> AttemptError {
        let fatal = self.producer.client().fatal_error().is_some()
            || matches!(error, KafkaError::Transaction(cause) if cause.is_fatal());
        if fatal {
            self.gone(text)
        } else if self.transactional {
            self.spoiled(text)
        } else {
            AttemptError::Abortable(text)
        }
    }

    /// Why this producer can do no more.
    fn gone(&self, text: String) -> AttemptError {
        match self.producer.client().fatal_error() {
            Some((RDKafkaErrorCode::Fenced | RDKafkaErrorCode::InvalidProducerEpoch, why)) => {
                AttemptError::Usurped(format!("{text}: {why}"))
            }
            Some((_, why)) => AttemptError::Producer(format!("{text}: {why}")),
            None => AttemptError::Producer(text),
        }
    }
}

/// Sends what still lingers and waits until everything that was sent is reported as delivered or
/// refused; how much of it, the caller counts. rust-rdkafka's own `flush` makes librdkafka forget the
/// lingering for a moment only and then polls for up to 100 ms.
fn flush(producer: &ThreadedProducer<DeliveryContext>, limit: Duration) {
    let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives as long as the producer, which is borrowed. Reports are events that the
    // producer's own thread serves (rd_kafka_flush only waits for it then).
    unsafe { rdkafka_sys::rd_kafka_flush(producer.client().native_ptr(), millis) };
}

/// `at-least-once`: everything is written already, so only the commit is repeated.
///
/// # Errors
/// See [`AttemptError`].
pub fn commit_plainly(
    identity: &Identity,
    consumer: &BaseConsumer<IntakeContext>,
    commit: &Commit<'_>,
) -> Result<(), AttemptError> {
    let list = commit.list().map_err(|error| AttemptError::Hopeless(error.to_string()))?;
    loop {
        // librdkafka puts the generation of the moment into the request, whatever was collected under.
        if !(commit.held)() {
            return Err(AttemptError::Abortable("a partition was lost meanwhile".into()));
        }
        let Err(error) = consumer.commit(&list, CommitMode::Sync) else { return Ok(()) };
        let text = format!("committing offsets: {error}");
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        match refused_offsets(identity, code, text, commit.topic) {
            AttemptError::Abortable(text) | AttemptError::Unacknowledged(text) => {
                tracing::warn!("{text}; again in {COMMIT_AGAIN:?}");
                std::thread::sleep(COMMIT_AGAIN);
            }
            other => return Err(other),
        }
    }
}

/// Sends a partition's share of an epoch in the order that a reader may rely on, and in
/// `at-least-once` waits in between: effects, then heads, then the partition row.
pub struct Share<'a> {
    /// What to send.
    pub part: &'a PartitionEpoch,
    /// The changelog topic.
    pub changelog: &'a str,
}

impl Share<'_> {
    /// Records of handlers and dead letters, numbered from these on.
    ///
    /// # Errors
    /// See [`AttemptError`].
    pub fn effects(
        &self,
        session: &mut Session,
        first_effect: usize,
        first_letter: usize,
    ) -> Result<(), AttemptError> {
        for (n, effect) in self.part.emits.iter().enumerate() {
            session.emit(&effect.emit, Tag::Effect(first_effect + n))?;
        }
        for (n, letter) in self.part.letters.iter().enumerate() {
            session.emit(&letter.emit, Tag::Numbered(first_letter + n))?;
        }
        Ok(())
    }

    /// Changed heads.
    ///
    /// # Errors
    /// See [`AttemptError`].
    pub fn heads(&self, session: &mut Session) -> Result<(), AttemptError> {
        for row in &self.part.rows {
            session.row(self.changelog, self.part.partition.0, row, Tag::Row)?;
        }
        Ok(())
    }

    /// The partition row.
    ///
    /// # Errors
    /// See [`AttemptError`].
    pub fn partition_row(&self, session: &mut Session) -> Result<(), AttemptError> {
        session.row(self.changelog, self.part.partition.0, &self.part.partition_row, Tag::Row)
    }
}
