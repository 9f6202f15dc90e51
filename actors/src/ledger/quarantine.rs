//! What a head knows of a quarantine: a record of the key became a dead letter, and its later records follow
//! it, so that their order can be had back.

use serde::{Deserialize, Serialize};

use super::parked::bounded;
use crate::record::Offset;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Number of the first dead letter that nobody has dealt with.
    pub first: u64,
    /// Number that the next letter will have.
    pub next: u64,
    /// Offset of the record whose failure began it: it tells the letters of this quarantine from those of
    /// earlier ones.
    pub offset: i64,
    /// The replay that the key has joined: the offset of its command in the command topic.
    pub replay: Option<i64>,
    /// What its last attempt said, for people; at most 256 bytes.
    pub cause: String,
    /// Letters below this number belong to older books: the partition was rewound since, to behind the record
    /// that began it. Heads have it beside the rest, in a later version.
    #[serde(skip)]
    pub before: u64,
}

impl Quarantine {
    /// Begins with a record that failed for good.
    pub fn begin(offset: Offset, cause: &str) -> Self {
        Quarantine { offset: offset.0, cause: bounded(cause).to_owned(), ..Quarantine::default() }
    }

    /// How many dead letters nobody has dealt with.
    pub fn letters(&self) -> u64 {
        self.next - self.first
    }

    /// A letter was replayed, and failed again: it stays the first, for this reason.
    pub fn failed_again(&mut self, cause: &str) {
        self.replay = None;
        self.cause = bounded(cause).to_owned();
    }
}
