//! The partitions that a consumer thread holds, each from its assignment until it is given up or lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::Addr;
use pawl_actors::epoch::AssignmentEpoch;
use pawl_actors::partition::PartitionActor;
use pawl_actors::record::{NextOffset, Partition, Record};
use pawl_actors::stats::PartitionStats;

use super::intake_bounds::IntakeBounds;

/// One assigned partition.
pub struct Taking {
    /// Under which assignment.
    pub assignment: AssignmentEpoch,
    /// What others observe.
    pub stats: Arc<PartitionStats>,
    /// Who takes its records, once its ledger is restored.
    pub actor: Option<Addr<PartitionActor>>,
    /// Where intake begins; `None` once it has begun.
    pub begin_at: Option<NextOffset>,
    /// How often a seek was refused.
    pub refused_seeks: u32,
    /// Whether the consumer was told not to fetch it.
    pub paused: bool,
    /// Whether it is being given up: nothing more is taken in.
    pub leaving: bool,
    /// Whether the end was reached and nothing came since.
    pub at_end: bool,
    /// Read, and not yet handed over.
    pub batch: Vec<Record>,
}

impl Taking {
    /// Just assigned; not fetched before its ledger is restored.
    pub fn new(assignment: AssignmentEpoch, stats: Arc<PartitionStats>) -> Self {
        Taking {
            assignment,
            stats,
            actor: None,
            begin_at: None,
            refused_seeks: 0,
            paused: true,
            leaving: false,
            at_end: false,
            batch: Vec::new(),
        }
    }

    /// Whether records are taken in, or would be if there were room.
    pub fn is_open(&self) -> bool {
        self.actor.is_some() && self.begin_at.is_none() && !self.leaving
    }

    /// Whether records come in.
    pub fn is_reading(&self) -> bool {
        self.is_open() && !self.paused
    }
}

/// All of them.
#[derive(Default)]
pub struct Takings(pub BTreeMap<Partition, Taking>);

impl Takings {
    /// The partition, if it is still held under that assignment.
    pub fn current(&mut self, partition: Partition, assignment: AssignmentEpoch) -> Option<&mut Taking> {
        self.0.get_mut(&partition).filter(|taking| taking.assignment == assignment)
    }

    /// The numbers of all.
    pub fn all(&self) -> Vec<Partition> {
        self.0.keys().copied().collect()
    }

    /// The numbers of those of which this is true.
    pub fn which(&self, is: impl Fn(&Taking) -> bool) -> Vec<Partition> {
        self.0.iter().filter(|(_, taking)| is(taking)).map(|(&partition, _)| partition).collect()
    }

    /// Restored, and not begun: which, and where to begin.
    pub fn to_begin(&self) -> Vec<(Partition, NextOffset)> {
        let ready = self.0.iter().filter(|(_, taking)| !taking.leaving);
        ready.filter_map(|(&partition, taking)| Some((partition, taking.begin_at?))).collect()
    }

    /// How many of those that are read are full, and whether all are.
    pub fn fullness(&self, bounds: IntakeBounds) -> (usize, bool) {
        let reading = || self.0.values().filter(|taking| taking.is_reading());
        let full = reading().filter(|taking| bounds.full(&taking.stats)).count();
        (full, full == reading().count())
    }
}
