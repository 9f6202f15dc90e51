//! The record that a line of input becomes. Pure: no file, no broker.

use bytes::Bytes;
use pawl_actors::record::{Header, Millis, Offset, Record, TimestampType};
use pawl_actors::selector::{Reader, Selector};
use serde::de::IgnoredAny;

use crate::cli::{Publish, TextOrPlace};
use crate::commands::sending::sender::Outgoing;

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
        Ok(Outgoing { key, value: Some(line), headers, ..Outgoing::default() })
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

    #[test]
    fn the_value_is_the_line_byte_for_byte() {
        let line = Bytes::from_static(b" { \"b\":1.0,\"a\" : \"\\u00e9\" } ");
        let outgoing = shape(None, None).read(line.clone()).expect("valid");
        assert_eq!(outgoing, Outgoing { value: Some(line), ..Outgoing::default() });
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
}
