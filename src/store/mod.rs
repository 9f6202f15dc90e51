//! The local view of the ledger: a checkpoint of the changelog on this machine's disk. It may be
//! lost, stale or damaged at any time; the changelog is the truth.

mod buffer;
mod page;
mod sled;
mod view;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::sled::SledStore;
pub use page::Page;
pub use view::{LocalView, SharedView};

/// What a store holds of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Id of the changelog topic that was read.
    pub changelog_id: String,
    /// Consumer group whose ledger this is.
    pub group: String,
    /// Every committed row below this changelog offset is in the store.
    pub position: i64,
    /// When this was written, in milliseconds since the epoch: an old view may have missed
    /// tombstones that compaction has removed since.
    pub written_at: i64,
}

/// A changed row: key, and the value or its removal.
pub type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// Key-value storage for the rows of several partitions.
pub trait Store: Send + Sync {
    /// The stored row of a key.
    ///
    /// # Errors
    /// When the storage cannot be read or is damaged.
    fn get(&self, partition: i32, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Up to `limit` rows whose keys are greater than `after` (or from the first), in key order.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn scan(
        &self,
        partition: i32,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// Writes changes in one step.
    ///
    /// # Errors
    /// When the storage cannot be written, a full disk among the reasons.
    fn write(&self, partition: i32, changes: &[Change<'_>]) -> Result<(), StoreError>;

    /// Notes how far the partition is stored, and makes all that was written durable.
    ///
    /// # Errors
    /// As [`Store::write`].
    fn checkpoint(&self, partition: i32, mark: &Mark) -> Result<(), StoreError>;

    /// How far the partition is stored; `None` if it is not.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn mark(&self, partition: i32) -> Result<Option<Mark>, StoreError>;

    /// Removes all that is stored of a partition.
    ///
    /// # Errors
    /// As [`Store::write`].
    fn clear(&self, partition: i32) -> Result<(), StoreError>;
}

/// Why the local view cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The directory is used by another process.
    #[error("{dir} is in use by another process: give every instance on a machine its own [store] dir")]
    InUse {
        /// The directory.
        dir: String,
    },
    /// Reading or writing failed.
    #[error(
        "{what} in {dir}: {why}. Nothing is lost, the changelog has it all: free the disk or remove the directory, \
         then start again"
    )]
    Failed {
        /// What was attempted.
        what: &'static str,
        /// Where.
        dir: String,
        /// What the storage said.
        why: String,
    },
}
