//! What must not be printed: which names and lines may hold a secret.

use schemars::{Schema, SchemaGenerator, json_schema};

/// The title by which the schema marks a secret, so that the reader of the file refuses it there.
pub(super) const TITLE: &str = "secret, only in the environment";

/// What is printed in place of a secret.
pub(super) const HIDDEN: &str = "(hidden)";

/// Whether a librdkafka property of this name may hold a secret.
pub(super) fn named_by(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "secret", "token", "key", "credential", "oauthbearer.config"]
        .iter()
        .any(|word| name.contains(word))
}

/// Whether a line of the settings file may hold a secret. Coarser than `named_by` where that would
/// hide nothing but harm (`key = "record"`), for one line can hold several keys.
pub(super) fn in_line(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let words = ["password", "secret", "token", ".key", "credential", "oauthbearer.config", "private key"];
    // A URL with a user name, http://name:password@host/.
    let mut authorities = line.split("://").skip(1).map(|rest| rest.split(['/', '"', '\'']).next());
    words.iter().any(|word| line.contains(word))
        || authorities.any(|authority| authority.is_some_and(|authority| authority.contains('@')))
}

pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "title": TITLE, "type": "string", "writeOnly": true })
}
