//! What the writer does about a failed attempt: when it may send the same again, with which producer,
//! and whether an attempt with an unknown outcome happened.

use std::time::Duration;

use pawl_actors::epoch::PartitionEpoch;

use super::Writer;
use crate::kafka::attempt::AttemptError;
use crate::kafka::consumer::Command;
use crate::kafka::wire::{OpenError, Wire};

/// Delays between attempts: from the first to the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// New producers in a row that the broker refuses, before the handler gives up.
pub(super) const MAX_REFUSED_PRODUCERS: u32 = 20;
/// A broker's own abort of a transaction that took too long looks like another producer, but comes once
/// in a transaction's time-out at most. So many in a time that is too short for that many prove that
/// somebody else uses the transactional id.
pub(super) const USURPED: u32 = 5;

/// What an end because of a failed write leaves behind.
const NOTHING_IS_LOST: &str = "Nothing of the epoch is visible, and all of it is read again";

/// What one write has gone through so far.
#[derive(Default)]
pub(super) struct Recovery {
    attempts: u32,
    pub(super) unacknowledged: u32,
}

impl Recovery {
    /// How long to wait until the next attempt: longer each time.
    fn delay(&mut self) -> Duration {
        let delay = BACKOFF.0.saturating_mul(1 << self.attempts.min(10)).min(BACKOFF.1);
        self.attempts += 1;
        delay
    }
}

impl<W: Wire> Writer<W> {
    /// After a failed attempt: when this returns, the same may be sent again.
    pub(super) fn recover(
        &mut self,
        recovery: &mut Recovery,
        error: &AttemptError,
        epoch: u64,
        parts: &[&PartitionEpoch],
    ) -> Result<(), String> {
        match error {
            AttemptError::Hopeless(reason) => {
                self.parts.wire.abort();
                return Err(format!("{reason}. {NOTHING_IS_LOST}"));
            }
            AttemptError::Record(refused) => {
                self.parts.wire.abort();
                return Err(format!("{}. {NOTHING_IS_LOST}", self.refuse(refused, parts)));
            }
            // Gone only at the very end of the process.
            AttemptError::Fenced(_) => drop(self.parts.intake.send(Command::Fenced)),
            AttemptError::Usurped(_) => self.count_usurper()?,
            AttemptError::Unacknowledged(_) => recovery.unacknowledged += 1,
            AttemptError::Abortable(_) | AttemptError::Unknown(_) | AttemptError::Producer(_) => {}
        }
        self.parts.stats.set_unwritten(Some(error.to_string()));
        let delay = recovery.delay();
        tracing::warn!(handler = %self.parts.handler, epoch, "an epoch was not committed: {error}; again in {delay:?}");
        self.parts.wire.pause(delay);
        let usable = matches!(error, AttemptError::Abortable(_) | AttemptError::Fenced(_));
        if usable && self.parts.wire.abort() { Ok(()) } else { self.reopen() }
    }

    fn count_usurper(&mut self) -> Result<(), String> {
        let now = self.parts.wire.now();
        let window = self.parts.transaction_timeout * (USURPED - 1);
        self.usurped.retain(|at| now.duration_since(*at) < window);
        self.usurped.push_back(now);
        if self.usurped.len() < USURPED as usize {
            return Ok(());
        }
        Err(format!(
            "another process uses the instance name \"{}\" in this group: each ends the other's transactions, and \
             neither gets on. Give every process its own (instance = ..., default: the host's name)",
            self.parts.instance
        ))
    }

    /// Opens a new producer, which decides every open transaction of the old one.
    pub(super) fn reopen(&mut self) -> Result<(), String> {
        let (mut recovery, mut refused) = (Recovery::default(), 0);
        loop {
            let error = match self.parts.wire.open() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match &error {
                OpenError::Unreachable(_) => {}
                OpenError::Refused(_) if refused + 1 < MAX_REFUSED_PRODUCERS => refused += 1,
                OpenError::Refused(reason) => {
                    return Err(format!(
                        "no usable producer after {MAX_REFUSED_PRODUCERS} attempts: {reason}"
                    ));
                }
                OpenError::Forbidden(_) => return Err(error.to_string()),
            }
            let delay = recovery.delay();
            tracing::warn!(handler = %self.parts.handler, "no producer yet: {error}; again in {delay:?}");
            self.parts.wire.pause(delay);
        }
    }

    /// Asks the group whether an epoch with unknown outcome was committed: any partition that is still
    /// held tells it of all.
    pub(super) fn was_committed(&self, parts: &[&PartitionEpoch]) -> bool {
        let mut recovery = Recovery::default();
        loop {
            let held = |part: &&&PartitionEpoch| self.parts.held.is(part.partition, part.assignment);
            let Some(part) = parts.iter().find(held) else { return false };
            match self.parts.wire.committed(part.partition) {
                Ok(metadata) => {
                    let reached = metadata
                        .is_some_and(|metadata| metadata.claim == part.claim && metadata.epoch >= part.epoch);
                    tracing::warn!(
                        handler = %self.parts.handler, epoch = part.epoch,
                        "the commit with unknown outcome {}", if reached { "had succeeded" } else { "had not happened" }
                    );
                    return reached;
                }
                Err(error) => {
                    let delay = recovery.delay();
                    tracing::warn!(handler = %self.parts.handler, "the group's offsets are not known: {error}; again in {delay:?}");
                    self.parts.wire.pause(delay);
                }
            }
        }
    }
}
