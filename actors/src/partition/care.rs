//! Careful mode. When several owners of a partition in a row came to a bad end, one of its records may be
//! what ends them. Then one record of it runs at a time, and that it begins is committed first, so that the
//! next owner knows which one it was. A record during which that happened again and again becomes a dead letter.
//!
//! A record during which a process ended once runs alone in the whole process from then on: what was at the handler
//! in another partition at that moment clears itself.
//!
//! The mode ends once all that the last owner can have had at the handler has been there again.

use std::collections::VecDeque;
use std::rc::Rc;

use actix::{ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use super::{PartitionActor, PartitionState};
use crate::ledger::{Named, Place};
use crate::order::{Begin, Drive, Hold, LaneCell, OrderActor, Place as Room, Taken};
use crate::outcome::{Failure, code};
use crate::policy::CarefulPolicy;

/// The next record may begin alone, if one waits.
#[derive(Message)]
#[rtype(result = "()")]
pub struct NextAlone;

/// See the module's documentation.
pub struct Care {
    policy: CarefulPolicy,
    /// The end of the input when the mode began.
    until: i64,
    waiting: VecDeque<(Rc<LaneCell>, Addr<OrderActor>)>,
    step: Step,
    /// Attempts that began.
    begun: u64,
    /// Whether it was looked at before; what is due wakes only after the partition begins.
    looked: bool,
    /// The mode ends when so many began: those that waited when nothing else was suspect any more.
    enough: Option<u64>,
}

/// How far the one record is.
enum Step {
    /// There is none.
    None,
    /// Others in the process end first.
    Queued(Rc<LaneCell>, Addr<OrderActor>),
    /// That it begins is being committed; the number tells it from others that did.
    Starting(Rc<LaneCell>, Addr<OrderActor>, Permit, u64),
    /// It is at the handler, or waits for room there.
    Running(Rc<LaneCell>, #[expect(dead_code, reason = "held, not read")] Permit),
}

/// Keeps others of the process from running alone, or from running carefully at all.
pub enum Permit {
    /// Beside one of each other partition.
    Shared(#[expect(dead_code, reason = "held, not read")] OwnedRwLockReadGuard<()>),
    /// Beside no other.
    Alone(#[expect(dead_code, reason = "held, not read")] OwnedRwLockWriteGuard<()>),
}

/// Whether a record may be handed to the handler.
pub enum Admission {
    /// At once.
    Free,
    /// The lane is told.
    Waits,
    /// Never: it is what ends processes.
    Condemned(Failure),
}

impl Care {
    fn is(&self, cell: &Rc<LaneCell>) -> bool {
        match &self.step {
            Step::None => false,
            Step::Queued(one, _) | Step::Starting(one, ..) | Step::Running(one, _) => Rc::ptr_eq(one, cell),
        }
    }

    fn is_enough(&self) -> bool {
        let last = matches!(self.step, Step::None);
        last && self.enough.is_some_and(|enough| self.begun >= enough || self.waiting.is_empty())
    }
}

impl PartitionState {
    /// Begins carefully if the last owners came to a bad end, or one of them in careful mode.
    pub(super) fn be_careful(&mut self, policy: &CarefulPolicy, unclean: usize, end: i64) {
        let named = self.row.starting.take();
        if let Some(place) = named {
            match self.row.named.iter_mut().find(|named| named.place == place) {
                Some(named) => named.crashes += 1,
                None => self.row.named.push(Named { place, crashes: 1 }),
            }
        }
        if named.is_none() && unclean < policy.crashes as usize {
            self.row.named.clear();
            return;
        }
        let until = end.max(self.row.watermark);
        let (within, at_most) = (policy.within, policy.suspects);
        self.stats.set_careful(Some(format!(
            "{unclean} owners ended within {within:?} while they held the partition, without giving it up. One record of \
             it runs at a time, up to offset {until} or {at_most} attempts: the one that ends processes becomes a dead \
             letter after {} of them",
            policy.crashes
        )));
        let (policy, waiting) = (*policy, VecDeque::new());
        self.care =
            Some(Care { policy, until, waiting, step: Step::None, begun: 0, looked: false, enough: None });
    }

    /// Whether a record of a lane may be handed to the handler.
    pub fn admit(&mut self, cell: &Rc<LaneCell>, actor: impl FnOnce() -> Addr<OrderActor>) -> Admission {
        if self.care.is_none() && self.condemned.is_empty() {
            return Admission::Free;
        }
        let Some(place) = cell.lane.borrow().current().map(place) else { return Admission::Free };
        if let Some(at) = self.condemned.iter().position(|condemned| condemned.place == place) {
            return Admission::Condemned(Failure::permanent(code::CRASHED, self.condemned.remove(at).why));
        }
        let Some(care) = &mut self.care else { return Admission::Free };
        let crashes = care.policy.crashes;
        let named = self.row.named.iter().position(|it| it.place == place && it.crashes >= crashes);
        if let Some(at) = named {
            // Whoever takes it up again begins to count anew.
            let Named { crashes, .. } = self.row.named.remove(at);
            let why = format!("the process ended {crashes} times while the record was at the handler");
            return Admission::Condemned(Failure::permanent(code::CRASHED, why));
        }
        cell.place.set(Room::Waiting);
        care.waiting.push_back((cell.clone(), actor()));
        if matches!(care.step, Step::None) {
            self.tell(NextAlone);
        }
        Admission::Waits
    }

    /// The next lane is up: whether its record must run alone in the process. `None`: there is none.
    fn next_alone(&mut self) -> Option<bool> {
        let begins = self.may_begin();
        let care = self.care.as_mut().filter(|care| begins && matches!(care.step, Step::None))?;
        while let Some((cell, actor)) = care.waiting.pop_front() {
            let wants = cell.place.get() == Room::Waiting && cell.lane.borrow().running_attempt().is_some();
            let at = cell.lane.borrow().current().map(place).filter(|_| wants);
            if let Some(at) = at {
                care.step = Step::Queued(cell, actor);
                return Some(self.row.named.iter().any(|named| named.place == at));
            }
        }
        None
    }

    /// Nobody is in its way any more; `true` if the open epoch is to say that it begins.
    fn start_alone(&mut self, permit: Permit) -> bool {
        let begins = self.may_begin();
        let Some(care) = &mut self.care else { return false };
        match std::mem::replace(&mut care.step, Step::None) {
            Step::Queued(cell, actor) => {
                let at = cell.lane.borrow().current().map(place).filter(|_| begins);
                let Some(at) = at else {
                    // What it waits for now is that the partition goes on.
                    cell.place.set(Room::None);
                    self.tell(NextAlone);
                    return false;
                };
                self.row.starting = Some(at);
                care.begun += 1;
                care.step = Step::Starting(cell, actor, permit, care.begun);
                true
            }
            // The lane has given up waiting meanwhile; another one may have had its turn.
            other => {
                care.step = other;
                self.tell(NextAlone);
                false
            }
        }
    }

    /// Which record the epoch that closes says to begin, if it says so of one.
    pub(super) fn starts(&self) -> Option<u64> {
        match &self.care.as_ref()?.step {
            Step::Starting(.., number) => Some(*number),
            _ => None,
        }
    }

    /// That is committed.
    pub(super) fn has_started(&mut self, begun: u64) {
        let Some(care) = &mut self.care else { return };
        care.step = match std::mem::replace(&mut care.step, Step::None) {
            Step::Starting(cell, actor, permit, number) if number == begun => {
                // One at a time.
                actor.do_send(Begin);
                Step::Running(cell, permit)
            }
            other => other,
        };
    }

    /// A lane has left the handler. `true` if the next epoch has to say so.
    pub fn has_run(&mut self, cell: &Rc<LaneCell>) -> bool {
        if !self.may_end() || !self.care.as_ref().is_some_and(|care| care.is(cell)) {
            return false;
        }
        if let Some(care) = &mut self.care {
            care.step = Step::None;
        }
        if let Some(done) = self.row.starting.take() {
            self.row.named.retain(|named| named.place != done);
        }
        self.tell(NextAlone);
        true
    }

    /// Looks whether anything is still suspect: what lay in the input when the mode began, what is due since, and
    /// what a replay hands in; and no more of it than one owner can have begun.
    pub(super) fn look_at_care(&mut self) {
        let (done, replays, begins) = (self.stats.watermark.get(), self.replay.is_some(), self.may_begin());
        let Some(care) = self.care.as_mut().filter(|_| begins) else { return };
        if !std::mem::replace(&mut care.looked, true) {
            return;
        }
        let seen = (done >= care.until && !replays) || care.begun >= care.policy.suspects;
        if seen && care.enough.is_none() {
            care.enough = Some(care.begun + 1 + care.waiting.len() as u64);
        }
        self.tell(NextAlone);
    }

    /// Ends the mode if nothing is suspect any more: lanes that wait begin as ever.
    fn end_care(&mut self) -> bool {
        let Some(care) = self.care.take_if(|care| care.is_enough()) else { return false };
        for (cell, actor) in care.waiting {
            if cell.place.replace(Room::None) == Room::Waiting {
                // One for each lane.
                actor.do_send(Drive);
            }
        }
        self.row.named.clear();
        self.stats.set_careful(None);
        true
    }

    /// The last epoch of this owner says that it is the last, and that nothing is at the handler; `true` if it
    /// was not said before.
    pub(super) fn release(&mut self) -> bool {
        self.row.starting = None;
        self.care = None;
        !std::mem::replace(&mut self.released, true)
    }
}

/// What tells a record from all others of its partition.
pub fn place(taken: &Taken) -> Place {
    match taken.hold {
        Hold::Letter { offset, .. } => Place { letter: true, offset },
        _ => Place { letter: false, offset: taken.record.offset.0 },
    }
}

impl Handler<NextAlone> for PartitionActor {
    type Result = ();

    fn handle(&mut self, _: NextAlone, ctx: &mut Context<Self>) {
        if self.state.borrow_mut().end_care() {
            let partition = self.state.borrow().partition();
            tracing::info!(handler = %self.pipeline.source.handler, %partition, "careful mode ends");
            return self.pipeline.open.borrow_mut().touch(&self.state);
        }
        let Some(alone) = self.state.borrow_mut().next_alone() else { return };
        let gate = self.pipeline.gate.clone();
        let permit = async move {
            if alone {
                Permit::Alone(gate.write_owned().await)
            } else {
                Permit::Shared(gate.read_owned().await)
            }
        };
        ctx.spawn(permit.into_actor(self).map(|permit, partition, _| {
            if partition.state.borrow_mut().start_alone(permit) {
                partition.pipeline.open.borrow_mut().touch(&partition.state);
            }
        }));
    }
}
