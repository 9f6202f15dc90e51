//! The store in sled 0.34.7. One tree a partition.
//!
//! sled can panic on a damaged file instead of returning an error (sled #1387), so every call is
//! guarded. A database that cannot be opened is set aside as empty: it is only a view.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;

use super::{Change, Mark, Store, StoreError};

/// Key of the mark: above every row key, whose first byte is small.
const MARK_KEY: &[u8] = &[0xff];

/// See the module's documentation.
pub struct SledStore {
    db: ::sled::Db,
    /// Those that were opened: opening one goes through sled's catalogue.
    trees: Mutex<HashMap<i32, ::sled::Tree>>,
    dir: PathBuf,
}

impl SledStore {
    /// Opens or creates the database in `dir`, with a page cache of at most `cache_bytes`. A damaged
    /// one is removed and made anew; the log says so.
    ///
    /// # Errors
    /// When another process uses the directory, or it cannot be written.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        match Self::try_open(dir, cache_bytes) {
            Ok(store) => Ok(store),
            Err(in_use @ StoreError::InUse { .. }) => Err(in_use),
            Err(error) if dir.exists() => {
                tracing::warn!(dir = %dir.display(), %error, "the local view is damaged; it is rebuilt from the changelog");
                std::fs::remove_dir_all(dir).map_err(|io| failed("removing the damaged view", dir, &io))?;
                Self::try_open(dir, cache_bytes)
            }
            Err(error) => Err(error),
        }
    }

    fn try_open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir)
            .map_err(|io| failed("creating the directory of the local view", dir, &io))?;
        let opened = guard("opening the local view", dir, || {
            // Checkpoints flush by themselves; sled's own timer would only flush more often (sled #654).
            ::sled::Config::new().path(dir).cache_capacity(cache_bytes).flush_every_ms(None).open()
        });
        match opened {
            Ok(db) => Ok(SledStore { db, trees: Mutex::default(), dir: dir.to_owned() }),
            Err(StoreError::Failed { why, .. }) if why.contains("could not acquire lock") => {
                Err(StoreError::InUse { dir: dir.display().to_string() })
            }
            Err(error) => Err(error),
        }
    }

    fn tree(&self, partition: i32) -> ::sled::Result<::sled::Tree> {
        let mut trees = self.trees.lock().expect("no holder panics");
        if let Some(tree) = trees.get(&partition) {
            return Ok(tree.clone());
        }
        let tree = self.db.open_tree(name(partition))?;
        trees.insert(partition, tree.clone());
        Ok(tree)
    }

    fn guard<T>(
        &self,
        what: &'static str,
        call: impl FnOnce() -> ::sled::Result<T>,
    ) -> Result<T, StoreError> {
        guard(what, &self.dir, call)
    }
}

impl Store for SledStore {
    fn get(&self, partition: i32, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.guard("reading the local view", || self.tree(partition)?.get(key))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        partition: i32,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        use std::ops::Bound;
        self.guard("reading the local view", || {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            self.tree(partition)?
                .range::<&[u8], _>((from, Bound::Excluded(MARK_KEY)))
                .take(limit)
                .map(|row| row.map(|(k, v)| (Bytes::copy_from_slice(&k), Bytes::copy_from_slice(&v))))
                .collect()
        })
    }

    fn write(&self, partition: i32, changes: &[Change<'_>]) -> Result<(), StoreError> {
        self.guard("writing the local view", || {
            let mut batch = ::sled::Batch::default();
            for (key, value) in changes {
                match value {
                    Some(value) => batch.insert(*key, *value),
                    None => batch.remove(*key),
                }
            }
            self.tree(partition)?.apply_batch(batch)
        })
    }

    fn checkpoint(&self, partition: i32, mark: &Mark) -> Result<(), StoreError> {
        let mark = serde_json::to_vec(mark).expect("a mark has only strings and numbers");
        self.guard("writing the local view", || {
            self.tree(partition)?.insert(MARK_KEY, mark)?;
            self.db.flush().map(|_| ())
        })
    }

    fn mark(&self, partition: i32) -> Result<Option<Mark>, StoreError> {
        let found = self.guard("reading the local view", || self.tree(partition)?.get(MARK_KEY))?;
        // A mark that cannot be read is no mark: the view is rebuilt.
        Ok(found.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    fn clear(&self, partition: i32) -> Result<(), StoreError> {
        self.guard("clearing the local view", || {
            self.trees.lock().expect("no holder panics").remove(&partition);
            self.db.drop_tree(name(partition)).map(|_| ())
        })
    }
}

fn name(partition: i32) -> String {
    format!("p{partition}")
}

fn guard<T>(
    what: &'static str,
    dir: &Path,
    call: impl FnOnce() -> ::sled::Result<T>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(what, dir, &error)),
        Err(_) => Err(failed(what, dir, &"sled panicked, which it does on damaged files")),
    }
}

fn failed(what: &'static str, dir: &Path, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed { what, dir: dir.display().to_string(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> SledStore {
        SledStore::open(dir, 16 << 20).expect("opens")
    }

    fn mark(position: i64) -> Mark {
        Mark { changelog_id: "id".into(), group: "billing".into(), position, written_at: 1 }
    }

    fn change(key: &'static str, value: Option<&'static str>) -> Change<'static> {
        (key.as_bytes(), value.map(str::as_bytes))
    }

    #[test]
    fn rows_and_mark_survive_a_restart_and_partitions_do_not_mix() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(dir.path());
        store.write(0, &[change("\x02a", Some("1")), change("\x02b", Some("2"))]).expect("writes");
        store.write(0, &[change("\x02a", None)]).expect("writes");
        store.write(1, &[change("\x02a", Some("other"))]).expect("writes");
        store.checkpoint(0, &mark(42)).expect("checkpoints");
        drop(store);
        let store = open(dir.path());
        assert_eq!(store.get(0, b"\x02a").expect("reads"), None);
        assert_eq!(store.get(0, b"\x02b").expect("reads"), Some(Bytes::from_static(b"2")));
        assert_eq!(store.mark(0).expect("reads"), Some(mark(42)));
        assert_eq!(store.mark(1).expect("reads"), None);
        let rows = store.scan(0, None, 10).expect("scans");
        assert_eq!(rows, [(Bytes::from_static(b"\x02b"), Bytes::from_static(b"2"))], "the mark is not a row");
        assert!(store.scan(0, Some(b"\x02b"), 10).expect("scans").is_empty());
        store.clear(0).expect("clears");
        assert_eq!(store.mark(0).expect("reads"), None);
    }

    #[test]
    fn a_damaged_directory_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(dir.path());
        for n in 0..500u32 {
            let key = n.to_be_bytes();
            store.write(0, &[(&key, Some(&key))]).expect("writes");
        }
        store.checkpoint(0, &mark(500)).expect("checkpoints");
        drop(store);
        for entry in std::fs::read_dir(dir.path()).expect("lists") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let length = std::fs::metadata(&path).expect("a file").len() as usize;
                std::fs::write(&path, vec![0xA5; length]).expect("damages");
            }
        }
        let store = open(dir.path());
        assert_eq!(store.mark(0).expect("reads"), None, "what was damaged is not believed");
        store.write(0, &[change("\x02a", Some("1"))]).expect("and the new one works");
    }

    #[test]
    fn a_directory_in_use_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let _held = open(dir.path());
        let error = SledStore::open(dir.path(), 16 << 20).err().expect("in use");
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("its own [store] dir"), "{error}");
    }
}
