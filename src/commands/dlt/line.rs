//! A letter as a line of an export: everything that Kafka holds of the record, byte for byte.

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pawl_actors::dead_letter::Told;
use pawl_actors::record::{Header, TimestampType};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::scan::Found;
use crate::commands::sending::sender::Outgoing;

/// What is read back. A member that is missing is no null: it makes the line a bad one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the epoch.
    #[serde(deserialize_with = "Option::deserialize")]
    timestamp: Option<i64>,
    timestamp_type: String,
    #[serde(deserialize_with = "Option::deserialize")]
    key: Option<Base64>,
    #[serde(deserialize_with = "Option::deserialize")]
    value: Option<Base64>,
    headers: Vec<HeaderLine>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HeaderLine {
    name: Base64,
    #[serde(deserialize_with = "Option::deserialize")]
    value: Option<Base64>,
}

/// A line as it is written: with members for people, which are not read back.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    line: &'a Line,
    key_text: Option<&'a str>,
    code: Option<&'a String>,
    message: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Base64(Bytes);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(&self.0, &STANDARD))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(|why| D::Error::custom(format!("not base64: {why}")))?;
        Ok(Base64(bytes.into()))
    }
}

/// The line of a letter, with its end.
///
/// # Errors
/// None that this type can bring about; serde_json asks for it.
pub fn write(found: &Found) -> serde_json::Result<Vec<u8>> {
    let (line, told) = (Line::of(found), Told::read(&found.record));
    let written = Written {
        line: &line,
        key_text: found.record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()),
        code: told.codes.first(),
        message: &told.message,
    };
    let mut text = serde_json::to_vec(&written)?;
    text.push(b'\n');
    Ok(text)
}

impl Line {
    fn of(found: &Found) -> Line {
        let record = &found.record;
        let dated = record.timestamp_type != TimestampType::NotAvailable;
        let header = |header: &Header| HeaderLine {
            name: Base64(header.name.clone()),
            value: header.value.clone().map(Base64),
        };
        Line {
            partition: found.partition,
            offset: record.offset.0,
            timestamp: dated.then_some(record.timestamp.0),
            timestamp_type: record.timestamp_type.name().into(),
            key: record.key.clone().map(Base64),
            value: record.value.clone().map(Base64),
            headers: record.headers.iter().map(header).collect(),
        }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// Says, for a person, why it is none, or cannot become a record.
    pub fn read(text: &[u8]) -> Result<Line, String> {
        let line: Line = serde_json::from_slice(text).map_err(|error| {
            let why = error.to_string().replace(" at line 1 column ", " at column ");
            format!("not a line of pawl dlt export: {why}")
        })?;
        if line.partition < 0 {
            return Err(format!("there is no partition {}", line.partition));
        }
        // librdkafka takes 0 for "now", and brokers refuse what lies before it.
        match line.timestamp {
            Some(millis) if millis <= 0 => Err(format!("the time stamp {millis} cannot be written")),
            _ => Ok(line),
        }
    }

    /// The record to write. One without a time stamp gets the time of writing.
    pub fn outgoing(self) -> Outgoing {
        let header = |HeaderLine { name, value }| Header { name: name.0, value: value.map(|value| value.0) };
        Outgoing {
            partition: Some(self.partition),
            key: self.key.map(|key| key.0),
            value: self.value.map(|value| value.0),
            headers: self.headers.into_iter().map(header).collect(),
            timestamp: self.timestamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use pawl_actors::record::{Millis, Offset, Record};
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn found() -> impl Strategy<Value = Found> {
        let header = (bytes(), prop::option::of(bytes())).prop_map(|(name, value)| Header { name, value });
        // The same name twice: few names are drawn from.
        let repeated = (prop::sample::select(vec!["a", "b"]), prop::option::of(bytes()))
            .prop_map(|(name, value)| Header { name: name.into(), value });
        let headers = prop::collection::vec(prop_oneof![header, repeated], 0..6);
        let kinds = [TimestampType::NotAvailable, TimestampType::CreateTime, TimestampType::LogAppendTime];
        let stamp = (prop::sample::select(kinds.to_vec()), 1..=i64::MAX);
        let place = (0..=i32::MAX, 0..=i64::MAX);
        let parts = (place, stamp, prop::option::of(bytes()), prop::option::of(bytes()), headers);
        parts.prop_map(|((partition, offset), (timestamp_type, millis), key, value, headers)| {
            let timestamp = Millis(if timestamp_type == TimestampType::NotAvailable { 0 } else { millis });
            let record = Record { offset: Offset(offset), timestamp, timestamp_type, key, value, headers };
            Found { partition, record }
        })
    }

    proptest! {
        #[test]
        fn what_is_exported_is_read_back_byte_for_byte(found in found()) {
            let text = write(&found).expect("serializable");
            prop_assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
            let line = Line::read(&text).expect("a line");
            prop_assert_eq!(&line, &Line::of(&found));
            let Record { timestamp, timestamp_type, key, value, headers, .. } = found.record;
            let timestamp = (timestamp_type != TimestampType::NotAvailable).then_some(timestamp.0);
            let expected = Outgoing { partition: Some(found.partition), key, value, headers, timestamp };
            prop_assert_eq!(line.outgoing(), expected);
        }
    }

    const LINE: &str = r#"{"partition":3,"offset":7,"timestamp":5,"timestamp_type":"CreateTime","key":"QTE=","value":null,"headers":[{"name":"YQ==","value":null}]}"#;

    #[test]
    fn a_line_without_the_members_for_people_is_whole() {
        let outgoing = Line::read(LINE.as_bytes()).expect("a line").outgoing();
        assert_eq!((outgoing.partition, outgoing.key.as_deref()), (Some(3), Some(&b"A1"[..])));
        assert_eq!(outgoing.headers, [Header { name: "a".into(), value: None }]);
    }

    #[test]
    fn a_line_that_is_none_says_why() {
        let check = |from: &str, to: &str, expected: &str| {
            let line = LINE.replacen(from, to, 1);
            assert_ne!(line, LINE, "{from} is not there");
            let why = Line::read(line.as_bytes()).expect_err(&line);
            assert!(why.contains(expected), "{line}: {why}");
        };
        check("}]}", "}]", "EOF while parsing an object at column");
        check(r#""value":null,"headers""#, r#""headers""#, "missing field `value`");
        check(r#""key":"QTE=","#, "", "missing field `key`");
        check(r#","value":null}]"#, "}]", "missing field `value`");
        check("QTE=", "QTE", "not base64");
        check(r#""QTE=""#, r#"{"hex":"00"}"#, "invalid type: map");
        check("3", "-1", "there is no partition -1");
        check(":5,", ":0,", "the time stamp 0 cannot be written");
        check(":5,", ":1.5,", "invalid");
    }
}
