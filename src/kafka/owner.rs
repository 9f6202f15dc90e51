//! The owner thread makes assigned partitions this instance's own: it asks for the group's stable
//! position, has a claim written, restores the ledger from the changelog up to that claim, and only
//! then has the partition actor started.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use actix::Addr;
use pawl_actors::claims::Claims;
use pawl_actors::clock;
use pawl_actors::ledger::{Books, PARTITION_KEY, PartitionRow};
use pawl_actors::partition::Ownership;
use pawl_actors::record::{NextOffset, Partition};
use pawl_actors::stats::{HandlerStats, PartitionPhase};
use pawl_actors::supervisor::{Own, SupervisorActor};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use super::access::Live;
use super::claim::{ClaimJob, ClaimRequest, Claimed};
use super::consumer::{Assigned, Command};
use super::denied::Identity;
use super::ends::Ends;
use super::group;
use super::held::Held;
use super::rebalance::IntakeContext;
use super::restore::{Restore, Target};
use super::topic_id;
use super::writer::Job;
use crate::looking::window::Window;
use crate::rights::Right;
use crate::settings::Start;
use crate::store::LocalView;

/// What an owner thread needs.
pub struct OwnerParts {
    /// Name of the handler, for the log.
    pub handler: Arc<str>,
    /// Input topic.
    pub topic: String,
    /// Its id.
    pub topic_id: Arc<str>,
    /// Where a group without a position begins.
    pub start: Start,
    /// Fingerprint of the settings that decide identity.
    pub fingerprint: u64,
    /// Whether epochs are transactions.
    pub transactional: bool,
    /// Partitions of the changelog.
    pub changelog_partitions: i32,
    /// The command topic.
    pub commands: CommandTopic,
    /// Tells where partitions end.
    pub ends: Ends,
    /// The handler's consumer, for questions about positions.
    pub consumer: Arc<Live<BaseConsumer<IntakeContext>>>,
    /// Which partitions are held.
    pub held: Arc<Held>,
    /// What others observe.
    pub stats: Arc<HandlerStats>,
    /// As what brokers know the handler, for errors.
    pub identity: Arc<Identity>,
    /// Shows people the keys of the partitions that have begun.
    pub window: Arc<Window>,
    /// Reads the changelog into the view.
    pub restore: Restore,
    /// The ledger on this machine.
    pub view: Arc<LocalView>,
    /// Writes claims.
    pub writer: Sender<Job>,
    /// Starts partition actors.
    pub supervisor: Addr<SupervisorActor>,
    /// Is told where records may be taken in.
    pub intake: Sender<Command>,
    /// Is told why the handler cannot go on.
    pub on_halt: Arc<dyn Fn(String) + Send + Sync>,
}

/// The topic of operators' commands.
pub struct CommandTopic {
    /// Its name.
    pub topic: String,
    /// Its id: positions belong to it.
    pub id: String,
}

/// See the module's documentation.
pub struct Owner {
    parts: OwnerParts,
}

/// Where the group stands in a partition, and what the partition still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    /// The group's committed position, if it has one.
    committed: Option<i64>,
    /// Nobody committed it: a claim made it of `start`.
    resolved: bool,
    /// Claim and epoch that committed it, if it was Pawl.
    by: Option<(i64, u64)>,
    /// What was committed with it proves that there is a ledger.
    ledger: bool,
    /// How the claims of the partition ended, as the next one says it.
    claims: Claims,
    /// The first offset that retention has left.
    low: i64,
    /// The position after the last stable record.
    high: i64,
}

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the topic's id, which is asked for so often that one answer may be missing.
const ID_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the end of each partition is asked for, which lag is measured against.
const ASK_END_EVERY: Duration = Duration::from_secs(2);

impl Owner {
    /// Before the first assignment.
    pub fn new(parts: OwnerParts) -> Self {
        Owner { parts }
    }

    /// Works until nobody assigns any more.
    pub fn run(self, assignments: &Receiver<Vec<Assigned>>) {
        loop {
            match assignments.recv_timeout(ASK_END_EVERY) {
                Ok(assigned) => {
                    if let Err(reason) = self.own(assigned) {
                        self.halt(&reason);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.ask_ends();
                    // Not only at the next assignment: until then records of the new topic would be read
                    // from a position in the old one.
                    if let Err(reason) = self.check_topic() {
                        return self.halt(&reason);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn halt(&self, reason: &str) {
        (self.parts.on_halt)(format!("{}: {}: {reason}", self.parts.handler, self.parts.topic));
    }

    fn own(&self, assigned: Vec<Assigned>) -> Result<(), String> {
        self.check_topic()?;
        let (assigned, beyond): (Vec<_>, Vec<_>) =
            assigned.into_iter().partition(|one| one.partition.0 < self.parts.changelog_partitions);
        for one in beyond {
            one.stats.set_phase(PartitionPhase::Stopped);
            tracing::error!(
                handler = %self.parts.handler, topic = %self.parts.topic, partition = one.partition.0,
                "not taken in: the changelog has only {} partitions. Keys have moved between partitions, away from \
                 their ledgers: drain the old partitions, then begin with a new group",
                self.parts.changelog_partitions
            );
        }
        let mut standings = BTreeMap::new();
        let mut claims = Vec::new();
        for one in &assigned {
            let Some(standing) = self.standing(one)? else { continue };
            standings.insert(one.partition, standing);
            claims.push(ClaimRequest {
                partition: one.partition,
                assignment: one.assignment,
                next: NextOffset(standing.start(self.parts.start)),
                resolved: standing.resolved,
                ledger: standing.ledger,
                claims: standing.claims,
            });
        }
        let claimed = self.claim(&claims);
        let targets: Vec<Target> = claimed
            .iter()
            .filter_map(|claimed| {
                let one = assigned.iter().find(|one| one.partition == claimed.partition)?;
                one.stats.set_phase(PartitionPhase::Restoring);
                Some(Target {
                    partition: claimed.partition,
                    assignment: one.assignment,
                    claim: claimed.claim,
                    stats: one.stats.clone(),
                })
            })
            .collect();
        let mut restored = |partition| {
            let one = assigned.iter().find(|one| one.partition == partition);
            let claim = claimed.iter().find(|claimed| claimed.partition == partition);
            match (one, claim, standings.get(&partition)) {
                (Some(one), Some(claim), Some(standing)) => self.start(one.clone(), claim.claim, *standing),
                _ => Ok(()),
            }
        };
        self.parts.restore.run(&targets, &self.parts.view, &self.parts.held, &mut restored)
    }

    /// The topic is still the one that was found at the start: a topic that is deleted and made anew while
    /// Pawl runs keeps its name, and all its offsets mean something else.
    fn check_topic(&self) -> Result<(), String> {
        let found = topic_id::topic_id(self.parts.consumer.client(), &self.parts.topic, ID_TIMEOUT);
        match found {
            Ok(Some(id)) if id != *self.parts.topic_id => Err(format!(
                "the topic was deleted and made anew while Pawl was running: its id was {}, and is {id}. Its offsets mean \
                 nothing any more: begin with a new group",
                self.parts.topic_id
            )),
            // No answer says nothing about the topic, and what follows asks the same broker.
            _ => Ok(()),
        }
    }

    /// The group's stable position: it waits for an open transaction of the partition's last owner.
    /// `None` when the partition is not held any more.
    fn standing(&self, one: &Assigned) -> Result<Option<Standing>, String> {
        let ask = || self.ask_standing(one.partition);
        let asked = self.parts.held.ask_while(one.partition, one.assignment, ask, |error| {
            tracing::warn!(
                handler = %self.parts.handler, topic = %self.parts.topic, partition = one.partition.0, %error,
                "the group's position is not known yet; asking again"
            );
        });
        asked.map_err(|error| self.parts.identity.told(&error, (&self.parts.topic, Right::Read)))
    }

    fn ask_standing(&self, partition: Partition) -> Result<Standing, KafkaError> {
        let found = group::committed(&self.parts.consumer, &self.parts.topic, partition.0, CALL_TIMEOUT)?;
        let committed = found.map(|found| found.next);
        let metadata = found.and_then(|found| found.metadata);
        let resolved = found.is_none() || metadata.is_some_and(|metadata| metadata.resolved);
        let ledger = metadata.is_some_and(|metadata| metadata.proves_a_ledger());
        let claims = metadata.unwrap_or_default().next_claims(clock::now());
        let (low, high) = self.parts.ends.stable(partition)?;
        let by = metadata.map(|metadata| (metadata.claim, metadata.epoch));
        Ok(Standing { committed, resolved, by, ledger, claims, low, high })
    }

    fn claim(&self, claims: &[ClaimRequest]) -> Vec<Claimed> {
        if claims.is_empty() {
            return Vec::new();
        }
        let (reply, claimed) = channel();
        // A writer that ends before it answers says why; to say that it has would only be quicker.
        let _ = self.parts.writer.send(Job::Claim(ClaimJob { claims: claims.to_vec(), reply }));
        claimed.recv().unwrap_or_default()
    }

    /// Starts the partition's actor with what was restored.
    fn start(&self, one: Assigned, claim: i64, standing: Standing) -> Result<(), String> {
        if !self.parts.held.is(one.partition, one.assignment) {
            return Ok(());
        }
        let stored =
            self.parts.view.row(one.partition.0, PARTITION_KEY).map_err(|error| error.to_string())?;
        let stored = stored.map(|row| PartitionRow::decode(&row)).transpose();
        let stored = stored.map_err(|error| format!("partition {}: {error}", one.partition))?;
        let fresh = stored.is_none();
        let row = match stored {
            None if standing.ledger => return Err(self.ledger_is_gone(one.partition)),
            None => self.fresh(claim, standing),
            Some(row) => self.resumed(one.partition, row, standing)?,
        };
        self.parts.ends.check(&one, &self.parts.held, row.watermark, standing.high)?;
        let row = self.after_retention(one.partition, row, standing);
        tracing::info!(
            handler = %self.parts.handler, topic = %self.parts.topic, partition = one.partition.0, claim,
            from = row.watermark, "taking records in"
        );
        let Some(row) = self.with_commands(&one, row, fresh)? else { return Ok(()) };
        let next = NextOffset(row.watermark);
        let (partition, assignment, intake) = (one.partition, one.assignment, self.parts.intake.clone());
        one.stats.end.set(standing.high);
        let parked = self.parts.view.parked_rows(partition.0).map_err(|error| error.to_string())?;
        let Standing { claims, low, high: end, .. } = standing;
        let stats = one.stats;
        let ownership =
            Ownership { partition, assignment, claim, row, parked, fresh, claims, low, end, stats };
        let window = self.parts.window.clone();
        let started = Box::new(move |actor| {
            window.begun(partition.0, &actor);
            // Gone only at the very end of the process.
            let _ = intake.send(Command::TakeIn { partition, assignment, next, actor });
        });
        self.parts.supervisor.do_send(Own { ownership, started });
        Ok(())
    }

    /// Where commands go on: a new ledger begins with those that are still to come. `None` when the partition
    /// is not held any more.
    fn with_commands(
        &self,
        one: &Assigned,
        mut row: PartitionRow,
        fresh: bool,
    ) -> Result<Option<PartitionRow>, String> {
        let CommandTopic { topic, id } = &self.parts.commands;
        let partition = one.partition.0;
        let known = row.commands_id == *id;
        if !known && !row.commands_id.is_empty() {
            tracing::warn!(
                handler = %self.parts.handler, %topic, partition,
                "the command topic was deleted and made anew: its commands are read from the first one on"
            );
        }
        row.commands_id.clone_from(id);
        if !fresh {
            row.commands = if known { row.commands } else { 0 };
            return Ok(Some(row));
        }
        let ask = || self.parts.consumer.fetch_watermarks(topic, partition, CALL_TIMEOUT);
        let asked = self.parts.held.ask_while(one.partition, one.assignment, ask, |error| {
            tracing::warn!(
                handler = %self.parts.handler, %topic, partition, %error,
                "the end of the command topic is not known yet; asking again"
            );
        });
        let asked = asked.map_err(|error| self.parts.identity.told(&error, (topic, Right::Read)))?;
        Ok(asked.map(|(_, end)| PartitionRow { commands: end, ..row }))
    }

    fn ledger_is_gone(&self, partition: Partition) -> String {
        let changelog = &self.parts.restore.changelog;
        format!(
            "partition {partition}: the group's offset was committed together with a ledger, but {changelog} holds \
             none: it was deleted, or its rows have expired (cleanup.policy must be compact). States and known event \
             ids are lost. Restore the topic; or accept the loss, and begin with a new group or set the group's \
             offset anew with Kafka's own tool"
        )
    }

    fn fresh(&self, claim: i64, standing: Standing) -> PartitionRow {
        let (watermark, id_key) = (standing.start(self.parts.start), *uuid::Uuid::new_v4().as_bytes());
        PartitionRow::new(self.parts.topic_id.to_string(), watermark, claim, self.parts.fingerprint, id_key)
    }

    /// The stored row, held against the settings, the topic and the group's position.
    fn resumed(
        &self,
        partition: Partition,
        mut row: PartitionRow,
        standing: Standing,
    ) -> Result<PartitionRow, String> {
        if row.topic_id != *self.parts.topic_id {
            return Err(format!(
                "partition {partition}: the ledger belongs to topic id {}, but the topic has id {}: it was deleted and \
                 made anew. Its offsets mean nothing any more: begin with a new group",
                row.topic_id, self.parts.topic_id
            ));
        }
        if row.fingerprint != self.parts.fingerprint {
            return Err(format!(
                "partition {partition}: the ledger was written with other settings for key, null_key, event_id or sequence. Under the new \
                 ones records belong to other lanes and nothing of it would be recognised: set them back, or begin \
                 with a new group"
            ));
        }
        match standing.committed.filter(|_| !standing.resolved) {
            // Without transactions a rewind is written before the offset, which a claim may have committed again.
            Some(committed)
                if committed > row.watermark
                    && !self.parts.transactional
                    && standing.is_before_a_rewind(&row) =>
            {
                tracing::info!(
                    handler = %self.parts.handler, topic = %self.parts.topic, partition = partition.0, committed,
                    "going on at the ledger's {}, to which it was rewound", row.watermark
                );
            }
            Some(committed) if committed > row.watermark => {
                tracing::warn!(
                    handler = %self.parts.handler, topic = %self.parts.topic, partition = partition.0,
                    "the group's offset was moved from {} to {committed} by someone else: booked as an operator's skip \
                     of {} offsets", row.watermark, committed - row.watermark
                );
                row.books.skipped_offsets += (committed - row.watermark).unsigned_abs();
                row.watermark = committed;
            }
            // Without transactions a crash leaves the offset behind the row as a matter of course.
            Some(committed) if committed < row.watermark && !self.parts.transactional => tracing::info!(
                handler = %self.parts.handler, topic = %self.parts.topic, partition = partition.0, committed,
                "going on at the ledger's {}", row.watermark
            ),
            Some(committed) if committed < row.watermark => tracing::warn!(
                handler = %self.parts.handler, topic = %self.parts.topic, partition = partition.0,
                "the group's offset {committed} lies below the ledger's {}; the ledger counts, and nothing below it is \
                 processed again", row.watermark
            ),
            _ => {}
        }
        Ok(row)
    }

    fn after_retention(
        &self,
        partition: Partition,
        mut row: PartitionRow,
        standing: Standing,
    ) -> PartitionRow {
        if standing.low > row.watermark {
            let removed = (standing.low - row.watermark).unsigned_abs();
            // A group that begins with what is there has lost nothing.
            if row.books != Books::default() || standing.committed.is_some() {
                tracing::error!(
                    handler = %self.parts.handler, topic = %self.parts.topic, partition = partition.0,
                    "retention removed {removed} offsets from {} on before they were read; going on at {}. Raise the \
                     topic's retention.ms or the handler's capacity", row.watermark, standing.low
                );
                row.books.removed_offsets += removed;
            } else {
                row.began = standing.low;
            }
            row.watermark = standing.low;
        }
        row
    }

    fn ask_ends(&self) {
        for (partition, stats) in self.parts.stats.partitions() {
            // Nobody else answers either, and an assignment must not wait for all of them.
            if self.parts.ends.observe(partition, &stats, clock::now()).is_err() {
                return;
            }
        }
    }
}

impl Standing {
    /// Whether Pawl committed the offset, and did so before the last rewind: nobody has moved it.
    fn is_before_a_rewind(&self, row: &PartitionRow) -> bool {
        let before = |(claim, epoch)| epoch == 0 || (claim, epoch) < (row.claim, row.epoch);
        !row.rewinds.is_empty() && self.by.is_some_and(before)
    }

    /// Where to begin without a ledger.
    fn start(self, start: Start) -> i64 {
        self.committed.unwrap_or(match start {
            Start::Earliest => self.low,
            Start::Latest => self.high,
        })
    }
}

#[cfg(test)]
mod tests {
    use pawl_actors::ledger::Rewind;

    use super::*;

    #[test]
    fn a_group_without_a_position_begins_where_the_settings_say() {
        let claims = Claims::default();
        let standing =
            Standing { committed: None, resolved: true, by: None, ledger: false, claims, low: 5, high: 9 };
        assert_eq!(standing.start(Start::Earliest), 5);
        assert_eq!(standing.start(Start::Latest), 9);
        assert_eq!(Standing { committed: Some(7), ..standing }.start(Start::Latest), 7);
    }

    #[test]
    fn an_offset_from_before_a_rewind_was_moved_by_nobody() {
        let claims = Claims::default();
        let by =
            |by| Standing { committed: Some(9), resolved: false, by, ledger: true, claims, low: 0, high: 9 };
        let mut row = PartitionRow::new("id".into(), 5, 3, 0, [0; 16]);
        row.epoch = 7;
        assert!(!by(Some((3, 6))).is_before_a_rewind(&row), "there was none");
        let rewind =
            Rewind { number: 1, to: 5, reset: false, letters: 0, letters_id: String::new(), parked: 0 };
        row.rewinds.push(rewind);
        assert!(by(Some((3, 6))).is_before_a_rewind(&row));
        assert!(by(Some((4, 0))).is_before_a_rewind(&row), "a claim has committed it again");
        assert!(!by(Some((3, 8))).is_before_a_rewind(&row));
        assert!(!by(None).is_before_a_rewind(&row), "somebody else's tool");
    }
}
