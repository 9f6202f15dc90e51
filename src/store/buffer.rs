//! Committed rows on their way to the store, coalesced by key. Pure.

use bytes::Bytes;
use hashbrown::HashMap;

use super::Change;

/// Rows of one partition that are committed but not yet stored. They are copied: a row as it was
/// committed shares a piece of memory with others of its epoch, and would keep all of it.
#[derive(Debug, Default)]
pub struct PartitionBuffer {
    rows: HashMap<Box<[u8]>, Option<Vec<u8>>>,
    bytes: usize,
    /// Every committed row below this changelog offset is here or in the store.
    next: i64,
}

impl PartitionBuffer {
    /// Adds committed rows; `next` is the changelog position after them.
    pub fn push<'a>(&mut self, changes: impl IntoIterator<Item = Change<'a>>, next: i64) {
        for (key, value) in changes {
            let row = self.rows.entry_ref(key).or_insert_with(|| {
                self.bytes += OVERHEAD + key.len();
                None
            });
            self.bytes -= row.as_ref().map_or(0, Vec::len);
            self.bytes += value.map_or(0, <[u8]>::len);
            match (row, value) {
                (Some(old), Some(new)) => {
                    old.clear();
                    old.reserve_exact(new.len());
                    old.extend_from_slice(new);
                }
                (row, value) => *row = value.map(<[u8]>::to_vec),
            }
        }
        self.next = self.next.max(next);
    }

    /// What is known here of a key: `None` nothing, `Some(None)` that it was removed.
    pub fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.rows.get(key).map(|value| value.as_deref().map(Bytes::copy_from_slice))
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
    pub fn rows(&self) -> impl Iterator<Item = Change<'_>> {
        self.rows.iter().map(|(key, value)| (&key[..], value.as_deref()))
    }

    /// The rows in key order, as stores take them.
    pub fn sorted(&self) -> Vec<Change<'_>> {
        let mut rows: Vec<Change<'_>> = self.rows().collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        rows
    }
}

/// What a row costs beside its own bytes, roughly.
const OVERHEAD: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_key_coalesce_and_the_size_stays_true() {
        let row = |value: Option<&'static str>| (&b"k"[..], value.map(str::as_bytes));
        let mut buffer = PartitionBuffer::default();
        buffer.push([row(Some("long value"))], 5);
        assert_eq!(buffer.bytes(), OVERHEAD + 11);
        buffer.push([row(Some("v"))], 6);
        assert_eq!(buffer.bytes(), OVERHEAD + 2);
        assert_eq!(buffer.get(b"k"), Some(Some(Bytes::from_static(b"v"))));
        buffer.push([row(None)], 7);
        assert_eq!(buffer.get(b"k"), Some(None));
        assert_eq!(buffer.bytes(), OVERHEAD + 1);
        assert_eq!(buffer.get(b"other"), None);
        assert_eq!((buffer.sorted(), buffer.next()), (vec![row(None)], 7));
        buffer.push([(&b"a"[..], Some(&b"1"[..]))], 8);
        assert_eq!(buffer.sorted(), [(&b"a"[..], Some(&b"1"[..])), row(None)]);
    }
}
