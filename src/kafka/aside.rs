//! Reads what the owners of partitions ask for beside their input: commands and dead letters. A consumer
//! without a group for each of the two topics; it reads a partition only while somebody waits for a piece of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use pawl_actors::aside::{Ask, Found, Want};
use pawl_actors::record::Record;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use super::access::{Live, Plan};
use super::chunk::Chunk;
use super::client::LogContext;
use super::group;
use super::held::Held;

/// What a reader needs.
pub struct AsideParts {
    /// Name of the handler, for the log.
    pub handler: Arc<str>,
    /// The topic.
    pub topic: String,
    /// Settings of the reading consumer.
    pub config: Plan,
    /// Whether an answer waits until there is a record.
    pub waits: bool,
    /// Which partitions are held.
    pub held: Arc<Held>,
}

/// See the module's documentation.
pub struct AsideReader {
    parts: AsideParts,
    consumer: Option<Live<BaseConsumer<LogContext>>>,
    /// Who waits for records of a partition, and what was read for it.
    open: HashMap<i32, Open>,
    chunk: Chunk,
    looked: Instant,
    told: Option<Instant>,
}

struct Open {
    want: Want,
    records: Vec<Record>,
    bytes: usize,
    next: i64,
}

/// Records and bytes of an answer, at most; the record that exceeds the second is its last.
const PIECE: (usize, usize) = (500, 1 << 20);
/// Longest wait for a record; questions wait as long.
const POLL: Duration = Duration::from_millis(20);
/// A consumer that nobody needs for so long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// How often it is looked whether a partition was taken away meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often it is told that a topic cannot be read.
const TELL_EVERY: Duration = Duration::from_secs(60);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

impl AsideReader {
    /// Before the first question.
    pub fn new(parts: AsideParts) -> Self {
        AsideReader {
            parts,
            consumer: None,
            open: HashMap::new(),
            chunk: Chunk::default(),
            looked: Instant::now(),
            told: None,
        }
    }

    /// Answers until nobody asks any more.
    pub fn run(mut self, wants: &Receiver<Want>) {
        loop {
            let want = if self.open.is_empty() {
                match wants.recv_timeout(IDLE) {
                    Ok(want) => Some(want),
                    Err(RecvTimeoutError::Timeout) => {
                        self.consumer = None;
                        None
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            } else {
                match wants.try_recv() {
                    Ok(want) => Some(want),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return,
                }
            };
            if let Some(want) = want {
                self.take(want);
            } else if !self.open.is_empty() {
                self.poll();
                self.drop_what_is_not_held();
            }
        }
    }

    fn take(&mut self, want: Want) {
        let partition = want.partition.0;
        if !self.parts.held.is(want.partition, want.assignment) {
            return;
        }
        // One question at a time: whoever asked before asks again.
        if self.open.contains_key(&partition)
            && let Some(consumer) = self.consumer.take()
        {
            self.answer(partition, false, &consumer);
            self.consumer = Some(consumer);
        }
        let done = match want.ask {
            Ask::End => self.end(partition).map(Found::End),
            Ask::High => self.high(partition).map(Found::End),
            Ask::Records(from) => match self.begin(partition, from) {
                Ok(()) => {
                    self.open.insert(partition, Open { want, records: Vec::new(), bytes: 0, next: from });
                    return;
                }
                Err(error) => Err(error),
            },
        };
        (want.reply)(done.unwrap_or_else(|error| self.failed(&error)));
    }

    fn failed(&self, error: &KafkaError) -> Found {
        Found::Failed(format!("{} cannot be read: {error}", self.parts.topic))
    }

    fn consumer(&mut self) -> KafkaResult<&BaseConsumer<LogContext>> {
        if self.consumer.is_none() {
            self.consumer = Some(self.parts.config.open(LogContext::new("aside"))?);
        }
        Ok(self.consumer.as_ref().expect("made above"))
    }

    /// The last stable offset, asked for again while nobody answers.
    fn end(&mut self, partition: i32) -> KafkaResult<i64> {
        let topic = self.parts.topic.clone();
        let consumer = self.consumer()?;
        let ask = || consumer.fetch_watermarks(&topic, partition, CALL_TIMEOUT);
        let (_, end) = ask().or_else(|_| ask()).or_else(|_| ask())?;
        Ok(end)
    }

    /// The high watermark, which only a reader of uncommitted records is told; asked for again likewise.
    fn high(&self, partition: i32) -> KafkaResult<i64> {
        let mut config = self.parts.config.clone();
        config.set("isolation.level", "read_uncommitted");
        let client: Live<BaseConsumer<LogContext>> = config.open(LogContext::new("aside"))?;
        let ask = || client.fetch_watermarks(&self.parts.topic, partition, CALL_TIMEOUT);
        let (_, high) = ask().or_else(|_| ask()).or_else(|_| ask())?;
        Ok(high)
    }

    fn begin(&mut self, partition: i32, from: i64) -> KafkaResult<()> {
        let list = self.list(partition, Offset::Offset(from))?;
        self.consumer()?.incremental_assign(&list)
    }

    fn list(&self, partition: i32, offset: Offset) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.parts.topic, partition, offset)?;
        Ok(list)
    }

    fn poll(&mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        let mut wait = POLL;
        loop {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => self.read(&message, &consumer),
                Some(Err(KafkaError::PartitionEOF(partition))) => self.reached_end(partition, &consumer),
                Some(Err(error)) => self.poll_error(&error, &consumer),
            }
            wait = Duration::ZERO;
        }
        let read: Vec<i32> = self
            .open
            .iter()
            .filter(|(_, open)| !open.records.is_empty())
            .map(|(partition, _)| *partition)
            .collect();
        for partition in read {
            self.answer(partition, false, &consumer);
        }
        self.consumer = Some(consumer);
    }

    fn read(&mut self, message: &BorrowedMessage<'_>, consumer: &BaseConsumer<LogContext>) {
        let Some(open) = self.open.get_mut(&message.partition()) else { return };
        let record = self.chunk.record(message);
        open.bytes += record.size();
        open.next = message.offset() + 1;
        open.records.push(record);
        if open.records.len() >= PIECE.0 || open.bytes >= PIECE.1 {
            self.answer(message.partition(), false, consumer);
        }
    }

    fn reached_end(&mut self, partition: i32, consumer: &BaseConsumer<LogContext>) {
        let waits = |open: &Open| self.parts.waits && open.records.is_empty();
        if self.open.get(&partition).is_some_and(|open| !waits(open)) {
            self.answer(partition, true, consumer);
        }
    }

    fn answer(&mut self, partition: i32, at_end: bool, consumer: &BaseConsumer<LogContext>) {
        let Some(Open { want, records, next, .. }) = self.close(partition, consumer) else { return };
        (want.reply)(Found::Records { records, next, at_end });
    }

    fn close(&mut self, partition: i32, consumer: &BaseConsumer<LogContext>) -> Option<Open> {
        let closed =
            self.list(partition, Offset::Invalid).and_then(|list| consumer.incremental_unassign(&list));
        if let Err(error) = closed {
            tracing::debug!(topic = self.parts.topic, partition, %error, "aside: not unassigned");
        }
        self.open.remove(&partition)
    }

    /// What a person has to mend is told: of commands once a minute, for they wait; whoever asked for letters
    /// is answered.
    fn poll_error(&mut self, error: &KafkaError, consumer: &BaseConsumer<LogContext>) {
        let code = error.rdkafka_error_code();
        let gone = matches!(
            code,
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::UnknownTopic
            )
        );
        if !gone && !code.is_some_and(group::is_forbidden) {
            // librdkafka goes on by itself; its context has logged the cause with a limit.
            return;
        }
        if !self.parts.waits {
            for partition in self.open.keys().copied().collect::<Vec<_>>() {
                let Some(open) = self.close(partition, consumer) else { continue };
                (open.want.reply)(self.failed(error));
            }
        } else if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(
                handler = %self.parts.handler, topic = self.parts.topic, %error,
                "commands of operators cannot be read; records go on. pawl topics create makes the topic, pawl check \
                 names a missing right"
            );
        }
    }

    fn drop_what_is_not_held(&mut self) {
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        let Some(consumer) = self.consumer.take() else { return };
        let held = self.parts.held.clone();
        let gone = |open: &Open| !held.is(open.want.partition, open.want.assignment);
        let gone: Vec<i32> =
            self.open.iter().filter(|(_, open)| gone(open)).map(|(number, _)| *number).collect();
        for partition in gone {
            self.close(partition, &consumer);
        }
        self.consumer = Some(consumer);
    }
}
