//! The local view of the ledger: a checkpoint of the changelog on this machine's disk. It may be
//! lost, stale or damaged at any time; the changelog is the truth.

mod buffer;
mod dir;
mod fjall;
mod guard;
mod page;
mod sled;
#[cfg(test)]
pub mod tests;
mod view;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use dir::{ViewDir, ViewDirParts};
pub use page::Page;
pub use view::{LocalView, SharedView, ViewParts};

/// What the rows of a partition are kept under.
fn partition_name(partition: i32) -> String {
    format!("p{partition}")
}

/// Format of what a view holds: the keys and values of its rows, and the mark. A view of another
/// format is rebuilt. The rows themselves carry versions of their own.
pub const FORMAT: u32 = 1;

/// What a store holds of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The [`FORMAT`] that it was written in.
    #[serde(default)]
    pub format: u32,
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

/// Where a mark lies beside the rows of its partition: above every row key, whose first byte is small.
const MARK_KEY: &[u8] = &[0xff];

impl Mark {
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a mark has only strings and numbers")
    }

    /// A mark that cannot be read is one of another format.
    fn decode(bytes: &[u8]) -> Mark {
        serde_json::from_slice(bytes).unwrap_or(Mark {
            format: 0,
            changelog_id: String::new(),
            group: String::new(),
            position: 0,
            written_at: 0,
        })
    }
}

/// A changed row: key, and the value or its removal.
pub type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// A stored row: key and value.
pub type StoredRow = (Bytes, Bytes);

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
    fn scan(&self, partition: i32, after: Option<&[u8]>, limit: usize) -> Result<Vec<StoredRow>, StoreError>;

    /// Writes changes, in key order and each key once, then how far the partition is stored. All of it
    /// is durable when this returns; after a crash before, rows may be newer than the mark, never older.
    ///
    /// # Errors
    /// When the storage cannot be written, a full disk among the reasons.
    fn write(&self, partition: i32, changes: &[Change<'_>], mark: &Mark) -> Result<(), StoreError>;

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
    /// The system does not let the storage read or write: a full disk, a missing right.
    #[error(
        "{what} in {dir}: {why}. Nothing is lost, the changelog has it all: free the disk or remove the directory, \
         then start again"
    )]
    Failed {
        /// What was attempted.
        what: &'static str,
        /// Where.
        dir: String,
        /// What the system said.
        why: String,
    },
    /// What is stored is not what was written. The view is of no use any more; it is made anew.
    #[error("{what} in {dir}: {why}: it is damaged")]
    Damaged {
        /// What was attempted.
        what: &'static str,
        /// Where.
        dir: String,
        /// What the storage said.
        why: String,
    },
}
