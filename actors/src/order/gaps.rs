//! Numbers that are missing in a lane's sequence: how long is waited for them, and what follows.

use actix::{AsyncContext, Context};

use super::OrderActor;
use crate::clock;
use crate::policy::GapThen;

impl OrderActor {
    /// Gives what came early its rows, and looks for gaps. `true` if the lane has work again.
    pub(super) fn settle_early(&mut self, ctx: &mut Context<Self>) -> bool {
        self.cover();
        self.watch_gap(ctx)
    }

    /// Notes whether a number is missing, and looks again when its time is over. `true` if the lane has work again.
    pub(super) fn watch_gap(&mut self, ctx: &mut Context<Self>) -> bool {
        // Held beside the actor, which changes.
        let pipeline = self.pipeline.clone();
        let Some(policy) = &pipeline.policy.sequence else { return false };
        if !self.partition.borrow().may_begin() {
            return false;
        }
        if self.cell.lane.borrow_mut().note_gap(clock::now(), policy.timeout) {
            self.note_change();
        }
        let (gap, age) = {
            let lane = self.cell.lane.borrow();
            (lane.gap(), lane.gap_age(clock::now()))
        };
        let armed = self.gap_timer.map(|(missing, _)| missing);
        if armed != gap.map(|(missing, _)| missing)
            && let Some((_, timer)) = self.gap_timer.take()
        {
            ctx.cancel_future(timer);
        }
        let (Some((missing, _)), Some(age)) = (gap, age) else { return false };
        if self.cell.lane.borrow().is_halted_at_gap() {
            return false;
        }
        let full = self.cell.lane.borrow().early() > policy.max_waiting;
        if full || age >= policy.timeout {
            return self.end_gap(full, policy.then);
        }
        if self.gap_timer.is_none() {
            // What was waited under the last owner counts.
            let then = policy.then;
            let timer = ctx.run_later(policy.timeout - age, move |actor, ctx| {
                actor.gap_timer = None;
                let still = actor.cell.lane.borrow().gap().is_some_and(|(now, _)| now == missing);
                let may_begin = actor.partition.borrow().may_begin();
                if (still && may_begin && actor.end_gap(false, then)) || actor.watch_gap(ctx) {
                    actor.drive(ctx);
                }
            });
            self.gap_timer = Some((missing, timer));
        }
        false
    }

    /// The missing numbers are not waited for any more; `true` if the lane has work again.
    fn end_gap(&mut self, full: bool, then: GapThen) -> bool {
        let Some((missing, lowest)) = self.cell.lane.borrow().gap() else { return false };
        let numbers = if missing + 1 == lowest {
            format!("number {missing}")
        } else {
            format!("numbers {missing} to {}", lowest - 1)
        };
        let why = if full { "too many wait behind" } else { "did not come in time" };
        let what = format!("{numbers} of its sequence {why}");
        let key = self.key_text();
        let (handler, topic) = (&self.pipeline.source.handler, &self.pipeline.source.topic);
        let partition = self.partition.borrow().partition();
        self.pipeline.stats.gaps.add(1);
        let condemned = match then {
            GapThen::Halt => {
                let which = self.key_argument();
                let why = format!(
                    "key \"{key}\": {what}. Send what is missing and pawl keys resume {which}; or give it up: pawl \
                     keys skip-gap {which} --to {lowest} --reason ..."
                );
                tracing::error!(%handler, %topic, partition = partition.0, key, "the partition stands still: {why}");
                self.cell.lane.borrow_mut().halt_at_gap();
                self.stop_partition(why);
                return false;
            }
            GapThen::Skip => false,
            GapThen::DeadLetter => true,
        };
        tracing::warn!(%handler, %topic, partition = partition.0, key, "{what}; going on with {lowest}");
        let skipped = self.cell.lane.borrow_mut().skip_gap(condemned);
        self.note_change();
        skipped.is_some()
    }
}
