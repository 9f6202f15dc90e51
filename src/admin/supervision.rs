//! `/supervision`: what watches over what in this process, what came to a bad end, why, and how often.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use pawl_actors::clock;
use pawl_actors::outcome::FailureClass;
use pawl_actors::record::Partition;
use pawl_actors::stats::{PartitionStats, Restart};
use serde::{Deserialize, Serialize};

use super::{PartitionReadiness, Process, judge_handlers};
use crate::observed::HandlerView;

/// The tree: the process's handlers, each with its supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervision {
    /// In the order of the settings.
    pub handlers: Vec<Supervised>,
}

/// A handler's supervisor and what it watches over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervised {
    /// Its name in the settings.
    pub name: String,
    /// Its consumer group.
    pub group: String,
    /// Its input topic.
    pub topic: String,
    /// Why the handler itself is not ready, whatever its partitions say.
    pub reason: Option<String>,
    /// Why the breaker is open; `null` while it is closed.
    pub breaker: Option<String>,
    /// Records whose effects are durable, since the process began.
    pub applied: u64,
    /// Failed attempts, likewise.
    pub failures: u64,
    /// Records written to the dead-letter topic, likewise.
    pub dead_letters: u64,
    /// Calls at the handler now.
    pub in_flight: i64,
    /// Lanes that wait for a retry now.
    pub waiting: i64,
    /// How often something of it came to a bad end and was begun anew, since the process began.
    pub restarts: u64,
    /// So many restarts of a partition are allowed...
    pub restarts_allowed: u32,
    /// ...in this time; with one more the handler ends.
    pub restarts_within: String,
    /// The last restarts, oldest first; older ones are only counted.
    pub last_restarts: Vec<LastRestart>,
    /// Its partition actors, in the order of the partitions.
    pub partitions: Vec<SupervisedPartition>,
}

/// Something that came to a bad end and was begun anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRestart {
    /// When, in milliseconds since the epoch.
    pub at: i64,
    /// Which partition was taken anew; `null`: the whole handler was begun anew.
    pub partition: Option<i32>,
    /// What came to a bad end.
    pub actor: String,
    /// The key that it worked on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why; it may name keys.
    pub why: String,
}

/// A partition actor and what it watches over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisedPartition {
    /// The partition's number.
    pub partition: i32,
    /// Its phase.
    pub phase: String,
    /// Why it takes no records in, or does not get on.
    pub reason: Option<String>,
    /// Why one record of it runs at a time, if that is so.
    pub careful: Option<String>,
    /// Records that are not durable yet; `null` as long as the broker has not told the end.
    pub lag: Option<u64>,
    /// Its order actors: one for each key in memory.
    pub order_actors: i64,
    /// Records taken in that are not durable yet.
    pub unfinished: i64,
    /// Records that wait in the ledger for a retry, or behind one that does.
    pub parked: i64,
    /// How often it was taken anew, since the process began.
    pub restarts: u64,
}

/// `GET /supervision`.
pub(super) async fn show(State(process): State<Arc<Process>>) -> Json<Supervision> {
    let ready = judge_handlers(&process.handlers, clock::now(), process.settings.admin.stalled_after);
    let handlers = process.handlers.iter().zip(ready).map(|(view, ready)| {
        let stats = view.stats.partitions();
        let of = |number: i32| stats.iter().find(|(partition, _)| partition.0 == number);
        let partitions = ready.partitions.into_iter().filter_map(|ready| {
            let (partition, stats) = of(ready.partition)?;
            Some(partition_of(view, *partition, stats, ready))
        });
        let partitions = partitions.collect();
        handler(view, ready.reason, partitions)
    });
    Json(Supervision { handlers: handlers.collect() })
}

fn handler(view: &HandlerView, reason: Option<String>, partitions: Vec<SupervisedPartition>) -> Supervised {
    let stats = &view.stats;
    let last = stats.restarts.last().into_iter();
    Supervised {
        name: view.name.to_string(),
        group: view.group.to_string(),
        topic: view.topic.to_string(),
        reason,
        breaker: stats.breaker.open(),
        applied: stats.applied.get(),
        failures: FailureClass::ALL.iter().map(|class| stats.failures(*class).get()).sum(),
        dead_letters: stats.dead_letters.get(),
        in_flight: stats.in_flight.get(),
        waiting: stats.parked.get(),
        restarts: stats.restarts.count.get(),
        restarts_allowed: view.supervision.restarts,
        restarts_within: humantime::format_duration(view.supervision.within).to_string(),
        last_restarts: last.map(last_restart).collect(),
        partitions,
    }
}

fn last_restart(restart: Restart) -> LastRestart {
    let Restart { at, partition, actor, key, why } = restart;
    let partition = partition.map(|partition| partition.0);
    LastRestart { at, partition, actor: actor.to_owned(), key, why }
}

fn partition_of(
    view: &HandlerView,
    partition: Partition,
    stats: &PartitionStats,
    ready: PartitionReadiness,
) -> SupervisedPartition {
    SupervisedPartition {
        partition: ready.partition,
        phase: ready.phase.to_owned(),
        reason: ready.reason,
        careful: ready.careful,
        lag: ready.lag,
        order_actors: stats.live_keys.get(),
        unfinished: stats.outstanding_records.get(),
        parked: ready.parked,
        restarts: view.stats.restarts.of(partition),
    }
}
