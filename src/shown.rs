//! How bytes, texts and times from records are shown to people and to scripts.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Bytes that may be text: in JSON a string, else `{"hex": "..."}`. Read back in either form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(pub Bytes);

impl Raw {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Two digits a byte.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// On one line.
    pub fn shown(&self) -> String {
        self.text().map_or_else(|| format!("0x{}", self.hex()), printable)
    }

    /// JSON indented, text as it is, anything else as hex of 16 bytes a line.
    pub fn pretty(&self) -> String {
        if let Ok(json) = serde_json::from_slice::<Value>(&self.0) {
            return format!("{json:#}\n");
        }
        if let Some(text) = self.text() {
            return text.lines().map(|line| format!("{}\n", printable(line))).collect();
        }
        let rows = self.0.chunks(16).enumerate();
        rows.map(|(row, bytes)| {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{:08x}  {}\n", row * 16, hex.join(" "))
        })
        .collect()
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.text() {
            Some(text) => serializer.serialize_str(text),
            None => serializer.collect_map([("hex", self.hex())]),
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Hex { hex: String },
        }
        match Form::deserialize(deserializer)? {
            Form::Text(text) => Ok(Raw(text.into())),
            Form::Hex { hex } => bytes_of_hex(&hex).map(Raw).map_err(D::Error::custom),
        }
    }
}

/// The bytes that hex digits stand for, with or without `0x`.
///
/// # Errors
/// Says what is wrong with the text.
pub fn bytes_of_hex(text: &str) -> Result<Bytes, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if let Some(odd) = digits.chars().find(|digit| !digit.is_ascii_hexdigit()) {
        return Err(format!("{odd:?} is no hex digit; write two for each byte, as in 0a1b"));
    }
    if !digits.len().is_multiple_of(2) {
        return Err("two hex digits make a byte, as in 0a1b".into());
    }
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("two hex digits");
    Ok((0..digits.len()).step_by(2).map(byte).collect())
}

/// Control characters escaped: a record must not steer the reader's terminal.
pub fn printable(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// A time stamp in milliseconds since the epoch, as RFC 3339.
pub fn time(millis: Option<i64>) -> String {
    let millis = millis.and_then(|millis| u64::try_from(millis).ok());
    // The year 9999 is where RFC 3339 ends.
    let Some(millis) = millis.filter(|millis| *millis < 253_402_300_800_000) else { return "?".into() };
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_from_json_in_either_form() {
        for bytes in [&b"ORD-1"[..], b"", b"\xff\x00", "\u{e4}".as_bytes()] {
            let raw = Raw(Bytes::copy_from_slice(bytes));
            let json = serde_json::to_string(&raw).expect("serializable");
            assert_eq!(serde_json::from_str::<Raw>(&json).expect("as it was written"), raw, "{json}");
        }
    }

    #[test]
    fn hex_is_read_with_and_without_its_mark_and_anything_else_is_refused() {
        assert_eq!(bytes_of_hex("0xff0A").expect("hex"), Bytes::from_static(&[0xff, 0x0a]));
        assert_eq!(bytes_of_hex("").expect("no bytes"), Bytes::new());
        for text in ["f", "0xg0", "\u{e4}", "+1", "0x+1"] {
            assert!(bytes_of_hex(text).is_err(), "{text}");
        }
    }
}
