//! The written form of a `Selector` in the settings, for `#[serde(with = "selector")]`.
//!
//! It lives here and not beside the type, since the crate of the decisions knows no settings.

use pawl_actors::selector::Selector;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::Serializer;

/// The title by which the schema marks a selector, so that the reader of the file knows the form.
pub(super) const TITLE: &str = "place in a record";

pub(super) fn serialize<S: Serializer>(selector: &Selector, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(selector)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Selector, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "title": TITLE,
        "type": "string",
        "pattern": "^(record|header:.+|json:/.*)$",
        "examples": ["record", "header:ce_id", "json:/order/id"],
    })
}

/// The same for a selector that may be absent.
pub(super) mod optional {
    use super::{Deserializer, Selector, Serializer};

    pub(in crate::settings) fn serialize<S: Serializer>(
        selector: &Option<Selector>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match selector {
            Some(selector) => super::serialize(selector, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Selector>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}
