//! A dead letter as a person or a script reads it.

use std::fmt::Write as _;

use pawl_actors::dead_letter::{KEY_EXCEPTION, LAST, ORIGINALS, header};
use pawl_actors::record::{Header, TimestampType, last_header};
use serde::Serialize;

use super::scan::Found;
use crate::shown::{Raw, printable, time};

/// A record of a dead-letter topic with what its headers say, as far as they can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// Where the letter lies.
    pub partition: i32,
    /// Where the letter lies.
    pub offset: i64,
    /// When it was written, milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// Where the original lies.
    pub original: Original,
    /// Where the handler that gave up read it, if the original is that of an earlier pass.
    pub input_offset: Option<i64>,
    /// Group of the handler that gave up.
    pub group: Option<String>,
    /// The quarantine of its key that it belongs to: the offset that began it.
    pub quarantine: Option<i64>,
    /// Its number there.
    pub number: Option<i64>,
    /// Stable code of what ended it.
    pub code: Option<String>,
    /// Stable code of the last attempt's failure.
    pub cause: Option<String>,
    /// What happened.
    pub message: Option<String>,
    /// Text that helps to find the cause.
    pub detail: Option<String>,
    /// 1-based number of the last attempt.
    pub attempt: Option<i32>,
    /// Why the record is here.
    pub disposition: Option<String>,
    /// The service's or handler's own error code.
    pub own_code: Option<String>,
    /// The original's key.
    pub key: Option<Raw>,
    /// The original's value; `None` is a tombstone.
    pub value: Option<Raw>,
    /// The original's own headers.
    pub headers: Vec<RawHeader>,
}

/// Where the original record lies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Original {
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub timestamp: Option<i64>,
    pub timestamp_type: Option<String>,
}

/// A header of the original record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RawHeader {
    pub name: Raw,
    pub value: Option<Raw>,
}

impl Letter {
    /// What a record says of itself.
    pub fn read(found: &Found) -> Letter {
        let record = &found.record;
        Letter {
            partition: found.partition,
            offset: record.offset.0,
            timestamp: (record.timestamp_type != TimestampType::NotAvailable).then_some(record.timestamp.0),
            key: record.key.clone().map(Raw),
            value: record.value.clone().map(Raw),
            ..Letter::default()
        }
        .with_headers(&record.headers)
    }

    fn with_headers(mut self, headers: &[Header]) -> Letter {
        let last = |name: &str| last_header(headers, name).map(|value| &value[..]);
        let text = |name: &str| last(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let int = |name: &str| last(name)?.try_into().ok().map(i32::from_be_bytes);
        let long = |name: &str| last(name)?.try_into().ok().map(i64::from_be_bytes);
        self.original = Original {
            topic: text(header::ORIGINAL_TOPIC),
            partition: int(header::ORIGINAL_PARTITION),
            offset: long(header::ORIGINAL_OFFSET),
            timestamp: long(header::ORIGINAL_TIMESTAMP),
            timestamp_type: text(header::ORIGINAL_TIMESTAMP_TYPE),
        };
        self.input_offset = long(header::OFFSET);
        self.group = text(header::GROUP).or_else(|| text(header::ORIGINAL_CONSUMER_GROUP));
        self.quarantine = long(header::QUARANTINE);
        self.number = long(header::NUMBER);
        let [key_code, key_message, key_detail] = KEY_EXCEPTION;
        self.code = text(header::EXCEPTION_FQCN).or_else(|| text(key_code));
        self.cause = text(header::EXCEPTION_CAUSE_FQCN);
        self.message = text(header::EXCEPTION_MESSAGE).or_else(|| text(key_message));
        self.detail = text(header::EXCEPTION_STACKTRACE).or_else(|| text(key_detail));
        self.attempt = int(header::DELIVERY_ATTEMPT);
        self.disposition = text(header::DISPOSITION);
        self.own_code = text(header::OWN_CODE);
        // The others are the original's own.
        let telling = || ORIGINALS.iter().chain(&LAST).chain(&KEY_EXCEPTION);
        let own = |header: &Header| !telling().any(|name| header.name == name.as_bytes());
        self.headers = headers
            .iter()
            .filter(|header| own(header))
            .map(|header| RawHeader { name: Raw(header.name.clone()), value: header.value.clone().map(Raw) })
            .collect();
        self
    }

    /// One line for a list.
    pub fn line(&self) -> String {
        let key = self.key.as_ref().map_or("(no key)".into(), Raw::shown);
        let number = self.number.map(|number| format!(" #{number}")).unwrap_or_default();
        // The outer code is often the same for all: Spring wraps whatever a listener throws.
        let cause = self.cause.as_deref().filter(|cause| self.code.as_deref() != Some(cause));
        let cause = cause.map(|cause| format!(", caused by {}", printable(cause))).unwrap_or_default();
        // Handlers may share a topic.
        let group = self.group.as_deref().map(|group| format!(" by {}", printable(group)));
        format!(
            "{} {}  {}  key {key}{number}  {}{cause}  from {}{}  {}\n",
            self.partition,
            self.offset,
            time(self.timestamp),
            self.why(),
            self.place(),
            group.unwrap_or_default(),
            printable(self.message.as_deref().unwrap_or_default())
        )
    }

    /// Everything, over several lines.
    pub fn page(&self) -> String {
        let mut page = String::new();
        let mut row = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                writeln!(page, "{name:<12} {value}").expect("a String takes any text");
            }
        };
        let line = |text: &Option<String>| text.as_deref().map(printable);
        row("letter", Some(format!("{} {}, written {}", self.partition, self.offset, time(self.timestamp))));
        row("original", Some(format!("{}, {}", self.place(), self.original_time())));
        row("read at", self.input_offset.map(|offset| format!("offset {offset} of the handler's input")));
        row("group", line(&self.group));
        row("why", Some(self.why()));
        row("cause", line(&self.cause));
        row("own code", line(&self.own_code));
        row("disposition", line(&self.disposition));
        row("quarantine", self.quarantine.map(|began| format!("since offset {began}")));
        row("number", self.number.map(|number| format!("#{number}")));
        row("message", line(&self.message));
        row("key", Some(self.key.as_ref().map_or("none".into(), Raw::shown)));
        for RawHeader { name, value } in &self.headers {
            let value = value.as_ref().map_or("(null)".into(), Raw::shown);
            row("header", Some(format!("{}: {value}", name.shown())));
        }
        if let Some(detail) = self.detail.as_deref().filter(|detail| !detail.is_empty()) {
            // Java indents stack traces by tabs.
            let indented = |line: &str| format!("  {}\n", printable(&line.replace('\t', "    ")));
            let lines = detail.lines().map(indented);
            page.extend(["\ndetail:\n".to_owned()].into_iter().chain(lines));
        }
        match &self.value {
            None => page.push_str("\nvalue: none (a tombstone)\n"),
            Some(value) => write!(page, "\nvalue ({} bytes):\n{}", value.0.len(), value.pretty())
                .expect("a String takes any text"),
        }
        page
    }

    fn why(&self) -> String {
        let code = self.code.as_deref().map_or("(no code)".into(), printable);
        self.attempt.map_or(code.clone(), |attempt| format!("{code} at attempt {attempt}"))
    }

    fn place(&self) -> String {
        let Original { topic, partition, offset, .. } = &self.original;
        let number = |number: Option<i64>| number.map_or("?".into(), |number| number.to_string());
        let topic = topic.as_deref().map_or("?".into(), printable);
        format!("{topic} {} {}", number(partition.map(i64::from)), number(*offset))
    }

    fn original_time(&self) -> String {
        let kind = self.original.timestamp_type.as_deref().map(printable).unwrap_or_default();
        format!("{} {kind}", time(self.original.timestamp)).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn letter() -> Letter {
        let headers = vec![
            Header::new("ce_id", "e1"),
            Header::new("bin", vec![0xff, 0]),
            Header::new(header::ORIGINAL_TOPIC, "orders"),
            Header::new(header::ORIGINAL_PARTITION, 3i32.to_be_bytes().to_vec()),
            Header::new(header::ORIGINAL_OFFSET, 881i64.to_be_bytes().to_vec()),
            Header::new(header::ORIGINAL_TIMESTAMP, 1_700_000_000_123i64.to_be_bytes().to_vec()),
            Header::new(header::ORIGINAL_TIMESTAMP_TYPE, "CreateTime"),
            Header::new(header::ORIGINAL_CONSUMER_GROUP, "billing"),
            Header::new(header::EXCEPTION_FQCN, "pawl.Exhausted"),
            Header::new(header::EXCEPTION_CAUSE_FQCN, "pawl.Unavailable"),
            Header::new(header::EXCEPTION_MESSAGE, "service answered 503\n\x1b[2J"),
            Header::new(header::EXCEPTION_STACKTRACE, "line 1\n\tline 2\u{7}"),
            Header::new(header::DELIVERY_ATTEMPT, 8i32.to_be_bytes().to_vec()),
            Header::new(header::DISPOSITION, "exhausted"),
            Header::new(header::OWN_CODE, "ledger-closed"),
            Header::new(header::QUARANTINE, 870i64.to_be_bytes().to_vec()),
            Header::new(header::NUMBER, 3i64.to_be_bytes().to_vec()),
        ];
        let bytes = |text: &'static str| Some(Raw(Bytes::from_static(text.as_bytes())));
        Letter {
            partition: 3,
            offset: 7,
            timestamp: Some(1_700_000_001_000),
            key: bytes("A1"),
            value: bytes(r#"{"id":1}"#),
            ..Letter::default()
        }
        .with_headers(&headers)
    }

    #[test]
    fn a_line_tells_where_what_and_why() {
        let expected = "3 7  2023-11-14T22:13:21.000Z  key A1 #3  pawl.Exhausted at attempt 8, caused by pawl.Unavailable  \
                        from orders 3 881 by billing  service answered 503\\n\\u{1b}[2J\n";
        assert_eq!(letter().line(), expected);
    }

    #[test]
    fn a_page_tells_everything() {
        let page = letter().page();
        for row in [
            "original     orders 3 881, 2023-11-14T22:13:20.123Z CreateTime\n",
            "group        billing\n",
            "cause        pawl.Unavailable\n",
            "own code     ledger-closed\n",
            "quarantine   since offset 870\n",
            "number       #3\n",
            "header       ce_id: e1\n",
            "header       bin: 0xff00\n",
            "detail:\n  line 1\n      line 2\\u{7}\n",
            "value (8 bytes):\n{\n  \"id\": 1\n}\n",
        ] {
            assert!(page.contains(row), "{row:?} is not in\n{page}");
        }
        assert!(!page.contains('\x1b'), "a record must not steer the terminal: {page}");
    }

    #[test]
    fn json_keeps_numbers_as_numbers_and_bytes_as_hex() {
        let json = serde_json::to_value(letter()).expect("serializable");
        assert_eq!(json["original"]["offset"], 881);
        assert_eq!(json["attempt"], 8);
        assert_eq!(json["key"], "A1");
        assert_eq!(json["headers"][1]["value"]["hex"], "ff00");
        assert_eq!(json["headers"].as_array().map(Vec::len), Some(2), "only the original's own");
    }

    #[test]
    fn a_record_without_such_headers_is_shown_as_it_is() {
        let value = Raw(Bytes::from((0..20).collect::<Vec<u8>>()));
        let bare = Letter { value: Some(Raw(Bytes::from_static(&[0xff; 17]))), ..Letter::default() };
        assert!(bare.line().contains("(no key)  (no code)  from ? ? ?"), "{}", bare.line());
        let hex = "00000000  ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff\n00000010  ff\n";
        assert!(bare.page().ends_with(hex), "{}", bare.page());
        assert_eq!(value.shown().find('\0'), None, "control characters are escaped");
        assert!(Letter::default().page().ends_with("value: none (a tombstone)\n"));
    }

    #[test]
    fn an_exception_of_the_key_is_told_where_there_is_no_other() {
        let [code, message, detail] = KEY_EXCEPTION;
        let key = [Header::new(code, "Key"), Header::new(message, "bad key"), Header::new(detail, "at")];
        let shown = |headers: Vec<Header>| {
            let letter = Letter::default().with_headers(&headers);
            assert_eq!(letter.headers, [], "none of the original's own");
            [letter.code, letter.message, letter.detail].map(Option::unwrap_or_default)
        };
        assert_eq!(shown(key.to_vec()), ["Key", "bad key", "at"]);
        let other = Header::new(header::EXCEPTION_FQCN, "Value");
        assert_eq!(shown([&key[..], &[other]].concat())[0], "Value");
    }

    #[test]
    fn headers_of_a_wrong_width_are_not_guessed() {
        let odd = vec![Header::new(header::ORIGINAL_OFFSET, vec![1, 2, 3])];
        assert_eq!(Letter::default().with_headers(&odd).original.offset, None);
    }

    #[test]
    fn a_second_pass_tells_who_gave_up_last_and_where_it_read() {
        let headers = [
            Header::new(header::ORIGINAL_OFFSET, 881i64.to_be_bytes().to_vec()),
            Header::new(header::ORIGINAL_CONSUMER_GROUP, "billing"),
            Header::new(header::OFFSET, 4i64.to_be_bytes().to_vec()),
            Header::new(header::GROUP, "repair"),
        ];
        let letter = Letter::default().with_headers(&headers);
        assert_eq!((letter.group.as_deref(), letter.original.offset), (Some("repair"), Some(881)));
        assert_eq!(letter.headers, [], "Pawl's own headers are none of the original's");
        assert!(
            letter.page().contains("read at      offset 4 of the handler's input\n"),
            "{}",
            letter.page()
        );
    }
}
