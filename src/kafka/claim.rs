//! Claims: how a new owner says that a partition is its own, before it trusts anything that it reads.

use std::sync::mpsc::Sender;

use pawl_actors::claims::Claims;
use pawl_actors::epoch::AssignmentEpoch;
use pawl_actors::record::{NextOffset, Partition};

/// Claims to write in one step.
pub struct ClaimJob {
    /// What is claimed.
    pub claims: Vec<ClaimRequest>,
    /// Gets the claims that were written: those still held.
    pub reply: Sender<Vec<Claimed>>,
}

/// A partition to claim.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// Which partition.
    pub partition: Partition,
    /// Under which assignment.
    pub assignment: AssignmentEpoch,
    /// The group's position, which the claim commits anew.
    pub next: NextOffset,
    /// Nobody had committed that position; it is what `start` says.
    pub resolved: bool,
    /// What that position carries proves that there is a ledger.
    pub ledger: bool,
    /// How the claims before this one ended.
    pub claims: Claims,
}

/// A written claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Which partition.
    pub partition: Partition,
    /// The claim's number: its row's offset in the changelog.
    pub claim: i64,
}
