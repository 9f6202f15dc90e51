//! Durations, as the settings write them: `"200ms"`, `"5s"`, `"1m 30s"`, `"7d"` (read by humantime).
//!
//! Used through `#[serde(with = "duration")]`; a bare number is refused on purpose, since its unit
//! would be a guess.

use std::time::Duration;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::Serializer;

/// The title by which the schema marks a duration, so that the reader of the file knows the form.
pub(super) const TITLE: &str = "duration";

/// A whole number or one with a fraction, a unit, and so on: "1m 30s".
const PATTERN: &str = concat!(
    "^ *([0-9]+([.][0-9]+)? *(ns|us|ms|msec|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?",
    "|d|days?|w|weeks?|months?|y|years?) *)+$"
);

pub(super) fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|error| error.to_string())
}

pub(super) fn format(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "title": TITLE,
        "type": "string",
        "pattern": PATTERN,
        "examples": ["200ms", "5s", "1m", "7d"],
    })
}
