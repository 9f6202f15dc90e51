//! A Kafka record as the actors see it: owned bytes and the place they came from.
//!
//! Deliberately absent: anything of a Kafka client. Headers are raw bytes, names included,
//! because Kafka does not promise that a header name is UTF-8.

use std::hash::Hasher;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use siphasher::sip::SipHasher24;

use crate::ledger::LaneKey;

/// The position of a record in its partition. `n` is the record itself, never "the next one".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

/// The value Kafka commits for a group: the position *after* the last finished record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(pub i64);

impl Offset {
    /// The value to commit once this record is finished.
    pub fn next(self) -> NextOffset {
        NextOffset(self.0 + 1)
    }
}

impl NextOffset {
    /// Whether a record at `offset` lies below this position, that is, was already committed.
    pub fn covers(self, offset: Offset) -> bool {
        offset.0 < self.0
    }
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for NextOffset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition number of the input topic (and so of the changelog and dead-letter topics).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i32);

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub i64);

/// What a record's timestamp means (Kafka's `message.timestamp.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// No timestamp was stored with the record.
    NotAvailable,
    /// Set by the producer.
    CreateTime,
    /// Set by the broker when it appended the record.
    LogAppendTime,
}

impl TimestampType {
    /// The name Kafka's Java client uses, which Spring's dead-letter headers carry.
    pub fn name(self) -> &'static str {
        match self {
            TimestampType::NotAvailable => "NoTimestampType",
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        }
    }

    /// The type of a name that [`TimestampType::name`] gives.
    pub fn named(name: &[u8]) -> Self {
        match name {
            b"CreateTime" => TimestampType::CreateTime,
            b"LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::NotAvailable,
        }
    }
}

/// One record header. Kafka allows the same name several times, and a null value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Raw name; usually but not necessarily UTF-8.
    pub name: Bytes,
    /// Raw value; `None` is Kafka's null.
    pub value: Option<Bytes>,
}

impl Header {
    /// A header with a UTF-8 name.
    pub fn new(name: &'static str, value: impl Into<Bytes>) -> Self {
        Header { name: Bytes::from_static(name.as_bytes()), value: Some(value.into()) }
    }
}

/// A record as it was read from the input topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it lies.
    pub offset: Offset,
    /// Milliseconds since the epoch; 0 where `timestamp_type` says there is none.
    pub timestamp: Millis,
    /// What `timestamp` means.
    pub timestamp_type: TimestampType,
    /// `None` is Kafka's null key.
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In the order of the record.
    pub headers: Vec<Header>,
}

/// How the keys of records are told to people: in the log, in spans, and where the process says why it waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyDisplay {
    /// As they are.
    #[default]
    Shown = 0,
    /// As a hash: the same for the same key, everywhere and always. Whoever can guess a key can check the guess.
    Hashed = 1,
    /// Not at all.
    Hidden = 2,
}

/// Of the whole process, as its log is.
static KEY_DISPLAY: AtomicU8 = AtomicU8::new(KeyDisplay::Shown as u8);

/// The most bytes of a key that are told to people.
pub const MAX_KEY_TEXT_BYTES: usize = 256;

impl KeyDisplay {
    /// Tells keys in this way from now on, in the whole process.
    pub fn set(self) {
        KEY_DISPLAY.store(self as u8, Ordering::Relaxed);
    }

    /// How keys are told now.
    pub fn get() -> Self {
        match KEY_DISPLAY.load(Ordering::Relaxed) {
            0 => KeyDisplay::Shown,
            1 => KeyDisplay::Hashed,
            _ => KeyDisplay::Hidden,
        }
    }

    /// A key in this way, on one line and of a bounded length.
    fn text(self, key: LaneKey<&[u8]>) -> String {
        match (self, key) {
            (KeyDisplay::Shown, LaneKey::Key(key)) if key.len() > MAX_KEY_TEXT_BYTES => {
                // Not in the middle of a character, or all of it would be shown as digits.
                let cut = match std::str::from_utf8(key) {
                    Ok(text) => text.floor_char_boundary(MAX_KEY_TEXT_BYTES),
                    Err(_) => MAX_KEY_TEXT_BYTES,
                };
                format!("{}... ({} bytes)", LaneKey::Key(&key[..cut]), key.len())
            }
            (KeyDisplay::Shown, key) => key.to_string(),
            (_, key @ (LaneKey::Unusable | LaneKey::NoKey(_))) => key.to_string(),
            (KeyDisplay::Hashed, LaneKey::Key(key)) => {
                let mut hasher = SipHasher24::new();
                hasher.write(key);
                format!("#{:016x}", hasher.finish())
            }
            (KeyDisplay::Hidden, LaneKey::Key(_)) => "(hidden)".into(),
        }
    }
}

/// A key for people, on one line: text, or else two digits a byte; `(no key)` where there is none. What the process
/// tells of itself may have to leave keys out: see [`KeyDisplay`].
pub fn key_text<'a>(key: impl Into<LaneKey<&'a [u8]>>) -> String {
    KeyDisplay::get().text(key.into())
}

/// Two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value of the last header of this name, as Kafka's `Headers.lastHeader` has it.
pub fn last_header<'a>(headers: &'a [Header], name: &str) -> Option<&'a Bytes> {
    let named = headers.iter().rev().find(|header| header.name == name.as_bytes());
    named.and_then(|header| header.value.as_ref())
}

impl Record {
    /// The value of the last header of this name, as Kafka's `Headers.lastHeader` has it.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        last_header(&self.headers, name)
    }

    /// The same record in memory of its own. As it was read it shares pieces of memory with its
    /// neighbours, and one that stays for long would keep theirs.
    pub fn detached(&self) -> Record {
        let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        Record {
            key: self.key.as_ref().map(copy),
            value: self.value.as_ref().map(copy),
            headers: self
                .headers
                .iter()
                .map(|header| Header { name: copy(&header.name), value: header.value.as_ref().map(copy) })
                .collect(),
            ..*self
        }
    }

    /// Bytes of key, value and headers: what the intake bound counts.
    pub fn size(&self) -> usize {
        size(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

/// Bytes of key, value and headers.
pub fn size(key: Option<&Bytes>, value: Option<&Bytes>, headers: &[Header]) -> usize {
    let length = |bytes: Option<&Bytes>| bytes.map_or(0, Bytes::len);
    let headers = headers.iter().map(|header| header.name.len() + length(header.value.as_ref()));
    length(key) + length(value) + headers.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_on_one_line_and_told_from_none() {
        assert_eq!(key_text(Some(&b"ORD-1"[..])), "ORD-1");
        assert_eq!(key_text(Some(&b"a\nb\x1b[2J"[..])), r"a\nb\u{1b}[2J");
        assert_eq!(key_text(Some(&b"\xff\x00"[..])), "0xff00");
        assert_eq!(key_text(Some(&b"null"[..])), "null");
        assert_eq!(key_text(None), "(no key)");
    }

    #[test]
    fn a_long_key_is_cut_between_two_characters_and_tells_its_length() {
        let long = "\u{e9}".repeat(200);
        let text = key_text(Some(long.as_bytes()));
        assert_eq!(text, format!("{}... (400 bytes)", "\u{e9}".repeat(128)));
        let bytes = key_text(Some(&[0xff; 300][..]));
        assert_eq!(bytes, format!("0x{}... (300 bytes)", "ff".repeat(256)));
    }

    #[test]
    fn keys_that_must_not_be_told_are_a_hash_or_nothing() {
        let key = |display: KeyDisplay, key: &'static str| display.text(LaneKey::Key(key.as_bytes()));
        let hashed = key(KeyDisplay::Hashed, "ann@example.org");
        assert_eq!(hashed, key(KeyDisplay::Hashed, "ann@example.org"));
        assert_ne!(hashed, key(KeyDisplay::Hashed, "bob@example.org"));
        assert!(hashed.len() == 17 && hashed.starts_with('#'), "{hashed}");
        assert_eq!(key(KeyDisplay::Hidden, "ann@example.org"), "(hidden)");
        assert_eq!(KeyDisplay::Hidden.text(LaneKey::NoKey(3)), "(no key, lane 3)");
    }
}
