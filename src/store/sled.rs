//! The store in sled 0.34.7. One tree a partition.
//!
//! Rows are written one by one, not as a batch: each change leaves a copy of its page to be freed, and
//! sled frees those of some hundred changes in every 128 calls. With a thousand changes a call they
//! grew to 2 GiB while a million rows were restored. The mark comes last, so nothing rests on a batch.

use std::collections::HashMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;

use super::guard::{Cause, Guard};
use super::{Change, MARK_KEY, Mark, Store, StoreError, StoredRow, partition_name};

/// sled counts a page by its bytes in the log; in memory it takes up to four times as much.
const IN_MEMORY: u64 = 4;

/// See the module's documentation.
pub struct SledStore {
    db: ::sled::Db,
    /// Those that were opened: opening one goes through sled's catalogue.
    trees: Mutex<HashMap<i32, ::sled::Tree>>,
    guard: Guard,
}

impl SledStore {
    /// Opens or creates the database in `dir`, with a page cache of at most `cache_bytes`.
    ///
    /// # Errors
    /// When it is damaged, or cannot be read or written.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let guard = Guard::new(dir);
        let db = guard.call("opening the local view", || {
            // Checkpoints flush by themselves; sled's own timer would only flush more often (sled #654).
            let logged_bytes = cache_bytes / IN_MEMORY;
            ::sled::Config::new().path(dir).cache_capacity(logged_bytes).flush_every_ms(None).open()
        })?;
        Ok(SledStore { db, trees: Mutex::default(), guard })
    }

    fn tree(&self, partition: i32) -> ::sled::Result<::sled::Tree> {
        let mut trees = self.trees.lock().expect("no holder panics");
        if let Some(tree) = trees.get(&partition) {
            return Ok(tree.clone());
        }
        let tree = self.db.open_tree(partition_name(partition))?;
        trees.insert(partition, tree.clone());
        Ok(tree)
    }
}

impl Store for SledStore {
    fn get(&self, partition: i32, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.guard.call("reading the local view", || self.tree(partition)?.get(key))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, partition: i32, after: Option<&[u8]>, limit: usize) -> Result<Vec<StoredRow>, StoreError> {
        self.guard.call("reading the local view", || {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            self.tree(partition)?
                .range::<&[u8], _>((from, Bound::Excluded(MARK_KEY)))
                .take(limit)
                .map(|row| row.map(|(k, v)| (Bytes::copy_from_slice(&k), Bytes::copy_from_slice(&v))))
                .collect::<::sled::Result<_>>()
        })
    }

    fn write(&self, partition: i32, changes: &[Change<'_>], mark: &Mark) -> Result<(), StoreError> {
        self.guard.call("writing the local view", || {
            let tree = self.tree(partition)?;
            for (key, value) in changes {
                match value {
                    Some(value) => tree.insert(*key, *value)?,
                    None => tree.remove(*key)?,
                };
            }
            tree.insert(MARK_KEY, mark.encode())?;
            self.db.flush().map(|_| ())
        })
    }

    fn mark(&self, partition: i32) -> Result<Option<Mark>, StoreError> {
        let found = self.guard.call("reading the local view", || self.tree(partition)?.get(MARK_KEY))?;
        Ok(found.map(|bytes| Mark::decode(&bytes)))
    }

    fn clear(&self, partition: i32) -> Result<(), StoreError> {
        self.guard.call("clearing the local view", || {
            self.trees.lock().expect("no holder panics").remove(&partition);
            self.db.drop_tree(partition_name(partition)).map(|_| ())
        })
    }
}

impl From<::sled::Error> for Cause {
    fn from(error: ::sled::Error) -> Self {
        match error {
            ::sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => Cause::Locked,
            ::sled::Error::Io(error) => Cause::Io(error),
            other => Cause::Damage(other.to_string()),
        }
    }
}
