//! The live keys of a partition: which have an order actor, and which may be let go.

use std::rc::Rc;

use actix::Addr;
use hashbrown::HashMap;

use crate::ledger::LaneKey;
use crate::order::{LaneCell, OrderActor, Stop};

/// A key that has an order actor.
pub struct Live {
    /// Its lane.
    pub cell: Rc<LaneCell>,
    /// Its actor.
    pub actor: Addr<OrderActor>,
    /// The sweep in which it was last used.
    pub used: u64,
}

/// See the module's documentation.
#[derive(Default)]
pub struct LiveKeys {
    keyed: HashMap<Rc<[u8]>, Live>,
    /// Lanes of records without a key; there are few.
    spread: HashMap<u16, Live>,
    unkeyed: Option<Live>,
}

impl LiveKeys {
    /// The live key, if it is one.
    pub fn get_mut(&mut self, key: LaneKey<&[u8]>) -> Option<&mut Live> {
        match key {
            LaneKey::Key(key) => self.keyed.get_mut(key),
            LaneKey::NoKey(lane) => self.spread.get_mut(&lane),
            LaneKey::Unusable => self.unkeyed.as_mut(),
        }
    }

    /// Adds a key.
    pub fn insert(&mut self, key: LaneKey<Rc<[u8]>>, live: Live) -> &mut Live {
        match key {
            LaneKey::Key(key) => self.keyed.entry(key).insert(live).into_mut(),
            LaneKey::NoKey(lane) => self.spread.entry(lane).insert(live).into_mut(),
            LaneKey::Unusable => self.unkeyed.insert(live),
        }
    }

    /// How many keys live.
    pub fn len(&self) -> usize {
        self.keyed.len() + self.spread.len() + usize::from(self.unkeyed.is_some())
    }

    /// The sweep up to which keys must have been idle for `excess` of them to go, the longest idle
    /// first; some more may share that sweep. `None` if none has to go.
    pub fn idle_since(&self, excess: usize) -> Option<u64> {
        let mut used: Vec<u64> = self.keyed.values().map(|live| live.used).collect();
        let last = excess.min(used.len()).checked_sub(1)?;
        Some(*used.select_nth_unstable(last).1)
    }

    /// Every live key's lane.
    pub fn cells(&self) -> impl Iterator<Item = &Rc<LaneCell>> {
        self.all().map(|live| &live.cell)
    }

    /// Every live key.
    pub fn all(&self) -> impl Iterator<Item = &Live> {
        self.keyed.values().chain(self.spread.values()).chain(&self.unkeyed)
    }

    /// Live keys with records that could not be parked.
    pub fn overflowing(&self) -> impl Iterator<Item = &Live> {
        self.all().filter(|live| live.cell.overflows.borrow().is_some())
    }

    /// Lets go of the keys that `may_go` names.
    pub fn let_go(&mut self, mut may_go: impl FnMut(&Live) -> bool) {
        let mut go = |live: &Live| {
            let gone = may_go(live);
            if gone {
                // Nothing follows in its mailbox: `pending` is 0 for a key that may go.
                live.actor.do_send(Stop);
            }
            gone
        };
        self.keyed.retain(|_, live| !go(live));
        self.spread.retain(|_, live| !go(live));
        if self.unkeyed.as_ref().is_some_and(go) {
            self.unkeyed = None;
        }
    }

    /// Stops every actor; running calls are cancelled.
    pub fn stop_all(&mut self) {
        let keyed = self.keyed.drain().map(|(_, live)| live);
        let unkeyed = self.spread.drain().map(|(_, live)| live).chain(self.unkeyed.take());
        for live in keyed.chain(unkeyed) {
            live.actor.do_send(Stop);
        }
    }
}
