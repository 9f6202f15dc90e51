//! The local view as the handler sees it: committed rows gather in memory and go to the store
//! coalesced over many epochs, by a thread of its own. Reads look in the gathering buffer, then in
//! the batch that is being written, then in the store.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pawl_actors::clock;
use pawl_actors::ledger::PARTITION_KEY;
use pawl_actors::pipeline::{LedgerView, ViewError};
use pawl_actors::record::Partition;

use super::buffer::PartitionBuffer;
use super::page::{self, Page};
use super::{Change, Mark, Store, StoreError};

/// Rows written to the store in one step: larger batches keep it busy for seconds.
const CHUNK: usize = 1_000;

/// See the module's documentation.
pub struct LocalView {
    store: Box<dyn Store>,
    state: Mutex<State>,
    changed: Condvar,
    max_bytes: usize,
    interval: Duration,
    group: String,
    changelog_id: String,
}

#[derive(Default)]
struct State {
    gathering: HashMap<i32, PartitionBuffer>,
    writing: Arc<HashMap<i32, PartitionBuffer>>,
    /// Partitions of which the store has no row: those are not looked for.
    unstored: HashSet<i32>,
    failed: Option<StoreError>,
    closing: bool,
}

impl State {
    fn bytes(&self) -> usize {
        self.gathering.values().map(PartitionBuffer::bytes).sum()
    }
}

impl LocalView {
    /// A view over `store` that gathers at most `max_bytes` and writes back every `interval`.
    /// Returns the view and its writing thread, which ends after [`LocalView::close`].
    pub fn start(
        store: Box<dyn Store>,
        max_bytes: usize,
        interval: Duration,
        group: String,
        changelog_id: String,
    ) -> std::io::Result<(Arc<Self>, JoinHandle<()>)> {
        let view = Arc::new(LocalView {
            store,
            state: Mutex::default(),
            changed: Condvar::new(),
            max_bytes,
            interval,
            group,
            changelog_id,
        });
        let thread = std::thread::Builder::new().name("pawl-store".into()).spawn({
            let view = view.clone();
            move || view.write_back()
        })?;
        Ok((view, thread))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Adds rows that are committed; `next` is the changelog position after them. Waits while the
    /// buffer is full.
    ///
    /// # Errors
    /// When the store failed: what gathers would never be written.
    pub fn push<'a>(
        &self,
        partition: i32,
        changes: impl IntoIterator<Item = Change<'a>>,
        next: i64,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        while state.bytes() > self.max_bytes && state.failed.is_none() {
            self.changed.notify_all();
            state = self.changed.wait(state).expect("no holder of this lock panics");
        }
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        state.gathering.entry(partition).or_default().push(changes, next);
        if state.bytes() > self.max_bytes / 2 {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// The row of a key, as of the last push.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn row(&self, partition: i32, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        {
            let state = self.lock();
            let buffers = [state.gathering.get(&partition), state.writing.get(&partition)];
            if let Some(found) = buffers.into_iter().flatten().find_map(|buffer| buffer.get(key)) {
                return Ok(found);
            }
            if state.unstored.contains(&partition) {
                return Ok(None);
            }
        }
        self.store.get(partition, key)
    }

    /// Rows whose keys are greater than `after`, in key order and as of the last push: at most `limit`
    /// of them, and where to go on. For people who look: while the rows in memory are gone through
    /// (once, whatever the limit), pushes wait.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn page(&self, partition: i32, after: &[u8], limit: usize) -> Result<Page, StoreError> {
        let buffered = {
            let state = self.lock();
            // In this order: what gathers is newer than what is being written.
            let buffers = [state.writing.get(&partition), state.gathering.get(&partition)];
            page::smallest(buffers.into_iter().flatten().flat_map(PartitionBuffer::rows), after, limit)
        };
        let stored = self.store.scan(partition, Some(after), limit)?;
        Ok(page::merge(buffered, stored, limit))
    }

    /// Where reading the changelog can go on; `None` if the view must be built from the beginning.
    /// `max_age`: an older view may have missed tombstones that compaction has removed since.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn position(&self, partition: i32, max_age: Duration) -> Result<Option<i64>, StoreError> {
        {
            let state = self.lock();
            if let Some(buffer) = state.gathering.get(&partition).or_else(|| state.writing.get(&partition)) {
                return Ok(Some(buffer.next()));
            }
        }
        let Some(mark) = self.store.mark(partition)? else { return Ok(None) };
        let age = clock::now().0.saturating_sub(mark.written_at);
        let why = if mark.group != self.group {
            format!("it is of group {}", mark.group)
        } else if mark.changelog_id != self.changelog_id {
            format!("it is of changelog id {}, the topic has {}", mark.changelog_id, self.changelog_id)
        } else if !(0..=max_age.as_millis() as i64).contains(&age) {
            format!("it is {} s old", age / 1000)
        } else {
            return Ok(Some(mark.position));
        };
        tracing::warn!(partition, "the local view is not believed: {why}; it is rebuilt from the changelog");
        Ok(None)
    }

    /// Removes all that is known of a partition, before it is built anew.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn clear(&self, partition: i32) -> Result<(), StoreError> {
        let mut state = self.lock();
        while state.writing.contains_key(&partition) && state.failed.is_none() {
            state = self.changed.wait(state).expect("no holder of this lock panics");
        }
        state.gathering.remove(&partition);
        drop(state);
        self.store.clear(partition)?;
        self.lock().unstored.insert(partition);
        Ok(())
    }

    /// Writes what has gathered and ends the writing thread.
    pub fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    fn write_back(&self) {
        let mut last = Instant::now();
        loop {
            let (batch, closing) = {
                let mut state = self.lock();
                while !state.closing
                    && state.bytes() <= self.max_bytes / 2
                    && (last.elapsed() < self.interval || state.gathering.is_empty())
                {
                    let wait = self.interval.saturating_sub(last.elapsed()).max(Duration::from_millis(10));
                    state = self.changed.wait_timeout(state, wait).expect("no holder panics").0;
                }
                let batch = std::mem::take(&mut state.gathering);
                state.unstored.retain(|partition| !batch.contains_key(partition));
                state.writing = Arc::new(batch);
                (state.writing.clone(), state.closing)
            };
            self.changed.notify_all();
            last = Instant::now();
            let written = self.write_batch(&batch);
            let mut state = self.lock();
            let failed = written.is_err();
            if let Err(error) = written {
                tracing::error!(%error, "the local view cannot be written");
                state.failed = Some(error);
            } else {
                state.writing = Arc::default();
            }
            self.changed.notify_all();
            if closing || failed {
                return;
            }
        }
    }

    fn write_batch(&self, batch: &HashMap<i32, PartitionBuffer>) -> Result<(), StoreError> {
        for (&partition, buffer) in batch {
            let mut chunk = Vec::with_capacity(CHUNK);
            for row in buffer.rows() {
                chunk.push(row);
                if chunk.len() == CHUNK {
                    self.store.write(partition, &chunk)?;
                    chunk.clear();
                }
            }
            self.store.write(partition, &chunk)?;
            let mark = Mark {
                changelog_id: self.changelog_id.clone(),
                group: self.group.clone(),
                position: buffer.next(),
                written_at: clock::now().0,
            };
            self.store.checkpoint(partition, &mark)?;
        }
        Ok(())
    }
}

/// The view as the actors read it.
pub struct SharedView(pub Arc<LocalView>);

impl LedgerView for SharedView {
    fn get(&self, partition: Partition, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.0.row(partition.0, key).map_err(|error| ViewError(error.to_string()))
    }

    fn scan(
        &self,
        partition: Partition,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        // Heads come after the partition row, the head of the empty key first.
        let from = after.unwrap_or(PARTITION_KEY);
        self.0.store.scan(partition.0, Some(from), limit).map_err(|error| ViewError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::SledStore;
    use super::*;

    fn start(
        dir: &std::path::Path,
        max_bytes: usize,
        changelog_id: &str,
    ) -> (Arc<LocalView>, JoinHandle<()>) {
        let store = SledStore::open(dir, 16 << 20).expect("opens");
        let hour = Duration::from_secs(3600);
        LocalView::start(Box::new(store), max_bytes, hour, "billing".into(), changelog_id.into())
            .expect("starts")
    }

    fn change(key: &'static str, value: Option<&'static str>) -> Change<'static> {
        (key.as_bytes(), value.map(str::as_bytes))
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn what_was_pushed_is_read_from_buffer_and_disk_alike() {
        let dir = tempfile::tempdir().expect("a directory");
        let (view, thread) = start(dir.path(), 1 << 20, "id");
        assert_eq!(view.position(0, DAY), Ok(None), "an empty view knows nothing");
        view.push(0, [change("\x02a", Some("1")), change("\x02b", Some("2"))], 10).expect("pushes");
        assert_eq!(view.row(0, b"\x02a"), Ok(Some(Bytes::from_static(b"1"))));
        assert_eq!(view.position(0, DAY), Ok(Some(10)));
        view.push(0, [change("\x02a", None)], 11).expect("pushes");
        assert_eq!(view.row(0, b"\x02a"), Ok(None), "a removal hides what is stored");
        view.close();
        thread.join().expect("ends");
        drop(view);

        let (view, thread) = start(dir.path(), 1 << 20, "id");
        assert_eq!(view.position(0, DAY), Ok(Some(11)));
        assert_eq!(view.row(0, b"\x02a"), Ok(None));
        assert_eq!(view.row(0, b"\x02b"), Ok(Some(Bytes::from_static(b"2"))));
        view.close();
        thread.join().expect("ends");
    }

    #[test]
    fn a_page_shows_what_is_stored_as_what_gathers_has_changed_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (view, thread) = start(dir.path(), 1 << 20, "id");
        view.push(
            0,
            [change("\x02a", Some("1")), change("\x02b", Some("2")), change("\x02c", Some("3"))],
            10,
        )
        .expect("pushes");
        view.close();
        thread.join().expect("ends");
        view.push(0, [change("\x02b", None), change("\x02c", Some("4")), change("\x02d", Some("5"))], 11)
            .expect("pushes");
        let mut shown = Vec::new();
        let mut after = Some(Bytes::from_static(PARTITION_KEY));
        while let Some(from) = after {
            let page = view.page(0, &from, 2).expect("reads");
            assert!(page.rows.len() <= 2);
            shown.extend(page.rows.iter().map(|(key, value)| format!("{key:?} {value:?}")));
            after = page.next;
        }
        assert_eq!(shown, [r#"b"\x02a" b"1""#, r#"b"\x02c" b"4""#, r#"b"\x02d" b"5""#]);
    }

    #[test]
    fn a_view_of_another_changelog_or_too_old_is_not_believed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (view, thread) = start(dir.path(), 1 << 20, "id");
        view.push(0, [change("\x02a", Some("1"))], 10).expect("pushes");
        view.close();
        thread.join().expect("ends");
        drop(view);
        let (view, thread) = start(dir.path(), 1 << 20, "another id");
        assert_eq!(view.position(0, DAY), Ok(None));
        view.clear(0).expect("clears");
        assert_eq!(view.row(0, b"\x02a"), Ok(None));
        view.close();
        thread.join().expect("ends");
    }

    #[test]
    fn a_full_buffer_waits_for_the_store_and_loses_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let (view, thread) = start(dir.path(), 10_000, "id");
        for n in 0..2_000u32 {
            let key = n.to_be_bytes();
            view.push(0, [(&key[..], Some(&key[..]))], i64::from(n) + 1).expect("pushes");
            assert!(view.lock().bytes() < 20_000, "the buffer stays bounded");
        }
        for n in 0..2_000u32 {
            assert!(view.row(0, &n.to_be_bytes()).expect("reads").is_some(), "row {n}");
        }
        view.close();
        thread.join().expect("ends");
    }

    /// Fails every write, as a full disk does.
    struct FullDisk;

    impl Store for FullDisk {
        fn get(&self, _: i32, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
            Ok(None)
        }
        fn scan(&self, _: i32, _: Option<&[u8]>, _: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
            Ok(Vec::new())
        }
        fn write(&self, _: i32, _: &[Change<'_>]) -> Result<(), StoreError> {
            Err(StoreError::Failed {
                what: "writing",
                dir: "d".into(),
                why: "no space left on device".into(),
            })
        }
        fn checkpoint(&self, _: i32, _: &Mark) -> Result<(), StoreError> {
            self.write(0, &[])
        }
        fn mark(&self, _: i32) -> Result<Option<Mark>, StoreError> {
            Ok(None)
        }
        fn clear(&self, _: i32) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_told_to_whoever_pushes_and_the_rows_stay_readable() {
        let (view, thread) =
            LocalView::start(Box::new(FullDisk), 100, DAY, "billing".into(), "id".into()).expect("starts");
        view.push(0, [change("\x02a", Some("1"))], 1).expect("the buffer takes it");
        thread.join().expect("the writing thread ends when the store fails");
        let error = view.push(0, [change("\x02b", Some("2"))], 2).expect_err("the store failed");
        assert!(error.to_string().contains("no space left on device"), "{error}");
        assert_eq!(view.row(0, b"\x02a"), Ok(Some(Bytes::from_static(b"1"))));
    }
}
