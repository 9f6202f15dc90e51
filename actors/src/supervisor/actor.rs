//! The shell around verdicts and timers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, SpawnHandle};
use bytes::Bytes;
use rand::Rng;
use tokio::time::Instant;

use super::restarts::Restarted;
use super::{RetryPolicies, Timers, Tried, Verdict, judge};
use crate::ledger::LaneKey;
use crate::order::{Judged, OrderActor, Wake};
use crate::outcome::Failure;
use crate::partition::{Ownership, PartitionActor};
use crate::pipeline::{Alarm, Pipeline};
use crate::record::{Offset, Partition};
use crate::trace::Trace;

/// An attempt failed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Failed {
    /// Who waits for the verdict.
    pub actor: Addr<OrderActor>,
    /// Where the record lies.
    pub partition: Partition,
    /// Where the record lies.
    pub offset: Offset,
    /// Its lane.
    pub lane: LaneKey<Bytes>,
    /// Its key, for people.
    pub key: String,
    /// What has been tried of it.
    pub tried: Tried,
    /// What happened.
    pub failure: Box<Failure>,
    /// The attempt's span.
    pub trace: Option<Trace>,
}

/// A partition is owned and its ledger restored: start its actor and tell the consumer where.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Own {
    /// What is owned.
    pub ownership: Ownership,
    /// Called with the started actor.
    pub started: Box<dyn FnOnce(Addr<PartitionActor>) + Send>,
}

/// The handler cannot go on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Halt {
    /// For the person who reads it at night.
    pub reason: String,
}

/// Hands the supervisor what its partition actors share; sent once, before anything else.
pub struct Attach(pub Rc<Pipeline>);

/// See the module's documentation.
pub struct SupervisorActor {
    handler: Arc<str>,
    topic: Arc<str>,
    pub(super) retry: RetryPolicies,
    pipeline: Option<Rc<Pipeline>>,
    timers: Timers<Resume>,
    wake_up: Option<(Instant, SpawnHandle)>,
    /// The next probe of an open breaker, or the one that is under way.
    pub(super) probing: Option<SpawnHandle>,
    pub(super) halting: Alarm,
    pub(super) restarted: Restarted,
}

/// A lane waits for an attempt: wake it then.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Resume {
    /// Who waits.
    pub actor: Addr<OrderActor>,
    /// The record that waits.
    pub offset: Offset,
    /// The attempt that it waits for.
    pub attempt: u32,
    /// How long.
    pub wait: Duration,
}

impl SupervisorActor {
    /// `halting` is told why the handler cannot go on.
    pub fn new(handler: Arc<str>, topic: Arc<str>, retry: RetryPolicies, halting: Alarm) -> Self {
        SupervisorActor {
            handler,
            topic,
            retry,
            pipeline: None,
            timers: Timers::default(),
            wake_up: None,
            probing: None,
            halting,
            restarted: Restarted::default(),
        }
    }

    /// Gives the supervisor what its partition actors share.
    pub fn attach(&mut self, Attach(pipeline): Attach) {
        self.pipeline = Some(pipeline);
    }

    /// What its partition actors share.
    pub(super) fn pipeline(&self) -> Rc<Pipeline> {
        self.pipeline.clone().expect("attached before anything else happens")
    }

    /// Sets the one wake-up to the earliest timer.
    fn set_wake_up(&mut self, ctx: &mut Context<Self>) {
        let Some(due) = self.timers.next_due() else { return };
        if let Some((at, handle)) = self.wake_up {
            if at <= due {
                return;
            }
            ctx.cancel_future(handle);
        }
        let handle = ctx.run_later(due.saturating_duration_since(Instant::now()), |supervisor, ctx| {
            supervisor.wake_up = None;
            while let Some(retry) = supervisor.timers.take_due(Instant::now()) {
                // Gone with its partition: the record is delivered again to the next owner.
                let _ = retry.actor.try_send(Wake { offset: retry.offset, attempt: retry.attempt });
            }
            supervisor.set_wake_up(ctx);
        });
        self.wake_up = Some((due, handle));
    }

    fn tell(&self, failed: &Failed, verdict: Verdict) {
        let (rule, failure) = (self.retry.rule(&failed.failure), &failed.failure);
        let (class, code) = (rule.class(failure).name(), failure.code);
        match verdict {
            Verdict::Retry(delay) => {
                let next = rule.policy.attempts.after(failed.tried.attempt);
                tracing::info!(
                    handler = %self.handler, topic = %self.topic, partition = failed.partition.0,
                    offset = failed.offset.0, key = %failed.key, attempt = failed.tried.attempt, class, code,
                    own_code = failure.own_code(), trace_id = Trace::trace_field(failed.trace),
                    span_id = Trace::span_field(failed.trace), "{}; attempt {next} in {delay:?}", failure.message
                );
            }
            // Told by the writer, with the letter's place, once it is committed; an outage once, when it begins.
            Verdict::DeadLetter(_) | Verdict::Hold { .. } => {}
            Verdict::Halt => self.halting.halt(format!(
                "{}: {}[{}]@{} key \"{}\": {} ({code}, fatal); the record stays unfinished and is delivered again \
                 after a restart",
                self.handler, self.topic, failed.partition, failed.offset, failed.key, failed.failure.message
            )),
        }
    }
}

impl Drop for SupervisorActor {
    fn drop(&mut self) {
        self.halting.ended("the supervisor");
    }
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;
}

impl Handler<Failed> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, failed: Failed, ctx: &mut Self::Context) {
        let spread = rand::rng().random_range(-1.0..=1.0);
        let judged = judge(&self.retry, failed.tried, &failed.failure, spread);
        let verdict = self.ask_breaker(&failed, judged, ctx);
        self.tell(&failed, verdict);
        let Failed { actor, offset, tried, .. } = failed;
        if actor.try_send(Judged { attempt: tried.attempt, verdict }).is_ok() {
            let (attempt, wait) = match verdict {
                Verdict::Retry(wait) => (tried.attempt.saturating_add(1), wait),
                Verdict::Hold { attempt, delay } => (attempt, delay),
                Verdict::DeadLetter(_) | Verdict::Halt => return,
            };
            self.handle(Resume { actor, offset, attempt, wait }, ctx);
        }
    }
}

impl Handler<Resume> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, resume: Resume, ctx: &mut Self::Context) {
        self.timers.set(Instant::now() + resume.wait, resume);
        self.set_wake_up(ctx);
    }
}

impl Handler<Own> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, own: Own, _: &mut Self::Context) {
        // Those of a partition that was given up would stay until they are due.
        self.timers.retain(|resume| resume.actor.connected());
        let condemned = self.restarted.take(own.ownership.partition);
        (own.started)(PartitionActor::start(self.pipeline(), own.ownership, condemned));
    }
}

impl Handler<Halt> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, halt: Halt, _: &mut Self::Context) {
        self.halting.halt(halt.reason);
    }
}
