//! The store in fjall 3. One keyspace a partition.
//!
//! Every write is an ingestion: its rows, sorted, and the mark become tables of their own that appear
//! together, durable, or not at all. fjall's journal and its memtables stay empty: rows that are not
//! yet written lie in the view's own buffer, whose bound is a setting. What is read goes through the
//! cache, indexes and filters as well, so that the cache's size is the bound.

use std::collections::HashMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Mutex;

use ::fjall::config::{BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PinningPolicy};
use ::fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use bytes::Bytes;

use super::guard::{Cause, Guard};
use super::{Change, MARK_KEY, Mark, Store, StoreError, StoredRow, partition_name};

/// Threads that merge tables.
const WORKERS: usize = 1;
/// Files kept open; fjall's own choice of 900 is close to the limit that many systems set.
const OPEN_FILES: usize = 128;
/// Rows that are removed in one step while a partition is cleared.
const CLEARED_AT_ONCE: usize = 10_000;
/// A filter of this size answers "not here" for 99 of 100 keys that a table does not hold.
const FILTER_BITS_PER_KEY: f32 = 10.0;

/// See the module's documentation.
pub struct FjallStore {
    db: Database,
    /// Those that were opened.
    keyspaces: Mutex<HashMap<i32, Keyspace>>,
    guard: Guard,
}

impl FjallStore {
    /// Opens or creates the database in `dir`, with a cache of at most `cache_bytes`.
    ///
    /// # Errors
    /// When it is damaged, or cannot be read or written.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let guard = Guard::new(dir);
        let db = guard.call("opening the local view", || {
            Database::builder(dir)
                .cache_size(cache_bytes)
                .worker_threads(WORKERS)
                .max_cached_files(Some(OPEN_FILES))
                .open()
        })?;
        Ok(FjallStore { db, keyspaces: Mutex::default(), guard })
    }

    /// The keyspace of a partition; `None` if nothing of it was ever written.
    fn stored(&self, partition: i32) -> ::fjall::Result<Option<Keyspace>> {
        let mut keyspaces = self.keyspaces.lock().expect("no holder panics");
        if let Some(keyspace) = keyspaces.get(&partition) {
            return Ok(Some(keyspace.clone()));
        }
        if !self.db.keyspace_exists(&partition_name(partition)) {
            return Ok(None);
        }
        let keyspace = self.db.keyspace(&partition_name(partition), options)?;
        keyspaces.insert(partition, keyspace.clone());
        Ok(Some(keyspace))
    }

    fn read(&self, partition: i32, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.guard.call("reading the local view", || {
            let Some(keyspace) = self.stored(partition)? else { return Ok(None) };
            // Copied: the value shares its memory with the block that it was read from.
            Ok::<_, ::fjall::Error>(keyspace.get(key)?.map(|value| Bytes::copy_from_slice(&value)))
        })
    }
}

impl Store for FjallStore {
    fn get(&self, partition: i32, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read(partition, key)
    }

    fn scan(&self, partition: i32, after: Option<&[u8]>, limit: usize) -> Result<Vec<StoredRow>, StoreError> {
        self.guard.call("reading the local view", || {
            let Some(keyspace) = self.stored(partition)? else { return Ok(Vec::new()) };
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            keyspace
                .range::<&[u8], _>((from, Bound::Excluded(MARK_KEY)))
                .take(limit)
                .map(|row| {
                    let (key, value) = row.into_inner()?;
                    Ok::<_, ::fjall::Error>((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
                })
                .collect()
        })
    }

    fn write(&self, partition: i32, changes: &[Change<'_>], mark: &Mark) -> Result<(), StoreError> {
        self.guard.call("writing the local view", || {
            // Merging that failed poisons the database, of which an ingestion would not hear.
            self.db.persist(PersistMode::Buffer)?;
            let keyspace = match self.stored(partition)? {
                Some(keyspace) => keyspace,
                None => self.db.keyspace(&partition_name(partition), options)?,
            };
            let mut tables = keyspace.start_ingestion()?;
            for (key, value) in changes {
                match value {
                    Some(value) => tables.write(*key, *value)?,
                    None => tables.write_tombstone(*key)?,
                }
            }
            tables.write(MARK_KEY, mark.encode())?;
            tables.finish()
        })
    }

    fn mark(&self, partition: i32) -> Result<Option<Mark>, StoreError> {
        Ok(self.read(partition, MARK_KEY)?.map(|bytes| Mark::decode(&bytes)))
    }

    fn clear(&self, partition: i32) -> Result<(), StoreError> {
        self.guard.call("clearing the local view", || {
            let Some(keyspace) = self.stored(partition)? else { return Ok(()) };
            // Row by row, and neither `Keyspace::clear` nor `delete_keyspace`: the next start but one would
            // take what was written since for cleared or deleted as well. The mark goes first, so that
            // what is cleared in part is not believed.
            remove(&keyspace, &[MARK_KEY.into()])?;
            let mut from: Bound<Box<[u8]>> = Bound::Unbounded;
            loop {
                let rows = keyspace
                    .range::<&[u8], _>((from.as_ref().map(|key| &key[..]), Bound::Excluded(MARK_KEY)));
                let keys = rows.take(CLEARED_AT_ONCE).map(|row| row.key().map(|key| Box::from(&key[..])));
                let keys = keys.collect::<::fjall::Result<Vec<Box<[u8]>>>>()?;
                let Some(last) = keys.last() else { return Ok::<_, ::fjall::Error>(()) };
                from = Bound::Excluded(last.clone());
                remove(&keyspace, &keys)?;
            }
        })
    }
}

/// Removes rows whose keys are given in order.
fn remove(keyspace: &Keyspace, keys: &[Box<[u8]>]) -> ::fjall::Result<()> {
    let mut tables = keyspace.start_ingestion()?;
    for key in keys {
        tables.write_tombstone(&key[..])?;
    }
    tables.finish()
}

fn options() -> KeyspaceCreateOptions {
    let filter = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(FILTER_BITS_PER_KEY));
    KeyspaceCreateOptions::default()
        .filter_policy(FilterPolicy::all(filter))
        .filter_block_pinning_policy(PinningPolicy::all(false))
        .index_block_pinning_policy(PinningPolicy::all(false))
}

impl From<::fjall::Error> for Cause {
    fn from(error: ::fjall::Error) -> Self {
        match error {
            ::fjall::Error::Io(error) => Cause::Io(error),
            ::fjall::Error::Storage(::fjall::LsmError::Io(error)) => Cause::Io(error),
            ::fjall::Error::Locked => Cause::Locked,
            // Poisoned as well: why merging failed cannot be asked. Where the disk was full, rebuilding ends
            // with that.
            other => Cause::Damage(other.to_string()),
        }
    }
}
