//! The partition actor: intake, dispatch, drain. One for each partition that a handler holds.

mod actor;
mod booking;
mod care;
mod commands;
mod halting;
mod lane_key;
mod live;
mod replay;
mod replaying;
mod restoring;
mod rewinding;
mod state;
mod sweeping;

pub use actor::{Abandon, Drain, Look, PartitionActor, Records};
pub use care::{Admission, place};
pub use lane_key::{KeyBounds, lane_key};
pub use state::{Condemned, Ownership, PartitionState, Receipt, Settlement, Shelf};
