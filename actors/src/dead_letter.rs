//! A dead letter: the record's own bytes, and headers that say what happened.
//!
//! Header names, types and byte order are those of Spring Kafka's `DeadLetterPublishingRecoverer`
//! (spring-kafka reference, "Publishing Dead-letter Records"), so that existing tools read them.
//! On a second pass the first originals are kept and the exception is replaced.

use std::sync::Arc;

use bytes::Bytes;

use crate::effects::Emit;
use crate::handler::Source;
use crate::outcome::{Failure, code};
use crate::record::{Header, Partition, Record};
use crate::supervisor::Disposition;

/// Header names, as Spring Kafka writes them where it has one.
pub mod header {
    /// Topic of the original, UTF-8.
    pub const ORIGINAL_TOPIC: &str = "kafka_dlt-original-topic";
    /// Partition of the original, int32 big-endian.
    pub const ORIGINAL_PARTITION: &str = "kafka_dlt-original-partition";
    /// Offset of the original, int64 big-endian.
    pub const ORIGINAL_OFFSET: &str = "kafka_dlt-original-offset";
    /// Timestamp of the original, int64 big-endian, milliseconds.
    pub const ORIGINAL_TIMESTAMP: &str = "kafka_dlt-original-timestamp";
    /// `CreateTime` or `LogAppendTime`.
    pub const ORIGINAL_TIMESTAMP_TYPE: &str = "kafka_dlt-original-timestamp-type";
    /// Group of the handler that gave up.
    pub const ORIGINAL_CONSUMER_GROUP: &str = "kafka_dlt-original-consumer-group";
    /// Stable code of the last failure; `pawl.Exhausted` when the attempts were used up.
    pub const EXCEPTION_FQCN: &str = "kafka_dlt-exception-fqcn";
    /// Stable code of the failure of the last attempt.
    pub const EXCEPTION_CAUSE_FQCN: &str = "kafka_dlt-exception-cause-fqcn";
    /// What happened, one line.
    pub const EXCEPTION_MESSAGE: &str = "kafka_dlt-exception-message";
    /// Text that helps to find the cause.
    pub const EXCEPTION_STACKTRACE: &str = "kafka_dlt-exception-stacktrace";
    /// 1-based number of the last attempt, int32 big-endian.
    pub const DELIVERY_ATTEMPT: &str = "kafka_deliveryAttempt";
    /// Why the record is here: `poison`, `exhausted` or `follower`.
    pub const DISPOSITION: &str = "pawl-disposition";
    /// Number of the letter among those of its key since the key's quarantine began, int64 big-endian.
    pub const NUMBER: &str = "pawl-letter";
    /// The error code of the service or handler itself; only where it gave one.
    pub const OWN_CODE: &str = "pawl-error-code";
}

/// Headers that tell where the original lies; kept from the first pass.
pub const ORIGINALS: [&str; 6] = [
    header::ORIGINAL_TOPIC,
    header::ORIGINAL_PARTITION,
    header::ORIGINAL_OFFSET,
    header::ORIGINAL_TIMESTAMP,
    header::ORIGINAL_TIMESTAMP_TYPE,
    header::ORIGINAL_CONSUMER_GROUP,
];

/// Headers that tell what the last pass said; replaced by the next.
pub const LAST: [&str; 8] = [
    header::EXCEPTION_FQCN,
    header::EXCEPTION_CAUSE_FQCN,
    header::EXCEPTION_MESSAGE,
    header::EXCEPTION_STACKTRACE,
    header::DELIVERY_ATTEMPT,
    header::DISPOSITION,
    header::NUMBER,
    header::OWN_CODE,
];

/// Longest text of one header, in bytes, even where the record has room.
const MAX_TEXT: usize = 8 * 1024;

/// What a dead letter is made of.
pub struct Defunct<'a> {
    /// The record as it was read.
    pub record: &'a Record,
    /// Where it was read.
    pub partition: Partition,
    /// By whom.
    pub source: &'a Source,
    /// What the last attempt said.
    pub failure: &'a Failure,
    /// 1-based number of that attempt; 0 for a follower, which was not tried.
    pub attempt: u32,
    /// Why no other follows.
    pub disposition: Disposition,
    /// Number of the letter in its key's quarantine, if that is in one.
    pub number: Option<u64>,
}

impl Defunct<'_> {
    /// The record for the dead-letter topic. Texts are shortened until it fits `max_bytes`; the
    /// record's own bytes never are.
    pub fn letter(&self, topic: Arc<str>, max_bytes: usize) -> Emit {
        let mut headers = self.record.headers.clone();
        headers.retain(|header| !LAST.iter().any(|name| header.name == name.as_bytes()));
        if !headers.iter().any(|header| header.name == ORIGINALS[0].as_bytes()) {
            headers.extend(self.originals());
        }
        headers.extend(self.codes());
        let own_code =
            self.failure.own_code().map(|own| Header::new(header::OWN_CODE, own.as_bytes().to_vec()));
        headers.extend(own_code);
        let mut emit = Emit {
            topic,
            partition: Some(self.partition.0),
            key: self.record.key.clone(),
            value: self.record.value.clone(),
            headers,
            timestamp: None,
        };
        for (name, text) in [
            (header::EXCEPTION_MESSAGE, &self.failure.message),
            (header::EXCEPTION_STACKTRACE, &self.failure.detail),
        ] {
            let room = max_bytes.saturating_sub(emit.size() + name.len() + 16);
            emit.headers.push(Header::new(name, shorten(text, room.min(MAX_TEXT))));
        }
        emit
    }

    fn originals(&self) -> [Header; 6] {
        let record = self.record;
        [
            Header::new(header::ORIGINAL_TOPIC, self.source.topic.as_bytes().to_vec()),
            Header::new(header::ORIGINAL_PARTITION, self.partition.0.to_be_bytes().to_vec()),
            Header::new(header::ORIGINAL_OFFSET, record.offset.0.to_be_bytes().to_vec()),
            Header::new(header::ORIGINAL_TIMESTAMP, record.timestamp.0.to_be_bytes().to_vec()),
            Header::new(header::ORIGINAL_TIMESTAMP_TYPE, record.timestamp_type.name()),
            Header::new(header::ORIGINAL_CONSUMER_GROUP, self.source.group.as_bytes().to_vec()),
        ]
    }

    fn codes(&self) -> impl Iterator<Item = Header> {
        let outer = match self.disposition {
            Disposition::Poison | Disposition::Follower => self.failure.code,
            Disposition::Exhausted | Disposition::OutOfTime(_) => code::EXHAUSTED,
        };
        let attempt = i32::try_from(self.attempt).unwrap_or(i32::MAX);
        let attempt =
            (attempt > 0).then(|| Header::new(header::DELIVERY_ATTEMPT, attempt.to_be_bytes().to_vec()));
        [
            Header::new(header::EXCEPTION_FQCN, outer),
            Header::new(header::EXCEPTION_CAUSE_FQCN, self.failure.code),
            Header::new(header::DISPOSITION, self.disposition.name()),
        ]
        .into_iter()
        .chain(attempt)
        .chain(self.number.map(|number| Header::new(header::NUMBER, number.to_be_bytes().to_vec())))
    }
}

/// The longest beginning of `text` that has at most `max` bytes and ends between two characters.
fn shorten(text: &str, max: usize) -> Bytes {
    let end = (0..=max.min(text.len())).rev().find(|&n| text.is_char_boundary(n)).unwrap_or(0);
    Bytes::copy_from_slice(&text.as_bytes()[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Millis, Offset, TimestampType};

    fn record(headers: Vec<Header>) -> Record {
        Record {
            offset: Offset(8812),
            timestamp: Millis(1_700_000_000_123),
            timestamp_type: TimestampType::CreateTime,
            key: Some(Bytes::from_static(b"\xffORD")),
            value: Some(Bytes::from_static(b"\x00not json")),
            headers,
        }
    }

    fn letter(record: &Record, detail: &str, max_bytes: usize) -> Emit {
        let source = Source {
            handler: "billing".into(),
            topic: "orders".into(),
            topic_id: "id".into(),
            group: "billing-group".into(),
        };
        let failure = Failure::transient(code::UNAVAILABLE, "service answered 503").with_detail(detail);
        let defunct = Defunct {
            record,
            partition: Partition(3),
            source: &source,
            failure: &failure,
            attempt: 8,
            disposition: Disposition::Exhausted,
            number: Some(7),
        };
        defunct.letter("orders-dlt".into(), max_bytes)
    }

    fn value<'a>(emit: &'a Emit, name: &str) -> &'a [u8] {
        let mut found = emit.headers.iter().filter(|header| header.name == name.as_bytes());
        let header = found.next().unwrap_or_else(|| panic!("no header {name}"));
        assert!(found.next().is_none(), "{name} twice");
        header.value.as_ref().expect("a value")
    }

    #[test]
    fn a_letter_carries_the_bytes_of_its_record_and_springs_headers() {
        let odd = Header { name: Bytes::from_static(b"\xfe"), value: None };
        let record = record(vec![odd.clone(), odd.clone()]);
        let emit = letter(&record, "body", 1 << 20);
        assert_eq!((&emit.key, &emit.value, emit.partition), (&record.key, &record.value, Some(3)));
        assert_eq!(emit.headers[..2], [odd.clone(), odd]);
        assert_eq!(value(&emit, "kafka_dlt-original-topic"), b"orders");
        assert_eq!(value(&emit, "kafka_dlt-original-partition"), [0, 0, 0, 3]);
        assert_eq!(value(&emit, "kafka_dlt-original-offset"), [0, 0, 0, 0, 0, 0, 0x22, 0x6c]);
        assert_eq!(value(&emit, "kafka_dlt-original-timestamp"), 1_700_000_000_123i64.to_be_bytes());
        assert_eq!(value(&emit, "kafka_dlt-original-timestamp-type"), b"CreateTime");
        assert_eq!(value(&emit, "kafka_dlt-original-consumer-group"), b"billing-group");
        assert_eq!(value(&emit, "kafka_dlt-exception-fqcn"), b"pawl.Exhausted");
        assert_eq!(value(&emit, "kafka_dlt-exception-cause-fqcn"), b"pawl.Unavailable");
        assert_eq!(value(&emit, "kafka_dlt-exception-message"), b"service answered 503");
        assert_eq!(value(&emit, "kafka_dlt-exception-stacktrace"), b"body");
        assert_eq!(value(&emit, "kafka_deliveryAttempt"), [0, 0, 0, 8]);
        assert_eq!(value(&emit, "pawl-disposition"), b"exhausted");
        assert_eq!(value(&emit, "pawl-letter"), [0, 0, 0, 0, 0, 0, 0, 7]);
    }

    #[test]
    fn a_second_pass_keeps_the_originals_and_replaces_the_cause() {
        let first = letter(&record(Vec::new()), "first", 1 << 20);
        let mut again = record(first.headers);
        again.offset = Offset(1);
        let second = letter(&again, "second", 1 << 20);
        assert_eq!(value(&second, "kafka_dlt-original-offset"), 8812i64.to_be_bytes());
        assert_eq!(value(&second, "kafka_dlt-exception-stacktrace"), b"second");
    }

    #[test]
    fn texts_are_shortened_until_the_letter_fits() {
        let record = record(Vec::new());
        let bare = letter(&record, "", 1 << 20).size();
        let emit = letter(&record, &"ä".repeat(5_000), bare + 117);
        assert!(emit.size() <= bare + 117, "{} over {}", emit.size(), bare + 117);
        assert!(std::str::from_utf8(value(&emit, "kafka_dlt-exception-stacktrace")).is_ok());
        assert_eq!(emit.value, record.value, "the record's own bytes are never shortened");
    }
}
