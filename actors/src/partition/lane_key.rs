//! Which lane a record belongs to.

use bytes::Bytes;

use crate::ledger::RecentIds;
use crate::outcome::{Failure, code};
use crate::selector::{Reader, Selector};

/// What bounds a key, beside what Kafka does: its row must fit into the changelog.
#[derive(Clone, Copy, Debug)]
pub struct KeyBounds {
    /// Event ids that a row may hold.
    pub recent_ids: usize,
    /// Bytes that a row may have.
    pub max_row_bytes: usize,
}

/// The key whose lane a record belongs to.
///
/// # Errors
/// Why there is none: the record belongs to the lane of records without a usable key.
pub fn lane_key(reader: &mut Reader<'_>, selector: &Selector, bounds: KeyBounds) -> Result<Bytes, Failure> {
    match reader.read(selector) {
        Ok(Some(key)) if key.len() + bounds.recent_ids * RecentIds::WIDTH > bounds.max_row_bytes => {
            Err(key_too_large(key.len(), bounds.max_row_bytes))
        }
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(no_key(selector)),
        Err(why) => Err(undecodable("key", &why)),
    }
}

fn no_key(selector: &Selector) -> Failure {
    match selector {
        Selector::Record => {
            Failure::permanent(code::NULL_KEY, "the record has no key, and order is kept by key")
        }
        other => Failure::permanent(code::NULL_KEY, format!("the record has nothing at {other}, its key")),
    }
}

fn key_too_large(bytes: usize, takes: usize) -> Failure {
    let message = format!(
        "the key has {bytes} bytes; with its ids its row exceeds the {takes} that the changelog takes"
    );
    Failure::permanent(code::TOO_LARGE, message)
}

pub(super) fn undecodable(what: &str, why: &str) -> Failure {
    Failure::permanent(code::UNDECODABLE, format!("the {what} cannot be read: {why}"))
}
