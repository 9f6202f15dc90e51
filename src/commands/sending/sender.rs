//! The producer of the commands that write: bounded in flight, every acknowledgement counted.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use pawl_actors::record::Header;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::acknowledged;
use crate::commands::Failure;
use crate::exit::Exit;
use crate::kafka::access::Live;
use crate::kafka::admin;
use crate::kafka::client::{self, LogContext};
use crate::kafka::headers;
use crate::settings::Kafka;

/// Records that may wait for their acknowledgement.
const MAX_IN_FLIGHT: u64 = 20_000;
/// Memory that librdkafka may hold of them, in KiB; a full queue makes the sender wait.
const MAX_IN_FLIGHT_KIB: u32 = 64 * 1024;
/// librdkafka's default for `batch.size`.
const MAX_BATCH_BYTES: u64 = 1_000_000;
/// Room for key and headers beside the longest line.
const RECORD_OVERHEAD_BYTES: usize = 64 * 1024;

/// A record to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// `None`: where Java's default partitioner puts its key.
    pub partition: Option<i32>,
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
    /// Milliseconds since the epoch; `None` is the time of sending.
    pub timestamp: Option<i64>,
}

/// The first record that was not acknowledged.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// The line it came from.
    pub line: u64,
    /// What librdkafka says.
    pub error: KafkaError,
}

impl Stopped {
    /// Whether no broker answered in time, so that the record may or may not be there.
    pub fn timed_out(&self) -> bool {
        matches!(
            self.error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::RequestTimedOut)
        )
    }
}

/// Told of each record that is acknowledged, by its line, or why it is not.
pub type Observer = Box<dyn Fn(u64, Option<&KafkaError>) + Send + Sync>;

/// Sends records to one topic.
pub struct Sender {
    producer: Live<ThreadedProducer<Deliveries>>,
    topic: String,
    kafka: Kafka,
    timeout: Duration,
}

#[derive(Default)]
struct Progress {
    sent: u64,
    acked: u64,
    refused: u64,
    first: Option<Stopped>,
}

impl Progress {
    fn in_flight(&self) -> u64 {
        self.sent - self.acked - self.refused
    }
}

/// Counts deliveries, on librdkafka's polling thread.
struct Deliveries {
    log: LogContext,
    observer: Observer,
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Deliveries {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().expect("no holder panics")
    }

    /// Waits until the progress is as demanded; every record ends by its time-out, so this does too.
    fn wait(&self, until: impl Fn(&Progress) -> bool) -> MutexGuard<'_, Progress> {
        let progress = self.progress();
        self.changed.wait_while(progress, |progress| !until(progress)).expect("no holder panics")
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.log.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    /// The number of the line.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, line: usize) {
        (self.observer)(line as u64, result.as_ref().err().map(|(error, _)| error));
        let mut progress = self.progress();
        match result {
            Ok(_) => progress.acked += 1,
            Err((error, _)) => {
                progress.refused += 1;
                let stopped = Stopped { line: line as u64, error: error.clone() };
                progress.first.get_or_insert(stopped);
            }
        }
        self.changed.notify_all();
    }
}

impl Sender {
    /// `takes` is the topic's `max.message.bytes`: the broker holds a whole batch against it, so a larger
    /// batch would be refused although each of its records fits.
    ///
    /// # Errors
    /// librdkafka does not take the properties of the settings.
    pub fn new(
        kafka: &Kafka,
        topic: &str,
        timeout: Duration,
        max_line: usize,
        takes: Option<u64>,
    ) -> Result<Sender, KafkaError> {
        Sender::observed(kafka, topic, timeout, max_line, takes, Box::new(|_, _| {}))
    }

    /// The same, telling `observer` what became of each record.
    ///
    /// # Errors
    /// As [`Sender::new`].
    pub fn observed(
        kafka: &Kafka,
        topic: &str,
        timeout: Duration,
        max_line: usize,
        takes: Option<u64>,
        observer: Observer,
    ) -> Result<Sender, KafkaError> {
        let deliveries = Deliveries {
            log: LogContext::new("producer"),
            observer,
            progress: Mutex::default(),
            changed: Condvar::new(),
        };
        let producer = client::producer(kafka)
            .set("message.timeout.ms", timeout.as_millis().to_string())
            .set("message.max.bytes", (max_line + RECORD_OVERHEAD_BYTES).max(1_000_000).to_string())
            .set("queue.buffering.max.kbytes", MAX_IN_FLIGHT_KIB.to_string())
            .set("batch.size", takes.unwrap_or(MAX_BATCH_BYTES).clamp(1, MAX_BATCH_BYTES).to_string())
            .set("linger.ms", "5")
            .open(deliveries)?;
        Ok(Sender { producer, topic: topic.to_owned(), kafka: kafka.clone(), timeout })
    }

    /// Hands a record to the producer, waiting while too many are in flight.
    ///
    /// # Errors
    /// A record was not acknowledged, this one or an earlier one; nothing more should be sent.
    pub fn send(&self, line: u64, outgoing: &Outgoing) -> Result<(), Stopped> {
        let deliveries = self.producer.context();
        {
            let mut progress =
                deliveries.wait(|progress| progress.in_flight() < MAX_IN_FLIGHT || progress.first.is_some());
            if let Some(first) = &progress.first {
                return Err(first.clone());
            }
            progress.sent += 1;
        }
        self.enqueue(line, outgoing).inspect_err(|_| deliveries.progress().sent -= 1)
    }

    fn enqueue(&self, line: u64, outgoing: &Outgoing) -> Result<(), Stopped> {
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.topic, line as usize);
        record.key = outgoing.key.as_deref();
        record.payload = outgoing.value.as_deref();
        record.partition = outgoing.partition;
        record.timestamp = outgoing.timestamp;
        record.headers = (!outgoing.headers.is_empty()).then(|| headers::write(&outgoing.headers));
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    record = back;
                    // The queue is full of bytes: one delivery less may be enough.
                    let deliveries = self.producer.context();
                    let before = deliveries.progress().in_flight();
                    // This record is counted: at 1 the queue is empty.
                    drop(deliveries.wait(|now| now.in_flight() < before || now.in_flight() <= 1));
                }
                Err((error, _)) => return Err(Stopped { line, error }),
            }
        }
    }

    /// Waits until each record has been acknowledged or refused.
    ///
    /// # Errors
    /// The first record that was not acknowledged.
    pub fn finish(&self) -> Result<(), Stopped> {
        let progress = self.producer.context().wait(|progress| progress.in_flight() == 0);
        progress.first.clone().map_or(Ok(()), Err)
    }

    /// Records acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.producer.context().progress().acked
    }
    /// Tells a person that sending ended at a line of `input`. `again` says what it means to send the same
    /// once more.
    pub fn explain(&self, stopped: &Stopped, input: &str, again: &str) -> Failure {
        let Sender { topic, timeout, .. } = self;
        let (place, acked) = (format!("{input}:{}", stopped.line), acknowledged(self.acked()));
        if stopped.timed_out() {
            let attempts = admin::attempts(&self.kafka);
            let message = format!(
                "{place}: not acknowledged within {timeout:?} ({attempts}); {acked} in {topic}; records without an \
                 acknowledgement may or may not be there: {again}"
            );
            return Failure::new(Exit::Unreachable, message);
        }
        let message = format!(
            "{place}: the record was refused: {}; {acked} in {topic}, some perhaps of later lines that were under way",
            stopped.error
        );
        Failure::new(Exit::Stopped, message)
    }
}
