//! A line of input and the record it becomes. Pure: no file, no broker.

use std::io::{self, BufRead, Read};

use bytes::Bytes;
use pawl_actors::record::{Header, Millis, Offset, Record, TimestampType};
use pawl_actors::selector::{Reader, Selector};
use serde::de::IgnoredAny;

use crate::cli::{Publish, TextOrPlace};

/// A record to send: the line itself is the value.
#[derive(Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub key: Option<Bytes>,
    pub value: Bytes,
    pub headers: Vec<Header>,
}

/// What the flags make of each line.
pub struct Shape {
    key: Option<Selector>,
    event: Option<Event>,
}

/// The attributes of CloudEvents in binary content mode (Kafka Protocol Binding 1.0.2, section 3.2).
struct Event {
    id: Selector,
    kind: TextOrPlace,
    source: Bytes,
}

impl Shape {
    pub fn new(args: &Publish) -> Shape {
        let source = args.source.clone().unwrap_or_else(|| format!("/kafka/{}", args.topic));
        let event = args.event_id.clone().map(|id| Event {
            id,
            kind: args.event_type.clone(),
            source: source.into(),
        });
        Shape { key: args.key.clone(), event }
    }

    /// The record of a line.
    ///
    /// # Errors
    /// Says, for a person, why the line cannot become one.
    pub fn read(&self, line: Bytes) -> Result<Outgoing, String> {
        serde_json::from_slice::<IgnoredAny>(&line).map_err(|error| not_json(&error))?;
        // Selectors read records; a line is one that has nothing but a value.
        let record = Record {
            offset: Offset(0),
            timestamp: Millis(0),
            timestamp_type: TimestampType::NotAvailable,
            key: None,
            value: Some(line.clone()),
            headers: Vec::new(),
        };
        let mut reader = Reader::new(&record);
        let key = self.key.as_ref().map(|place| demand(&mut reader, place, "key")).transpose()?;
        let headers = self.event.as_ref().map_or(Ok(Vec::new()), |event| event.headers(&mut reader))?;
        Ok(Outgoing { key, value: line, headers })
    }
}

impl Event {
    fn headers(&self, reader: &mut Reader<'_>) -> Result<Vec<Header>, String> {
        let id = demand(reader, &self.id, "event id")?;
        let kind = match &self.kind {
            TextOrPlace::Text(text) => Bytes::from(text.clone()),
            TextOrPlace::Place(place) => demand(reader, place, "event type")?,
        };
        Ok(vec![
            Header::new("ce_specversion", "1.0"),
            Header::new("ce_id", id),
            Header::new("ce_source", self.source.clone()),
            Header::new("ce_type", kind),
            Header::new("content-type", "application/json"),
        ])
    }
}

fn demand(reader: &mut Reader<'_>, place: &Selector, what: &str) -> Result<Bytes, String> {
    match reader.read(place).map_err(|why| format!("no {what}: {why}"))? {
        Some(bytes) if !bytes.is_empty() => Ok(bytes),
        Some(_) => Err(format!("no {what}: {place} is empty")),
        None => Err(format!("no {what}: there is nothing at {place}")),
    }
}

/// serde_json counts lines within what it is given, which here is one line.
fn not_json(error: &serde_json::Error) -> String {
    format!("not JSON: {}", error.to_string().replace(" at line 1 column ", " at column "))
}

/// A line and its 1-based number.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub number: u64,
    /// The line without its end, or why it is not taken.
    pub text: Result<Bytes, String>,
}

/// The lines of an input, without blank ones; never holds more than `limit` bytes of a line.
pub struct Lines<R> {
    input: R,
    limit: usize,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub fn new(input: R, limit: usize) -> Lines<R> {
        Lines { input, limit, number: 0 }
    }

    /// The next line, blank or not; `None` at the end.
    fn next_line(&mut self) -> io::Result<Option<Line>> {
        let mut text = Vec::new();
        // Room for the line's end, and one byte more to see that a line is too long.
        let most = self.limit as u64 + 3;
        if self.input.by_ref().take(most).read_until(b'\n', &mut text)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let ended = text.last() == Some(&b'\n');
        if ended {
            text.pop();
            if text.last() == Some(&b'\r') {
                text.pop();
            }
        }
        let text = if text.len() <= self.limit {
            Ok(text.into())
        } else {
            if !ended {
                self.input.skip_until(b'\n')?;
            }
            Err(format!(
                "longer than {} bytes; raise --max-line-bytes and the topic's max.message.bytes",
                self.limit
            ))
        };
        Ok(Some(Line { number: self.number, text }))
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_line().transpose()? {
                Ok(Line { text: Ok(text), .. }) if text.trim_ascii().is_empty() => {}
                other => return Some(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(key: Option<&str>, event: Option<(&str, TextOrPlace)>) -> Shape {
        let place = |text: &str| text.parse().expect("a valid place");
        Shape {
            key: key.map(place),
            event: event.map(|(id, kind)| Event { id: place(id), kind, source: "/kafka/t".into() }),
        }
    }

    fn lines(input: &str, limit: usize) -> Vec<(u64, Result<String, String>)> {
        let lines = Lines::new(input.as_bytes(), limit).map(|line| line.expect("readable"));
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        lines.map(|line| (line.number, line.text.map(text))).collect()
    }

    #[test]
    fn the_value_is_the_line_byte_for_byte() {
        let line = Bytes::from_static(b" { \"b\":1.0,\"a\" : \"\\u00e9\" } ");
        let outgoing = shape(None, None).read(line.clone()).expect("valid");
        assert_eq!(outgoing, Outgoing { key: None, value: line, headers: Vec::new() });
    }

    #[test]
    fn key_and_event_come_from_their_places() {
        let kind = TextOrPlace::Place("json:/type".parse().expect("valid"));
        let outgoing = shape(Some("json:/order/id"), Some(("json:/id", kind)))
            .read(Bytes::from_static(br#"{"id":7,"type":"placed","order":{"id":"A1"}}"#))
            .expect("valid");
        assert_eq!(outgoing.key.as_deref(), Some(&b"A1"[..]));
        let expected = [
            ("ce_specversion", "1.0"),
            ("ce_id", "7"),
            ("ce_source", "/kafka/t"),
            ("ce_type", "placed"),
            ("content-type", "application/json"),
        ];
        assert_eq!(outgoing.headers, expected.map(|(name, value)| Header::new(name, value)));
    }

    #[test]
    fn a_line_that_cannot_become_a_record_says_why() {
        let shape = shape(Some("json:/id"), None);
        let check = |line: &'static str, expected: &str| {
            let why = shape.read(Bytes::from_static(line.as_bytes())).expect_err(line);
            assert!(why.contains(expected), "{line}: {why}");
        };
        check("{\"id\":", "not JSON: EOF while parsing a value at column 6");
        check("{} {}", "not JSON: trailing characters");
        check("{}", "no key: there is nothing at json:/id");
        check("{\"id\":null}", "no key: there is nothing at json:/id");
        check("{\"id\":\"\"}", "no key: json:/id is empty");
        check("{\"id\":{}}", "no key: json:/id is an object");
    }

    #[test]
    fn lines_are_numbered_with_the_blank_ones_that_are_left_out() {
        let expected = vec![(1, Ok("a".into())), (3, Ok("b".into())), (5, Ok("c".into()))];
        assert_eq!(lines("a\n\nb\r\n  \nc", 10), expected, "the last line needs no end");
        assert_eq!(lines("", 10), []);
    }

    #[test]
    fn a_line_over_the_limit_is_named_and_the_next_one_is_whole() {
        for end in ["\n", "\r\n"] {
            let input = format!("12345{end}123456{end}{}{end}12345{end}", "x".repeat(100_000));
            let read = lines(&input, 5);
            assert_eq!(read[0], (1, Ok("12345".into())), "{end:?}");
            assert!(read[1].1.as_ref().is_err_and(|why| why.contains("longer than 5 bytes")), "{read:?}");
            assert!(read[2].1.is_err());
            assert_eq!(read[3], (4, Ok("12345".into())), "{end:?}");
        }
    }
}
