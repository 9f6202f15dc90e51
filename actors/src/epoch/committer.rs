//! The committer: closes the open epoch whenever the writer has room for one more, but not more often
//! than `epoch_interval`, and settles it once it is committed. The busier the handler, the larger its
//! epochs: a database's group commit.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message};
use bytes::BytesMut;
use tokio::time::Instant;

use super::{Epoch, OpenEpoch};
use crate::clock;
use crate::partition::{PartitionState, Settlement};
use crate::pipeline::Alarm;
use crate::policy::Policy;
use crate::record::Partition;
use crate::stats::HandlerStats;

/// There is something to write.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Close;

/// The writer is done with an epoch.
#[derive(Message)]
#[rtype(result = "()")]
pub struct EpochDecided {
    /// Its number.
    pub number: u64,
    /// The partitions whose share is committed; the others were lost before it could be.
    pub committed: Vec<Partition>,
}

/// Where a closed epoch goes.
pub type EpochSink = Box<dyn Fn(Epoch)>;

/// See the module's documentation.
pub struct Committer {
    open: Rc<RefCell<OpenEpoch>>,
    sink: EpochSink,
    stats: Arc<HandlerStats>,
    interval: Duration,
    max_undecided: usize,
    max_bytes: u64,
    ids_age_ms: i64,
    number: u64,
    /// Oldest first.
    undecided: VecDeque<Undecided>,
    closed_at: Option<Instant>,
    timer_set: bool,
    halting: Alarm,
}

/// An epoch that the writer has.
struct Undecided {
    number: u64,
    bytes: u64,
    settlements: Vec<(Rc<RefCell<PartitionState>>, Settlement)>,
}

impl Committer {
    /// `sink` takes up to `max_undecided` epochs; each is answered by an `EpochDecided`, in order.
    pub fn new(
        open: Rc<RefCell<OpenEpoch>>,
        sink: EpochSink,
        stats: Arc<HandlerStats>,
        policy: &Policy,
        halting: Alarm,
    ) -> Self {
        let ids_age_ms = i64::try_from(policy.recent_ids_age.as_millis()).unwrap_or(i64::MAX);
        Committer {
            open,
            sink,
            stats,
            interval: policy.epoch_interval,
            max_undecided: policy.max_undecided,
            max_bytes: policy.max_epoch_bytes,
            ids_age_ms,
            number: 0,
            undecided: VecDeque::new(),
            closed_at: None,
            timer_set: false,
            halting,
        }
    }

    /// Bytes that the open epoch may hold; 0: the writer has enough.
    fn room(&self) -> u64 {
        let bytes: u64 = self.undecided.iter().map(|epoch| epoch.bytes).sum();
        if self.undecided.len() < self.max_undecided { self.max_bytes.saturating_sub(bytes) } else { 0 }
    }

    /// Closes now, later, or when the writer has room.
    fn close_when_due(&mut self, ctx: &mut Context<Self>) {
        let room = self.room();
        if room == 0 || self.timer_set || self.open.borrow().is_empty() {
            return;
        }
        let wait = self.closed_at.map_or(Duration::ZERO, |at| self.interval.saturating_sub(at.elapsed()));
        if wait.is_zero() {
            self.close(room);
        } else {
            self.timer_set = true;
            ctx.run_later(wait, |committer, ctx| {
                committer.timer_set = false;
                committer.close_when_due(ctx);
            });
        }
    }

    fn close(&mut self, room: u64) {
        let touched = self.open.borrow_mut().take(room);
        let bytes = touched.iter().map(|partition| partition.borrow().open_bytes()).sum();
        self.number += 1;
        let mut out = BytesMut::with_capacity(64 * 1024);
        let mut epoch = Epoch { number: self.number, partitions: Vec::with_capacity(touched.len()) };
        let mut settlements = Vec::with_capacity(touched.len());
        for partition in touched {
            let oldest_ms = partition.borrow().partition_time().saturating_sub(self.ids_age_ms);
            let closed = partition.borrow_mut().close(self.number, oldest_ms, &mut out);
            if let Some((part, settlement)) = closed {
                epoch.partitions.push(part);
                settlements.push((partition, settlement));
            }
        }
        self.closed_at = Some(Instant::now());
        if !epoch.partitions.is_empty() {
            self.undecided.push_back(Undecided { number: self.number, bytes, settlements });
            (self.sink)(epoch);
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.halting.ended("the committer");
    }
}

impl Actor for Committer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.open.borrow_mut().attach(ctx.address());
    }
}

impl Handler<Close> for Committer {
    type Result = ();

    fn handle(&mut self, _: Close, ctx: &mut Self::Context) {
        self.close_when_due(ctx);
    }
}

impl Handler<EpochDecided> for Committer {
    type Result = ();

    fn handle(&mut self, message: EpochDecided, ctx: &mut Self::Context) {
        let Some(epoch) = self.undecided.pop_front_if(|epoch| epoch.number == message.number) else { return };
        self.open.borrow_mut().set_committed(message.number);
        let now = clock::now();
        for (partition, settlement) in epoch.settlements {
            let mut partition = partition.borrow_mut();
            if message.committed.contains(&partition.partition()) {
                partition.settle(&settlement, &self.stats, now);
            } else {
                partition.drop_epoch();
            }
        }
        self.close_when_due(ctx);
    }
}
