//! What must not be printed: secrets, and which names and lines may hold one.

use std::fmt;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

/// The title by which the schema marks a secret, so that the reader of the file knows that it must not be there.
pub(super) const TITLE: &str = "secret";

/// What is printed in place of a secret.
pub(super) const HIDDEN: &str = "(hidden)";

/// Whether a librdkafka property of this name may hold a secret.
pub(super) fn named_by(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "secret", "token", "key", "credential", "oauthbearer.config"]
        .iter()
        .any(|word| name.contains(word))
}

/// Whether the value of a key must not be shown.
pub(super) fn key<'a>(names: impl Iterator<Item = &'a str>) -> bool {
    let names: Vec<&str> = names.collect();
    match names[..] {
        ["kafka", .., last] => named_by(last),
        ["admin", .., last] => last.ends_with("_token"),
        _ => false,
    }
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

/// Whether a URL, or what was meant as one, has a user name or a password.
pub(crate) fn names_a_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

/// A URL that cannot be used, as messages show it: without what may be a secret.
pub(crate) fn shown_url(url: &str) -> &str {
    if url.contains('@') { HIDDEN } else { url.split('?').next().unwrap_or_default() }
}

/// A secret that the environment has told. Neither printed nor written.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides a secret that a program has from elsewhere.
    pub fn new(secret: impl Into<String>) -> Secret {
        Secret(secret.into())
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(HIDDEN)
    }
}

pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    // No value in a file is right.
    json_schema!({ "title": TITLE, "type": "string", "not": {} })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_a_url_is_found_with_and_without_a_scheme_and_a_path_is_none() {
        for url in ["http://user:s3cret@host/path", "user:s3cret@host:4318", "https://user@host?query"] {
            assert!(names_a_user(url) && !shown_url(url).contains("user"), "{url}");
        }
        for url in ["http://host/users/@me", "host:4318", "http://host?to=a@b", "http://host#a@b", ""] {
            assert!(!names_a_user(url), "{url}");
        }
        assert_eq!(shown_url("http://host/path?key=s3cret"), "http://host/path");
    }
}
