//! The shell of a lane: carries mail in and effects out. Every decision is the lane's or the
//! supervisor's.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, SpawnHandle, WrapFuture};
use bytes::Bytes;
use futures_util::FutureExt;

use super::letters::shown;
use super::{LaneCell, Turn};
use crate::clock;
use crate::effects::{Effects, StateChange};
use crate::handler::{Answer, Call};
use crate::ledger::{RecentIds, Sequence};
use crate::outcome::{Failure, FailureClass, Outcome, code};
use crate::partition::{Admission, Condemned, PartitionState, place};
use crate::pipeline::Pipeline;
use crate::record::{Offset, key_text};
use crate::supervisor::{Failed, Tried};
use crate::trace::Trace;

/// See the module's documentation.
pub struct OrderActor {
    pub(super) cell: Rc<LaneCell>,
    pub(super) partition: Rc<RefCell<PartitionState>>,
    pub(super) pipeline: Rc<Pipeline>,
    /// The failure that waits for its verdict.
    pub(super) failure: Option<Box<Failure>>,
    /// The span of the last attempt at the current record.
    pub(super) trace: Option<Trace>,
    waiting: bool,
    /// Whether what follows does so now.
    pub(super) following: bool,
    /// Ends the wait for this missing number.
    pub(super) gap_timer: Option<(i64, SpawnHandle)>,
}

impl OrderActor {
    /// Starts an actor for a lane of a partition.
    pub fn start(
        cell: Rc<LaneCell>,
        partition: Rc<RefCell<PartitionState>>,
        pipeline: Rc<Pipeline>,
    ) -> Addr<Self> {
        OrderActor::create(|ctx| {
            // Here and not in `started`, which runs after the first messages have arrived.
            ctx.set_mailbox_capacity(pipeline.policy.mailbox_capacity);
            let waits = cell.lane.borrow().waits_for().is_some();
            let mut actor = OrderActor {
                cell,
                partition,
                pipeline,
                failure: None,
                trace: None,
                waiting: false,
                following: false,
                gap_timer: None,
            };
            actor.set_waiting(waits);
            actor
        })
    }

    /// Works the lane until it waits for something.
    pub(super) fn drive(&mut self, ctx: &mut Context<Self>) {
        while self.partition.borrow().may_begin() {
            if self.gathers(None) {
                return self.gather(ctx);
            }
            let oldest_ms = self.oldest_id_ms();
            let turn = self.cell.lane.borrow_mut().turn(oldest_ms);
            if !self.play(turn, ctx) && !self.settle_early(ctx) {
                return;
            }
        }
    }

    /// Does what comes next; `true` if that has ended already and the lane is free.
    pub(super) fn play(&mut self, turn: Turn, ctx: &mut Context<Self>) -> bool {
        match turn {
            Turn::Wait => false,
            Turn::Redelivered(receipt) => {
                self.partition.borrow_mut().redelivered(receipt);
                self.touch();
                true
            }
            Turn::Duplicate { hold, number, conflict } => {
                if let Some((offset, event_id)) = conflict {
                    self.tell_conflict(offset, event_id.as_deref());
                }
                self.partition.borrow_mut().duplicate(self.cell.lane.borrow().key.as_deref(), hold, number);
                self.letter_is_done(hold);
                self.head_changed();
                true
            }
            Turn::Defective => {
                let defect = self.cell.lane.borrow().current().and_then(|taken| taken.defect.clone());
                let failure = defect.expect("a defective record says why");
                self.ask_supervisor(1, failure, ctx);
                false
            }
            Turn::Follow => self.follow(),
            Turn::FollowPast(taken) => {
                self.follow_past(*taken);
                false
            }
            Turn::Paused => {
                self.set_waiting(true);
                self.shelve()
            }
            Turn::Attempt(attempt) => {
                let admission = self.partition.borrow_mut().admit(&self.cell, || ctx.address());
                match admission {
                    Admission::Free => {}
                    Admission::Waits => return false,
                    Admission::Condemned(failure) => {
                        if self.cell.lane.borrow_mut().failed(attempt) {
                            self.ask_supervisor(attempt, Box::new(failure), ctx);
                        }
                        return false;
                    }
                }
                let place = self.pipeline.places.borrow_mut().take(&self.cell, || ctx.address());
                place && self.attempt(attempt, ctx)
            }
        }
    }

    fn tell_conflict(&self, offset: Offset, event_id: Option<&[u8]>) {
        self.pipeline.stats.id_conflicts.add(1);
        let (source, partition) = (&self.pipeline.source, self.partition.borrow().partition());
        let (key, event_id) = (self.key_text(), key_text(event_id));
        tracing::warn!(
            handler = %source.handler, topic = %source.topic, partition = partition.0, offset = offset.0, key,
            "its event id \"{event_id}\" came before with another value; \
             dropped as a duplicate. If these are two events, their producer must give them two ids"
        );
    }

    /// Starts an attempt; `true` if it has ended well already.
    pub(super) fn attempt(&mut self, attempt: u32, ctx: &mut Context<Self>) -> bool {
        let call = self.call(attempt);
        self.cell.calling.set(true);
        self.pipeline.stats.retries.add(u64::from(attempt > 1));
        self.pipeline.stats.in_flight.add(1);
        let handler = &self.pipeline.handler;
        let answer = catch_unwind(AssertUnwindSafe(|| handler.handle(call)))
            .unwrap_or_else(|panic| Answer::Ready(Outcome::Failed(panicked(&*panic))));
        let (trace, answer) = answer.untraced();
        self.trace = trace;
        match answer {
            Answer::Traced(..) => unreachable!("taken off before"),
            Answer::Ready(outcome) => self.ended(attempt, outcome, ctx),
            Answer::Later(future) => {
                let limit = self.pipeline.policy.attempt_timeout;
                let guarded = async move {
                    let unwinding = AssertUnwindSafe(future).catch_unwind();
                    match tokio::time::timeout(limit, unwinding).await {
                        Ok(Ok(outcome)) => outcome,
                        Ok(Err(panic)) => Outcome::Failed(panicked(&*panic)),
                        Err(_) => Outcome::Failed(Failure::transient(
                            code::TIMED_OUT,
                            format!("no answer within {limit:?}"),
                        )),
                    }
                };
                ctx.spawn(guarded.into_actor(self).map(move |outcome, actor, ctx| {
                    if actor.ended(attempt, outcome, ctx) {
                        actor.drive(ctx);
                    }
                }));
                false
            }
        }
    }

    fn call(&self, attempt: u32) -> Call {
        let lane = self.cell.lane.borrow();
        let taken = lane.current().expect("an attempt has a record");
        let partition = self.partition.borrow();
        Call {
            record: taken.record.clone(),
            source: self.pipeline.source.clone(),
            partition: partition.partition(),
            attempt,
            claim: partition.claim(),
            event_id: taken.event_id.clone(),
            state: lane.state().cloned(),
        }
    }

    /// Takes an outcome over; `true` if the lane is free for its next record.
    pub(super) fn ended(&mut self, attempt: u32, outcome: Outcome, ctx: &mut Context<Self>) -> bool {
        self.leave_handler();
        if !self.partition.borrow().may_end() {
            return false;
        }
        if is_an_answer(&outcome) {
            self.pipeline.answered();
        }
        let outcome = match outcome {
            Outcome::Done(effects) => self.check(effects),
            failed @ Outcome::Failed(_) => failed,
        };
        match outcome {
            Outcome::Done(Effects { emit, state }) => {
                let max_ids = self.pipeline.policy.recent_ids;
                let done = self.cell.lane.borrow_mut().applied(attempt, state, max_ids);
                let Some(done) = done else { return false };
                let mut partition = self.partition.borrow_mut();
                partition.applied(self.cell.lane.borrow().key.as_deref(), &done, emit);
                partition.traced(self.trace.take());
                drop(partition);
                self.letter_is_done(done.hold);
                self.head_changed();
                true
            }
            Outcome::Failed(failure) => {
                if self.cell.lane.borrow_mut().failed(attempt) {
                    self.ask_supervisor(attempt, Box::new(failure), ctx);
                }
                false
            }
        }
    }

    /// Effects that the broker would refuse never join an epoch: they would take it down with them.
    fn check(&self, effects: Effects) -> Outcome {
        let policy = &self.pipeline.policy;
        if let Some(why) = self.refused_before(&effects) {
            return Outcome::Failed(Failure::permanent(code::REFUSED, why));
        }
        if let StateChange::Set(state) = &effects.state {
            let lane = self.cell.lane.borrow();
            let Some(key) = lane.key.as_deref().key() else {
                let why = "the handler set a state, which belongs to a key, and the record has none";
                return Outcome::Failed(Failure::permanent(code::NULL_KEY, why));
            };
            let numbers = policy.sequence.as_ref().map_or(0, |it| Sequence::max_bytes(it.max_waiting));
            let row = key.len() + state.len() + policy.recent_ids * RecentIds::WIDTH + numbers;
            if row > policy.max_row_bytes {
                return Outcome::Failed(Failure::permanent(
                    code::TOO_LARGE,
                    format!(
                        "with this state the key's row has {row} bytes, the changelog takes {}",
                        policy.max_row_bytes
                    ),
                ));
            }
        }
        let max = policy.max_emit_bytes;
        match effects.emit.iter().find(|emit| emit.size() > max) {
            None => Outcome::Done(effects),
            Some(emit) => Outcome::Failed(Failure::permanent(
                code::TOO_LARGE,
                format!("the handler emitted {} bytes to {}, which takes {max}", emit.size(), emit.topic),
            )),
        }
    }

    /// Why a topic refused what the record emitted the last time.
    fn refused_before(&self, effects: &Effects) -> Option<String> {
        let offset = self.cell.lane.borrow().current()?.record.offset;
        let partition = self.partition.borrow().partition();
        self.pipeline.refused.why(partition, offset).filter(|_| !effects.emit.is_empty())
    }

    fn ask_supervisor(&mut self, attempt: u32, failure: Box<Failure>, ctx: &mut Context<Self>) {
        let class = self.pipeline.policy.retry.rule(&failure).class(&failure);
        self.pipeline.stats.failures(class).add(1);
        let lane = self.cell.lane.borrow();
        let offset = lane.current().expect("a failed attempt has a record").record.offset;
        let elapsed = lane.parking().map_or(Duration::ZERO, |parking| parking.elapsed(clock::now()));
        let lane = lane.key.as_deref().map(Bytes::copy_from_slice);
        let failed = Failed {
            actor: ctx.address(),
            partition: self.partition.borrow().partition(),
            offset,
            lane,
            key: self.key_text(),
            tried: Tried { attempt, elapsed },
            failure: failure.clone(),
            trace: self.trace,
        };
        self.failure = Some(failure);
        // One failure a lane is under way at most, so the supervisor's mailbox is bounded by the
        // number of lanes; refusing one here would lose a verdict.
        self.pipeline.supervisor.do_send(failed);
    }

    pub(super) fn head_changed(&self) {
        self.note_change();
        self.cover();
    }

    /// The open epoch carries the head.
    pub(super) fn note_change(&self) {
        if self.cell.lane.borrow_mut().mark_changed() {
            self.partition.borrow_mut().changed(self.cell.clone());
        }
        self.touch();
    }

    fn touch(&self) {
        self.pipeline.open.borrow_mut().touch(&self.partition);
    }

    pub(super) fn oldest_id_ms(&self) -> i64 {
        let age = i64::try_from(self.pipeline.policy.recent_ids_age.as_millis()).unwrap_or(i64::MAX);
        self.partition.borrow().partition_time().saturating_sub(age)
    }

    pub(super) fn key_text(&self) -> String {
        let lane = self.cell.lane.borrow();
        let record = lane.current().and_then(|taken| taken.record.key.as_deref());
        key_text(shown(record, lane.key.as_deref()))
    }

    pub(super) fn leave_handler(&mut self) {
        if self.cell.calling.replace(false) {
            self.pipeline.stats.in_flight.add(-1);
        }
        self.pipeline.places.borrow_mut().give_up(&self.cell);
        if self.partition.borrow_mut().has_run(&self.cell) {
            self.touch();
        }
    }

    /// Counts the lane among those that wait for a retry, or no more.
    pub(super) fn set_waiting(&mut self, waiting: bool) {
        if waiting != self.waiting {
            self.waiting = waiting;
            self.cell.overflows.replace(None);
            self.pipeline.stats.parked.add(if waiting { 1 } else { -1 });
        }
    }
}

/// Whether the handler's dependency is there: it did what was asked, or refused it.
fn is_an_answer(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Done(_) => true,
        Outcome::Failed(failure) => {
            let refuses = failure.code == code::REJECTED || !failure.code.starts_with("pawl.");
            failure.class == FailureClass::Permanent && refuses
        }
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without text".into());
    Failure::permanent(code::PANICKED, format!("the handler panicked: {text}"))
}

impl Actor for OrderActor {
    type Context = Context<Self>;
}

impl Drop for OrderActor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = "Pawl's own code panicked while it worked on the record".to_owned();
            let lane = self.cell.lane.try_borrow().ok();
            let over = lane
                .as_ref()
                .and_then(|lane| lane.current())
                .map(|taken| (place(taken), key_text(taken.record.key.as_deref())));
            let over = over.map(|(place, key)| (Condemned { place, why }, key));
            drop(lane);
            PartitionState::ended_badly(&self.partition, &self.pipeline, "the order actor", over);
        }
        self.leave_handler();
        self.set_waiting(false);
    }
}
