//! The local view as the handler sees it: committed rows gather in memory and go to the store
//! coalesced over many epochs, by a thread of its own. Reads look in the gathering buffer, then in
//! the batch that is being written, then in the store.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pawl_actors::clock;
use pawl_actors::ledger::{BEFORE_PARKED, PARTITION_KEY, parked_at};
use pawl_actors::pipeline::{LedgerView, ViewError};
use pawl_actors::record::Partition;

use super::buffer::PartitionBuffer;
use super::dir::ViewDir;
use super::page::{self, Page};
use super::{Change, FORMAT, Mark, Store, StoreError, StoredRow};

/// Between two looks at a clock that is about to be due.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

/// Parked rows that are looked for at a time.
const PARKED_PAGE: usize = 10_000;

/// Where a view lies, whose it is, and how much it gathers.
pub struct ViewParts {
    /// The directory that it lies in.
    pub dir: Arc<ViewDir>,
    /// Bytes of rows in memory: half gather while the other half is written.
    pub max_bytes: usize,
    /// How often they are written.
    pub interval: Duration,
    /// The consumer group whose ledger this is.
    pub group: String,
    /// Id of the changelog topic.
    pub changelog_id: String,
}

/// See the module's documentation.
pub struct LocalView {
    store: Box<dyn Store>,
    state: Mutex<State>,
    changed: Condvar,
    parts: ViewParts,
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
    /// Bytes that are gathered, and those that are kept until they are written.
    fn bytes(&self) -> usize {
        self.gathered() + self.writing.values().map(PartitionBuffer::bytes).sum::<usize>()
    }

    fn gathered(&self) -> usize {
        self.gathering.values().map(PartitionBuffer::bytes).sum()
    }

    /// The error of a view that was given up. A full disk is no such thing: what is stored is still true.
    fn damage(&self) -> Result<(), StoreError> {
        match &self.failed {
            Some(error @ StoreError::Damaged { .. }) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Whether there is nothing to write yet.
    fn must_wait(&self, parts: &ViewParts, last: Instant) -> bool {
        self.failed.is_none()
            && !self.closing
            && self.gathered() <= parts.max_bytes / 2
            && (last.elapsed() < parts.interval || self.gathering.is_empty())
    }
}

impl LocalView {
    /// A view over what `parts.dir` opened. Returns it and its writing thread, which ends after
    /// [`LocalView::close`].
    ///
    /// # Errors
    /// When the system lets no thread begin.
    pub fn start(store: Box<dyn Store>, parts: ViewParts) -> std::io::Result<(Arc<Self>, JoinHandle<()>)> {
        let view = Arc::new(LocalView { store, state: Mutex::default(), changed: Condvar::new(), parts });
        let thread = std::thread::Builder::new().name("pawl-store".into()).spawn({
            let view = view.clone();
            move || view.write_back()
        })?;
        Ok((view, thread))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Whether the stored view was found to be damaged. It is gone then, and nothing can be read or added
    /// until it is opened anew.
    pub fn is_damaged(&self) -> bool {
        self.lock().damage().is_err()
    }

    /// What a call to the store answered. Damage ends this view's use: what is stored is removed at once,
    /// and whoever reads or adds from now on hears of it.
    fn judge<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Damaged { .. }) = &answer {
            let mut state = self.lock();
            if state.damage().is_ok() {
                state.failed = Some(error.clone());
                if let Err(left) = self.parts.dir.discard(error) {
                    // It has been given up all the same: what comes next gets another number.
                    tracing::warn!(error = %left, "the damaged view cannot be removed");
                }
            }
            self.changed.notify_all();
        }
        answer
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
        while state.bytes() > self.parts.max_bytes && state.failed.is_none() {
            self.changed.notify_all();
            state = self.changed.wait(state).expect("no holder of this lock panics");
        }
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        state.gathering.entry(partition).or_default().push(changes, next);
        if state.gathered() > self.parts.max_bytes / 2 {
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
            state.damage()?;
            let buffers = [state.gathering.get(&partition), state.writing.get(&partition)];
            if let Some(found) = buffers.into_iter().flatten().find_map(|buffer| buffer.get(key)) {
                return Ok(found);
            }
            if state.unstored.contains(&partition) {
                return Ok(None);
            }
        }
        self.judge(self.store.get(partition, key))
    }

    /// Up to `limit` stored rows after `after`, in key order. Newer ones may be in memory.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn scan(&self, partition: i32, after: &[u8], limit: usize) -> Result<Vec<StoredRow>, StoreError> {
        self.lock().damage()?;
        self.judge(self.store.scan(partition, Some(after), limit))
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
            state.damage()?;
            // In this order: what gathers is newer than what is being written.
            let buffers = [state.writing.get(&partition), state.gathering.get(&partition)];
            page::smallest(buffers.into_iter().flatten().flat_map(PartitionBuffer::rows), after, limit)
        };
        let stored = self.judge(self.store.scan(partition, Some(after), limit))?;
        Ok(page::merge(buffered, stored, limit))
    }

    /// All parked rows, in key order and as of the last push: as many as the settings let a partition park.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn parked_rows(&self, partition: i32) -> Result<Vec<StoredRow>, StoreError> {
        let (mut rows, mut after) = (Vec::new(), Some(Bytes::from_static(BEFORE_PARKED)));
        while let Some(from) = after {
            let page = self.page(partition, &from, PARKED_PAGE)?;
            // Behind them lie rows of other kinds.
            let end = page.rows.iter().position(|(key, _)| parked_at(key).is_none());
            after = page.next.filter(|_| end.is_none());
            rows.extend(page.rows.into_iter().take(end.unwrap_or(usize::MAX)));
        }
        Ok(rows)
    }

    /// Where reading the changelog can go on; `None` if the view must be built from the beginning.
    /// `max_age`: an older view may have missed tombstones that compaction has removed since.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn position(&self, partition: i32, max_age: Duration) -> Result<Option<i64>, StoreError> {
        {
            let state = self.lock();
            state.damage()?;
            if let Some(buffer) = state.gathering.get(&partition).or_else(|| state.writing.get(&partition)) {
                return Ok(Some(buffer.next()));
            }
        }
        let Some(mark) = self.judge(self.store.mark(partition))? else { return Ok(None) };
        let Some(why) = self.distrust(&mark, max_age) else { return Ok(Some(mark.position)) };
        tracing::warn!(partition, "the local view is not believed: {why}; it is rebuilt from the changelog");
        Ok(None)
    }

    /// Why what a mark stands for is not to be used.
    fn distrust(&self, mark: &Mark, max_age: Duration) -> Option<String> {
        let ViewParts { group, changelog_id, .. } = &self.parts;
        let age = clock::now().0.saturating_sub(mark.written_at);
        if mark.format != FORMAT {
            Some(format!("it has format {}, this Pawl reads {FORMAT}", mark.format))
        } else if mark.group != *group {
            Some(format!("it is of group {}", mark.group))
        } else if mark.changelog_id != *changelog_id {
            Some(format!("it is of changelog id {}, the topic has {changelog_id}", mark.changelog_id))
        } else if !(0..=max_age.as_millis() as i64).contains(&age) {
            Some(format!("it is {} s old", age / 1000))
        } else {
            None
        }
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
        state.damage()?;
        state.gathering.remove(&partition);
        drop(state);
        self.judge(self.store.clear(partition))?;
        self.lock().unstored.insert(partition);
        Ok(())
    }

    /// Whether what gathers will be written.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn writable(&self) -> Result<(), StoreError> {
        self.lock().failed.clone().map_or(Ok(()), Err)
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
                while state.must_wait(&self.parts, last) {
                    let wait = self.parts.interval.saturating_sub(last.elapsed()).max(SHORTEST_WAIT);
                    state = self.changed.wait_timeout(state, wait).expect("no holder panics").0;
                }
                if state.failed.is_some() {
                    return;
                }
                let batch = std::mem::take(&mut state.gathering);
                state.unstored.retain(|partition| !batch.contains_key(partition));
                state.writing = Arc::new(batch);
                (state.writing.clone(), state.closing)
            };
            self.changed.notify_all();
            last = Instant::now();
            let written = self.judge(self.write_batch(&batch));
            drop(batch);
            let mut state = self.lock();
            match written {
                Ok(()) => state.writing = Arc::default(),
                Err(error) => {
                    tracing::error!(%error, "the local view cannot be written");
                    state.failed.get_or_insert(error);
                }
            }
            self.changed.notify_all();
            if closing || state.failed.is_some() {
                return;
            }
        }
    }

    fn write_batch(&self, batch: &HashMap<i32, PartitionBuffer>) -> Result<(), StoreError> {
        for (&partition, buffer) in batch {
            let mark = Mark {
                format: FORMAT,
                changelog_id: self.parts.changelog_id.clone(),
                group: self.parts.group.clone(),
                position: buffer.next(),
                written_at: clock::now().0,
            };
            self.store.write(partition, &buffer.sorted(), &mark)?;
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
        // Asked each second, so a store that failed in the background is noticed although nobody writes.
        self.0.writable().map_err(|error| ViewError(error.to_string()))?;
        // Heads come after the partition row, the head of the empty key first.
        let from = after.unwrap_or(PARTITION_KEY);
        self.0.scan(partition.0, from, limit).map_err(|error| ViewError(error.to_string()))
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
