//! Records out of librdkafka's memory into Pawl's own.

use bytes::{Bytes, BytesMut};
use pawl_actors::record::{Millis, Offset, Record, TimestampType};
use rdkafka::message::{BorrowedMessage, Message, Timestamp};

use super::headers;

/// Size of a piece of memory that records share: one that stays keeps no more than this.
const CHUNK: usize = 64 * 1024;

/// The piece of memory that the next record is copied into.
#[derive(Debug, Default)]
pub struct Chunk(BytesMut);

impl Chunk {
    /// A message as a record of its own.
    pub fn record(&mut self, message: &BorrowedMessage<'_>) -> Record {
        let (timestamp, timestamp_type) = match message.timestamp() {
            Timestamp::NotAvailable => (0, TimestampType::NotAvailable),
            Timestamp::CreateTime(at) => (at, TimestampType::CreateTime),
            Timestamp::LogAppendTime(at) => (at, TimestampType::LogAppendTime),
        };
        Record {
            offset: Offset(message.offset()),
            timestamp: Millis(timestamp),
            timestamp_type,
            key: message.key().map(|key| self.copy(key)),
            value: message.payload().map(|value| self.copy(value)),
            headers: headers::read(message, |bytes| self.copy(bytes)),
        }
    }

    fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if self.0.capacity() < bytes.len() {
            self.0.reserve(CHUNK.max(bytes.len()));
        }
        self.0.extend_from_slice(bytes);
        self.0.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copied_bytes_share_chunks_and_stay_what_they_were() {
        let mut chunk = Chunk::default();
        let big = vec![7u8; 3 * CHUNK];
        let copies = [chunk.copy(b"key"), chunk.copy(&big), chunk.copy(b"")];
        assert_eq!(copies, [Bytes::from_static(b"key"), Bytes::from(big), Bytes::new()]);
    }
}
