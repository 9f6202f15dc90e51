//! Committed rows on their way to the store, coalesced by key. Pure.

use bytes::Bytes;
use hashbrown::HashMap;

use super::Change;

/// Rows of one partition that are committed but not yet stored.
#[derive(Debug, Default)]
pub struct PartitionBuffer {
    rows: HashMap<Bytes, Option<Bytes>>,
    bytes: usize,
    /// Every committed row below this changelog offset is here or in the store.
    next: i64,
}

impl PartitionBuffer {
    /// Adds committed rows; `next` is the changelog position after them. Returns by how many bytes
    /// the buffer grew.
    pub fn push(&mut self, changes: impl IntoIterator<Item = Change>, next: i64) -> usize {
        let before = self.bytes;
        for (key, value) in changes {
            let size = weight(&key, value.as_ref());
            let key_len = key.len();
            if let Some(old) = self.rows.insert(key, value) {
                self.bytes -= OVERHEAD + key_len + old.map_or(0, |old| old.len());
            }
            self.bytes += size;
        }
        self.next = self.next.max(next);
        self.bytes.saturating_sub(before)
    }

    /// What is known here of a key: `None` nothing, `Some(None)` that it was removed.
    pub fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        self.rows.get(key)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Position after the last row.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// The rows, in no order.
    pub fn rows(&self) -> impl Iterator<Item = (&Bytes, &Option<Bytes>)> {
        self.rows.iter()
    }
}

/// What a row costs beside its own bytes, roughly.
const OVERHEAD: usize = 96;

fn weight(key: &Bytes, value: Option<&Bytes>) -> usize {
    OVERHEAD + key.len() + value.map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_key_coalesce_and_the_size_stays_true() {
        let row = |value: Option<&'static str>| {
            (Bytes::from_static(b"k"), value.map(|value| Bytes::from_static(value.as_bytes())))
        };
        let mut buffer = PartitionBuffer::default();
        assert_eq!(buffer.push([row(Some("long value"))], 5), OVERHEAD + 11);
        assert_eq!(buffer.push([row(Some("v"))], 6), 0, "it shrank");
        assert_eq!(buffer.bytes(), OVERHEAD + 2);
        buffer.push([row(None)], 7);
        assert_eq!(buffer.get(b"k"), Some(&None));
        assert_eq!(buffer.get(b"other"), None);
        assert_eq!((buffer.rows().count(), buffer.next()), (1, 7));
    }
}
