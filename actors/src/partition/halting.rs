//! A partition that stands still because a record failed for good, where the settings ask for that: other
//! partitions go on, and it goes on itself as soon as an operator has decided on the record.

use super::PartitionActor;
use crate::order::Drive;
use crate::stats::PartitionPhase;

impl PartitionActor {
    /// Lets the partition go on if no lane stands still any more; `true` if it stood still before.
    pub(super) fn go_on(&mut self) -> bool {
        let halted = self.live.cells().any(|cell| {
            let lane = cell.lane.borrow();
            lane.is_halted() || lane.is_halted_at_gap()
        });
        if halted || !self.state.borrow_mut().go_on() {
            return false;
        }
        let state = self.state.borrow();
        state.stats().set_stopped(None);
        state.stats().set_phase(PartitionPhase::Running);
        drop(state);
        for live in self.live.all() {
            live.actor.do_send(Drive);
        }
        true
    }
}
