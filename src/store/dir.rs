//! The directory of a handler's local view: held by one process, with one engine's files in it.
//!
//! ```text
//! <store.dir>/<handler>/lock        locked while a process uses the directory
//! <store.dir>/<handler>/sled.0/     or fjall.0/: the engine's own files
//! <store.dir>/<handler>/removed/    on its way out
//! ```
//!
//! Files of another engine are removed: the view is read from the changelog anew. So is a view that
//! is damaged, at the start or while running. It gets the next number then: an engine that was given up
//! may still be merging its files, and must not do so in those of its successor.

use std::fs::{File, TryLockError};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::fjall::FjallStore;
use super::guard::Guard;
use super::sled::SledStore;
use super::{Store, StoreError};
use crate::settings::Engine;

/// How long an engine that was closed may keep its files locked: its threads end after it.
const CLOSING: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Where a view lies and what it is kept in.
#[derive(Clone, Debug)]
pub struct ViewDirParts {
    /// The directory, created if it is missing.
    pub dir: PathBuf,
    /// What keeps the rows.
    pub engine: Engine,
    /// Memory for the engine's cache, in bytes.
    pub cache_bytes: u64,
}

/// A directory that this process holds, until this is dropped.
pub struct ViewDir {
    parts: ViewDirParts,
    guard: Guard,
    /// Number of the view that is used.
    number: AtomicU32,
    /// Locked by the kernel for as long as it is open.
    _lock: File,
}

impl ViewDir {
    /// Takes the directory for this process and removes what another engine left in it.
    ///
    /// # Errors
    /// When another process holds the directory, or it cannot be written.
    pub fn hold(parts: ViewDirParts) -> Result<ViewDir, StoreError> {
        let guard = Guard::new(&parts.dir);
        let failed = |error: &io::Error| guard.failed("creating the directory of the local view", error);
        std::fs::create_dir_all(&parts.dir).map_err(|error| failed(&error))?;
        let lock = File::options().create(true).append(true).open(parts.dir.join("lock"));
        let lock = lock.map_err(|error| failed(&error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { dir: parts.dir.display().to_string() });
            }
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
        let held = ViewDir { parts, guard, number: AtomicU32::new(0), _lock: lock };
        held.keep_the_last()?;
        Ok(held)
    }

    /// Of the views that lie here, the last one of the engine stays.
    fn keep_the_last(&self) -> Result<(), StoreError> {
        let found = self.views().map_err(|error| self.guard.failed("reading the directory", &error))?;
        let own = found.iter().filter(|(engine, _)| *engine == self.parts.engine);
        let last = own.map(|(_, number)| *number).max().unwrap_or(0);
        self.number.store(last, Ordering::Relaxed);
        for (engine, number) in found {
            if engine != self.parts.engine {
                tracing::warn!(
                    dir = %self.parts.dir.display(),
                    "the local view is kept in {}, the settings say {}; it is rebuilt from the changelog",
                    engine.name(), self.parts.engine.name()
                );
            }
            if (engine, number) != (self.parts.engine, last) {
                self.remove(engine, number)?;
            }
        }
        Ok(())
    }

    /// What lies here, by the names of the directories.
    fn views(&self) -> io::Result<Vec<(Engine, u32)>> {
        let mut views = Vec::new();
        for entry in std::fs::read_dir(&self.parts.dir)? {
            let name = entry?.file_name();
            let parts = name.to_str().and_then(|name| name.split_once('.'));
            let Some((engine, number)) = parts else { continue };
            let engine = Engine::ALL.into_iter().find(|known| known.name() == engine);
            views.extend(engine.zip(number.parse().ok()));
        }
        Ok(views)
    }

    /// Opens or creates what the engine keeps. A damaged view is removed and made anew; the log says
    /// so.
    ///
    /// # Errors
    /// When the disk cannot be read or written.
    pub fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        match self.open_engine() {
            Err(error @ StoreError::Damaged { .. }) => {
                self.discard(&error)?;
                self.open_engine()
            }
            other => other,
        }
    }

    /// Removes a view that was found to be damaged, before anybody can take it for a good one again; the
    /// log says so. The next [`ViewDir::open`] begins an empty one.
    ///
    /// # Errors
    /// When the files cannot be removed.
    pub fn discard(&self, damage: &StoreError) -> Result<(), StoreError> {
        tracing::warn!(
            dir = %self.parts.dir.display(), error = %damage,
            "the local view is damaged; it is rebuilt from the changelog"
        );
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.remove(self.parts.engine, number)
    }

    /// Out of the way first: an engine that has it open must not find it while it is being removed.
    fn remove(&self, engine: Engine, number: u32) -> Result<(), StoreError> {
        let removed = self.parts.dir.join("removed");
        let missing_is_fine = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.guard.failed("removing the old view", &error))
            }
            _ => Ok(()),
        };
        missing_is_fine(std::fs::remove_dir_all(&removed))?;
        missing_is_fine(std::fs::rename(self.path(engine, number), &removed))?;
        missing_is_fine(std::fs::remove_dir_all(&removed))
    }

    fn path(&self, engine: Engine, number: u32) -> PathBuf {
        self.parts.dir.join(format!("{}.{number}", engine.name()))
    }

    /// The directory is ours, but what was open in this process before may still be on its way out.
    fn open_engine(&self) -> Result<Box<dyn Store>, StoreError> {
        let asked = Instant::now();
        loop {
            match self.try_open() {
                Err(StoreError::InUse { .. }) if asked.elapsed() < CLOSING => std::thread::sleep(ASK_EVERY),
                other => return other,
            }
        }
    }

    fn try_open(&self) -> Result<Box<dyn Store>, StoreError> {
        let ViewDirParts { engine, cache_bytes, .. } = self.parts;
        let dir = self.path(engine, self.number.load(Ordering::Relaxed));
        Ok(match engine {
            Engine::Sled => Box::new(SledStore::open(&dir, cache_bytes)?),
            Engine::Fjall => Box::new(FjallStore::open(&dir, cache_bytes)?),
        })
    }
}
