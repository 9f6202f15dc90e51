//! The one trait behind which every handler stands: `http`, `forward`, or a Rust program's own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::outcome::Outcome;
use crate::record::{Partition, Record};
use crate::trace::Trace;

/// One attempt at one record, with all that a handler may want to know of it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The record; shared, because a retry hands out the same one.
    pub record: Arc<Record>,
    /// Where the record came from.
    pub source: Arc<Source>,
    /// Its partition.
    pub partition: Partition,
    /// 1-based number of this attempt.
    pub attempt: u32,
    /// The number of the claim under which this attempt runs: grows with every new owner.
    pub claim: i64,
    /// The event id, where the settings name one and the record has it.
    pub event_id: Option<Bytes>,
    /// The key's state before this record, if it has one.
    pub state: Option<Bytes>,
}

/// The input topic of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Name of the handler in the settings.
    pub handler: Arc<str>,
    /// Input topic.
    pub topic: Arc<str>,
    /// The topic's id (KIP-516); its name where the broker knows no ids.
    pub topic_id: Arc<str>,
    /// Consumer group.
    pub group: Arc<str>,
}

impl Call {
    /// What makes this record's effect recognisable to a service: its event id byte for byte, else
    /// its place (`topic id/partition/offset`). The same in every attempt, after a crash and in a replay.
    pub fn idempotency_key(&self) -> Bytes {
        match &self.event_id {
            Some(id) => id.clone(),
            None => format!("{}/{}/{}", self.source.topic_id, self.partition, self.record.offset).into(),
        }
    }
}

/// A handler's answer: at once, or later.
pub enum Answer {
    /// For handlers that wait for nothing; costs no future.
    Ready(Outcome),
    /// Runs beside the actors, on their thread: it must not block it (use
    /// `tokio::task::spawn_blocking` for work that does).
    Later(Pin<Box<dyn Future<Output = Outcome>>>),
    /// One of the others, and the span of the attempt: for handlers that wrap another one to trace it.
    Traced(Trace, Box<Answer>),
}

impl Answer {
    /// Wraps a future.
    pub fn later(future: impl Future<Output = Outcome> + 'static) -> Self {
        Answer::Later(Box::pin(future))
    }

    /// The answer without the name of its span, and that. Of several the outermost is the attempt's.
    pub(crate) fn untraced(self) -> (Option<Trace>, Self) {
        match self {
            Answer::Traced(trace, answer) => (Some(trace), answer.untraced().1),
            answer => (None, answer),
        }
    }
}

/// Processes records of a topic, one at a time for each key, thousands of keys at once.
///
/// # Contract
/// - A call may be repeated: after a crash, and when an attempt timed out but went on at the
///   service. [`Call::idempotency_key`] is the same each time.
/// - A panic counts as a permanent failure after the allowed attempts; it does not end the process.
/// - Whatever the handler wants written to Kafka it returns as [`Effects`](crate::effects::Effects):
///   they become visible together with the record's offset, or not at all.
pub trait Handler: Send + Sync + 'static {
    /// Starts one attempt.
    fn handle(&self, call: Call) -> Answer;

    /// Asks whether what the handler depends on is there, while the breaker is open. `None`, the default:
    /// nobody but the handler itself can tell, and attempts at records are made instead, one after the other.
    fn probe(&self) -> Option<Pin<Box<dyn Future<Output = bool>>>> {
        None
    }
}
