//! Counts the broker's acknowledgements of one producer, on that producer's polling thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
    /// A record of a handler, or an answer to a command, by its number in the step: only its arrival counts.
    Effect(usize),
    /// A changelog row: the highest offset of each partition is kept.
    Row,
    /// Its place is kept under this number.
    Numbered(usize),
}

impl Tag {
    /// As the pointer-sized number that librdkafka carries.
    pub fn opaque(self) -> usize {
        match self {
            Tag::Row => 0,
            Tag::Effect(n) => 2 * n + 1,
            Tag::Numbered(n) => 2 * n + 2,
        }
    }

    fn from_opaque(opaque: usize) -> Self {
        match opaque {
            0 => Tag::Row,
            n if n % 2 == 1 => Tag::Effect(n / 2),
            n => Tag::Numbered(n / 2 - 1),
        }
    }
}

/// What arrived of a batch.
#[derive(Debug, Default)]
pub struct Delivered {
    count: usize,
    /// Position after the last row of each changelog partition.
    pub rows_next: BTreeMap<i32, i64>,
    /// Partition and offset of numbered records.
    pub places: BTreeMap<usize, (i32, i64)>,
    refused: Option<Refused>,
    /// Numbers of the effects that were refused for themselves: a batch may hold several.
    refused_effects: Vec<usize>,
}

impl Delivered {
    /// The first refusal is the cause, the others follow from it; but a record that was refused for
    /// the sake of another one of its batch is never the cause.
    fn refuse(&mut self, code: RDKafkaErrorCode, refused: impl FnOnce() -> Refused) {
        let follows = |code| code == RDKafkaErrorCode::InvalidDifferentRecord;
        match &self.refused {
            None => self.refused = Some(refused()),
            Some(kept) if follows(kept.code) && !follows(code) => self.refused = Some(refused()),
            Some(_) => {}
        }
    }
}

/// A record that the broker did not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{topic}[{partition}] did not take a record: {code}")]
pub struct Refused {
    /// Destination.
    pub topic: String,
    /// Destination.
    pub partition: i32,
    /// What it was.
    pub tag: Tag,
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
}

impl Acks {
    /// Forgets what arrived before: a new batch begins.
    pub fn begin(&self) {
        *self.delivered.lock().expect("no holder panics") = Delivered::default();
    }

    /// How many were reported.
    pub fn count(&self) -> usize {
        self.delivered.lock().expect("no holder panics").count
    }

    /// The record that was refused first, unless that was only for the sake of another.
    pub fn refused_for_itself(&self) -> Option<Refused> {
        let follows = |code| matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight);
        let delivered = self.delivered.lock().expect("no holder panics");
        delivered.refused.clone().filter(|refused| !follows(refused.code))
    }

    /// Numbers of the effects that were refused for their key or their time stamp.
    pub fn refused_effects(&self) -> Vec<usize> {
        self.delivered.lock().expect("no holder panics").refused_effects.clone()
    }

    /// What became of `sent` records, which were `waited` for.
    ///
    /// # Errors
    /// When one was refused, or not all are acknowledged.
    pub fn of(&self, sent: usize, waited: Duration) -> Result<Delivered, Undelivered> {
        let mut delivered = self.delivered.lock().expect("no holder panics");
        if delivered.count < sent {
            return Err(Undelivered::TimedOut { missing: sent - delivered.count, waited });
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
                Tag::Effect(_) => {}
                Tag::Row => {
                    let next = delivered.rows_next.entry(message.partition()).or_insert(0);
                    *next = (*next).max(message.offset() + 1);
                }
                Tag::Numbered(number) => {
                    delivered.places.insert(number, (message.partition(), message.offset()));
                }
            },
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                let tag = Tag::from_opaque(opaque);
                if let Tag::Effect(number) = tag
                    && matches!(code, RDKafkaErrorCode::InvalidRecord | RDKafkaErrorCode::InvalidTimestamp)
                {
                    delivered.refused_effects.push(number);
                }
                delivered.refuse(code, || Refused {
                    topic: message.topic().to_owned(),
                    partition: message.partition(),
                    tag,
                    code,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_back_from_its_number() {
        for tag in [Tag::Row, Tag::Effect(0), Tag::Effect(7), Tag::Numbered(0), Tag::Numbered(7)] {
            assert_eq!(Tag::from_opaque(tag.opaque()), tag);
        }
    }

    #[test]
    fn the_cause_is_the_first_refusal_that_is_not_for_the_sake_of_another_record() {
        let mut delivered = Delivered::default();
        for code in [
            RDKafkaErrorCode::InvalidDifferentRecord,
            RDKafkaErrorCode::InvalidRecord,
            RDKafkaErrorCode::InvalidDifferentRecord,
            RDKafkaErrorCode::MessageTimedOut,
        ] {
            delivered.refuse(code, || Refused { topic: "t".into(), partition: 0, tag: Tag::Row, code });
        }
        assert_eq!(delivered.refused.map(|refused| refused.code), Some(RDKafkaErrorCode::InvalidRecord));
    }

    #[test]
    fn what_did_not_arrive_is_counted() {
        let acks = Acks::default();
        let error = acks.of(2, Duration::from_secs(15)).expect_err("nothing arrives");
        assert_eq!(error, Undelivered::TimedOut { missing: 2, waited: Duration::from_secs(15) });
        assert!(acks.of(0, Duration::ZERO).is_ok());
    }
}
