//! Counts the broker's acknowledgements of one producer, on that producer's polling thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{NoCustomPartitioner, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use super::client::LogContext;

/// What a sent record is to the writer; travels with it as its delivery opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Only its arrival counts.
    Plain,
    /// A changelog row: the highest offset of each partition is kept.
    Row,
    /// Its place is kept under this number.
    Numbered(usize),
}

impl Tag {
    /// As the pointer-sized number that librdkafka carries.
    pub fn opaque(self) -> usize {
        match self {
            Tag::Plain => 0,
            Tag::Row => 1,
            Tag::Numbered(n) => n + 2,
        }
    }

    fn from_opaque(opaque: usize) -> Self {
        match opaque {
            0 => Tag::Plain,
            1 => Tag::Row,
            n => Tag::Numbered(n - 2),
        }
    }
}

/// What arrived of a batch.
#[derive(Debug, Default)]
pub struct Delivered {
    count: usize,
    /// How many the writer waits for; while it still sends, none.
    awaited: Option<usize>,
    /// Position after the last row of each changelog partition.
    pub rows_next: BTreeMap<i32, i64>,
    /// Partition and offset of numbered records.
    pub places: BTreeMap<usize, (i32, i64)>,
    refused: Option<Refused>,
}

/// A record that the broker did not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{topic}[{partition}] did not take a record of {bytes} bytes: {code}")]
pub struct Refused {
    /// Destination.
    pub topic: String,
    /// Destination.
    pub partition: i32,
    /// Bytes of key and value.
    pub bytes: usize,
    /// Why.
    pub code: RDKafkaErrorCode,
}

/// Why a batch did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// The broker refused a record, or it timed out.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Not everything was acknowledged in time.
    #[error("{missing} records were not acknowledged within {waited:?}")]
    TimedOut {
        /// How many are missing.
        missing: usize,
        /// How long was waited.
        waited: Duration,
    },
}

/// Shared between the writer and its producer's polling thread.
#[derive(Debug, Default)]
pub struct Acks {
    delivered: Mutex<Delivered>,
    changed: Condvar,
}

impl Acks {
    /// Forgets what arrived before: a new batch begins.
    pub fn begin(&self) {
        *self.delivered.lock().expect("no holder panics") = Delivered::default();
    }

    /// Waits until `sent` records are acknowledged or refused.
    ///
    /// # Errors
    /// When one was refused, or they did not arrive in time.
    pub fn wait(&self, sent: usize, limit: Duration) -> Result<Delivered, Undelivered> {
        let deadline = Instant::now() + limit;
        let mut delivered = self.delivered.lock().expect("no holder panics");
        // Woken once, not for each of ten thousand acknowledgements.
        delivered.awaited = Some(sent);
        while delivered.count < sent {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Undelivered::TimedOut { missing: sent - delivered.count, waited: limit });
            }
            delivered = self.changed.wait_timeout(delivered, left).expect("no holder panics").0;
        }
        match &delivered.refused {
            Some(refused) => Err(refused.clone().into()),
            None => Ok(std::mem::take(&mut *delivered)),
        }
    }
}

/// The producer's context: logs, and counts deliveries.
pub struct DeliveryContext {
    log: LogContext,
    acks: Arc<Acks>,
}

impl DeliveryContext {
    /// For the writer of a handler.
    pub fn new(acks: Arc<Acks>) -> Self {
        DeliveryContext { log: LogContext::new("writer"), acks }
    }
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.log.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for DeliveryContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let mut delivered = self.acks.delivered.lock().expect("no holder panics");
        delivered.count += 1;
        match result {
            Ok(message) => match Tag::from_opaque(opaque) {
                Tag::Plain => {}
                Tag::Row => {
                    let next = delivered.rows_next.entry(message.partition()).or_insert(0);
                    *next = (*next).max(message.offset() + 1);
                }
                Tag::Numbered(number) => {
                    delivered.places.insert(number, (message.partition(), message.offset()));
                }
            },
            Err((error, message)) => {
                // The first refusal is the cause, the others follow from it.
                delivered.refused.get_or_insert_with(|| Refused {
                    topic: message.topic().to_owned(),
                    partition: message.partition(),
                    bytes: message.key_len() + message.payload_len(),
                    code: error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown),
                });
            }
        }
        let complete = delivered.awaited.is_some_and(|awaited| delivered.count >= awaited);
        drop(delivered);
        if complete {
            self.acks.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_back_from_its_number() {
        for tag in [Tag::Plain, Tag::Row, Tag::Numbered(0), Tag::Numbered(7)] {
            assert_eq!(Tag::from_opaque(tag.opaque()), tag);
        }
    }

    #[test]
    fn waiting_for_what_never_arrives_ends_and_says_how_much_is_missing() {
        let acks = Acks::default();
        let error = acks.wait(2, Duration::from_millis(1)).expect_err("nothing arrives");
        assert_eq!(error, Undelivered::TimedOut { missing: 2, waited: Duration::from_millis(1) });
        assert!(acks.wait(0, Duration::ZERO).is_ok());
    }
}
