//! The order actor: the only writer of its key.

mod actor;
mod gaps;
mod hearing;
mod lane;
mod letters;
mod look;
mod mail;
mod shelf;

use std::cell::{Cell, RefCell};

use crate::record::key_text;

pub use actor::OrderActor;
pub use lane::{Discarded, Hold, Lane, Shelved, Taken, Turn};
pub use look::{Doing, LaneLook};
pub use mail::{Begin, Drive, FollowOn, GiveBack, Go, Judged, Shelve, Stop, Take, Wake};
pub use shelf::cover;

/// Whether a lane has a place at the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Neither has nor wants one.
    None,
    /// Waits for one.
    Waiting,
    /// Has one.
    Held,
}

/// A lane as the actors of its partition share it: the order actor works it, the partition actor
/// sees whether it may go, the open epoch takes its row.
pub struct LaneCell {
    /// The lane.
    pub lane: RefCell<Lane>,
    /// Its place at the handler.
    pub place: Cell<Place>,
    /// Whether a call is at the handler.
    pub calling: Cell<bool>,
    /// Why it holds records that could not be parked, if it does.
    pub overflows: RefCell<Option<String>>,
    /// Whether its next record gathers with others that follow into the dead-letter topic.
    pub follows: Cell<bool>,
    /// Messages to the order actor that it has not yet handled.
    pub pending: Cell<u32>,
}

impl LaneCell {
    /// Wraps a lane.
    pub fn new(lane: Lane) -> Self {
        LaneCell {
            lane: RefCell::new(lane),
            place: Cell::new(Place::None),
            calling: Cell::new(false),
            overflows: RefCell::new(None),
            follows: Cell::new(false),
            pending: Cell::new(0),
        }
    }

    /// Whether a drain waits for this lane: for its handler's answer, or for the verdict on it.
    pub fn is_running(&self) -> bool {
        self.calling.get() || self.lane.borrow().is_judged()
    }

    /// What goes on in it, for people.
    pub fn look(&self) -> LaneLook {
        let lane = self.lane.borrow();
        let (doing, attempt) = lane.doing();
        LaneLook {
            doing: if self.place.get() == Place::Waiting { Doing::WaitsForPlace } else { doing },
            attempt,
            offset: lane.current().map(|taken| taken.record.offset.0),
            queued: lane.queued() + self.pending.get() as usize,
        }
    }

    /// How many records of it are parked, and its key for people; `None` if none is.
    pub fn parked(&self) -> Option<(u64, String)> {
        let lane = self.lane.borrow();
        let key = key_text(lane.key.as_deref());
        (lane.parked_records() > 0).then(|| (lane.parked_records(), key))
    }

    /// Whether the key can be let go.
    pub fn may_go(&self, committed: u64) -> bool {
        self.pending.get() == 0 && self.lane.borrow().may_go(committed)
    }
}
