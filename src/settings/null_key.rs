//! The written form of what becomes of records without a key: `"reject"`, or `{ spread = 16 }`.

use std::num::NonZeroU16;

use pawl_actors::policy::NullKey;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// The title by which the schema marks it, so that the reader of the file knows the form.
pub(super) const TITLE: &str = "null key";
/// The word for the dead-letter topic.
pub(super) const REJECT: &str = "reject";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Written {
    Reject,
    Spread(NonZeroU16),
}

pub(super) fn serialize<S: Serializer>(null_key: &NullKey, serializer: S) -> Result<S::Ok, S::Error> {
    let written = match null_key {
        NullKey::Reject => Written::Reject,
        NullKey::Spread(lanes) => Written::Spread(*lanes),
    };
    written.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NullKey, D::Error> {
    Ok(match Written::deserialize(deserializer)? {
        Written::Reject => NullKey::Reject,
        Written::Spread(lanes) => NullKey::Spread(lanes),
    })
}

/// The pattern holds for strings only, what is said of keys for tables.
pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "title": TITLE,
        "type": ["string", "object"],
        "pattern": format!("^{REJECT}$"),
        "properties": {
            "spread": {
                "type": "integer",
                "description": "How many lanes they are spread over, in each partition. Bounds: 1 to 1024. Default: \
                                none, they are rejected.",
            },
        },
        "required": ["spread"],
        "additionalProperties": false,
    })
}
