//! Effects as data: what a finished record wants written. Nothing here is done yet; the
//! epoch commit writes all of it in one step, or none of it.

use std::sync::Arc;

use bytes::Bytes;

use crate::record::{self, Header, Millis};

/// What a handler wants to happen because of one record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Records to write, in order.
    pub emit: Vec<Emit>,
    /// What becomes of the key's state.
    pub state: StateChange,
}

/// A record to write to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit {
    /// Destination topic.
    pub topic: Arc<str>,
    /// `None`: by key, with Kafka's murmur2 partitioner.
    pub partition: Option<i32>,
    /// `None` is Kafka's null key.
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In order.
    pub headers: Vec<Header>,
    /// `None`: the time of writing.
    pub timestamp: Option<Millis>,
}

impl Emit {
    /// Bytes of key, value and headers: what a topic's size limit is held against.
    pub fn size(&self) -> usize {
        record::size(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

/// What becomes of a key's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StateChange {
    /// It stays as it is.
    #[default]
    Keep,
    /// It is replaced.
    Set(Bytes),
    /// It is removed; a key without state, ids and lane leaves the ledger.
    Clear,
}
