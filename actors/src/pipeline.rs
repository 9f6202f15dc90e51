//! What all actors of one handler share. They live on one thread, so this is plain shared memory,
//! handed over when an actor starts.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use bytes::Bytes;
use tokio::sync::RwLock;
use tokio::time::Instant;

use crate::aside::Want;
use crate::epoch::{AssignmentEpoch, OpenEpoch};
use crate::handler::{Handler, Source};
use crate::order::{Go, LaneCell, OrderActor, Place};
use crate::policy::Policy;
use crate::record::Partition;
use crate::refused::RefusedEffects;
use crate::stats::HandlerStats;
use crate::supervisor::{Breaker, Followers, SupervisorActor};

/// The local view of the ledger: answers from memory or disk, never from the network.
pub trait LedgerView: Send {
    /// The row of a key, as of the last committed epoch.
    ///
    /// # Errors
    /// When the view cannot be read; the handler stops, because a ledger that is guessed at breaks
    /// every promise.
    fn get(&self, partition: Partition, key: &[u8]) -> Result<Option<Bytes>, ViewError>;

    /// Up to `limit` stored heads after `after` (or from the first), in key order: key and value. A
    /// value may be older than what [`LedgerView::get`] answers.
    ///
    /// # Errors
    /// As [`LedgerView::get`].
    fn scan(
        &self,
        partition: Partition,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ViewError>;
}

/// The local view of the ledger cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ViewError(pub String);

/// See the module's documentation.
pub struct Pipeline {
    /// The handler's settings.
    pub policy: Policy,
    /// Its input.
    pub source: Arc<Source>,
    /// What records are handed to.
    pub handler: Arc<dyn Handler>,
    /// The ledger as it lies on this machine.
    pub view: Box<dyn LedgerView>,
    /// Is asked for commands and dead letters.
    pub aside: Box<dyn Fn(Want) + Send>,
    /// What others observe.
    pub stats: Arc<HandlerStats>,
    /// What is to be written next.
    pub open: Rc<RefCell<OpenEpoch>>,
    /// Room at the handler.
    pub places: RefCell<Places>,
    /// Whether the handler's dependency is there.
    pub breaker: RefCell<Breaker<Addr<OrderActor>>>,
    /// Who begins carefully passes it: beside others, or alone in the process.
    pub gate: Arc<RwLock<()>>,
    /// What is on its way into the dead-letter topic behind an earlier record.
    pub followers: RefCell<Followers>,
    /// What topics refused of it.
    pub refused: Arc<RefusedEffects>,
    /// Judges failures.
    pub supervisor: Addr<SupervisorActor>,
    /// Takes a partition anew from its ledger.
    pub rebuild: Box<dyn Fn(Partition, AssignmentEpoch) + Send>,
    /// Told of panics.
    pub alarm: Alarm,
}

impl Pipeline {
    /// The handler's dependency answered: a breaker that is open closes, and lanes begin again.
    pub fn answered(&self) {
        if self.breaker.borrow().is_calm() {
            return;
        }
        let Some(open) = self.breaker.borrow_mut().answered(Instant::now()) else { return };
        self.stats.breaker.set_open(None);
        self.places.borrow_mut().open();
        let open = Duration::from_secs(open.as_secs());
        tracing::info!(
            handler = %self.source.handler,
            "the breaker closes after {open:?}: the handler answers again"
        );
    }
}

/// Tells why a handler cannot go on.
#[derive(Clone)]
pub struct Alarm {
    handler: Arc<str>,
    on_halt: Rc<dyn Fn(String)>,
}

impl Alarm {
    /// For a handler of this name.
    pub fn new(handler: Arc<str>, on_halt: Rc<dyn Fn(String)>) -> Self {
        Alarm { handler, on_halt }
    }

    /// The handler cannot go on.
    pub fn halt(&self, reason: String) {
        (self.on_halt)(reason);
    }

    /// Called where an actor ends: the runtime catches its panic, and nobody else would notice.
    pub fn ended(&self, actor: &str) {
        if std::thread::panicking() {
            let handler = &self.handler;
            self.halt(format!(
                "{handler}: {actor} panicked; this is a bug in Pawl or in the program's handler"
            ));
        }
    }
}

/// The handler's in-flight limit: lanes that find no place wait their turn, first come first served. While
/// the breaker is open there is no place but for probes.
pub struct Places {
    free: usize,
    shut: bool,
    /// Whether the next lane may begin although they are shut.
    probe: bool,
    waiting: VecDeque<(Rc<LaneCell>, Addr<OrderActor>)>,
}

impl Places {
    /// `limit` calls at once.
    pub fn new(limit: usize) -> Self {
        Places { free: limit.max(1), shut: false, probe: false, waiting: VecDeque::new() }
    }

    /// Takes a place if one is free; else the lane waits for `Go`.
    pub fn take(&mut self, cell: &Rc<LaneCell>, actor: impl FnOnce() -> Addr<OrderActor>) -> bool {
        if self.free > 0 && (!self.shut || std::mem::take(&mut self.probe)) {
            self.free -= 1;
            cell.place.set(Place::Held);
            return true;
        }
        cell.place.set(Place::Waiting);
        self.waiting.push_back((cell.clone(), actor()));
        false
    }

    /// Gives up what the lane holds or waits for. A place goes to the lane that waits longest.
    pub fn give_up(&mut self, cell: &LaneCell) {
        if cell.place.replace(Place::None) == Place::Held {
            self.free += 1;
            if !self.shut {
                self.hand_on();
            }
        }
    }

    /// The breaker opens: nobody begins any more.
    pub fn shut(&mut self) {
        self.shut = true;
        self.probe = false;
    }

    /// One lane may begin all the same: the one that waits longest, or the next one that asks.
    pub fn let_one_probe(&mut self) {
        self.probe = self.free > 0 && !self.hand_on();
    }

    /// In a long outage partitions come and go, and with them lanes that nobody would ever pass over.
    pub fn forget_the_gone(&mut self) {
        self.waiting.retain(|(cell, actor)| cell.place.get() == Place::Waiting && actor.connected());
    }

    /// The breaker closes: lanes that wait begin, as far as there is room.
    pub fn open(&mut self) {
        self.shut = false;
        self.probe = false;
        while self.free > 0 && self.hand_on() {}
    }

    /// Gives a free place to the lane that waits longest; `false` if none waits.
    fn hand_on(&mut self) -> bool {
        while let Some((next, actor)) = self.waiting.pop_front() {
            // A lane that stopped waiting, or whose actor is gone, is passed over.
            if next.place.get() == Place::Waiting && actor.try_send(Go).is_ok() {
                next.place.set(Place::Held);
                self.free -= 1;
                return true;
            }
        }
        false
    }
}
