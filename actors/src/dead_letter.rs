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
use crate::record::{Header, Millis, Offset, Partition, Record, TimestampType, last_header};
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
    /// Why the record is here: `poison`, `exhausted`, `follower`, `sequence-gap` or `sequence-late`.
    pub const DISPOSITION: &str = "pawl-disposition";
    /// Which quarantine of its key the letter belongs to: the offset of the record that began it, int64
    /// big-endian.
    pub const QUARANTINE: &str = "pawl-quarantine";
    /// Number of the letter in that quarantine, from 0, int64 big-endian.
    pub const NUMBER: &str = "pawl-letter";
    /// Offset of the record in the handler's input, int64 big-endian; only where the originals are those of
    /// an earlier pass, which are kept.
    pub const OFFSET: &str = "pawl-offset";
    /// Group of the handler that gave up, likewise.
    pub const GROUP: &str = "pawl-group";
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
pub const LAST: [&str; 11] = [
    header::EXCEPTION_FQCN,
    header::EXCEPTION_CAUSE_FQCN,
    header::EXCEPTION_MESSAGE,
    header::EXCEPTION_STACKTRACE,
    header::DELIVERY_ATTEMPT,
    header::DISPOSITION,
    header::QUARANTINE,
    header::NUMBER,
    header::OFFSET,
    header::GROUP,
    header::OWN_CODE,
];

/// Where Spring Kafka could not read a key, it tells so under these names, in place of those of the
/// exception: code, message, detail.
pub const KEY_EXCEPTION: [&str; 3] =
    ["kafka_dlt-key-exception-fqcn", "kafka_dlt-key-exception-message", "kafka_dlt-key-exception-stacktrace"];

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
    /// If its key is in quarantine: the offset that began it, and the letter's number.
    pub place: Option<(i64, u64)>,
}

impl Defunct<'_> {
    /// The record for the dead-letter topic. Texts are shortened until it fits `max_bytes`; the
    /// record's own bytes never are.
    pub fn letter(&self, topic: Arc<str>, max_bytes: usize) -> Emit {
        let mut headers = self.record.headers.clone();
        headers.retain(|header| !LAST.iter().any(|name| header.name == name.as_bytes()));
        if !headers.iter().any(|header| header.name == ORIGINALS[0].as_bytes()) {
            headers.extend(self.originals());
        } else {
            headers.push(Header::new(header::OFFSET, self.record.offset.0.to_be_bytes().to_vec()));
            headers.push(Header::new(header::GROUP, self.source.group.as_bytes().to_vec()));
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
            Disposition::Poison
            | Disposition::Follower
            | Disposition::SequenceGap
            | Disposition::SequenceLate => self.failure.code,
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
        .chain(self.place.into_iter().flat_map(|(began, number)| {
            let began = Header::new(header::QUARANTINE, began.to_be_bytes().to_vec());
            [began, Header::new(header::NUMBER, number.to_be_bytes().to_vec())]
        }))
    }
}

/// What a letter says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Consumer group of whoever gave up.
    pub group: Option<String>,
    /// The quarantine that it belongs to, and its number there.
    pub place: Option<(i64, u64)>,
    /// Its codes: the outer one, the cause, the service's own.
    pub codes: Vec<String>,
    /// What happened.
    pub message: String,
    /// Why the record is there.
    pub disposition: Option<String>,
}

impl Told {
    /// Reads a letter's headers, as far as they can be read. Of repeated ones the last counts: Spring Kafka
    /// adds its own behind what was there.
    pub fn read(letter: &Record) -> Told {
        let text = |name: &str| {
            let value = last_header(&letter.headers, name)?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let [key_code, key_message, _] = KEY_EXCEPTION;
        let codes = [header::EXCEPTION_FQCN, header::EXCEPTION_CAUSE_FQCN, header::OWN_CODE, key_code];
        Told {
            group: text(header::GROUP).or_else(|| text(header::ORIGINAL_CONSUMER_GROUP)),
            place: long(letter, header::QUARANTINE)
                .zip(long(letter, header::NUMBER).and_then(|number| u64::try_from(number).ok())),
            codes: codes.into_iter().filter_map(text).collect(),
            message: text(header::EXCEPTION_MESSAGE).or_else(|| text(key_message)).unwrap_or_default(),
            disposition: text(header::DISPOSITION),
        }
    }
}

fn long(record: &Record, name: &str) -> Option<i64> {
    let value = last_header(&record.headers, name)?;
    Some(i64::from_be_bytes(value[..].try_into().ok()?))
}

/// The record that became a letter, as it was read.
pub fn original(letter: &Record) -> Record {
    let earlier_pass = last_header(&letter.headers, header::OFFSET).is_some();
    let here = if earlier_pass { &[] } else { &ORIGINALS[..] };
    let written = || here.iter().chain(&LAST).chain(&KEY_EXCEPTION);
    let own = |header: &Header| !written().any(|name| header.name == name.as_bytes());
    let kind = last_header(&letter.headers, header::ORIGINAL_TIMESTAMP_TYPE);
    let offset = long(letter, header::OFFSET).or_else(|| long(letter, header::ORIGINAL_OFFSET));
    Record {
        offset: offset.map_or(letter.offset, Offset),
        timestamp: long(letter, header::ORIGINAL_TIMESTAMP).map_or(letter.timestamp, Millis),
        timestamp_type: kind.map_or(letter.timestamp_type, |kind| TimestampType::named(kind)),
        key: letter.key.clone(),
        value: letter.value.clone(),
        headers: letter.headers.iter().filter(|header| own(header)).cloned().collect(),
    }
}

/// The longest beginning of `text` that has at most `max` bytes and ends between two characters.
fn shorten(text: &str, max: usize) -> Bytes {
    Bytes::copy_from_slice(&text.as_bytes()[..text.floor_char_boundary(max)])
}

#[cfg(test)]
mod tests {
    use super::*;

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
            place: Some((5, 7)),
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
        assert_eq!(value(&emit, "pawl-quarantine"), [0, 0, 0, 0, 0, 0, 0, 5]);
    }

    #[test]
    fn a_second_pass_keeps_the_originals_and_replaces_the_cause() {
        let first = letter(&record(Vec::new()), "first", 1 << 20);
        let mut again = record(first.headers);
        again.offset = Offset(1);
        let second = letter(&again, "second", 1 << 20);
        assert_eq!(value(&second, "kafka_dlt-original-offset"), 8812i64.to_be_bytes());
        assert_eq!(value(&second, "kafka_dlt-exception-stacktrace"), b"second");
        assert_eq!(value(&second, "pawl-offset"), 1i64.to_be_bytes(), "where the second pass read it");
    }

    #[test]
    fn a_letter_gives_its_record_back_as_it_was_read() {
        let own = Header { name: Bytes::from_static(b"\xfe"), value: None };
        let read = record(vec![own]);
        let as_record =
            |emit: Emit, offset| Record { headers: emit.headers, ..Record { offset, ..read.clone() } };
        let first = as_record(letter(&read, "", 1 << 20), Offset(4));
        assert_eq!(original(&first), read);
        let told = Told::read(&first);
        assert_eq!((told.group.as_deref(), told.place), (Some("billing-group"), Some((5, 7))));
        assert_eq!(told.codes, ["pawl.Exhausted", "pawl.Unavailable"]);

        let mut again = first.clone();
        again.offset = Offset(1);
        let second = as_record(letter(&again, "", 1 << 20), Offset(9));
        let back = original(&second);
        assert_eq!(back.offset, Offset(1), "of the topic that was read");
        assert_eq!(Told::read(&second).group.as_deref(), Some("billing-group"));
        assert!(last_header(&back.headers, "kafka_dlt-original-topic").is_some(), "it had them");
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
