//! What the supervisor does when a part of Pawl itself comes to a bad end: the partition is taken anew from its
//! ledger, which is the safe answer to whatever has no better one. Not without end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use actix::{Context, Handler, Message};
use tokio::time::Instant;

use super::SupervisorActor;
use crate::clock;
use crate::epoch::AssignmentEpoch;
use crate::partition::Condemned;
use crate::policy::RestartPolicy;
use crate::record::Partition;
use crate::stats::Restart;

/// An actor of a partition panicked. Nothing of the partition is written any more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Panicked {
    /// Which partition.
    pub partition: Partition,
    /// Under which assignment.
    pub assignment: AssignmentEpoch,
    /// What it was, for people.
    pub actor: &'static str,
    /// The record that it worked on, and its key for people: it is not to be handed to the handler again.
    pub over: Option<(Condemned, String)>,
}

/// How often partitions were taken anew, and which of their records are not handed to the handler again.
#[derive(Default)]
pub struct Restarted {
    times: BTreeMap<Partition, VecDeque<Instant>>,
    condemned: BTreeMap<Partition, Vec<Condemned>>,
}

impl Restarted {
    /// Notes one more; `false` if that is too often.
    fn note(&mut self, partition: Partition, now: Instant, policy: &RestartPolicy) -> bool {
        let times = self.times.entry(partition).or_default();
        times.retain(|at| now.duration_since(*at) < policy.within);
        let allowed = times.len() < policy.restarts as usize;
        if allowed {
            times.push_back(now);
        }
        allowed
    }

    fn condemn(&mut self, partition: Partition, condemned: Condemned) {
        // No more than restarts are allowed, until the partition begins.
        self.condemned.entry(partition).or_default().push(condemned);
    }

    /// What the partition begins with.
    pub fn take(&mut self, partition: Partition) -> Vec<Condemned> {
        self.condemned.remove(&partition).unwrap_or_default()
    }
}

impl Handler<Panicked> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, panicked: Panicked, _: &mut Context<Self>) {
        let Panicked { partition, assignment, actor, over } = panicked;
        let pipeline = self.pipeline();
        let (source, policy) = (&pipeline.source, pipeline.policy.restarts);
        let key = over.as_ref().map(|(_, key)| key.clone());
        let of = key.as_ref().map_or_else(String::new, |key| format!(" of key \"{key}\""));
        let why = "panicked; this is a bug in Pawl or in the program's handler";
        let wherefore = format!("{}: {}[{partition}]: {actor}{of} {why}", source.handler, source.topic);
        if !self.restarted.note(partition, Instant::now(), &policy) {
            let RestartPolicy { restarts, within } = policy;
            let within = Duration::from_secs(within.as_secs());
            return self.halting.halt(format!(
                "{wherefore}. The partition was taken anew {restarts} times in {within:?} already (supervision)"
            ));
        }
        tracing::error!(
            handler = %source.handler, topic = %source.topic, partition = partition.0, key,
            "{wherefore}. The partition is taken anew from its ledger"
        );
        if let Some((condemned, _)) = over {
            self.restarted.condemn(partition, condemned);
        }
        let (at, why) = (clock::now().0, why.to_owned());
        pipeline.stats.restarts.note(Restart { at, partition: Some(partition), actor, key, why });
        (pipeline.rebuild)(partition, assignment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_taken_anew_only_so_often_in_a_time() {
        let policy = RestartPolicy { restarts: 2, within: Duration::from_secs(60) };
        let (mut restarted, now) = (Restarted::default(), Instant::now());
        let mut note = |partition, after| {
            restarted.note(Partition(partition), now + Duration::from_secs(after), &policy)
        };
        assert_eq!([note(0, 0), note(0, 10), note(0, 20)], [true, true, false]);
        assert!(note(1, 20), "each for itself");
        assert_eq!(
            [note(0, 61), note(0, 62), note(0, 71)],
            [true, false, true],
            "as the first ones grow old"
        );
    }
}
