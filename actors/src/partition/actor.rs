//! The shell of a partition: sorts records into lanes, wakes and lets go of order actors, drains.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, MessageResult, SpawnHandle};
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::lane_key::{KeyBounds, lane_key, undecodable};
use super::live::{Live, LiveKeys};
use super::replaying::Beginning;
use super::rewinding::Rewinding;
use super::state::Opened;
use super::{Condemned, Ownership, PartitionState, Receipt, restoring};
use crate::clock;
use crate::epoch::AssignmentEpoch;
use crate::ledger::{Head, LaneKey, head_key};
use crate::order::{Drive, Hold, Lane, LaneCell, LaneLook, OrderActor, Take, Taken};
use crate::outcome::{Failure, code};
use crate::pipeline::Pipeline;
use crate::policy::SequencePolicy;
use crate::record::Record;
use crate::selector::Reader;
use crate::stats::PartitionPhase;
use crate::supervisor::Halt;

/// Records that the consumer read, in their order.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Records {
    /// The assignment they were read under.
    pub assignment: AssignmentEpoch,
    /// At least one.
    pub records: Vec<Record>,
}

/// The partition is to be given up: finish what runs, commit, then tell.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain {
    /// Running calls are cancelled at this time.
    pub deadline: Instant,
    /// Called once no epoch holds anything of the partition.
    pub drained: Box<dyn FnOnce() + Send>,
}

/// The partition is lost: somebody else may own it already.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Abandon;

/// Somebody wants to see what goes on in a lane. Changes nothing and wakes nobody: `None` for a key
/// that has no order actor now.
#[derive(Message)]
#[rtype(result = "Option<LaneLook>")]
pub struct Look {
    /// Which lane.
    pub key: LaneKey<Bytes>,
}

/// A key and its new actor.
type Woken = (LaneKey<Rc<[u8]>>, Live);

/// Bytes of a parked row beside its record's, at most: lengths, numbers, the row's key.
const ROW_OVERHEAD: usize = 1_024;
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often a draining partition looks whether it is done; a drain waits for handlers and for a
/// commit, so this is small against what it waits for.
pub(super) const DRAIN_CHECK_EVERY: Duration = Duration::from_millis(2);

/// See the module's documentation.
pub struct PartitionActor {
    pub(super) pipeline: Rc<Pipeline>,
    pub(super) state: Rc<RefCell<PartitionState>>,
    pub(super) live: LiveKeys,
    pub(super) sweep: u64,
    /// Where the sweep for dead rows goes on.
    pub(super) swept_to: Option<Bytes>,
    draining: Option<Drain>,
    halted: bool,
    /// A replay whose end is not known yet.
    pub(super) beginning: Option<Beginning>,
    /// A rewind that is under way.
    pub(super) rewinding: Option<Rewinding>,
    /// Whether letters were asked for.
    pub(super) reading: bool,
    /// The timers of a replay.
    pub(super) pumping: Option<(SpawnHandle, SpawnHandle)>,
}

impl PartitionActor {
    /// Starts an actor at the restored watermark.
    pub fn start(pipeline: Rc<Pipeline>, mut ownership: Ownership, condemned: Vec<Condemned>) -> Addr<Self> {
        ownership.stats.last_progress.set(clock::now().0);
        ownership.stats.set_phase(PartitionPhase::Running);
        let (parked, fresh) = (std::mem::take(&mut ownership.parked), ownership.fresh);
        let (unclean, end) = (ownership.claims, ownership.end);
        let state = Rc::new(RefCell::new(PartitionState::new(ownership)));
        PartitionActor::create(|ctx| {
            let careful = pipeline.policy.careful;
            state.borrow_mut().open(ctx.address(), careful.is_some(), condemned);
            if let Some(policy) = &careful {
                state.borrow_mut().be_careful(policy, unclean.lately_unclean(policy.within), end);
                tell_careful(&pipeline, &state.borrow());
            }
            ctx.set_mailbox_capacity(pipeline.policy.mailbox_capacity);
            let mut partition = PartitionActor {
                pipeline,
                state,
                live: LiveKeys::default(),
                sweep: 0,
                swept_to: None,
                draining: None,
                halted: false,
                beginning: None,
                rewinding: None,
                reading: false,
                pumping: None,
            };
            match partition.restore(parked) {
                Err(reason) => partition.halt(reason),
                Ok(()) => {
                    if fresh || careful.is_some() {
                        // Where its commands begin has to be durable before the first one comes, and that
                        // records may begin before one does.
                        partition.pipeline.open.borrow_mut().touch(&partition.state);
                    }
                    partition.await_commands(ctx);
                    partition.resume_replay(ctx);
                }
            }
            partition
        })
    }

    /// Hands a record to the order actor of its key.
    fn dispatch(&mut self, record: Record, receipt: Receipt) {
        let (key, taken) = self.sort(record, Hold::Intake(receipt));
        let live = match self.enlivened(key.as_deref()) {
            Ok(live) => live,
            Err(reason) => return self.halt(reason),
        };
        live.cell.pending.set(live.cell.pending.get() + 1);
        if let Err(error) = live.actor.try_send(Take(taken)) {
            self.halt(format!("an order actor refused a record: {error}"));
        }
    }

    /// The actor of a key, started if need be.
    fn enlivened(&mut self, key: LaneKey<&[u8]>) -> Result<&mut Live, String> {
        let sweep = self.sweep;
        if self.live.get_mut(key).is_none() {
            let (key, live) = self.wake(key)?;
            self.live.insert(key, live);
        }
        let live = self.live.get_mut(key).expect("it is there now");
        live.used = sweep;
        Ok(live)
    }

    /// A key's lane and its actor.
    pub(super) fn lane(&mut self, key: LaneKey<&[u8]>) -> Result<(Rc<LaneCell>, Addr<OrderActor>), String> {
        self.enlivened(key).map(|live| (live.cell.clone(), live.actor.clone()))
    }

    /// Whether the partition is being given up.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    pub(super) fn halted(&self) -> bool {
        self.halted
    }

    /// Which lane a record belongs to and what marks its repetition.
    pub(super) fn sort(&self, record: Record, hold: Hold) -> (LaneKey<Bytes>, Taken) {
        let policy = &self.pipeline.policy;
        let mut reader = Reader::new(&record);
        let bounds = KeyBounds { recent_ids: policy.recent_ids, max_row_bytes: policy.max_row_bytes };
        let (key, mut defect) = match lane_key(&mut reader, &policy.key, policy.null_key, bounds) {
            Ok(key) => (key, None),
            Err(defect) => (LaneKey::Unusable, Some(defect)),
        };
        let mut event_id = None;
        if let (Some(selector), None) = (&policy.event_id, &defect) {
            match reader.read(selector) {
                Ok(found) => event_id = found,
                Err(why) => defect = Some(undecodable("event id", &why)),
            }
        }
        let state = self.state.borrow();
        let id = match &event_id {
            Some(event_id) if policy.recent_ids > 0 => {
                Some(state.hasher().hash(event_id, record.value.as_deref(), state.partition_time()))
            }
            _ => None,
        };
        let mut sequence = None;
        if policy.sequence.is_some() && matches!(hold, Hold::Intake(_)) && defect.is_none() {
            defect = self.unshelvable(key.as_deref(), &record);
        }
        // A letter has its place already.
        if let (Some(policy), None, false) = (&policy.sequence, &defect, matches!(hold, Hold::Letter { .. }))
        {
            match number(&mut reader, policy) {
                Ok(found) => sequence = Some(found),
                Err(why) => defect = Some(undecodable("sequence number", &why)),
            }
        }
        let defect = defect.map(Box::new);
        (key, Taken { record: Arc::new(record), hold, id, event_id, defect, sequence, in_sequence: false })
    }

    /// Where numbers order records, each may need a row: why this one cannot have one.
    fn unshelvable(&self, key: LaneKey<&[u8]>, record: &Record) -> Option<Failure> {
        let (bytes, takes) = (
            record.size() + key.key().map_or(0, <[u8]>::len) + ROW_OVERHEAD,
            self.pipeline.policy.max_row_bytes,
        );
        (bytes > takes).then(|| {
            let message = format!("the record's row would have {bytes} bytes, the changelog takes {takes}");
            Failure::permanent(code::TOO_LARGE, message)
        })
    }

    /// What the ledger knows of a key, as of the last committed epoch. A head that is older than a rewind comes
    /// with the offset from which on records in its parked rows do not count.
    pub(super) fn stored_head(&self, key: LaneKey<&[u8]>) -> Result<Option<(Head, Option<i64>)>, String> {
        let row_key = head_key(key, &mut BytesMut::new());
        let stored = self.pipeline.view.get(self.state.borrow().partition(), &row_key);
        let stored =
            stored.map_err(|error| format!("the local view of the ledger cannot be read: {error}"))?;
        let stored = stored.map(|row| Head::decode(&row)).transpose().map_err(|error| error.to_string())?;
        Ok(stored.map(|mut head| {
            let rows_below = head.rewind(self.state.borrow().rewinds());
            (head, rows_below)
        }))
    }

    /// Starts the order actor of a key with what the ledger knows of it.
    fn wake(&self, key: LaneKey<&[u8]>) -> Result<Woken, String> {
        let head = self.stored_head(key)?.map(|(mut head, rows_below)| {
            if rows_below.is_some() {
                // What was left of its rows had it woken when the partition was taken.
                head.keep_parked(0);
            }
            head
        });
        if let Some(parking) = head.as_ref().and_then(|head| head.parking.as_ref()) {
            return Err(restoring::rows_are_missing(key, parking, 0));
        }
        let early = head.as_ref().and_then(|head| head.sequence.as_ref()).map_or(0, |it| it.early.len());
        if early > 0 {
            return Err(restoring::early_rows_are_missing(key, early, 0));
        }
        let key: LaneKey<Rc<[u8]>> = key.map(Rc::from);
        let lane = self.sequenced(Lane::new(key.clone(), head), Vec::new());
        Ok((key, self.enliven(lane)))
    }

    /// Lets numbers order a lane, where the settings say so. Records without a usable key have no order.
    pub(super) fn sequenced(&self, lane: Lane, early: Vec<Taken>) -> Lane {
        match &self.pipeline.policy.sequence {
            Some(policy) if lane.key.is_key() => lane.sequenced(policy.first, early),
            _ => lane,
        }
    }

    /// Gives a lane its order actor.
    pub(super) fn enliven(&self, lane: Lane) -> Live {
        let cell = Rc::new(LaneCell::new(lane));
        cell.lane.borrow_mut().knows_rewind(self.state.borrow().rewinds().number());
        let actor = OrderActor::start(cell.clone(), self.state.clone(), self.pipeline.clone());
        Live { cell, actor, used: self.sweep }
    }

    pub(super) fn halt(&mut self, reason: String) {
        if std::mem::replace(&mut self.halted, true) {
            return;
        }
        let state = self.state.borrow();
        state.stats().set_phase(PartitionPhase::Stopped);
        let source = &self.pipeline.source;
        let reason = format!("{}: {}[{}]: {reason}", source.handler, source.topic, state.partition());
        self.pipeline.supervisor.do_send(Halt { reason });
    }

    /// Goes on with a drain: running calls end or are cancelled, then the last epoch is awaited.
    fn check_drain(&mut self, ctx: &mut Context<Self>) {
        let Some(drain) = &self.draining else { return };
        let running = self.live.cells().any(|cell| cell.is_running());
        if running && Instant::now() < drain.deadline {
            return;
        }
        self.state.borrow_mut().freeze();
        self.live.stop_all();
        if self.pipeline.policy.careful.is_some() && self.state.borrow_mut().release() {
            self.pipeline.open.borrow_mut().touch(&self.state);
        }
        if self.state.borrow().is_settled() {
            if let Some(drain) = self.draining.take() {
                (drain.drained)();
            }
            ctx.stop();
        }
    }
}

/// The number that orders a record.
fn number(reader: &mut Reader<'_>, policy: &SequencePolicy) -> Result<i64, String> {
    let Some(text) = reader.read(&policy.at)? else { return Err(format!("there is none at {}", policy.at)) };
    let text = String::from_utf8_lossy(&text);
    let number: i64 =
        text.parse().map_err(|_| format!("\"{text}\" is no whole number up to {}", i64::MAX))?;
    if number == i64::MAX {
        return Err(format!("{number} leaves no room for a next one"));
    }
    if number < policy.first {
        return Err(format!("{number} is below the first, {}", policy.first));
    }
    Ok(number)
}

fn tell_careful(pipeline: &Pipeline, state: &PartitionState) {
    if let Some(why) = state.stats().careful() {
        let (handler, topic) = (&pipeline.source.handler, &pipeline.source.topic);
        let partition = state.partition().0;
        tracing::warn!(%handler, %topic, partition, "the partition is in careful mode: {why}");
    }
}

impl Drop for PartitionActor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            PartitionState::ended_badly(&self.state, &self.pipeline, "the partition actor", None);
            self.live.stop_all();
        }
    }
}

impl Actor for PartitionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(SWEEP_EVERY, |partition, _| {
            if partition.draining.is_none() && partition.rewinding.is_none() && !partition.halted {
                partition.sweep();
            }
        });
    }
}

impl Handler<Records> for PartitionActor {
    type Result = ();

    fn handle(&mut self, message: Records, _: &mut Self::Context) {
        if self.draining.is_some()
            || self.rewinding.is_some()
            || self.halted
            || message.assignment != self.state.borrow().assignment()
        {
            return;
        }
        let now = clock::now();
        self.state.borrow().work_arrives(message.records.len(), now);
        for record in message.records {
            if self.halted {
                // A record of this batch found no lane; a later one of its key must not overtake it.
                return;
            }
            let receipt = self.state.borrow_mut().receive(&record, now);
            if let Some(receipt) = receipt {
                self.dispatch(record, receipt);
            }
        }
    }
}

impl Handler<Drain> for PartitionActor {
    type Result = ();

    fn handle(&mut self, message: Drain, ctx: &mut Self::Context) {
        self.state.borrow().stats().set_phase(PartitionPhase::Draining);
        self.state.borrow_mut().drain();
        for cell in self.live.cells() {
            cell.lane.borrow_mut().let_go();
        }
        self.draining = Some(message);
        ctx.run_interval(DRAIN_CHECK_EVERY, Self::check_drain);
        self.check_drain(ctx);
    }
}

impl Handler<Opened> for PartitionActor {
    type Result = ();

    fn handle(&mut self, _: Opened, _: &mut Self::Context) {
        // What came meanwhile waits in its lane.
        for live in self.live.all() {
            live.actor.do_send(Drive);
        }
    }
}

impl Handler<Abandon> for PartitionActor {
    type Result = ();

    fn handle(&mut self, _: Abandon, ctx: &mut Self::Context) {
        self.state.borrow_mut().abandon();
        self.live.stop_all();
        ctx.stop();
    }
}

impl Handler<Look> for PartitionActor {
    type Result = MessageResult<Look>;

    fn handle(&mut self, look: Look, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.live.get_mut(look.key.as_deref()).map(|live| live.cell.look()))
    }
}
