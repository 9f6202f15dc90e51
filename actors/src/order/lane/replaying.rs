//! A lane that a replay hands dead letters to.

use super::{Hold, Lane, State, Taken};
use crate::record::Offset;

impl Lane {
    /// Whether a replay may hand letters in: nothing else is under way in a quarantined lane.
    pub fn may_join(&self) -> bool {
        self.is_empty() && !self.head.paused && self.head.quarantine.is_some()
    }

    /// The key joins a replay.
    pub fn join(&mut self, command: i64) {
        if let Some(quarantine) = &mut self.head.quarantine {
            quarantine.replay = Some(command);
        }
    }

    /// The replay is over for this key, and has not dealt with all of its letters; `true` if it had joined.
    pub fn leave_replay(&mut self) -> bool {
        self.head.quarantine.as_mut().is_some_and(|quarantine| quarantine.replay.take().is_some())
    }

    /// Takes a letter in, behind what is there.
    pub fn take_letter(&mut self, taken: Taken) {
        self.letters += 1;
        self.queue.push_back(taken.detached());
    }

    /// Whether letters are in the lane.
    pub fn has_letters(&self) -> bool {
        self.letters > 0
    }

    /// Whether the current record is a letter: where it lies.
    pub fn current_letter(&self) -> Option<i64> {
        match self.current.as_ref()?.hold {
            Hold::Letter { offset, .. } => Some(offset),
            _ => None,
        }
    }

    /// The letter that waits for a verdict failed for good: it stays where it is, and the replay is over for
    /// this key. Where the letters lie that were in the lane, that one first.
    pub fn letter_failed(&mut self, attempt: u32, cause: &str) -> Option<Vec<i64>> {
        let failed = self.current_letter().filter(|_| self.state == State::Judged { attempt })?;
        self.forget_current();
        if let Some(quarantine) = &mut self.head.quarantine {
            quarantine.failed_again(cause);
        }
        let mut letters = self.drop_letters();
        letters.insert(0, failed);
        Some(letters)
    }

    /// The replay is stopped: letters that have not begun, or that wait for a retry, are left where they lie.
    pub fn stop_replay(&mut self) -> Vec<i64> {
        let waiting = self.current_letter().filter(|_| matches!(self.state, State::Parked { .. }));
        if waiting.is_some() {
            self.forget_current();
        }
        let mut letters = self.drop_letters();
        letters.extend(waiting);
        letters
    }

    /// Whether what comes now waits behind the letters: there are no others to come, or another record does so.
    pub(super) fn letters_are_all_here(&self) -> bool {
        let queued = self.letters - u64::from(self.current_letter().is_some());
        let others_wait = self.queue.len() as u64 > queued;
        others_wait || self.head.quarantine.as_ref().is_none_or(|of| of.letters() == self.letters)
    }

    /// The verdict on a letter is to try it again, which nobody waits for.
    pub fn wait_for_drop(&mut self) {
        if let State::Judged { attempt } = self.state {
            self.state = State::Parked { attempt };
        }
    }

    fn forget_current(&mut self) {
        (self.state, self.current, self.wait) = (State::Idle, None, None);
        self.letters -= 1;
    }

    /// Those of a key in quarantine go together: without the first the others are out of order.
    fn drop_letters(&mut self) -> Vec<i64> {
        let mut dropped = Vec::new();
        if self.head.quarantine.is_some() {
            self.queue.retain(|taken| match taken.hold {
                Hold::Letter { offset, .. } => {
                    dropped.push(offset);
                    false
                }
                _ => true,
            });
            self.letters -= dropped.len() as u64;
        }
        dropped
    }

    /// So many first letters of the quarantine are dealt with; after the last one it is over.
    pub(super) fn letters_are_dealt_with(&mut self, letters: u64) {
        if let Some(quarantine) = &mut self.head.quarantine {
            quarantine.first += letters.min(quarantine.letters());
        }
        self.head.quarantine.take_if(|quarantine| quarantine.letters() == 0);
    }

    /// The record of this offset followed into the dead-letter topic while the lane works on letters.
    pub fn follow_past(&mut self, offset: Offset) {
        self.head.taken = self.head.taken.max(offset);
        if let Some(quarantine) = &mut self.head.quarantine {
            quarantine.next += 1;
        }
    }

    /// The offset of the record that a retry waits for.
    pub fn waits_with(&self) -> Option<Offset> {
        self.waits_for()?;
        self.current.as_ref().map(|taken| taken.record.offset)
    }
}
