//! The partition actor: intake, dispatch, drain. One for each partition that a handler holds.

mod actor;
mod live;
mod state;

pub use actor::{Abandon, Drain, PartitionActor, Records};
pub use state::{Ownership, PartitionState, Receipt, Settlement};
