//! The consumer thread: owns the polling of the handler's one consumer and never stops it. It
//! groups what it reads by partition, hands each partition actor whole batches, and pauses a
//! partition whose intake is full; it never drops and never waits long.
//!
//! Rebalance callbacks run on this thread inside `poll`: they note what happened and return at once.

mod membership;
mod reading;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use actix::Addr;
use pawl_actors::epoch::AssignmentEpoch;
use pawl_actors::partition::{Abandon, PartitionActor};
use pawl_actors::record::{NextOffset, Partition};
use pawl_actors::stats::{HandlerStats, PartitionStats};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::access::Live;
use super::chunk::Chunk;
use super::denied::Identity;
use super::held::Held;
use super::intake_bounds::IntakeBounds;
use super::rebalance::IntakeContext;
use super::taking::Takings;

/// What the consumer thread is told.
pub enum Command {
    /// A partition is owned and restored: take records in from here.
    TakeIn {
        /// Which partition.
        partition: Partition,
        /// Under which assignment.
        assignment: AssignmentEpoch,
        /// From where.
        next: NextOffset,
        /// Who takes them.
        actor: Addr<PartitionActor>,
    },
    /// A partition actor has drained: no epoch holds anything of it.
    Drained {
        /// Which partition.
        partition: Partition,
        /// Under which assignment.
        assignment: AssignmentEpoch,
    },
    /// An actor of a partition came to a bad end, or it was rewound: make the partition one's own anew.
    Rebuild {
        /// Which partition.
        partition: Partition,
        /// Under which assignment.
        assignment: AssignmentEpoch,
    },
    /// The group does not know this member any more.
    Fenced,
    /// Drain everything, then leave the group and end.
    Shutdown,
}

/// A partition to make one's own: claim, restore, start.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// Which partition.
    pub partition: Partition,
    /// Under which assignment.
    pub assignment: AssignmentEpoch,
    /// What others observe.
    pub stats: Arc<PartitionStats>,
}

/// What a consumer thread needs.
pub struct IntakeParts {
    /// Name of the handler, for the log.
    pub handler: Arc<str>,
    /// Input topic.
    pub topic: String,
    /// The consumer; polled by nobody else.
    pub consumer: Arc<Live<BaseConsumer<IntakeContext>>>,
    /// As what brokers know the handler, for errors.
    pub identity: Arc<Identity>,
    /// Kept here, read by writer and owner.
    pub held: Arc<Held>,
    /// What others observe.
    pub stats: Arc<HandlerStats>,
    /// Bounds of each partition.
    pub bounds: IntakeBounds,
    /// Running handlers get this long when a partition is revoked.
    pub revoke_grace: Duration,
    /// The same when the process ends.
    pub shutdown_grace: Duration,
    /// Whether the group keeps this instance's partitions for it while it is away for less than its
    /// session: then it does not leave.
    pub is_static: bool,
    /// Gets newly assigned partitions.
    pub owner: Sender<Vec<Assigned>>,
    /// Where partition actors report to.
    pub commands: Sender<Command>,
    /// Is told why the handler cannot go on.
    pub on_halt: Arc<dyn Fn(String) + Send + Sync>,
}

/// See the module's documentation.
pub struct Intake {
    parts: IntakeParts,
    takings: Takings,
    next_assignment: u64,
    /// The revocation that is being answered: it is, when none of these is left.
    revoking: Option<Vec<Partition>>,
    /// The group was left in order to be joined anew: a partition cannot be read from where it must.
    rejoining: bool,
    leaving: bool,
    chunk: Chunk,
    polled_bytes: usize,
    /// Since when the group may not be joined, and whose right it is.
    denied: Option<(Instant, String)>,
}

impl Intake {
    /// Before the first poll.
    pub fn new(parts: IntakeParts) -> Self {
        Intake {
            parts,
            takings: Takings::default(),
            next_assignment: 0,
            revoking: None,
            rejoining: false,
            leaving: false,
            chunk: Chunk::default(),
            polled_bytes: 0,
            denied: None,
        }
    }

    /// Polls until told to leave and everything is drained.
    pub fn run(mut self, commands: &Receiver<Command>) {
        self.subscribe();
        loop {
            while let Ok(command) = commands.try_recv() {
                self.command(command);
            }
            while let Some(rebalance) = self.parts.consumer.context().take_noted() {
                self.rebalance(rebalance);
            }
            self.answer_revocation();
            if self.takings.0.is_empty() {
                if self.leaving {
                    return self.leave();
                }
                self.rejoin();
            }
            self.begin_intake();
            self.poll();
            self.heed_denial();
            self.bound_intake(commands);
        }
    }

    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::TakeIn { partition, assignment, next, actor } => {
                match self.takings.current(partition, assignment) {
                    Some(taking) if !taking.leaving => {
                        taking.actor = Some(actor);
                        taking.begin_at = Some(next);
                    }
                    _ => actor.do_send(Abandon),
                }
            }
            Command::Drained { partition, assignment } => {
                if self.takings.current(partition, assignment).is_some() {
                    self.release(partition);
                }
            }
            Command::Rebuild { partition, assignment } => self.rebuild(partition, assignment),
            // librdkafka tells of a loss only while it is in no rebalance; this one waits for a commit
            // that can never succeed. Of a loss at another time it tells.
            Command::Fenced => match self.revoking.clone() {
                Some(revoking) => self.lose(&revoking),
                None if self.leaving => self.lose(&self.takings.all()),
                None => {}
            },
            Command::Shutdown => {
                self.leaving = true;
                self.give_up(&self.takings.all(), self.parts.shutdown_grace);
            }
        }
    }

    pub(super) fn halt(&self, reason: String) {
        (self.parts.on_halt)(format!("{}: {}: {reason}", self.parts.handler, self.parts.topic));
    }
}
