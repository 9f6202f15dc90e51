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

/// The same for a duration that may be absent.
pub(super) mod optional {
    use super::{Deserializer, Duration, Serializer};

    pub(in crate::settings) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}

/// The same for a list that may be absent.
pub(super) mod list {
    use schemars::{Schema, SchemaGenerator, json_schema};

    use super::{Deserialize, Deserializer, Duration, Error, Serializer, format, parse};
    use crate::settings::limits::MAX_DELAYS;

    pub(in crate::settings) fn serialize<S: Serializer>(
        list: &Option<Vec<Duration>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match list {
            Some(list) => serializer.collect_seq(list.iter().map(|duration| format(*duration))),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<Duration>>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let list: Result<Vec<Duration>, String> = texts.iter().map(|text| parse(text)).collect();
        list.map(Some).map_err(D::Error::custom)
    }

    pub(in crate::settings) fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array",
            "items": super::schema(generator),
            "minItems": 1,
            "maxItems": MAX_DELAYS,
        })
    }
}
