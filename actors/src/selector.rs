//! Where in a record its key or its event id lies.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde_json::Value;

use crate::record::{Offset, Record};

/// A place in a record, as the settings write it: `record`, `header:NAME` or `json:/pointer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The record's own key.
    Record,
    /// The last header of this name.
    Header(String),
    /// A place in the JSON value (RFC 6901 pointer). Strings are taken without quotes, numbers and
    /// booleans as they are written.
    Json(String),
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "record" => Ok(Selector::Record),
            Some(("header", "")) => Err("a header selector needs a name, as in \"header:ce_id\"".into()),
            Some(("header", name)) => Ok(Selector::Header(name.to_owned())),
            Some(("json", pointer)) if pointer.starts_with('/') => Ok(Selector::Json(pointer.to_owned())),
            Some(("json", pointer)) => {
                Err(format!("a JSON pointer begins with '/' (RFC 6901): did you mean \"json:/{pointer}\"?"))
            }
            _ => Err(format!(
                "\"{text}\" is not a place in a record; write \"record\", \"header:NAME\" or \"json:/pointer\""
            )),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Record => f.write_str("record"),
            Selector::Header(name) => write!(f, "header:{name}"),
            Selector::Json(pointer) => write!(f, "json:{pointer}"),
        }
    }
}

/// Reads several selectors of one record and parses its value as JSON at most once.
pub struct Reader<'a> {
    record: &'a Record,
    json: Option<Result<Value, String>>,
}

impl<'a> Reader<'a> {
    /// Starts on a record.
    pub fn new(record: &'a Record) -> Self {
        Reader { record, json: None }
    }

    /// Where the record lies.
    pub fn offset(&self) -> Offset {
        self.record.offset
    }

    /// The bytes at a place; `None` where the place is empty (no key, no such header, no such
    /// member or JSON `null`).
    ///
    /// # Errors
    /// Says, for a person, why the place cannot be read: the value is not JSON, or is an object or array there.
    pub fn read(&mut self, selector: &Selector) -> Result<Option<Bytes>, String> {
        match selector {
            Selector::Record => Ok(self.record.key.clone()),
            Selector::Header(name) => Ok(self.record.header(name).cloned()),
            Selector::Json(pointer) => {
                let Some(bytes) = self.record.value.as_ref() else { return Ok(None) };
                let json = self.json.get_or_insert_with(|| {
                    serde_json::from_slice(bytes).map_err(|error| format!("the value is not JSON: {error}"))
                });
                scalar(json.as_ref().map_err(String::clone)?, pointer)
            }
        }
    }
}

fn scalar(json: &Value, pointer: &str) -> Result<Option<Bytes>, String> {
    match json.pointer(pointer) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(Bytes::from(value.to_string()))),
        Some(Value::Object(_)) => Err(format!("json:{pointer} is an object, not a string or number")),
        Some(Value::Array(_)) => Err(format!("json:{pointer} is an array, not a string or number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Header, Millis, Offset, TimestampType};

    fn record(value: Option<&str>) -> Record {
        Record {
            offset: Offset(7),
            timestamp: Millis(0),
            timestamp_type: TimestampType::CreateTime,
            key: Some(Bytes::from_static(b"ORD-1")),
            value: value.map(|text| Bytes::copy_from_slice(text.as_bytes())),
            headers: vec![Header::new("ce_id", "first"), Header::new("ce_id", "e1")],
        }
    }

    fn read(text: &str, value: Option<&str>) -> Result<Option<String>, String> {
        let selector: Selector = text.parse().expect("a valid selector");
        let record = record(value);
        let bytes = Reader::new(&record).read(&selector)?;
        Ok(bytes.map(|bytes| String::from_utf8(bytes.to_vec()).expect("UTF-8")))
    }

    #[test]
    fn every_kind_of_place_is_read() {
        assert_eq!(read("record", None), Ok(Some("ORD-1".into())));
        assert_eq!(read("header:ce_id", None), Ok(Some("e1".into())), "the last header of a name counts");
        assert_eq!(read("json:/order/id", Some(r#"{"order":{"id":"A"}}"#)), Ok(Some("A".into())));
        assert_eq!(read("json:/n", Some(r#"{"n":12}"#)), Ok(Some("12".into())));
        let long = "12345678901234567890123";
        assert_eq!(read("json:/n", Some(&format!(r#"{{"n":{long}}}"#))), Ok(Some(long.into())));
        assert_eq!(read("json:/n", Some(r#"{"n":1.10}"#)), Ok(Some("1.10".into())), "as it is written");
    }

    #[test]
    fn an_empty_place_is_not_an_error() {
        assert_eq!(read("header:none", None), Ok(None));
        assert_eq!(read("json:/id", None), Ok(None), "a tombstone has no members");
        assert_eq!(read("json:/id", Some("{}")), Ok(None));
        assert_eq!(read("json:/id", Some(r#"{"id":null}"#)), Ok(None));
    }

    #[test]
    fn a_place_that_cannot_be_read_says_why() {
        let error = read("json:/id", Some("not json")).expect_err("not JSON");
        assert!(error.contains("the value is not JSON"), "{error}");
        let error = read("json:/id", Some(r#"{"id":{}}"#)).expect_err("an object");
        assert!(error.contains("is an object"), "{error}");
    }

    #[test]
    fn a_wrong_selector_names_the_likely_intention() {
        let error = "json:order".parse::<Selector>().expect_err("no slash");
        assert!(error.contains("did you mean \"json:/order\""), "{error}");
        assert!("kafka".parse::<Selector>().is_err());
        assert!("header:".parse::<Selector>().is_err());
        for text in ["record", "header:ce_id", "json:/a/b"] {
            assert_eq!(text.parse::<Selector>().expect("valid").to_string(), text);
        }
    }
}
