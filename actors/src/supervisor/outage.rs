//! What the supervisor does while the breaker is open.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::actor::{Failed, Resume, SupervisorActor};
use super::{Refund, Ruling, Verdict};
use crate::order::GiveBack;
use crate::outcome::FailureClass;
use crate::trace::Trace;

impl SupervisorActor {
    /// What becomes of a verdict where the failure is the dependency's and not the record's.
    pub(super) fn ask_breaker(
        &mut self,
        failed: &Failed,
        judged: Verdict,
        ctx: &mut Context<Self>,
    ) -> Verdict {
        let rule = self.retry.rule(&failed.failure);
        let classes = [failed.failure.class, rule.class(&failed.failure)];
        if classes != [FailureClass::Transient; 2] {
            return judged;
        }
        let pipeline = self.pipeline();
        let policy = pipeline.policy.breaker;
        let place = (failed.partition, failed.offset);
        let refund = Refund { place, attempt: failed.tried.attempt, who: failed.actor.clone() };
        let ruling =
            pipeline.breaker.borrow_mut().failed(&policy, Instant::now(), failed.lane.clone(), refund);
        let attempt = match ruling {
            Ruling::Counts => return judged,
            Ruling::Held(attempt) => attempt,
            Ruling::Opens(refunds) => {
                self.open(failed, policy.probe_every, ctx);
                let own = refunds.iter().find(|refund| refund.place == place).map(|refund| refund.attempt);
                for refund in refunds.into_iter().filter(|refund| refund.place != place) {
                    self.give_back(refund, policy.probe_every, ctx);
                }
                own.unwrap_or(failed.tried.attempt)
            }
        };
        let delay = match judged {
            Verdict::Retry(delay) => delay.min(policy.probe_every),
            _ => policy.probe_every,
        };
        Verdict::Hold { attempt, delay }
    }

    fn open(&mut self, failed: &Failed, probe_every: Duration, ctx: &mut Context<Self>) {
        let pipeline = self.pipeline();
        let keys = pipeline.policy.breaker.keys;
        let reason = format!(
            "{keys} keys failed in a row and none succeeded, the last one, {}[{}]@{} key \"{}\", with: {}",
            pipeline.source.topic, failed.partition, failed.offset, failed.key, failed.failure.message
        );
        tracing::warn!(
            handler = %pipeline.source.handler, topic = %pipeline.source.topic, partition = failed.partition.0,
            offset = failed.offset.0, key = %failed.key, attempt = failed.tried.attempt,
            trace_id = Trace::trace_field(failed.trace), span_id = Trace::span_field(failed.trace),
            "the breaker opens: {reason}. Nothing is dead-lettered and no attempt counts until the handler answers; \
             it is asked each {probe_every:?}"
        );
        pipeline.stats.breaker.opened.add(1);
        pipeline.stats.breaker.set_open(Some(reason));
        pipeline.places.borrow_mut().shut();
        self.probe_in(probe_every, ctx);
    }

    fn give_back(
        &mut self,
        refund: Refund<actix::Addr<crate::order::OrderActor>>,
        wait: Duration,
        ctx: &mut Context<Self>,
    ) {
        let Refund { place: (_, offset), attempt, who: actor } = refund;
        // Gone with its partition: its next owner counts as the ledger does.
        if actor.try_send(GiveBack { offset, attempt }).is_ok() {
            self.handle(Resume { actor, offset, attempt, wait }, ctx);
        }
    }

    /// Sets the one next probe.
    fn probe_in(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        let next = ctx.run_later(wait, Self::probe);
        if let Some(last) = self.probing.replace(next) {
            ctx.cancel_future(last);
        }
    }

    /// Finds out whether the handler answers again, for as long as the breaker is open.
    fn probe(&mut self, ctx: &mut Context<Self>) {
        let pipeline = self.pipeline();
        if !pipeline.breaker.borrow().is_open() {
            return;
        }
        pipeline.places.borrow_mut().forget_the_gone();
        let every = pipeline.policy.breaker.probe_every;
        // A program's own code: its panic says no more than that it is not well.
        let asking = catch_unwind(AssertUnwindSafe(|| pipeline.handler.probe())).unwrap_or_default();
        let Some(asking) = asking else {
            pipeline.places.borrow_mut().let_one_probe();
            return self.probe_in(every, ctx);
        };
        let asking =
            tokio::time::timeout(pipeline.policy.attempt_timeout, AssertUnwindSafe(asking).catch_unwind());
        let asked = asking.into_actor(self).map(move |answer, supervisor, ctx| {
            if matches!(answer, Ok(Ok(true))) {
                supervisor.pipeline().answered();
            }
            if supervisor.pipeline().breaker.borrow().is_open() {
                supervisor.probe_in(every, ctx);
            }
        });
        self.probing = Some(ctx.spawn(asked));
    }
}
