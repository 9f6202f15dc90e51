//! What a person asks for, and what each partition is asked then.

use std::collections::BTreeMap;

use pawl_actors::command::{KeyName, Replay, What};
use pawl_actors::ledger::LaneKey;
use pawl_actors::selector::Selector;

use super::Asked;
use crate::commands::Failure;
use crate::commands::dlt::back;
use crate::commands::rewind::{self, Place};
use crate::exit::Exit;
use crate::kafka::partitioner::java_partition;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// The same of every partition.
    Same(What),
    /// That a key gets no records.
    Pause {
        /// Which key.
        key: KeyName,
        /// Where it is paused though nothing is known of it, unless that can be told.
        home: Option<i32>,
    },
    /// A replay whose rate is that of all partitions together.
    Replay(Replay),
    /// That letters are given up: those of a key up to the one at this offset of the only partition.
    Discard {
        /// Its offset in the dead-letter topic.
        offset: i64,
        /// Why.
        reason: String,
    },
    /// That records are handled once more.
    Rewind {
        /// From where on.
        place: Place,
        /// Whether keys lose their states.
        reset: bool,
        /// Why.
        reason: String,
    },
}

impl Request {
    /// What each partition is asked.
    ///
    /// # Errors
    /// What is asked for cannot be, or Kafka does not say what has to be known for it.
    pub fn of_each(&self, asked: &Asked) -> Result<BTreeMap<i32, What>, Failure> {
        let all = |what: &dyn Fn(i32) -> What| {
            asked.partitions().iter().map(|partition| (*partition, what(*partition))).collect()
        };
        Ok(match self {
            Request::Same(what) => all(&|_| what.clone()),
            Request::Pause { key, home } => {
                let home = home.or_else(|| java_home(key, asked));
                all(&|partition| What::Pause { key: key.clone(), create: home == Some(partition) })
            }
            Request::Replay(replay) => {
                // Each owner keeps to its share.
                let rate = replay.rate.map(|rate| rate / asked.partitions().len().max(1) as f64);
                all(&|_| What::Replay(Replay { rate, ..replay.clone() }))
            }
            Request::Discard { offset, reason } => {
                let [partition] = asked.partitions() else {
                    return Err(Failure::new(Exit::Usage, "a letter lies in a partition: name it"));
                };
                let what = back::discard_of(asked, *partition, *offset, reason.clone())?;
                BTreeMap::from([(*partition, what)])
            }
            Request::Rewind { place, reset, reason } => {
                let plan = rewind::plan(asked, *place)?;
                if plan.steps.is_empty() {
                    return Err(Failure::new(Exit::Findings, plan.told.trim_end()));
                }
                plan.parts(*reset, reason)
            }
        })
    }
}

/// Where Java's partitioner puts a key of which nothing is known yet.
fn java_home(key: &KeyName, asked: &Asked) -> Option<i32> {
    let (LaneKey::Key(bytes), Selector::Record) = (key.lane(), &asked.handler().key) else { return None };
    let partitions = i32::try_from(asked.partitions().len()).unwrap_or(i32::MAX);
    Some(java_partition(bytes, partitions))
}
