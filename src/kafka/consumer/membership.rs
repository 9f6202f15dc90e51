//! How the intake answers its group: what is assigned is handed to the owner, what is revoked is drained
//! before it is given up, and what is lost is abandoned.

use std::time::{Duration, Instant};

use pawl_actors::epoch::AssignmentEpoch;
use pawl_actors::partition::{Abandon, Drain};
use pawl_actors::record::Partition;
use pawl_actors::stats::PartitionPhase;
use rdkafka::consumer::Consumer;

use super::{Assigned, Command, Intake, IntakeParts};
use crate::kafka::rebalance::Rebalance;
use crate::kafka::taking::Taking;

impl Intake {
    pub(super) fn rebalance(&mut self, rebalance: Rebalance) {
        self.parts.stats.rebalances.add(1);
        let IntakeParts { handler, topic, .. } = &self.parts;
        let numbers = |partitions: &[Partition]| partitions.iter().map(|p| p.0).collect::<Vec<_>>();
        match rebalance {
            Rebalance::Assigned(partitions) => {
                tracing::info!(%handler, topic, partitions = ?numbers(&partitions), "assigned");
                self.assigned(partitions);
            }
            Rebalance::Revoked(partitions) => {
                tracing::info!(%handler, topic, partitions = ?numbers(&partitions), "revoked; draining");
                self.give_up(&partitions, self.parts.revoke_grace);
                self.revoking = Some(partitions);
            }
            Rebalance::Lost(partitions) => self.lose(&partitions),
        }
    }

    fn assigned(&mut self, partitions: Vec<Partition>) {
        let mut assigned = Vec::new();
        for partition in partitions {
            let one = self.assign(partition);
            self.takings.0.insert(partition, Taking::new(one.assignment, one.stats.clone()));
            assigned.push(one);
        }
        if self.leaving {
            self.give_up(&self.takings.all(), self.parts.shutdown_grace);
        } else {
            self.own(assigned);
        }
    }

    /// Begins a new assignment of a partition.
    fn assign(&mut self, partition: Partition) -> Assigned {
        self.next_assignment += 1;
        let assignment = AssignmentEpoch(self.next_assignment);
        let stats = self.parts.stats.assigned(partition);
        stats.set_phase(PartitionPhase::Claiming);
        self.parts.held.assign(partition, assignment);
        Assigned { partition, assignment, stats }
    }

    fn own(&self, assigned: Vec<Assigned>) {
        if self.parts.owner.send(assigned).is_err() {
            self.halt("the thread that restores ledgers has ended".into());
        }
    }

    /// One of a partition's actors came to a bad end, and nothing of its open epoch is written; or it was rewound, and
    /// everything is. The partition is claimed and restored once more, without a word to the group. While it is given up there is no need to.
    pub(super) fn rebuild(&mut self, partition: Partition, assignment: AssignmentEpoch) {
        let Some(taking) = self.takings.current(partition, assignment) else { return };
        if let Some(actor) = &taking.actor {
            actor.do_send(Abandon);
        }
        if taking.leaving {
            return self.release(partition);
        }
        self.set_paused(&[partition], true);
        self.parts.stats.released(partition);
        let one = self.assign(partition);
        self.takings.0.insert(partition, Taking::new(one.assignment, one.stats.clone()));
        self.own(vec![one]);
    }

    /// Drains partitions; those that were not yet taken in are released at once.
    pub(super) fn give_up(&mut self, partitions: &[Partition], grace: Duration) {
        let deadline = Instant::now() + grace;
        for &partition in partitions {
            let Some(taking) = self.takings.0.get_mut(&partition) else { continue };
            taking.leaving = true;
            // Its actor may end before it could take these; nothing of them is below a commit.
            taking.batch.clear();
            let Some(actor) = &taking.actor else {
                self.release(partition);
                continue;
            };
            let (commands, assignment) = (self.parts.commands.clone(), taking.assignment);
            let drained = Box::new(move || {
                // Gone when the thread has ended already, and then nobody waits.
                let _ = commands.send(Command::Drained { partition, assignment });
            });
            actor.do_send(Drain { deadline: deadline.into(), drained });
        }
    }

    /// Once no epoch carries any of them: unassigns what was revoked.
    pub(super) fn answer_revocation(&mut self) {
        let is_held = |partition: &Partition| self.takings.0.contains_key(partition);
        if self.revoking.as_ref().is_none_or(|revoking| revoking.iter().any(is_held)) {
            return;
        }
        let revoked = self.revoking.take().unwrap_or_default();
        self.parts.consumer.context().unassign(&self.parts.consumer, &revoked);
    }

    pub(super) fn lose(&mut self, partitions: &[Partition]) {
        for &partition in partitions {
            let Some(taking) = self.takings.0.get(&partition) else { continue };
            if let Some(actor) = &taking.actor {
                actor.do_send(Abandon);
            }
            self.release(partition);
            tracing::warn!(handler = %self.parts.handler, topic = %self.parts.topic, partition = partition.0, "lost: another member may own it already");
        }
    }

    pub(super) fn release(&mut self, partition: Partition) {
        // A pause outlives its assignment; the next one begins with one, and ends it.
        self.takings.0.remove(&partition);
        self.parts.held.release(partition);
        self.parts.stats.released(partition);
    }

    /// A partition cannot be read from where it must: all are given up in good order, by the ordinary
    /// way of a revocation, and the group is joined anew.
    pub(super) fn leave_to_rejoin(&mut self, why: &str) {
        if self.rejoining || self.leaving || self.takings.0.is_empty() {
            return;
        }
        tracing::error!(
            handler = %self.parts.handler, topic = %self.parts.topic,
            "{why}; the partitions are taken anew"
        );
        self.rejoining = true;
        self.parts.consumer.unsubscribe();
    }

    pub(super) fn rejoin(&mut self) {
        if std::mem::take(&mut self.rejoining) {
            self.subscribe();
        }
    }

    pub(super) fn subscribe(&self) {
        if let Err(error) = self.parts.consumer.subscribe(&[&self.parts.topic]) {
            self.halt(format!("subscribing failed: {error}"));
        }
    }

    /// Leaves the group. What is still assigned is given up by the callback, since nothing of it is in
    /// any epoch.
    pub(super) fn leave(&self) {
        let consumer = &self.parts.consumer;
        consumer.context().close();
        if self.parts.is_static {
            return;
        }
        consumer.unsubscribe();
        // The revocation that follows is served by polling.
        let deadline = Instant::now() + Duration::from_secs(2);
        while consumer.assignment().is_ok_and(|list| list.count() > 0) && Instant::now() < deadline {
            let _ = consumer.poll(Duration::from_millis(5));
        }
    }
}
