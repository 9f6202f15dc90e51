//! The `forward` handler: writes each record to another topic, as it is.
//!
//! Deliberately absent: any waiting. The record becomes an effect, and the epoch commit writes it.

use std::sync::Arc;

use pawl_actors::effects::{Effects, Emit, StateChange};
use pawl_actors::handler::{Answer, Call, Handler};
use pawl_actors::outcome::Outcome;
use pawl_actors::record::TimestampType;

/// Copies records to a topic: key, value, headers and timestamp; the partition follows the key.
#[derive(Debug)]
pub struct ForwardHandler {
    topic: Arc<str>,
}

impl ForwardHandler {
    /// A handler that writes to `topic`.
    pub fn new(topic: impl Into<Arc<str>>) -> Self {
        ForwardHandler { topic: topic.into() }
    }
}

impl Handler for ForwardHandler {
    fn handle(&self, call: Call) -> Answer {
        let record = Arc::unwrap_or_clone(call.record);
        let timestamp = (record.timestamp_type != TimestampType::NotAvailable).then_some(record.timestamp);
        let emit = Emit {
            topic: self.topic.clone(),
            partition: None,
            key: record.key,
            value: record.value,
            headers: record.headers,
            timestamp,
        };
        Answer::Ready(Outcome::Done(Effects { emit: vec![emit], state: StateChange::Keep }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pawl_actors::handler::Source;
    use pawl_actors::record::{Header, Millis, Offset, Partition, Record};

    use super::*;

    fn forwarded(record: Record) -> Emit {
        let call = Call {
            record: Arc::new(record),
            source: Arc::new(Source {
                handler: "copy".into(),
                topic: "orders".into(),
                topic_id: "topic-id".into(),
                group: "copy".into(),
            }),
            partition: Partition(3),
            attempt: 1,
            claim: 7,
            event_id: None,
            state: None,
        };
        match ForwardHandler::new("copies").handle(call) {
            Answer::Ready(Outcome::Done(Effects { mut emit, state: StateChange::Keep }))
                if emit.len() == 1 =>
            {
                emit.remove(0)
            }
            Answer::Ready(outcome) => panic!("expected one record, got {outcome:?}"),
            Answer::Later(_) | Answer::Traced(..) => panic!("expected an answer at once"),
        }
    }

    fn record() -> Record {
        Record {
            offset: Offset(42),
            timestamp: Millis(1_700_000_000_123),
            timestamp_type: TimestampType::CreateTime,
            key: Some(Bytes::from_static(b"\xff\x00")),
            value: Some(Bytes::from_static(b"value")),
            headers: vec![
                Header { name: Bytes::from_static(b"\xfe"), value: Some(Bytes::from_static(b"\xfd")) },
                Header { name: Bytes::from_static(b"a"), value: None },
                Header { name: Bytes::from_static(b"a"), value: Some(Bytes::new()) },
            ],
        }
    }

    #[test]
    fn a_record_arrives_byte_for_byte_and_by_its_key() {
        let emit = forwarded(record());
        assert_eq!((&*emit.topic, emit.partition), ("copies", None));
        assert_eq!((emit.key, emit.value), (record().key, record().value));
        assert_eq!(emit.headers, record().headers);
        assert_eq!(emit.timestamp, Some(Millis(1_700_000_000_123)));
    }

    #[test]
    fn a_tombstone_and_a_null_key_stay_what_they_are() {
        let emit = forwarded(Record { key: None, value: None, ..record() });
        assert_eq!((emit.key, emit.value), (None, None));
    }

    #[test]
    fn a_record_without_a_timestamp_gets_the_time_of_writing() {
        let emit = forwarded(Record { timestamp_type: TimestampType::NotAvailable, ..record() });
        assert_eq!(emit.timestamp, None);
    }
}
