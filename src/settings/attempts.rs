//! The written form of a number of attempts: a whole number, or `"unlimited"`.

use std::fmt;

use pawl_actors::supervisor::Attempts;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

/// The title by which the schema marks it, so that the reader of the file knows the form.
pub(super) const TITLE: &str = "attempts";
/// The word for as many as it takes.
pub(super) const UNLIMITED: &str = "unlimited";

pub(super) fn serialize<S: Serializer>(attempts: &Attempts, serializer: S) -> Result<S::Ok, S::Error> {
    match attempts {
        Attempts::Limited(attempts) => serializer.serialize_u32(*attempts),
        Attempts::Unlimited => serializer.serialize_str(UNLIMITED),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Attempts, D::Error> {
    deserializer.deserialize_any(Written)
}

struct Written;

impl Visitor<'_> for Written {
    type Value = Attempts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number or \"{UNLIMITED}\"")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Attempts, E> {
        u32::try_from(number).map(Attempts::Limited).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Attempts, E> {
        u32::try_from(number).map(Attempts::Limited).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Attempts, E> {
        match text {
            UNLIMITED => Ok(Attempts::Unlimited),
            other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
        }
    }
}

/// Bounds of a number hold for numbers only, and the pattern for strings.
pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "title": TITLE,
        "type": ["integer", "string"],
        "pattern": format!("^{UNLIMITED}$"),
    })
}

/// The same where it may be absent.
pub(super) mod optional {
    use super::{Attempts, Deserializer, Serializer};

    pub(in crate::settings) fn serialize<S: Serializer>(
        attempts: &Option<Attempts>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match attempts {
            Some(attempts) => super::serialize(attempts, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Attempts>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}
