//! What a partition is in the middle of: its watermark, its books, and its share of the open epoch.
//! The partition actor and its order actors share it; they live on one thread.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Addr, Handler, Message};
use bytes::{Bytes, BytesMut};

use crate::claims::Claims;
use crate::epoch::{AssignmentEpoch, Effect, Letter, PartitionEpoch};
use crate::ledger::{Books, IdHasher, PartitionRow, Place, Rewind, Rewinds, Row};
use crate::order::LaneCell;
use crate::pipeline::Pipeline;
use crate::record::{Millis, NextOffset, Partition, Record};
use crate::stats::{HandlerStats, PartitionStats};
use crate::supervisor::Panicked;
use crate::trace::{MAX_TRACES, Trace};
use crate::watermark::{Ticket, Watermark};

use super::PartitionActor;
use super::booking::add;
use super::care::{Care, NextAlone};
use super::replay::Replay;

/// Given for a received record; handed back when it is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its place in the watermark.
    pub ticket: Ticket,
    /// What it counts against the intake bound.
    pub bytes: u32,
}

/// How a partition begins under a new owner.
#[derive(Clone, Debug)]
pub struct Ownership {
    /// Which partition.
    pub partition: Partition,
    /// Under which assignment.
    pub assignment: AssignmentEpoch,
    /// The claim that made this instance the owner.
    pub claim: i64,
    /// The partition row as restored, or a fresh one.
    pub row: PartitionRow,
    /// Its parked rows, keys and values, in the order of their keys.
    pub parked: Vec<(Bytes, Bytes)>,
    /// Whether the row is not in the changelog yet.
    pub fresh: bool,
    /// How the claims before this one ended.
    pub claims: Claims,
    /// The first offset that the input had when it was claimed.
    pub low: i64,
    /// The end of the input when it was claimed.
    pub end: i64,
    /// What others observe.
    pub stats: Arc<PartitionStats>,
}

/// See the module's documentation.
pub struct PartitionState {
    partition: Partition,
    assignment: AssignmentEpoch,
    pub(super) stats: Arc<PartitionStats>,
    pub(super) watermark: Watermark,
    pub(super) row: PartitionRow,
    hasher: IdHasher,
    pub(super) share: Share,
    /// Whether the open epoch already lists this partition.
    listed: bool,
    tenure: Tenure,
    pub(super) parked: Shelf,
    /// Letters that were marked.
    pub(super) marked: HashSet<i64>,
    /// The replay that is under way.
    pub replay: Option<Replay>,
    /// Epochs that carry it and are not yet decided.
    undecided: usize,
    claims: Claims,
    low: i64,
    /// Whether the next epoch is this owner's last.
    pub(super) released: bool,
    /// One record at a time, while that is so.
    pub(super) care: Option<Care>,
    /// Records that are not to be handed to the handler again.
    pub(super) condemned: Vec<Condemned>,
    /// The partition's own actor.
    shell: Option<Addr<PartitionActor>>,
}

/// A record that a part of Pawl came to a bad end over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    /// Which one.
    pub place: Place,
    /// What happened, for people.
    pub why: String,
}

/// Records may begin: the first epoch of this owner is committed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Opened;

/// How far the partition is given up already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tenure {
    /// Nothing begins yet: the first epoch has to say first that somebody is there.
    Opening,
    /// Records begin and end.
    Open,
    /// Nothing begins until an operator has decided on a record; what runs may end.
    Stopped,
    /// Nothing begins any more; what runs may end.
    Draining,
    /// Nothing ends any more; what ended is written.
    Frozen,
    /// Nothing is written any more.
    Lost,
}

/// What the open epoch holds of this partition.
#[derive(Default)]
pub(super) struct Share {
    pub(super) emits: Vec<Effect>,
    pub(super) letters: Vec<Letter>,
    pub(super) rows: Vec<Row>,
    pub(super) lanes: Vec<Rc<LaneCell>>,
    /// Removals of parked rows: written after the heads that name them no more, so that no head names
    /// a row that is not there.
    pub(super) unparked: Vec<Row>,
    pub(super) written_bytes: u64,
    pub(super) tally: Tally,
    traces: Vec<Trace>,
}

/// What lies in parked rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shelf {
    /// How many records.
    pub records: u64,
    /// Bytes of their rows.
    pub bytes: u64,
}

/// What becomes countable when an epoch is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) books: Books,
    /// Records that left their parked rows.
    pub(super) unparked: u64,
    /// Dead letters of this handler that are none any more.
    pub(super) redeemed: u64,
    pub(super) redelivered: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// What is left to do for a partition once its epoch is committed.
pub struct Settlement {
    tally: Tally,
    next: NextOffset,
    /// The record of which it says that it begins.
    starts: Option<u64>,
}

impl PartitionState {
    /// Begins at the restored watermark.
    pub fn new(ownership: Ownership) -> Self {
        let Ownership { partition, assignment, claim, claims, low, mut row, stats, .. } = ownership;
        if row.claim != claim {
            row.claim = claim;
            row.epoch = 0;
        }
        stats.watermark.set(row.watermark);
        PartitionState {
            partition,
            assignment,
            stats,
            watermark: Watermark::new(NextOffset(row.watermark)),
            hasher: IdHasher::new(row.id_key),
            row,
            share: Share::default(),
            listed: false,
            tenure: Tenure::Open,
            parked: Shelf::default(),
            marked: HashSet::new(),
            replay: None,
            undecided: 0,
            claims,
            low,
            released: false,
            care: None,
            condemned: Vec::new(),
            shell: None,
        }
    }

    /// Which partition this is.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// Under which assignment it is held.
    pub fn assignment(&self) -> AssignmentEpoch {
        self.assignment
    }

    /// The claim under which it is held.
    pub fn claim(&self) -> i64 {
        self.row.claim
    }

    /// What others observe of it.
    pub fn stats(&self) -> &Arc<PartitionStats> {
        &self.stats
    }

    /// How the partition was rewound.
    pub fn rewinds(&self) -> &Rewinds {
        &self.row.rewinds
    }

    /// The first offset that the input had when it was claimed.
    pub fn low(&self) -> i64 {
        self.low
    }

    /// The next epoch says that the partition goes on from an earlier offset, with new books. Nothing of it may be
    /// under way.
    pub(super) fn rewind(&mut self, rewind: Rewind) {
        let (to, parked) = (rewind.to, rewind.parked);
        self.row.rewinds.push(rewind);
        self.row.books = Books { received: parked, parked, ..Books::default() };
        self.row.began = to;
        self.watermark = Watermark::new(NextOffset(to));
    }

    /// Hashes event ids with this partition's secret.
    pub fn hasher(&self) -> IdHasher {
        self.hasher
    }

    /// Highest record timestamp taken, capped at the clock.
    pub fn partition_time(&self) -> i64 {
        self.row.partition_time
    }

    /// The position that the next epoch commits.
    pub fn position(&self) -> NextOffset {
        self.watermark.position()
    }

    /// `records` have come, and are counted as outstanding already. After a quiet time progress is
    /// measured from here, or the first of them would find the partition stalled.
    pub fn work_arrives(&self, records: usize, now: Millis) {
        if self.stats.outstanding_records.get() <= records as i64 {
            self.stats.last_progress.set(now.0);
        }
    }

    /// Notes a received record. `None`: it was received before; nothing more is owed for it.
    pub fn receive(&mut self, record: &Record, now: Millis) -> Option<Receipt> {
        let bytes = u32::try_from(record.size()).unwrap_or(u32::MAX);
        let Some(ticket) = self.watermark.receive(record.offset) else {
            self.stats.outstanding_records.add(-1);
            self.stats.outstanding_bytes.add(-i64::from(bytes));
            return None;
        };
        self.row.partition_time = self.row.partition_time.max(record.timestamp.0.min(now.0));
        Some(Receipt { ticket, bytes })
    }

    /// A lane whose head the open epoch must carry.
    pub fn changed(&mut self, lane: Rc<LaneCell>) {
        self.share.lanes.push(lane);
    }

    /// The open epoch has the result of an attempt with this span.
    pub fn traced(&mut self, trace: Option<Trace>) {
        let room = self.share.traces.len() < MAX_TRACES;
        self.share.traces.extend(trace.filter(|trace| trace.sampled && room));
    }

    /// A letter without a number was dealt with.
    pub fn mark(&mut self, letter: i64, row: Row) {
        self.marked.insert(letter);
        self.share.rows.push(row);
    }

    /// Whether a letter was marked by this owner: the row may not be committed yet.
    pub fn has_marked(&self, letter: i64) -> bool {
        self.marked.contains(&letter)
    }

    /// A row that is written as it is: the removal of one that nobody holds.
    pub fn write_row(&mut self, row: Row) {
        self.share.rows.push(row);
    }

    /// Bytes that the open epoch holds of this partition, roughly: what its records had and what
    /// they emit.
    pub fn open_bytes(&self) -> u64 {
        self.share.tally.bytes + self.share.written_bytes
    }

    /// Puts the partition on the open epoch's list; `true` if it was not there.
    pub fn list(&mut self) -> bool {
        !std::mem::replace(&mut self.listed, true)
    }

    /// Takes the partition's share out of the open epoch as data; `None` for a lost one.
    pub fn close(
        &mut self,
        epoch: u64,
        oldest_ms: i64,
        out: &mut BytesMut,
    ) -> Option<(PartitionEpoch, Settlement)> {
        self.listed = false;
        if self.tenure == Tenure::Lost {
            return None;
        }
        let next = self.watermark.position();
        let Share { emits, letters, mut rows, lanes, unparked, tally, traces, .. } =
            std::mem::take(&mut self.share);
        rows.reserve(lanes.len() + unparked.len());
        for cell in lanes {
            rows.extend(cell.lane.borrow_mut().close(epoch, next, oldest_ms, out));
        }
        rows.extend(unparked);
        add(&mut self.row.books, &tally);
        debug_assert!(self.row.books.balance(), "books of {}: {:?}", self.partition, self.row.books);
        self.row.watermark = next.0;
        if let Some(replay) = &self.replay {
            self.row.replay = Some(replay.row());
        }
        self.row.epoch = epoch;
        self.undecided += 1;
        let part = PartitionEpoch {
            epoch,
            partition: self.partition,
            assignment: self.assignment,
            claim: self.row.claim,
            claims: self.claims,
            released: self.released,
            emits,
            letters,
            rows,
            partition_row: self.row.row(out),
            next,
            traces,
        };
        Some((part, Settlement { tally, next, starts: self.starts() }))
    }

    /// The epoch with this settlement is committed: counts it and gives the intake its room back.
    pub fn settle(&mut self, settlement: &Settlement, handler: &HandlerStats, now: Millis) {
        self.undecided -= 1;
        let Settlement { tally, next, starts } = settlement;
        handler.received.add(tally.books.received);
        handler.applied.add(tally.books.applied);
        handler.duplicates.add(tally.books.duplicates);
        handler.dead_letters.add(tally.books.dead_lettered);
        handler.replayed.add(tally.books.replayed + tally.books.foreign);
        handler.redelivered.add(tally.redelivered);
        self.stats.outstanding_records.add(-(tally.records as i64));
        self.stats.outstanding_bytes.add(-(tally.bytes as i64));
        self.stats.ahead.set(self.watermark.span() as i64);
        if tally.records > 0 || tally.unparked > 0 || tally.redeemed > 0 {
            self.stats.last_progress.set(now.0);
        }
        self.stats.watermark.set(next.0);
        if let Some(starts) = starts {
            self.has_started(*starts);
        }
        if self.tenure == Tenure::Opening {
            self.tenure = Tenure::Open;
            self.tell(Opened);
        }
    }

    /// From now on the partition's actor is told of what it has to do, and nothing begins before the first
    /// epoch is committed.
    pub(super) fn open(&mut self, shell: Addr<PartitionActor>, waits: bool, condemned: Vec<Condemned>) {
        self.shell = Some(shell);
        self.condemned = condemned;
        if waits {
            self.tenure = Tenure::Opening;
        }
    }

    /// Tells the partition's actor; a few such messages are under way at most.
    pub(super) fn tell<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        PartitionActor: Handler<M>,
    {
        if let Some(shell) = &self.shell {
            shell.do_send(message);
        }
    }

    /// No record begins until [`PartitionState::go_on`]; `true` if it is the first to say so.
    pub fn stop(&mut self) -> bool {
        let first = self.tenure == Tenure::Open;
        if first {
            self.tenure = Tenure::Stopped;
        }
        first
    }

    /// Records begin again; `false` if the partition did not stand still.
    pub fn go_on(&mut self) -> bool {
        let stood = self.tenure == Tenure::Stopped;
        if stood {
            self.tenure = Tenure::Open;
            self.tell(NextAlone);
        }
        stood
    }

    /// Whether records and commands are taken in, although perhaps none begins.
    pub fn takes_in(&self) -> bool {
        matches!(self.tenure, Tenure::Opening | Tenure::Open | Tenure::Stopped)
    }

    /// From here on no record begins.
    pub fn drain(&mut self) {
        self.tenure = Tenure::Draining;
    }

    /// From here on an answer that comes late changes nothing.
    pub fn freeze(&mut self) {
        self.tenure = Tenure::Frozen;
    }

    /// Whether records may begin.
    pub fn may_begin(&self) -> bool {
        self.tenure == Tenure::Open
    }

    /// Whether results of records count.
    pub fn may_end(&self) -> bool {
        !matches!(self.tenure, Tenure::Frozen | Tenure::Lost)
    }

    /// An epoch that carried the partition will never be committed: the partition was lost, or the
    /// handler ends. Its records are delivered again to whoever owns the partition next.
    pub fn drop_epoch(&mut self) {
        self.undecided -= 1;
    }

    /// One of the partition's actors panicked, and may have left something half done: nothing of the partition is
    /// written any more, and the supervisor decides.
    pub fn ended_badly(
        state: &Rc<RefCell<Self>>,
        pipeline: &Pipeline,
        actor: &'static str,
        over: Option<(Condemned, String)>,
    ) {
        // Nobody holds it: whoever did was unwound.
        let Ok(mut state) = state.try_borrow_mut() else { return pipeline.alarm.ended(actor) };
        if state.tenure == Tenure::Lost {
            return;
        }
        state.abandon();
        let (partition, assignment) = (state.partition, state.assignment);
        pipeline.supervisor.do_send(Panicked { partition, assignment, actor, over });
    }

    /// The partition was lost: nothing of it may be written any more.
    pub fn abandon(&mut self) {
        self.tenure = Tenure::Lost;
        self.share = Share::default();
        // What it holds back in other partitions goes on.
        self.care = None;
    }

    /// Whether no epoch holds anything of this partition: neither the open one nor one that is
    /// being written.
    pub fn is_settled(&self) -> bool {
        !self.listed && self.undecided == 0
    }
}
