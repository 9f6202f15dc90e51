//! What an order actor is told.

use actix::Message;

use super::Taken;
use crate::record::Offset;
use crate::supervisor::Verdict;

/// A record for this key.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Take(pub Taken);

/// A place at the handler is free for this lane.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Go;

/// That the lane's record begins alone is committed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Begin;

/// What follows an earlier record into the dead-letter topic has gathered long enough.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FollowOn;

/// The supervisor's answer to a failed attempt.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Judged {
    /// The attempt that failed.
    pub attempt: u32,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// The time of a retry has come.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Wake {
    /// The record that waits for it.
    pub offset: Offset,
    /// The attempt to start.
    pub attempt: u32,
}

/// Something changed in the lane: its next record may begin.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drive;

/// There may be room again for what could not be parked.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Shelve;

/// Attempts that failed do not count after all: the record is to wait for this one.
#[derive(Message)]
#[rtype(result = "()")]
pub struct GiveBack {
    /// The record.
    pub offset: Offset,
    /// 1-based.
    pub attempt: u32,
}

/// The key is let go, or its partition is given up.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop;
